//! A directory of the host that a task sees with another identity than its own: whatever any of its processes does
//! there is done as one user and group, or as the process's own with root as nobody. That is what an access point of
//! Amazon EFS asks for, and no map of ids can say it, since many become one.
//!
//! It is a FUSE file system that passes everything on to the directory. A process beside the shim serves it, and ends
//! with it. Whether something is allowed is the kernel's decision: the process takes the file system identity first,
//! and with it loses root's powers over files.

mod answers;
mod inodes;
mod locks;
mod server;

use crate::{
    shim,
    spec::{Actor, Directory, IdRange},
    sys::{self, Forked},
};
use fuser::{Config, Session, SessionACL};
use rustix::{
    fs::{Mode, OFlags},
    mount::MountFlags,
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

/// Mounts `directory` at `point` in this process's mount namespace, as `actor`, for tasks whose ids are `ids`; and
/// starts the process that serves it.
pub(crate) fn mount(
    directory: &Directory,
    point: &Path,
    actor: &Actor,
    ids: Option<IdRange>,
) -> io::Result<()> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let root = directory.open()?;
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount("share", point, c"fuse", flags, options.as_c_str())?;
    match sys::fork(false)? {
        Forked::Parent(_) => Ok(()),
        Forked::Child => {
            let outcome = serve(root, device, actor, ids);
            if let Err(error) = &outcome {
                eprintln!("a share is no longer served: {error}");
            }
            sys::exit_now(i32::from(outcome.is_err()));
        }
    }
}

/// Serves until nobody has it mounted any more.
fn serve(root: OwnedFd, device: OwnedFd, actor: &Actor, ids: Option<IdRange>) -> io::Result<()> {
    sys::die_with_parent()?;
    shim::silence()?;
    sys::set_name(c"neargate-share");
    // The mode that the kernel asks for has been masked already.
    rustix::process::umask(Mode::empty());
    // Each file that the kernel knows is held open.
    let (_, most) = sys::rlimit(libc::RLIMIT_NOFILE)?;
    sys::set_rlimit(libc::RLIMIT_NOFILE, most, most)?;
    match actor {
        Actor::Fixed { uid, gid, groups } => {
            sys::set_groups(groups)?;
            sys::set_file_ids(*uid, *gid);
        }
        Actor::RootSquashed => sys::set_groups(&[])?,
    }
    let squashed = *actor == Actor::RootSquashed;
    let server = server::Server::new(root, ids, squashed)?;
    Session::from_fd(server, device, SessionACL::All, Config::default())?.run()
}
