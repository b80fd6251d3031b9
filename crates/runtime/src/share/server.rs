//! The directory behind a share, and what can be done with it.

use super::{
    inodes::{Inodes, link, lock},
    locks::Locks,
};
use crate::{spec::IdRange, sys};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, INodeNo, RenameFlags, ReplyDirectory, Request, TimeOrNow,
};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps, Uid,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Whose files are that a task cannot name, and who root is where it is squashed.
const NOBODY: u32 = 65_534;

/// A directory, served.
pub(super) struct Server {
    pub(super) inodes: Arc<Inodes>,
    pub(super) locks: Arc<Locks>,
    pub(super) files: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    next: AtomicU64,
    ids: Option<IdRange>,
    /// Whether each request is done as whoever asks, root as nobody.
    squashed: bool,
}

pub(super) type Answer<T> = Result<T, Errno>;

pub(super) fn told<T>(result: rustix::io::Result<T>) -> Answer<T> {
    result.map_err(|error| Errno::from_i32(error.raw_os_error()))
}

impl Server {
    pub(super) fn new(root: OwnedFd, ids: Option<IdRange>, squashed: bool) -> io::Result<Self> {
        Ok(Self {
            inodes: Arc::new(Inodes::new(root)?),
            locks: Arc::default(),
            files: Mutex::default(),
            next: AtomicU64::new(1),
            ids,
            squashed,
        })
    }

    /// Does what comes as whoever asks, where that matters.
    pub(super) fn act(&self, request: &Request) {
        if self.squashed {
            let inner = |id: u32| match self.inner(id) {
                0 => NOBODY,
                id => id,
            };
            sys::set_file_ids(inner(request.uid()), inner(request.gid()));
        }
    }

    /// The id inside the task of an id of the host, which is that of files, too.
    fn inner(&self, id: u32) -> u32 {
        let Some(ids) = self.ids else { return id };
        id.checked_sub(ids.first).filter(|inner| *inner < ids.count).unwrap_or(NOBODY)
    }

    fn outer(&self, id: u32) -> u32 {
        let Some(ids) = self.ids else { return id };
        ids.first + if id < ids.count { id } else { NOBODY.min(ids.count - 1) }
    }

    fn attributes(&self, stat: &Stat) -> FileAttr {
        let time = |seconds: i64, nanoseconds: u64| {
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let part = Duration::from_nanos(nanoseconds);
            if seconds < 0 { UNIX_EPOCH - whole + part } else { UNIX_EPOCH + whole + part }
        };
        FileAttr {
            ino: INodeNo(self.inodes.number(stat)),
            size: stat.st_size.unsigned_abs(),
            blocks: stat.st_blocks.unsigned_abs(),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            crtime: UNIX_EPOCH,
            kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
            perm: (stat.st_mode & 0o7777) as u16,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: self.outer(stat.st_uid),
            gid: self.outer(stat.st_gid),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    pub(super) fn keep(&self, fd: OwnedFd) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(fd));
        FileHandle(handle)
    }

    pub(super) fn file(&self, handle: FileHandle) -> Answer<Arc<OwnedFd>> {
        lock(&self.files).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    pub(super) fn parent(&self, parent: INodeNo) -> Answer<Arc<OwnedFd>> {
        told(self.inodes.get(parent.0))
    }

    pub(super) fn entry(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let (_, stat) = told(self.inodes.look_up(parent.0, name))?;
        Ok(self.attributes(&stat))
    }

    pub(super) fn stat(&self, number: INodeNo) -> Answer<FileAttr> {
        let fd = told(self.inodes.get(number.0))?;
        Ok(self.attributes(&told(rustix::fs::statat(&*fd, "", AtFlags::EMPTY_PATH))?))
    }

    pub(super) fn set(
        &self,
        number: INodeNo,
        handle: Option<FileHandle>,
        change: Change,
    ) -> Answer<FileAttr> {
        let fd = told(self.inodes.get(number.0))?;
        if let Some(mode) = change.mode {
            told(rustix::fs::chmodat(
                CWD,
                link(&fd),
                Mode::from_raw_mode(mode & 0o7777),
                AtFlags::empty(),
            ))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let uid = change.uid.map(|id| Uid::from_raw(self.inner(id)));
            let gid = change.gid.map(|id| Gid::from_raw(self.inner(id)));
            told(rustix::fs::chownat(&*fd, "", uid, gid, AtFlags::EMPTY_PATH))?;
        }
        if let Some(size) = change.size {
            match handle.and_then(|handle| self.file(handle).ok()) {
                Some(file) => told(rustix::fs::ftruncate(&*file, size))?,
                None => {
                    let file = told(self.inodes.open(number.0, OFlags::WRONLY | OFlags::NONBLOCK))?;
                    told(rustix::fs::ftruncate(&file, size))?;
                }
            }
        }
        if change.times.iter().any(Option::is_some) {
            let [atime, mtime] = change.times.map(timespec);
            let times = Timestamps { last_access: atime, last_modification: mtime };
            told(rustix::fs::utimensat(CWD, link(&fd), &times, AtFlags::empty()))?;
        }
        self.stat(number)
    }

    pub(super) fn list(
        &self,
        handle: FileHandle,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Answer<()> {
        let dir = self.file(handle)?;
        told(rustix::fs::seek(&*dir, SeekFrom::Start(offset)))?;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(&*dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = told(entry)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let (number, next) = (INodeNo(entry.ino()), entry.next_entry_cookie());
            if reply.add(number, next, kind(entry.file_type()), name) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Answer<FileAttr> {
        let dir = self.parent(parent)?;
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        use rustix::fs::FileType::{Fifo, RegularFile, Socket};
        // Nobody gets a device from a share.
        if !matches!(kind, RegularFile | Fifo | Socket) {
            return Err(Errno::EPERM);
        }
        let mode = Mode::from_raw_mode(mode & 0o7777);
        told(rustix::fs::mknodat(&*dir, name, kind, mode, 0))?;
        self.entry(parent, name)
    }

    pub(super) fn create_file(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<(FileAttr, FileHandle)> {
        let dir = self.parent(parent)?;
        let flags = open_flags(flags) | OFlags::CREATE | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&*dir, name, flags, Mode::from_raw_mode(mode & 0o7777));
        let fd = told(fd)?;
        Ok((self.entry(parent, name)?, self.keep(fd)))
    }

    pub(super) fn rename_entry(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let (old, new) = (self.parent(from.0)?, self.parent(to.0)?);
        let flags = rustix::fs::RenameFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        told(rustix::fs::renameat_with(&*old, from.1, &*new, to.1, flags))
    }

    pub(super) fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        let mut buffer = vec![0; size as usize];
        let read = told(rustix::io::pread(&*file, &mut buffer, offset))?;
        buffer.truncate(read);
        Ok(buffer)
    }

    pub(super) fn sync(&self, handle: FileHandle, data_only: bool) -> Answer<()> {
        let file = self.file(handle)?;
        told(match data_only {
            true => rustix::fs::fdatasync(&*file),
            false => rustix::fs::fsync(&*file),
        })
    }
}

/// What is to change of a file.
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    /// When it was read and written last.
    pub(super) times: [Option<TimeOrNow>; 2],
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => since_epoch(time),
    }
}

fn since_epoch(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timespec {
            tv_sec: after.as_secs().cast_signed(),
            tv_nsec: i64::from(after.subsec_nanos()),
        },
        Err(before) => {
            let before = before.duration();
            let up = i64::from(before.subsec_nanos() > 0);
            Timespec {
                tv_sec: -before.as_secs().cast_signed() - up,
                tv_nsec: (1_000_000_000 - i64::from(before.subsec_nanos())) % 1_000_000_000,
            }
        }
    }
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Kind;
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// What of the flags of an open concerns the file beneath. The kernel follows links by itself.
pub(super) fn open_flags(flags: i32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let taken = OFlags::RDWR
        | OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::TRUNC
        | OFlags::EXCL
        | OFlags::SYNC
        | OFlags::DSYNC;
    (flags & taken) | OFlags::CLOEXEC | OFlags::NONBLOCK
}
