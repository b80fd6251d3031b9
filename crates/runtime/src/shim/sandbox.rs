//! The namespaces that the containers of a task share: the user namespace, the network namespace
//! that it owns (so that root inside may open low ports and set the network's parameters), and the
//! process namespace when the task asks for a common one.
//!
//! The shim holds them by their descriptors, not by bind mounts: they are reachable as
//! `/proc/<shim>/fd/<n>` by whoever may look into the shim, and a shim that dies, however it dies,
//! leaves nothing to clean up.

use super::init;
use crate::{
    cgroup::Cgroup,
    spec::IdRange,
    sys::{self, Forked},
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The namespaces.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) userns: Option<OwnedFd>,
    pub(crate) netns: OwnedFd,
    /// The common process namespace and its first process.
    pub(crate) pids: Option<(OwnedFd, i32)>,
}

/// Why the sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("cannot fork")]
    Fork(#[source] io::Error),
    #[error("cannot talk to the process that makes the namespaces")]
    Talk(#[source] io::Error),
    #[error("the namespaces cannot be made: {0}")]
    Make(String),
    #[error("cannot write the id map {0}")]
    Map(String, #[source] io::Error),
    #[error("cannot open the namespace {0}")]
    Open(String, #[source] io::Error),
}

/// The maker's words to the shim.
const UNSHARED: u8 = b'u';
const READY: u8 = b'r';

/// Makes the namespaces. `pids` is where the first process of a common process namespace is
/// accounted.
pub(crate) fn create(ids: Option<IdRange>, pids: Option<&Cgroup>) -> Result<Sandbox, SandboxError> {
    let (ours, theirs) = crate::protocol::pair().map_err(SandboxError::Talk)?;
    match sys::fork(false).map_err(SandboxError::Fork)? {
        Forked::Child => {
            drop(ours);
            let outcome = make(theirs.as_fd(), ids.is_some(), pids);
            if let Err(message) = &outcome {
                // Should nobody listen, nobody wants to know.
                let _ = rustix::io::write(&theirs, message.as_bytes());
            }
            sys::exit_now(i32::from(outcome.is_err()));
        }
        Forked::Parent(maker) => {
            drop(theirs);
            let sandbox = take(maker, ours.as_fd(), ids, pids.is_some());
            // The maker waits for this end to close; then it ends, and is reaped.
            drop(ours);
            wait_for(maker);
            sandbox
        }
    }
}

fn wait_for(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // Nothing depends on how it ended.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// In the shim: maps the ids when asked to, and takes hold of the namespaces.
fn take(
    maker: i32,
    socket: BorrowedFd<'_>,
    ids: Option<IdRange>,
    common_pids: bool,
) -> Result<Sandbox, SandboxError> {
    if let Some(ids) = ids {
        expect(socket, UNSHARED)?;
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{maker}/{file}");
            let map = format!("0 {} {}\n", ids.first, ids.count);
            std::fs::write(&path, map).map_err(|e| SandboxError::Map(path, e))?;
        }
        rustix::io::write(socket, &[UNSHARED]).map_err(|e| SandboxError::Talk(e.into()))?;
    }
    let pause = expect(socket, READY)?;
    let open = |kind: &str| {
        let path = format!("/proc/{maker}/ns/{kind}");
        File::open(&path).map(OwnedFd::from).map_err(|e| SandboxError::Open(path, e))
    };
    let userns = ids.map(|_| open("user")).transpose()?;
    let netns = open("net")?;
    let pids = match common_pids {
        true => Some((open("pid_for_children")?, pause)),
        false => None,
    };
    Ok(Sandbox { userns, netns, pids })
}

/// Waits for a word of the maker, and the number that may follow it.
fn expect(socket: BorrowedFd<'_>, word: u8) -> Result<i32, SandboxError> {
    let mut bytes = [0u8; 1024];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut bytes));
    let read = read.map_err(|e| SandboxError::Talk(e.into()))?;
    match &bytes[..read] {
        [first, number @ ..] if *first == word => {
            let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
            Ok(number.unwrap_or(0))
        }
        [] => Err(SandboxError::Make("the process ended".into())),
        message => Err(SandboxError::Make(String::from_utf8_lossy(message).into_owned())),
    }
}

/// In the maker: steps into new namespaces and keeps them until the shim holds them.
fn make(socket: BorrowedFd<'_>, map: bool, pids: Option<&Cgroup>) -> Result<(), String> {
    let step = |name: &'static str| move |e: io::Error| format!("{name}: {e}");
    let read = || rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut [0u8; 8]));
    if let Some(cgroup) = pids {
        cgroup.join().map_err(|e| format!("cgroup: {e}"))?;
    }
    if map {
        sys::unshare(libc::CLONE_NEWUSER).map_err(step("user namespace"))?;
        rustix::io::write(socket, &[UNSHARED]).map_err(|e| e.to_string())?;
        if read().map_err(|e| e.to_string())? == 0 {
            return Err("the shim went away".into());
        }
        sys::set_groups(&[]).map_err(step("supplementary groups"))?;
        sys::set_ids(0, 0).map_err(step("root of the user namespace"))?;
    }
    sys::unshare(libc::CLONE_NEWNET).map_err(step("network namespace"))?;
    sys::loopback_up().map_err(step("loopback"))?;
    let mut pause = 0;
    if pids.is_some() {
        sys::unshare(libc::CLONE_NEWPID).map_err(step("process namespace"))?;
        // A sibling: the shim is its parent, so it ends with the shim and is reaped by it.
        match sys::fork(true).map_err(step("first process"))? {
            Forked::Child => init::pause(),
            Forked::Parent(pid) => pause = pid,
        }
    }
    let word = format!("{}{pause}", READY as char);
    rustix::io::write(socket, word.as_bytes()).map_err(|e| e.to_string())?;
    // Until the shim has opened the namespaces and closes its end.
    read().map_err(|e| e.to_string())?;
    Ok(())
}
