//! Starting a container: a process of its own, forked from the shim, gathers what the container
//! needs and has libcontainer build it. The container's first process is a sibling of the launching
//! one, so a child of the shim; the launching process ends. The shim never waits for it, and
//! nothing that it allocated stays in the shim's memory.

use super::{
    bundle::{self, Bind, Namespaces},
    command::{self, Command},
    copy_up,
    identity::{self, Identity},
    restrict::{self, Restrictions},
    rootfs::{self, Root, Source, Stage, failed},
    sandbox::Sandbox,
};
use crate::{
    cgroup::Cgroup,
    journal::StartFailure,
    protocol::{self, Report},
    spec::{ContainerSpec, Mount, TaskSpec, VolumeSource},
    sys::{self, Forked},
};
use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// Everything that starting one container needs.
pub(crate) struct Launch<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) task: &'a TaskSpec,
    pub(crate) container: &'a ContainerSpec,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) cgroup: &'a Cgroup,
}

/// The word to go: everything is set up but the last step, running the command.
pub(crate) const GO: u8 = b'g';

/// A container being started.
pub(crate) struct Launching {
    /// The launching process.
    pub(crate) launcher: i32,
    /// Where it reports; its end means that the command runs, or never will.
    pub(crate) report: OwnedFd,
}

/// Standard input, output and error of a command.
pub(crate) type Stdio = [OwnedFd; 3];

/// Where everything lies that containers write; its disk, when the task has one of its own.
pub(crate) const SCRATCH: &str = "scratch";

/// Where a container keeps what it writes, and its files.
pub(crate) fn container_dir(task_dir: &Path, name: &str) -> PathBuf {
    task_dir.join(SCRATCH).join("containers").join(name)
}

/// Where a volume that comes from elsewhere is mounted.
pub(crate) fn mounted_dir(task_dir: &Path, name: &str) -> PathBuf {
    task_dir.join("mounted").join(name)
}

/// Where the file of a container's mount number `index` is.
pub(crate) fn text_file(task_dir: &Path, container: &str, index: usize) -> PathBuf {
    container_dir(task_dir, container).join(format!("text{index}"))
}

/// What its containers share.
pub(crate) fn volume_dir(task_dir: &Path, name: &str) -> PathBuf {
    task_dir.join(SCRATCH).join("volumes").join(name)
}

/// Begins setting a container up; its command runs after the word to [`GO`]. Without `stdio` it
/// gets a terminal, whose end is reported.
pub(crate) fn begin(launch: &Launch<'_>, stdio: Option<Stdio>) -> io::Result<Launching> {
    let (report, theirs) = protocol::pair()?;
    match sys::fork(false)? {
        Forked::Parent(launcher) => Ok(Launching { launcher, report }),
        Forked::Child => {
            drop(report);
            sys::set_name(c"neargate-launch");
            let outcome = sys::die_with_parent()
                .map_err(|e| failed("parent", e))
                .and_then(|()| launch.run(stdio, &theirs));
            if let Err(failure) = &outcome {
                // Should the shim be gone, so will be this.
                let _ = protocol::send(theirs.as_fd(), &Report::Failed(failure.clone()), &[]);
            }
            sys::exit_now(i32::from(outcome.is_err()));
        }
    }
}

/// The sources of everything that is mounted.
struct Sources {
    root: Root,
    /// Volumes by where they appear, without the restrictions of the container: to be prepared for
    /// it.
    volumes: Vec<(Source, String)>,
    binds: Vec<(Source, Bind)>,
    cgroups: Vec<(Source, String)>,
}

impl Launch<'_> {
    fn first_id(&self) -> u32 {
        self.task.ids.map_or(0, |ids| ids.first)
    }

    fn run(&self, stdio: Option<Stdio>, report: &OwnedFd) -> Result<(), StartFailure> {
        let runtime =
            |step: &str, e: io::Error| StartFailure::Runtime { message: format!("{step}: {e}") };
        let ptrace = self.container.capabilities.add.iter().any(|c| c == "SYS_PTRACE");
        if self.container.init && ptrace && self.task.ids.is_none() {
            // Init is a copy of this program, which such a root could look into (see `init`).
            let message = "init beside SYS_PTRACE needs user namespaces, which this task has not";
            return Err(StartFailure::Runtime { message: message.to_owned() });
        }
        if self.container.privileged && self.task.ids.is_none() {
            let message = "a privileged container needs user namespaces, which this task has not";
            return Err(StartFailure::Runtime { message: message.to_owned() });
        }
        sys::set_groups(&[]).map_err(|e| runtime("supplementary groups", e))?;
        self.cgroup.join().map_err(limits)?;
        restrict::raise_hard_limits(self.container)?;
        Stage::leave_host()?;
        let sources = self.open_sources()?;
        let mut stage = Stage::set_up()?;
        let root = stage.put_root(&sources.root)?;
        let root_fd = Source::open(&root).map_err(|e| failed("root", e))?;
        let count = self.task.ids.map_or(u32::MAX, |ids| ids.count);
        let identity = identity::resolve(root_fd.fd(), &self.container.user, count)?;
        check_points(&root)?;
        self.copy_volumes_up(&root_fd, &sources.volumes)?;
        self.make_cwd(&root_fd, &sources.volumes)?;
        let binds = self.put_sources(&mut stage, sources)?;
        stage.hide_cgroups()?;
        if let Some(stdio) = &stdio {
            self.give(stdio, &identity).map_err(|e| runtime("standard streams", e))?;
        }
        self.build(&stage, &root, &identity, &binds, stdio, report)
    }

    fn open_sources(&self) -> Result<Sources, StartFailure> {
        let own = container_dir(self.dir, &self.container.name);
        let userns = self.sandbox.userns.as_ref().map(AsFd::as_fd);
        let root = Root::open(&self.container.layers, &own, userns)?;
        let mut binds = Vec::new();
        for name in ["resolv.conf", "hosts", "hostname"] {
            let source = Source::open(&own.join(name)).map_err(|e| mount(name, e))?;
            let target = format!("/etc/{name}");
            let read_only = self.container.read_only_root;
            let bind = Bind { source: PathBuf::new(), target, read_only };
            binds.push((source, bind));
        }
        for (index, spec) in self.container.mounts.iter().enumerate() {
            binds.extend(self.open_mount(index, spec)?);
        }
        let mut cgroups = Vec::new();
        // Without a user namespace the files of version 1 would be the container's to write,
        // through any other mount of them that it can make; with a read-only bind of its own part
        // there is none.
        for (path, name) in self.cgroup.views() {
            let source = Source::open(&path).map_err(|e| mount("/sys/fs/cgroup", e))?;
            source.restrict(true).map_err(|e| mount("/sys/fs/cgroup", e))?;
            cgroups.push((source, name));
        }
        let mut volumes = Vec::new();
        for spec in &self.container.mounts {
            if let Mount::Volume { name, target, .. } = spec
                && !self.task.volumes.contains_key(name)
            {
                let path = volume_dir(self.dir, name);
                let source = Source::open(&path).map_err(|e| mount(target, e))?;
                volumes.push((source, target.clone()));
            }
        }
        Ok(Sources { root, volumes, binds, cgroups })
    }

    fn open_mount(
        &self,
        index: usize,
        spec: &Mount,
    ) -> Result<Option<(Source, Bind)>, StartFailure> {
        let failed = |e: io::Error| mount(spec.target(), e);
        let (source, read_only) = match spec {
            Mount::Tmpfs { .. } => return Ok(None),
            Mount::Volume { name, read_only, .. } => (self.open_volume(name), *read_only),
            Mount::Text { .. } => {
                (Source::open(&text_file(self.dir, &self.container.name, index)), true)
            }
        };
        let source = source.map_err(failed)?;
        source.restrict(read_only).map_err(failed)?;
        let target = spec.target().to_owned();
        Ok(Some((source, Bind { source: PathBuf::new(), target, read_only })))
    }

    fn open_volume(&self, name: &str) -> io::Result<Source> {
        let (source, mapped) = match self.task.volumes.get(name) {
            None => (Source::open(&volume_dir(self.dir, name))?, false),
            Some(VolumeSource::Directory(directory)) => {
                (Source::of(directory.open()?.as_fd())?, true)
            }
            // It says by itself what ids are inside.
            Some(VolumeSource::Share { .. }) => {
                (Source::open(&mounted_dir(self.dir, name))?, false)
            }
            Some(VolumeSource::Disk { .. }) => (Source::open(&mounted_dir(self.dir, name))?, true),
        };
        if mapped && let Some(userns) = &self.sandbox.userns {
            source.map_ids(userns.as_fd())?;
        }
        Ok(source)
    }

    fn put_sources(&self, stage: &mut Stage, sources: Sources) -> Result<Vec<Bind>, StartFailure> {
        let mut binds = Vec::new();
        for (source, mut bind) in sources.binds {
            bind.source = stage.put(&source).map_err(|e| mount(&bind.target, e))?;
            binds.push(bind);
        }
        binds.extend(self.put_cgroups(stage, &sources.cgroups)?);
        Ok(binds)
    }

    /// Shows the container its own cgroups: one directory (version 2), or one for each controller.
    fn put_cgroups(
        &self,
        stage: &mut Stage,
        cgroups: &[(Source, String)],
    ) -> Result<Vec<Bind>, StartFailure> {
        const POINT: &str = "/sys/fs/cgroup";
        let bind = |source: PathBuf, target: String| Bind { source, target, read_only: true };
        let mut binds = Vec::new();
        let names = cgroups.iter().map(|(_, name)| name.as_str()).filter(|n| !n.is_empty());
        let names: Vec<&str> = names.collect();
        if !names.is_empty() {
            let dirs = stage.path("cgroups");
            for name in names {
                std::fs::create_dir_all(dirs.join(name)).map_err(|e| mount(POINT, e))?;
            }
            binds.push(bind(dirs, POINT.to_owned()));
        }
        for (source, name) in cgroups {
            let target = format!("{POINT}/{name}").trim_end_matches('/').to_owned();
            let source = stage.put(source).map_err(|e| mount(&target, e))?;
            binds.push(bind(source, target));
        }
        Ok(binds)
    }

    /// Fills empty volumes with what the image has at their place.
    fn copy_volumes_up(
        &self,
        root: &Source,
        volumes: &[(Source, String)],
    ) -> Result<(), StartFailure> {
        for (volume, target) in volumes {
            let wanted = |m: &&Mount| matches!(m, Mount::Volume { copy_up: true, .. });
            let mut wanting = self.container.mounts.iter().filter(wanted);
            if wanting.any(|m| m.target() == target) {
                copy_up::fill(root.fd(), target, volume.fd()).map_err(|e| mount(target, e))?;
            }
        }
        Ok(())
    }

    /// Makes the working directory, in the volume that it lies in, or in the root.
    fn make_cwd(&self, root: &Source, volumes: &[(Source, String)]) -> Result<(), StartFailure> {
        let cwd = Path::new(&self.container.cwd);
        let targets = self.container.mounts.iter().map(Mount::target);
        let deepest = |t: &&str| Path::new(t).components().count();
        let holder = targets.filter(|t| cwd.starts_with(t)).max_by_key(deepest);
        let made = match holder {
            None => rootfs::make_dirs(root.fd(), cwd, self.first_id()),
            Some(target) => match volumes.iter().find(|(_, t)| t == target) {
                Some((volume, _)) => {
                    let inside = cwd.strip_prefix(target).unwrap_or(Path::new(""));
                    rootfs::make_dirs(volume.fd(), inside, self.first_id())
                }
                // What is the host's, or not there yet, is left alone; entering it says what is
                // wrong.
                None => return Ok(()),
            },
        };
        let path = self.container.cwd.clone();
        made.map(drop).map_err(|e| StartFailure::WorkingDirectory { path, message: e.to_string() })
    }

    /// Makes the pipes the user's own, so that it may open `/dev/stdout` and its like.
    fn give(&self, stdio: &Stdio, identity: &Identity) -> io::Result<()> {
        give(stdio, self.first_id(), identity)
    }

    fn build(
        &self,
        stage: &Stage,
        root: &Path,
        identity: &Identity,
        binds: &[Bind],
        stdio: Option<Stdio>,
        report: &OwnedFd,
    ) -> Result<(), StartFailure> {
        let runtime = |step: &str, e: &dyn std::error::Error| StartFailure::Runtime {
            message: format!("{step}: {}", crate::chain(e)),
        };
        let namespaces = Namespaces {
            user: self.sandbox.userns.as_ref().map(AsFd::as_fd),
            net: self.sandbox.netns.as_fd(),
            pids: self.sandbox.pids.as_ref().map(|(fd, _)| fd.as_fd()),
        };
        let spec = bundle::build(self.task, self.container, &namespaces, root, binds)
            .map_err(|e| runtime("configuration", &e))?;
        let (bundle, state) = (stage.path("bundle"), stage.path("state"));
        std::fs::create_dir(&bundle).map_err(|e| failed("bundle", e))?;
        spec.save(bundle.join("config.json")).map_err(|e| runtime("configuration", &e))?;
        let console = stage.path("console.sock");
        let terminal = match self.container.tty {
            true => Some(UnixListener::bind(&console).map_err(|e| failed("terminal", e))?),
            false => None,
        };
        let builder = ContainerBuilder::new("c".to_owned(), SyscallType::default())
            .with_root_path(&state)
            .map_err(|e| runtime("state", &e))?
            .with_executor(self.command(identity, report))
            .with_console_socket(terminal.is_some().then_some(&console));
        let builder = match stdio {
            Some([stdin, stdout, stderr]) => {
                builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
            }
            None => builder,
        };
        let init = builder.as_init(&bundle).with_systemd(false).with_detach(true).as_sibling(true);
        let mut container = init.build().map_err(|e| runtime("container", &e))?;
        let pid = container.pid().ok_or_else(|| failed("container", "has no process"))?;
        let say = |message: &Report, fds: &[_]| {
            protocol::send(report.as_fd(), message, fds).map_err(|e| runtime("report", &e))
        };
        say(&Report::Pid(pid.as_raw()), &[])?;
        if let Some(listener) = terminal {
            let (socket, _) = listener.accept().map_err(|e| failed("terminal", e))?;
            let master =
                protocol::receive_fd(socket.as_fd()).map_err(|e| runtime("terminal", &e))?;
            say(&Report::Terminal, &[master.as_fd()])?;
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(report, &mut [0u8; 1])) {
            Ok(1) => {}
            _ => return Err(StartFailure::Stopped),
        }
        container.start().map_err(|e| runtime("start", &e))
    }

    fn command(&self, identity: &Identity, report: &OwnedFd) -> Command {
        let container = self.container;
        Command {
            args: container.args.clone(),
            env: command::environment(
                &container.env,
                &[],
                &identity.home,
                &self.task.hostname,
                container.tty,
            ),
            cwd: Some(container.cwd.clone()),
            restrictions: Restrictions::of(container, identity, self.task.ids.is_some()),
            init: container.init,
            report: report.as_raw_fd(),
        }
    }
}

/// Makes pipes the own ones of a user inside the user namespace that begins at `first_id`.
pub(crate) fn give(stdio: &Stdio, first_id: u32, identity: &Identity) -> io::Result<()> {
    for fd in stdio {
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        if kind == rustix::fs::FileType::Fifo {
            let uid = rustix::fs::Uid::from_raw(first_id.saturating_add(identity.uid));
            let gid = rustix::fs::Gid::from_raw(first_id.saturating_add(identity.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

fn limits(error: crate::cgroup::CgroupError) -> StartFailure {
    StartFailure::Limits { message: crate::chain(&error) }
}

fn mount(path: &str, error: io::Error) -> StartFailure {
    StartFailure::Mount { path: path.to_owned(), message: error.to_string() }
}

/// Refuses an image whose mount points lead elsewhere: libcontainer follows some of them by their
/// path.
fn check_points(root: &Path) -> Result<(), StartFailure> {
    for name in ["dev", "proc", "sys", "etc"] {
        let path = root.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_dir() => {
                return Err(failed(&format!("/{name}"), "is not a directory in the image"));
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&format!("/{name}"), e));
            }
            _ => {}
        }
    }
    Ok(())
}
