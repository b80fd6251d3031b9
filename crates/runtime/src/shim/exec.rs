//! Running a further command in a running container: for exec sessions and health checks.
//!
//! This is ours and not libcontainer's: version 0.7 of it joins every namespace of the container
//! but the user namespace, and carries no seccomp filter over, so that what is run that way would
//! be root on the host, unfiltered. Here the process joins all of the container's namespaces at
//! once, by its pidfd, and then goes through the same restrictions, in the same order, as the
//! container's own command.

use super::{
    command::{self, Command},
    identity::{self, Identity},
    launch::{self, Launching, Stdio},
    restrict::{self, Restrictions},
};
use crate::{
    cgroup::Cgroup,
    journal::StartFailure,
    protocol::{self, ExecRequest, Report},
    spec::{ContainerSpec, TaskSpec},
    sys::{self, Forked},
};
use rustix::{
    fs::{FileType, Mode, OFlags},
    process::{Pid, PidfdFlags},
    termios::Winsize,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

/// Everything that running a command in a container needs.
pub(crate) struct Exec<'a> {
    pub(crate) task: &'a TaskSpec,
    pub(crate) container: &'a ContainerSpec,
    pub(crate) cgroup: &'a Cgroup,
    /// The container's first process.
    pub(crate) init: i32,
    pub(crate) request: &'a ExecRequest,
}

/// Begins running it. Without `stdio` it gets a terminal, whose end is reported.
pub(crate) fn begin(exec: &Exec<'_>, stdio: Option<Stdio>) -> io::Result<Launching> {
    let (report, theirs) = protocol::pair()?;
    match sys::fork(false)? {
        Forked::Parent(launcher) => Ok(Launching { launcher, report }),
        Forked::Child => {
            drop(report);
            sys::set_name(c"neargate-exec");
            let outcome = exec.join(stdio, &theirs);
            if let Err(failure) = &outcome {
                // Should the shim be gone, so will be this.
                let _ = protocol::send(theirs.as_fd(), &Report::Failed(failure.clone()), &[]);
            }
            sys::exit_now(i32::from(outcome.is_err()));
        }
    }
}

fn step(name: &str) -> impl Fn(io::Error) -> StartFailure + '_ {
    move |e| StartFailure::Runtime { message: format!("{name}: {e}") }
}

impl Exec<'_> {
    fn has_userns(&self) -> bool {
        self.task.ids.is_some()
    }

    /// On the host's side: everything that needs the host's power.
    fn join(&self, stdio: Option<Stdio>, report: &OwnedFd) -> Result<(), StartFailure> {
        // From the moment that it is inside, root inside could otherwise look into this process.
        sys::set_dumpable(false).map_err(step("dumpable"))?;
        sys::set_groups(&[]).map_err(step("supplementary groups"))?;
        let limits = |e| StartFailure::Limits { message: crate::chain(&e) };
        self.cgroup.join().map_err(limits)?;
        restrict::raise_hard_limits(self.container)?;
        let pid = Pid::from_raw(self.init).ok_or(StartFailure::Stopped)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| step("container")(e.into()))?;
        let root = Path::new("/proc").join(self.init.to_string()).join("root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&root, flags, Mode::empty())
            .map_err(|e| step("container's root")(e.into()))?;
        let user = self.request.user.as_deref().unwrap_or(&self.container.user);
        let count = self.task.ids.map_or(u32::MAX, |ids| ids.count);
        let identity = identity::resolve(root.as_fd(), user, count)?;
        drop(root);
        if let Some(stdio) = &stdio {
            let first = self.task.ids.map_or(0, |ids| ids.first);
            launch::give(stdio, first, &identity).map_err(step("standard streams"))?;
        }
        let kinds = libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP
            | if self.has_userns() { libc::CLONE_NEWUSER } else { 0 };
        sys::setns(pidfd.as_fd(), kinds).map_err(step("namespaces"))?;
        drop(pidfd);
        match sys::fork(true).map_err(step("fork"))? {
            Forked::Parent(pid) => protocol::send(report.as_fd(), &Report::Pid(pid), &[])
                .map_err(|e| StartFailure::Runtime { message: crate::chain(&e) }),
            Forked::Child => {
                let failure = match self.inside(stdio, &identity, report) {
                    Err(failure) => failure,
                    Ok(command) => {
                        command.run();
                        sys::exit_now(127)
                    }
                };
                // As above.
                let _ = protocol::send(report.as_fd(), &Report::Failed(failure), &[]);
                sys::exit_now(126)
            }
        }
    }

    /// In the container: gives up everything that its commands do not have.
    fn inside(
        &self,
        stdio: Option<Stdio>,
        identity: &Identity,
        report: &OwnedFd,
    ) -> Result<Command, StartFailure> {
        rustix::process::setsid().map_err(|e| step("session")(e.into()))?;
        // Root there, not root of the host, whom the user namespace does not know.
        sys::set_ids(0, 0).map_err(step("root of the user namespace"))?;
        match (stdio, self.request.terminal) {
            (Some(stdio), _) => take_stdio(&stdio).map_err(step("standard streams"))?,
            (None, size) => terminal(size.unwrap_or((24, 80)), identity, report)?,
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let cwd = self.request.cwd.as_deref().unwrap_or(&self.container.cwd);
        sys::close_from(3, true).map_err(step("descriptors"))?;
        let terminal = self.request.terminal.is_some();
        Ok(Command {
            args: self.request.args.clone(),
            env: command::environment(
                &self.container.env,
                &self.request.env,
                &identity.home,
                &self.task.hostname,
                terminal,
            ),
            cwd: Some(cwd.to_owned()),
            restrictions: Restrictions::of(self.container, identity, self.has_userns()),
            init: false,
            report: report.as_raw_fd(),
        })
    }
}

fn take_stdio(stdio: &Stdio) -> io::Result<()> {
    let [stdin, stdout, stderr] = stdio;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

/// Makes a terminal of the container's own, puts this process on it, and sends its other end to the
/// shim.
fn terminal(
    (rows, columns): (u16, u16),
    identity: &Identity,
    report: &OwnedFd,
) -> Result<(), StartFailure> {
    let failed = |e: rustix::io::Errno| step("terminal")(e.into());
    // Whatever the container put in its place: not waited for, and only believed when it is the
    // device.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&master).map_err(failed)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || device != (5, 2) {
        return Err(StartFailure::Runtime { message: "/dev/pts/ptmx is not a terminal".into() });
    }
    rustix::pty::unlockpt(&master).map_err(failed)?;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).map_err(failed)?;
    let slave = sys::terminal_peer(master.as_fd()).map_err(step("terminal"))?;
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
    rustix::fs::fchown(&slave, Some(uid), Some(gid)).map_err(failed)?;
    let stdio = [&slave; 3].map(|fd| fd.try_clone());
    let [Ok(stdin), Ok(stdout), Ok(stderr)] = stdio else {
        return Err(StartFailure::Runtime { message: "terminal: too many descriptors".into() });
    };
    take_stdio(&[stdin, stdout, stderr]).map_err(step("terminal"))?;
    sys::set_controlling_terminal(&slave).map_err(step("terminal"))?;
    protocol::send(report.as_fd(), &Report::Terminal, &[master.as_fd()])
        .map_err(|e| StartFailure::Runtime { message: crate::chain(&e) })
}
