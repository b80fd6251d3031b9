//! One engine per data directory: an advisory lock on a file that says who holds it. The kernel
//! lets go of it when the holder dies, however it dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

/// Why the lock file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It could not be opened or made.
    #[error("cannot open the lock file")]
    Open(#[source] std::io::Error),
    /// The file system refused the lock.
    #[error("cannot lock the lock file")]
    Lock(#[source] std::io::Error),
    /// The holder's process id could not be noted.
    #[error("cannot write the lock file")]
    Note(#[source] std::io::Error),
}

pub(crate) enum Locked {
    Ours(DirLock),
    /// Held by another, with its process id if it is known.
    Theirs(Option<u32>),
}

/// Held until dropped.
pub(crate) struct DirLock {
    _file: File,
}

/// Takes the lock of `dir`, without waiting.
pub(crate) fn lock(dir: &Path) -> Result<Locked, LockError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(LockError::Open)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locked::Theirs(holder(&mut file))),
        Err(TryLockError::Error(source)) => return Err(LockError::Lock(source)),
    }
    note(&mut file).map_err(LockError::Note)?;
    Ok(Locked::Ours(DirLock { _file: file }))
}

fn note(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // The note only decorates the error: without it the error says "another process".
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
