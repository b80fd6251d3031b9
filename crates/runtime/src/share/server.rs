//! What a share answers to the kernel.

use super::{
    inodes::{Inodes, link, lock},
    locks::{self, Locks, Range},
};
use crate::{spec::IdRange, sys};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    Access, AtFlags, CWD, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps, Uid,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the kernel may take a name or an attribute for true: what others change is seen after this at the latest.
const KEPT: Duration = Duration::from_secs(1);
/// The most that is written at once, in bytes.
const MAX_WRITE: u32 = 256 << 10;
/// Whose files are that a task cannot name, and who root is where it is squashed.
const NOBODY: u32 = 65_534;

/// A directory, served.
pub(super) struct Server {
    inodes: Arc<Inodes>,
    locks: Arc<Locks>,
    files: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    next: AtomicU64,
    ids: Option<IdRange>,
    /// Whether each request is done as whoever asks, root as nobody.
    squashed: bool,
}

type Answer<T> = Result<T, Errno>;

fn told<T>(result: rustix::io::Result<T>) -> Answer<T> {
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
    fn act(&self, request: &Request) {
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

    fn keep(&self, fd: OwnedFd) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(fd));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<OwnedFd>> {
        lock(&self.files).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn parent(&self, parent: INodeNo) -> Answer<Arc<OwnedFd>> {
        told(self.inodes.get(parent.0))
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let (_, stat) = told(self.inodes.look_up(parent.0, name))?;
        Ok(self.attributes(&stat))
    }

    fn stat(&self, number: INodeNo) -> Answer<FileAttr> {
        let fd = told(self.inodes.get(number.0))?;
        Ok(self.attributes(&told(rustix::fs::statat(&*fd, "", AtFlags::EMPTY_PATH))?))
    }

    fn set(&self, number: INodeNo, handle: Option<FileHandle>, change: Change) -> Answer<FileAttr> {
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

    fn list(&self, handle: FileHandle, offset: u64, reply: &mut ReplyDirectory) -> Answer<()> {
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

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Answer<FileAttr> {
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

    fn create_file(
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

    fn rename_entry(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Answer<()> {
        let (old, new) = (self.parent(from.0)?, self.parent(to.0)?);
        let flags = rustix::fs::RenameFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        told(rustix::fs::renameat_with(&*old, from.1, &*new, to.1, flags))
    }

    fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        let mut buffer = vec![0; size as usize];
        let read = told(rustix::io::pread(&*file, &mut buffer, offset))?;
        buffer.truncate(read);
        Ok(buffer)
    }

    fn sync(&self, handle: FileHandle, data_only: bool) -> Answer<()> {
        let file = self.file(handle)?;
        told(match data_only {
            true => rustix::fs::fdatasync(&*file),
            false => rustix::fs::fsync(&*file),
        })
    }
}

/// What is to change of a file.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    /// When it was read and written last.
    times: [Option<TimeOrNow>; 2],
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
fn open_flags(flags: i32) -> OFlags {
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

/// Answers with what was found, or with why not.
macro_rules! answer {
    ($reply:ident, $result:expr, $found:pat => $say:expr) => {
        match $result {
            Ok($found) => $say,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // All of it is as old as FUSE on kernels that run containers; what is missing is done without.
        let wanted = [
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                eprintln!("the kernel's FUSE has no {flag:?}");
            }
        }
        config
            .set_max_write(MAX_WRITE)
            .map(drop)
            .map_err(|most| io::Error::other(format!("it writes {most} bytes at most")))
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.act(request);
        answer!(reply, self.entry(parent, name), attr => reply.entry(&KEPT, &attr, Generation(0)));
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.inodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.stat(number), attr => reply.attr(&KEPT, &attr));
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.act(request);
        let change = Change { mode, uid, gid, size, times: [atime, mtime] };
        answer!(reply, self.set(number, handle, change), attr => reply.attr(&KEPT, &attr));
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        let fd = told(self.inodes.get(number.0));
        let target = fd.and_then(|fd| told(rustix::fs::readlinkat(&*fd, "", Vec::new())));
        answer!(reply, target, target => reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.act(request);
        answer!(reply, self.make(parent, name, mode), attr => reply.entry(&KEPT, &attr, Generation(0)));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.act(request);
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let made = self.parent(parent).and_then(|dir| told(rustix::fs::mkdirat(&*dir, name, mode)));
        let made = made.and_then(|()| self.entry(parent, name));
        answer!(reply, made, attr => reply.entry(&KEPT, &attr, Generation(0)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.act(request);
        let dir = self.parent(parent);
        let gone = dir.and_then(|dir| told(rustix::fs::unlinkat(&*dir, name, AtFlags::empty())));
        answer!(reply, gone, () => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.act(request);
        let dir = self.parent(parent);
        let gone = dir.and_then(|dir| told(rustix::fs::unlinkat(&*dir, name, AtFlags::REMOVEDIR)));
        answer!(reply, gone, () => reply.ok());
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.act(request);
        let dir = self.parent(parent);
        let made = dir.and_then(|dir| told(rustix::fs::symlinkat(target, &*dir, name)));
        let made = made.and_then(|()| self.entry(parent, name));
        answer!(reply, made, attr => reply.entry(&KEPT, &attr, Generation(0)));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.act(request);
        let renamed = self.rename_entry((parent, name), (new_parent, new_name), flags);
        answer!(reply, renamed, () => reply.ok());
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.act(request);
        let made = self.parent(parent).and_then(|dir| {
            let fd = told(self.inodes.get(number.0))?;
            told(rustix::fs::linkat(CWD, link(&fd), &*dir, name, AtFlags::SYMLINK_FOLLOW))?;
            self.entry(parent, name)
        });
        answer!(reply, made, attr => reply.entry(&KEPT, &attr, Generation(0)));
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.act(request);
        let opened = told(self.inodes.open(number.0, open_flags(flags.0)));
        answer!(reply, opened, fd => reply.opened(self.keep(fd), FopenFlags::empty()));
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_at(handle, offset, size), data => reply.data(&data));
    }

    fn write(
        &self,
        request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.act(request);
        let file = self.file(handle);
        let written = file.and_then(|file| told(rustix::io::pwrite(&*file, data, offset)));
        // Never more than was asked for.
        answer!(reply, written, written => reply.written(written as u32));
    }

    fn flush(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Closing any descriptor of a file gives back the process's locks of it (fcntl(2)).
        self.locks.drop_all(number.0, owner.0);
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(owner) = owner {
            self.locks.drop_all(number.0, owner.0);
        }
        lock(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(handle, data), () => reply.ok());
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.act(request);
        let opened = told(self.inodes.open(number.0, OFlags::RDONLY | OFlags::DIRECTORY));
        answer!(reply, opened, fd => reply.opened(self.keep(fd), FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        answer!(reply, self.list(handle, offset, &mut reply), () => reply.ok());
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(handle, data), () => reply.ok());
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let found = self.parent(number).and_then(|fd| told(rustix::fs::fstatvfs(&*fd)));
        answer!(reply, found, s => reply.statfs(
            s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_bsize as u32,
            s.f_namemax as u32, s.f_frsize as u32,
        ));
    }

    fn access(&self, request: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.act(request);
        let fd = told(self.inodes.get(number.0));
        let allowed = fd.and_then(|fd| {
            // With the effective identity: it is the one that files are used with.
            let mode = Access::from_bits_truncate(mask.bits().cast_unsigned());
            told(rustix::fs::accessat(CWD, link(&fd), mode, AtFlags::EACCESS))
        });
        answer!(reply, allowed, () => reply.ok());
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.act(request);
        let made = self.create_file(parent, name, mode, flags);
        answer!(reply, made, (attr, handle) =>
            reply.created(&KEPT, &attr, Generation(0), handle, FopenFlags::empty()));
    }

    fn getlk(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        self.act(request);
        let range = Range { start, end, kind };
        let found = self.locks.test(&self.inodes, (number.0, owner.0), range);
        let found = found.map_err(|error| Errno::from_i32(error as i32));
        // Who has it may be in another task: no process here.
        answer!(reply, found, found => reply.locked(found.start, found.end, found.kind, 0));
    }

    fn setlk(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        self.act(request);
        let range = Range { start, end, kind };
        let (locks, inodes) = (self.locks.clone(), self.inodes.clone());
        let take = move || locks.set(&inodes, (number.0, owner.0), range);
        let say = |taken: Result<(), nix::errno::Errno>, reply: ReplyEmpty| match taken {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(Errno::from_i32(error as i32)),
        };
        match take() {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) if sleep => {
                let thread = request.pid();
                std::thread::spawn(move || say(locks::wait(thread, take), reply));
            }
            taken => say(taken, reply),
        }
    }

    fn fallocate(
        &self,
        request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.act(request);
        let mode = rustix::fs::FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let file = self.file(handle);
        let done = file.and_then(|file| told(rustix::fs::fallocate(&*file, mode, offset, length)));
        answer!(reply, done, () => reply.ok());
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset.unsigned_abs()),
            libc::SEEK_HOLE => SeekFrom::Hole(offset.unsigned_abs()),
            // The kernel does the rest by itself.
            _ => return reply.error(Errno::EINVAL),
        };
        let at = self.file(handle).and_then(|file| told(rustix::fs::seek(&*file, to)));
        answer!(reply, at, at => reply.offset(at.cast_signed()));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _from: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.act(request);
        let copied = self.file(from).and_then(|from| {
            let to = self.file(to)?;
            let (mut from_offset, mut to_offset) = (from_offset, to_offset);
            // What is answered has 32 bits.
            let length = usize::try_from(length.min(1 << 30)).unwrap_or(usize::MAX);
            let (from_at, to_at) = (Some(&mut from_offset), Some(&mut to_offset));
            told(rustix::fs::copy_file_range(&*from, from_at, &*to, to_at, length))
        });
        answer!(reply, copied, copied => reply.written(copied as u32));
    }
}
