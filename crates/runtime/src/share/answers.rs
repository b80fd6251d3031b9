//! What a share answers to the kernel, one method for each question (fuse(4)).

use super::{
    inodes::{link, lock},
    locks::{self, Range},
    server::{Change, Server, open_flags, told},
};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, SeekFrom};
use std::{
    ffi::OsStr,
    io,
    path::Path,
    time::{Duration, SystemTime},
};

/// How long the kernel may take a name or an attribute for true: what others change is seen after this at the latest.
const KEPT: Duration = Duration::from_secs(1);
/// The most that is written at once, in bytes.
const MAX_WRITE: u32 = 256 << 10;

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
