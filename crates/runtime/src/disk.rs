//! A task's disk: a file of its size that takes only the room that is written, with an empty ext4 in
//! it, mounted by way of a loop device. Files are copied from one that mke2fs made, which is faster
//! than making each.
//!
//! Nothing on it outlives its task, and so not a restart of the machine either: no journal, no
//! barriers.

use crate::{spec::Filesystem, sys};
use rustix::{
    fs::{Mode, OFlags, SeekFrom},
    mount::MountFlags,
};
use std::{
    ffi::CStr,
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where distributions keep the programs that make file systems; root's search path is not always given.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// The smallest disk that holds a file system and something in it, in bytes.
pub(crate) const SMALLEST_BYTES: u64 = 16 << 20;

/// Where a program is that makes file systems.
pub(crate) fn program(name: &str) -> io::Result<PathBuf> {
    let mut programs = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    let found = programs.find(|program| program.exists());
    found.ok_or_else(|| io::Error::other(format!("there is no {name}")))
}

/// Makes the file `path` with an empty file system of `bytes`. Blocks. One that outlives tasks
/// ([`crate::VolumeSource::Disk`]) and is [`Filesystem::Scratch`] has to be thrown away when the machine went down.
pub fn make(path: &Path, bytes: u64, filesystem: Filesystem) -> io::Result<()> {
    let ext = |kind: &'static str, features: &'static str| {
        let options = ["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"];
        ("mke2fs", [&options[..], &["-t", kind, "-O", features]].concat())
    };
    let (name, options) = match filesystem {
        Filesystem::Scratch => ext("ext4", "^has_journal,^resize_inode"),
        Filesystem::Ext3 => ext("ext3", "has_journal"),
        Filesystem::Ext4 => ext("ext4", "has_journal"),
        Filesystem::Xfs => ("mkfs.xfs", vec!["-q", "-f", "-K", "-s", "size=4096"]),
    };
    let program = program(name)?;
    open(path)?.set_len(bytes)?;
    let run = Command::new(program)
        .args(options)
        .arg(path)
        .env_clear()
        // The settings that ship with it, not the machine's.
        .env("MKE2FS_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .output()?;
    match run.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&run.stderr);
            Err(io::Error::other(format!("{name}: {}", words.trim())))
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Copies what is written in `from` to the new file `to`, leaving holes as they are.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let to = open(to)?;
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < length {
        let Some(start) = seek(&from, SeekFrom::Data(at))? else { break };
        let end = seek(&from, SeekFrom::Hole(start))?.unwrap_or(length);
        at = start;
        while at < end {
            let most = buffer.len().min((end - at) as usize);
            from.read_exact_at(&mut buffer[..most], at)?;
            to.write_all_at(&buffer[..most], at)?;
            at += most as u64;
        }
    }
    Ok(())
}

/// Where the next data or hole begins; `None` when there is none any more.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a file system is called, and how it is mounted.
fn kind(filesystem: Filesystem) -> (&'static CStr, &'static CStr) {
    match filesystem {
        Filesystem::Scratch => (c"ext4", c"noinit_itable,barrier=0,discard,errors=remount-ro"),
        // As ext4, which reads it as well and lets ids be mapped.
        Filesystem::Ext3 => (c"ext4", c"errors=remount-ro"),
        Filesystem::Ext4 => (c"ext4", c"discard,errors=remount-ro"),
        // A disk may be there twice: a snapshot has its origin's id.
        Filesystem::Xfs => (c"xfs", c"discard,nouuid"),
    }
}

/// Mounts the file `image` at `point` in this process's mount namespace. Whoever lets go of the mount last unmounts it,
/// however that comes about; the room of an image that was unlinked meanwhile is given back then.
pub(crate) fn mount(image: &Path, filesystem: Filesystem, point: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(image, flags, Mode::empty())?;
    let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty())?;
    let (device, _held) = loop {
        let number = sys::free_loop(&control)?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        let opened = rustix::fs::open(&device, flags, Mode::empty())?;
        match sys::set_loop(&opened, &file) {
            // Somebody else took it meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            done => {
                done?;
                break (device, opened);
            }
        }
    };
    let (kind, options) = kind(filesystem);
    Ok(rustix::mount::mount(&device, point, kind, MountFlags::NODEV, options)?)
}
