//! Filling an empty volume with what the image has at its place, as other engines do: owners, modes
//! and links are kept. What is read comes from an image and may be anything; links are never
//! followed.

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Deeper trees are refused: the copy is recursive, and no real image comes near.
const MAX_DEPTH: usize = 128;

/// Copies what is at `path` beneath `root` into the directory `volume`, unless something is there
/// already.
pub(crate) fn fill(root: BorrowedFd<'_>, path: &str, volume: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let target = rustix::fs::openat(volume, ".", flags, Mode::empty())?;
    // Two containers may start at once with the same volume.
    rustix::fs::flock(&target, FlockOperation::LockExclusive)?;
    if !names(&target)?.is_empty() {
        return Ok(());
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let relative = path.trim_start_matches('/');
    match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(source) => copy_dir(&source, &target, 0),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn names(dir: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn copy_dir(source: &OwnedFd, target: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the directory is nested too deeply"));
    }
    for name in names(source)? {
        let stat = rustix::fs::statat(source, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |at: &OwnedFd, flags| rustix::fs::openat(at, &name, flags, Mode::empty());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(target, &name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
                let (from, to) = (open(source, flags)?, open(target, flags)?);
                copy_dir(&from, &to, depth + 1)?;
            }
            FileType::RegularFile => {
                let from = open(source, OFlags::RDONLY | nofollow)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
                let to = rustix::fs::openat(target, &name, flags, Mode::from_raw_mode(0o600))?;
                io::copy(&mut File::from(from), &mut File::from(to))?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source, &name, Vec::new())?;
                rustix::fs::symlinkat(&link, target, &name)?;
                rustix::fs::chownat(
                    target,
                    &name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                continue;
            }
            FileType::Fifo => {
                let kind = FileType::Fifo;
                rustix::fs::mknodat(target, &name, kind, Mode::from_raw_mode(0o600), 0)?;
            }
            // Sockets mean nothing without their owner, and devices are not usable inside.
            _ => continue,
        }
        rustix::fs::chownat(target, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(target, &name, mode, AtFlags::empty())?;
    }
    let stat = rustix::fs::fstat(source)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(target, Some(uid), Some(gid))?;
    rustix::fs::fchmod(target.as_fd(), Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn an_empty_volume_gets_the_images_files_and_a_full_one_keeps_its_own() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = image.path().join("data/deep");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("file"), "hello").unwrap();
        std::fs::set_permissions(data.join("file"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        let root = File::open(image.path()).unwrap();
        let directory = File::open(volume.path()).unwrap();
        fill(root.as_fd(), "/data", directory.as_fd()).unwrap();
        let file = volume.path().join("deep/file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let link = std::fs::read_link(volume.path().join("deep/link")).unwrap();
        assert_eq!(link, std::path::Path::new("/etc/passwd"));

        std::fs::write(data.join("late"), "x").unwrap();
        fill(root.as_fd(), "/data", directory.as_fd()).unwrap();
        assert!(!volume.path().join("deep/late").exists());
    }
}
