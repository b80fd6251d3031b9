//! Directories of file systems. What is in there is anybody's who could mount it: no link is followed.

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

/// What is seen of a file system as `/`.
pub struct Root<'a> {
    /// Where it is.
    pub path: &'a str,
    /// Whose it becomes, when it is made at its first use.
    pub made: Option<Made>,
}

/// Of whom a new directory is.
pub struct Made {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions, octal.
    pub mode: String,
}

impl Root<'_> {
    /// Sees that it is there, in the file system whose directory is `place`, and which `name` stands for in the error,
    /// which is for people.
    pub fn enter(&self, place: &Path, name: &str) -> Result<(), String> {
        let entered = match (find(place, self.path), &self.made) {
            (Err(Errno::NOENT), Some(made)) => self.make(place, made),
            (found, _) => found.map(drop),
        };
        entered.map_err(|error| {
            let words = match error {
                Errno::NOENT => "No such file or directory",
                Errno::NOTDIR => "Not a directory",
                _ => "Permission denied",
            };
            let path = self.path;
            format!("mount.nfs4: mounting {name}:{path} failed, reason given by server: {words}")
        })
    }

    fn make(&self, place: &Path, made: &Made) -> Result<(), Errno> {
        let mode = u32::from_str_radix(&made.mode, 8).unwrap_or(0o755);
        let (uid, gid) = (Uid::from_raw(made.uid), Gid::from_raw(made.gid));
        let mut so_far = String::new();
        for name in self.path.split('/').filter(|name| !name.is_empty()) {
            let parent = find(place, &so_far)?;
            so_far = format!("{so_far}/{name}");
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => continue,
                new => new?,
            }
            let new = find(place, &so_far)?;
            rustix::fs::chownat(&new, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
            let link = format!("/proc/self/fd/{}", new.as_raw_fd());
            rustix::fs::chmod(link, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }
}

/// Opens a directory of the file system whose directory is `place`.
fn find(place: &Path, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(place, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let relative = path.trim_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve)
}
