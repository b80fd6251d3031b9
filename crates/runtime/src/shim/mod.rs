//! The shim: one small process per task that owns the task's containers, so that the control plane
//! may come and go. One thread, one loop around epoll; whatever could take long or be made to hang
//! by a container happens in processes forked from it.

mod bundle;
mod children;
mod command;
mod connections;
mod copy_up;
mod cutter;
mod exec;
mod identity;
mod init;
mod launch;
mod output;
pub(crate) mod probe;
mod restrict;
mod rootfs;
mod sandbox;
mod state;

use crate::{
    cgroup::{self, Cgroup, CgroupError},
    chain, disk,
    journal::{EventKind, JournalError, JournalWriter},
    protocol::{self, Hello},
    share,
    spec::{Filesystem, Mount, SpecError, TaskSpec, VolumeSource},
    spool::{SpoolError, SpoolWriter},
    sys,
};
use rustix::{
    fs::{Mode, OFlags},
    mount::MountPropagationFlags,
};
use std::{
    ffi::OsString,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use launch::{SCRATCH, container_dir, mounted_dir, text_file, volume_dir};

/// The spec in a task's directory.
pub(crate) const SPEC: &str = "task.json";
/// The journal in a task's directory.
pub(crate) const JOURNAL: &str = "journal";
/// The spool in a task's directory.
pub(crate) const SPOOL: &str = "spool";
/// The task's disk, until it is mounted.
pub(crate) const DISK: &str = "disk";
/// The shim's process id and start time in a task's directory.
pub(crate) const PID: &str = "shim.pid";

/// Why a shim could not begin.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("usage: --task-dir DIR --instance NAME, or --probe")]
    Usage,
    #[error("cannot read {0}")]
    ReadSpec(PathBuf, #[source] io::Error),
    #[error("{0} is not a task")]
    ParseSpec(PathBuf, #[source] serde_json::Error),
    #[error("the task is not valid")]
    Spec(#[source] SpecError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot prepare {0}")]
    Prepare(PathBuf, #[source] io::Error),
    #[error("cannot mount the task's disk")]
    Disk(#[source] io::Error),
    #[error("cannot mount the volume {0}")]
    Volume(String, #[source] io::Error),
    #[error("cannot limit the task")]
    Cgroup(#[from] CgroupError),
    #[error("cannot make the sandbox")]
    Sandbox(#[source] sandbox::SandboxError),
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    #[error("cannot set up the event loop")]
    Loop(#[source] io::Error),
}

/// The shim's main function: `--task-dir DIR --instance NAME` owns a task until its end; `--probe`
/// prints what this machine can do (see [`crate::Capabilities`]). On standard output it says once,
/// in JSON, that it is ready or why it never will be; errors of later go to standard error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (mut dir, mut instance) = (None, None);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--probe") => return probe::main(),
            Some("--task-dir") => dir = args.next().map(PathBuf::from),
            Some("--instance") => instance = args.next().and_then(|i| i.into_string().ok()),
            _ => return say_failed(&ShimError::Usage),
        }
    }
    let (Some(dir), Some(instance)) = (dir, instance) else { return say_failed(&ShimError::Usage) };
    // A session of its own: what ends the control plane's terminal or group does not end the shim.
    // It fails only when that is so already.
    let _ = rustix::process::setsid();
    match begin(&dir, &instance) {
        Ok(shim) => shim.run(),
        Err(error) => say_failed(&error),
    }
}

fn say_failed(error: &ShimError) -> ExitCode {
    let message = chain(error);
    eprintln!("{message}");
    // Should nobody listen, it stands in the log.
    let _ = say(&Hello::Failed { message });
    ExitCode::FAILURE
}

fn say(hello: &Hello) -> io::Result<()> {
    let text = serde_json::to_string(hello).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

fn begin(dir: &Path, instance: &str) -> Result<state::Shim, ShimError> {
    let path = dir.join(SPEC);
    let text = std::fs::read(&path).map_err(|e| ShimError::ReadSpec(path.clone(), e))?;
    let spec: TaskSpec =
        serde_json::from_slice(&text).map_err(|e| ShimError::ParseSpec(path, e))?;
    spec.validate().map_err(ShimError::Spec)?;
    drop(text);
    let prepare = |path: &Path| {
        let path = path.to_owned();
        move |e| ShimError::Prepare(path, e)
    };
    write_pid(dir, None).map_err(prepare(&dir.join(PID)))?;
    prepare_files(dir, &spec)?;
    let (mut journal, _) = JournalWriter::open(&dir.join(JOURNAL))?;
    let spool = SpoolWriter::open(&dir.join(SPOOL), spec.spool_bytes)?;
    let cgroup = Cgroup::of_task(cgroup::detect()?, instance, &spec.id);
    cgroup.create_task(&spec.limits)?;
    let pids = cgroup.child(SANDBOX_CGROUP);
    if spec.share_pids {
        pids.create_container(&Default::default())?;
    }
    let pids = spec.share_pids.then_some(&pids);
    let sandbox = sandbox::create(spec.ids, pids).map_err(ShimError::Sandbox)?;
    let listener = protocol::listen(dir).map_err(ShimError::Listen)?;
    journal.append(state::wall_ms(), EventKind::SandboxReady)?;
    let netns_fd = sandbox.netns.as_raw_fd();
    write_pid(dir, Some(netns_fd)).map_err(prepare(&dir.join(PID)))?;
    let mut shim = state::Shim::new(dir, spec, journal, spool, cgroup, sandbox, listener)
        .map_err(ShimError::Loop)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    say(&Hello::Ready { pid, netns_fd }).map_err(ShimError::Listen)?;
    silence().map_err(ShimError::Loop)?;
    shim.prepare();
    Ok(shim)
}

/// Where the first process of a common process namespace is accounted. Not a valid container name,
/// so no container can be meant.
pub(crate) const SANDBOX_CGROUP: &str = ".sandbox";

/// Lets go of the pipe to the control plane.
pub(crate) fn silence() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// A shim as its task's directory names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    /// Its descriptor of the network namespace, once there is one.
    pub(crate) netns_fd: Option<i32>,
}

impl Identified {
    /// Reads what a shim wrote into its task's directory.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(PID)).ok()?;
        let mut words = text.split_whitespace();
        let (pid, start_time) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { pid, start_time, netns_fd: words.next().and_then(|w| w.parse().ok()) })
    }

    /// Whether the process with this id is still that one: ids are used again, after a reboot at
    /// the latest.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

fn write_pid(dir: &Path, netns_fd: Option<i32>) -> io::Result<()> {
    let pid = std::process::id();
    let start = start_time(pid as i32).ok_or_else(|| io::Error::other("no start time"))?;
    let netns = netns_fd.map(|fd| format!(" {fd}")).unwrap_or_default();
    // Never seen half written.
    let fresh = dir.join("shim.pid.new");
    std::fs::write(&fresh, format!("{pid} {start}{netns}\n"))?;
    std::fs::rename(&fresh, dir.join(PID))
}

/// When a process started, in the kernel's ticks since boot: with its id it names one process only.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// From here on nobody else sees what this process and its children mount.
fn own_mounts() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    // What the host mounts and, above all, unmounts is still followed.
    let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", follow)?)
}

fn mount_disk(image: &Path, point: &Path) -> io::Result<()> {
    disk::mount(image, Filesystem::Scratch, point)?;
    std::fs::remove_file(image)
}

/// Mounts the task's disk and its volumes where only this process and its children see them, so that they are gone with
/// them.
fn mount_storage(dir: &Path, spec: &TaskSpec, scratch: &Path) -> Result<(), ShimError> {
    let mounted = |source: &VolumeSource| !matches!(source, VolumeSource::Directory(_));
    if spec.limits.disk_bytes.is_none() && !spec.volumes.values().any(mounted) {
        return Ok(());
    }
    own_mounts().map_err(ShimError::Disk)?;
    if spec.limits.disk_bytes.is_some() {
        mount_disk(&dir.join(DISK), scratch).map_err(ShimError::Disk)?;
    }
    for (name, source) in &spec.volumes {
        let point = mounted_dir(dir, name);
        let failed = |e: io::Error| ShimError::Volume(name.clone(), e);
        match source {
            VolumeSource::Directory(_) => {}
            VolumeSource::Share { directory, actor } => {
                std::fs::create_dir_all(&point).map_err(failed)?;
                share::mount(directory, &point, actor, spec.ids).map_err(failed)?;
            }
            VolumeSource::Disk { image, filesystem } => {
                std::fs::create_dir_all(&point).map_err(failed)?;
                disk::mount(image, *filesystem, &point).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Makes the directories and files that containers get, owned by root inside.
fn prepare_files(dir: &Path, spec: &TaskSpec) -> Result<(), ShimError> {
    let owner = spec.ids.map_or(0, |ids| ids.first);
    let make_dir = |path: &Path, mode: u32| {
        let made = std::fs::DirBuilder::new().mode(mode).create(path);
        let made = match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        made.map_err(|e| ShimError::Prepare(path.to_owned(), e))
    };
    let own = |path: &Path| {
        std::os::unix::fs::chown(path, Some(owner), Some(owner))
            .map_err(|e| ShimError::Prepare(path.to_owned(), e))
    };
    let scratch = dir.join(SCRATCH);
    for path in [&dir.join(SPOOL), &scratch] {
        make_dir(path, 0o700)?;
    }
    mount_storage(dir, spec, &scratch)?;
    for name in ["containers", "volumes"] {
        make_dir(&scratch.join(name), 0o700)?;
    }
    for container in &spec.containers {
        let base = container_dir(dir, &container.name);
        make_dir(&base, 0o700)?;
        let (upper, work) = (base.join("upper"), base.join("work"));
        make_dir(&upper, 0o755)?;
        make_dir(&work, 0o700)?;
        own(&upper)?;
        let files = [
            ("resolv.conf", spec.resolv_conf.clone()),
            ("hosts", spec.hosts.clone()),
            ("hostname", format!("{}\n", spec.hostname)),
        ];
        for (name, content) in files {
            let path = base.join(name);
            std::fs::write(&path, content).map_err(|e| ShimError::Prepare(path.clone(), e))?;
            own(&path)?;
        }
        for (index, mount) in container.mounts.iter().enumerate() {
            match mount {
                Mount::Volume { name, .. } if !spec.volumes.contains_key(name) => {
                    let volume = volume_dir(dir, name);
                    make_dir(&volume, 0o755)?;
                    own(&volume)?;
                }
                Mount::Text { content, .. } => {
                    let path = text_file(dir, &container.name, index);
                    std::fs::write(&path, content)
                        .map_err(|e| ShimError::Prepare(path.clone(), e))?;
                    own(&path)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}
