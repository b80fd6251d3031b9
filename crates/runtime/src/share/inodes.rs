//! The files that the kernel knows of a share, each held by a descriptor that can do nothing but name it.

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Stat},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The number of the share's root: FUSE's for every root.
pub(super) const ROOT: u64 = 1;

struct Known {
    fd: Arc<OwnedFd>,
    /// How often the kernel was told of it, less how often it forgot.
    lookups: u64,
}

/// Files by their number, which is that of the directory's own file system.
pub(super) struct Inodes {
    /// The file system's id: what is mounted beneath the directory is no part of it.
    device: u64,
    root: u64,
    known: Mutex<HashMap<u64, Known>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inodes {
    pub(super) fn new(root: OwnedFd) -> rustix::io::Result<Self> {
        let stat = rustix::fs::fstat(&root)?;
        let known = HashMap::from([(ROOT, Known { fd: Arc::new(root), lookups: 1 })]);
        Ok(Self { device: stat.st_dev, root: stat.st_ino, known: Mutex::new(known) })
    }

    pub(super) fn get(&self, number: u64) -> rustix::io::Result<Arc<OwnedFd>> {
        lock(&self.known).get(&number).map(|known| known.fd.clone()).ok_or(Errno::STALE)
    }

    /// Finds `name` in a directory and counts it as known.
    pub(super) fn look_up(&self, parent: u64, name: &OsStr) -> rustix::io::Result<(u64, Stat)> {
        let parent = self.get(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*parent, name, flags, Mode::empty())?;
        let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        let number = self.number(&stat);
        let mut known = lock(&self.known);
        let entry = known.entry(number).or_insert_with(|| Known { fd: Arc::new(fd), lookups: 0 });
        entry.lookups += 1;
        Ok((number, stat))
    }

    pub(super) fn number(&self, stat: &Stat) -> u64 {
        if stat.st_ino == self.root { ROOT } else { stat.st_ino }
    }

    pub(super) fn forget(&self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let mut known = lock(&self.known);
        if let Some(entry) = known.get_mut(&number) {
            entry.lookups = entry.lookups.saturating_sub(lookups);
            if entry.lookups == 0 {
                known.remove(&number);
            }
        }
    }

    /// Opens a known file for use.
    pub(super) fn open(&self, number: u64, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let fd = self.get(number)?;
        let flags = (flags | OFlags::CLOEXEC) - OFlags::NOFOLLOW - OFlags::CREATE - OFlags::EXCL;
        rustix::fs::openat(CWD, link(&fd), flags, Mode::empty())
    }
}

/// A path that leads to what a descriptor names, whatever happened to its name.
pub(super) fn link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
