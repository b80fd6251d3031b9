//! Locks of files of a share. They are taken on the host's files, so that all who share them see them, one open file
//! for each owner: that is whom the kernel tells apart.

use super::inodes::{Inodes, lock};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use rustix::fs::OFlags;
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How often a lock that another has is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// A range of a file, and what is asked for it.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) start: u64,
    /// Its last byte.
    pub(super) end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(super) kind: i32,
}

impl Range {
    fn flock(self) -> libc::flock {
        let start = i64::try_from(self.start).unwrap_or(i64::MAX);
        // Without an end is a length of 0.
        let length = match i64::try_from(self.end) {
            Ok(end) if end < i64::MAX => end - start + 1,
            _ => 0,
        };
        libc::flock {
            l_type: self.kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: length,
            l_pid: 0,
        }
    }
}

/// The open files that hold locks, by number and owner.
#[derive(Default)]
pub(super) struct Locks {
    held: Mutex<HashMap<(u64, u64), Arc<OwnedFd>>>,
}

impl Locks {
    fn file(&self, inodes: &Inodes, number: u64, owner: u64) -> Result<Arc<OwnedFd>, Errno> {
        let mut held = lock(&self.held);
        if let Some(fd) = held.get(&(number, owner)) {
            return Ok(fd.clone());
        }
        let opened = inodes.open(number, OFlags::RDWR);
        // A shared lock can be had of a file that cannot be written.
        let opened = opened.or_else(|_| inodes.open(number, OFlags::RDONLY));
        let fd = Arc::new(opened.map_err(|error| Errno::from_raw(error.raw_os_error()))?);
        held.insert((number, owner), fd.clone());
        Ok(fd)
    }

    /// Who has what of the range, if it cannot be had.
    pub(super) fn test(
        &self,
        inodes: &Inodes,
        (number, owner): (u64, u64),
        range: Range,
    ) -> Result<Range, Errno> {
        let fd = self.file(inodes, number, owner)?;
        let mut found = range.flock();
        fcntl(&*fd, FcntlArg::F_OFD_GETLK(&mut found))?;
        let start = found.l_start.unsigned_abs();
        let end = match found.l_len {
            0 => u64::MAX,
            length => start + length.unsigned_abs() - 1,
        };
        Ok(Range { start, end, kind: i32::from(found.l_type) })
    }

    /// Takes or gives back a lock, if it can be done now.
    pub(super) fn set(
        &self,
        inodes: &Inodes,
        (number, owner): (u64, u64),
        range: Range,
    ) -> Result<(), Errno> {
        let fd = self.file(inodes, number, owner)?;
        fcntl(&*fd, FcntlArg::F_OFD_SETLK(&range.flock())).map(drop)
    }

    /// Gives back all that an owner has of a file.
    pub(super) fn drop_all(&self, number: u64, owner: u64) {
        lock(&self.held).remove(&(number, owner));
    }
}

/// Tries `take` until it succeeds, fails for another reason than that somebody has the lock, or a signal reaches the
/// thread that waits: the kernel lets nobody die who waits for us.
#[allow(clippy::disallowed_methods)] // The process that serves a share lives in no simulated time.
pub(super) fn wait(thread: u32, mut take: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match take() {
            Err(Errno::EAGAIN | Errno::EACCES) if is_interrupted(thread) => {
                return Err(Errno::EINTR);
            }
            Err(Errno::EAGAIN | Errno::EACCES) => std::thread::sleep(AGAIN),
            done => return done,
        }
    }
}

/// Whether a signal that it does not block waits for a thread, or whether it is gone.
fn is_interrupted(thread: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}
