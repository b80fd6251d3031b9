//! From a compressed stream to a directory in overlayfs form.

use super::archive::{Archive, Entry, Kind};
use super::tree::{Before, Place, Tree, is_directory, is_whiteout, make_opaque, stat};
use super::{LayerError, LayerLimits, TarError};
use crate::disk::{At, DiskError};
use crate::{Digest, Hasher};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

const BUFFER_BYTES: usize = 256 << 10;
/// The largest file, counting holes; what ext4 holds at most, about.
const MAX_FILE_BYTES: u64 = 1 << 43;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself; its links and orphans say nothing about the image.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.plnk", b".wh..wh.orph"];

/// What came out of a layer.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Bytes of the tar.
    pub(super) tar_bytes: u64,
    /// Entries in it.
    pub(super) entries: u64,
    /// Directories that lie in it only because something lies in them.
    pub(super) bare: BTreeSet<Vec<u8>>,
}

/// Unpacks `stream` into the empty directory `root`, and checks that the tar has the digest
/// `diff_id`.
pub(super) fn unpack(
    stream: impl Read,
    diff_id: &Digest,
    root: &Path,
    limits: &LayerLimits,
) -> Result<Unpacked, LayerError> {
    let tar = Measured {
        inner: decompress(stream)?,
        hasher: Hasher::new(diff_id.algorithm()),
        total: 0,
        limit: limits.max_bytes,
    };
    let archive = Archive::new(BufReader::with_capacity(BUFFER_BYTES, tar));
    let (tree, directories) = (Tree::open(root)?, Vec::new());
    let mut unpacker = Unpacker { archive, tree, directories, entries: 0, name_bytes: 0, limits };
    unpacker.run()?;
    let Unpacker { archive, tree, entries, .. } = unpacker;
    let mut rest = archive.into_inner();
    // Whatever follows the archive's end belongs to the digest.
    loop {
        let n = rest.fill_buf().map_err(|e| tar_error(TarError::Read(e), Path::new("")))?.len();
        if n == 0 {
            break;
        }
        rest.consume(n);
    }
    let Measured { hasher, total, .. } = rest.into_inner();
    let actual = hasher.finish();
    if actual != *diff_id {
        return Err(LayerError::DiffId { expected: diff_id.clone(), actual });
    }
    Ok(Unpacked { tar_bytes: total, entries, bare: tree.into_bare() })
}

/// Tells the compression by its first bytes, which cannot be wrong as a media type can; the digest
/// of what comes out is checked in any case.
fn decompress<'a>(mut stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, LayerError> {
    let mut magic = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut magic).map_err(LayerError::Stream)?;
    let whole = io::Cursor::new(magic.clone()).chain(stream);
    let buffered = BufReader::with_capacity(BUFFER_BYTES, whole);
    Ok(match magic[..] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        // A frame, or a skippable frame before one. The decoder's window stays below 128 MiB by
        // default.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(zstd::Decoder::with_buffer(buffered).map_err(LayerError::Stream)?)
        }
        _ => Box::new(buffered),
    })
}

/// Hashes and counts what passes, up to a limit.
struct Measured<R> {
    inner: R,
    hasher: Hasher,
    total: u64,
    limit: u64,
}

/// More came out than is allowed.
#[derive(Debug, thiserror::Error)]
#[error("the uncompressed layer is larger than {0} bytes")]
struct TooLarge(u64);

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.total += n as u64;
        match self.total > self.limit {
            true => Err(io::Error::other(TooLarge(self.limit))),
            false => Ok(n),
        }
    }
}

/// Tells a broken tar from a broken stream and from one that is too large.
fn tar_error(error: TarError, path: &Path) -> LayerError {
    match error {
        TarError::Read(read) if read.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) => {
            LayerError::Limit("uncompressed bytes")
        }
        TarError::Read(read) => LayerError::Stream(read),
        source => LayerError::Tar { after: path.to_path_buf(), source },
    }
}

struct Unpacker<'a, R> {
    archive: Archive<R>,
    tree: Tree,
    /// Their times are set last, because whatever is put into them changes them.
    directories: Vec<(Vec<u8>, (i64, u32))>,
    entries: u64,
    name_bytes: u64,
    limits: &'a LayerLimits,
}

impl<R: BufRead> Unpacker<'_, R> {
    fn run(&mut self) -> Result<(), LayerError> {
        let mut last = PathBuf::new();
        while let Some(entry) = self.archive.next().map_err(|error| tar_error(error, &last))? {
            self.entries += 1;
            self.name_bytes += (entry.path.len() + entry.link.len()) as u64;
            if self.entries > self.limits.max_entries {
                return Err(LayerError::Limit("entries"));
            }
            if self.name_bytes > self.limits.max_name_bytes {
                return Err(LayerError::Limit("bytes of names"));
            }
            last = PathBuf::from(std::ffi::OsStr::from_bytes(&entry.path));
            self.entry(&entry)?;
        }
        for (path, mtime) in self.directories.iter().rev() {
            let shown = Path::new(std::ffi::OsStr::from_bytes(path));
            match self.tree.resolve(path) {
                Ok(directory) => fs::futimens(&directory, &times(*mtime)).at("date", shown)?,
                // A later entry has replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(failed) => return Err(DiskError::new("date", shown, failed).into()),
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let shown = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        let components = split(&entry.path, shown)?;
        let Some((name, parents)) = components.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(LayerError::refused(shown, "the root can only be a directory"));
            }
            let root = self.tree.root().clone();
            return self.describe(&root, entry, shown, b"");
        };
        if parents.iter().any(|parent| AUFS.contains(parent)) || AUFS.contains(name) {
            return Ok(());
        }
        if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
            return Err(LayerError::refused(shown, "a whiteout has nothing beneath it"));
        }
        if *name == OPAQUE_WHITEOUT {
            return self.opaque(parents, shown);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(parents, hidden, shown);
        }
        if entry.kind == Kind::HardLink {
            return self.hard_link(&components, entry);
        }
        let place = self.tree.place(&components)?;
        let before = self.tree.clear(&place, entry.kind == Kind::Directory)?;
        match entry.kind {
            Kind::File => self.file(&place, entry),
            Kind::Directory => {
                if before != Before::Directory {
                    let private = Mode::from_raw_mode(0o700);
                    fs::mkdirat(&*place.parent, &*place.name, private).at("create", shown)?;
                }
                let directory = place.open_directory()?;
                if before == Before::Whiteout {
                    make_opaque(&directory, shown)?;
                }
                self.describe(&directory, entry, shown, &components.join(&b'/'))
            }
            _ => special(&place, entry),
        }
    }

    /// Gives a directory what its entry says.
    fn describe(
        &mut self,
        directory: &OwnedFd,
        entry: &Entry,
        shown: &Path,
        path: &[u8],
    ) -> Result<(), LayerError> {
        own(directory, entry, shown)?;
        for (name, value) in wanted_xattrs(entry, shown)? {
            let set = fs::fsetxattr(directory, name, value, fs::XattrFlags::empty());
            set.map_err(|failed| xattr_error(failed, shown))?;
        }
        self.tree.described(directory)?;
        self.directories.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file(&mut self, place: &Place, entry: &Entry) -> Result<(), LayerError> {
        let path = &place.path;
        if entry.real_size > MAX_FILE_BYTES {
            return Err(LayerError::Limit("bytes of one file"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOFOLLOW;
        let file = fs::openat(&*place.parent, &*place.name, flags, Mode::from_raw_mode(0o600));
        let file = std::fs::File::from(file.at("create", path)?);
        let mut end = 0;
        for (offset, length) in &entry.segments {
            end = *offset;
            let mut left = *length;
            while left > 0 {
                let data = self.archive.data(left).map_err(|error| tar_error(error, path))?;
                let n = data.len();
                file.write_all_at(data, end).at("write", path)?;
                self.archive.consume(n);
                (left, end) = (left - n as u64, end + n as u64);
            }
        }
        if end != entry.real_size {
            file.set_len(entry.real_size).at("set the size of", path)?;
        }
        let file = OwnedFd::from(file);
        own(&file, entry, path)?;
        for (name, value) in wanted_xattrs(entry, path)? {
            let set = fs::fsetxattr(&file, name, value, fs::XattrFlags::empty());
            set.map_err(|failed| xattr_error(failed, path))?;
        }
        Ok(fs::futimens(&file, &times(entry.mtime)).at("date", path)?)
    }

    fn hard_link(&mut self, components: &[&[u8]], entry: &Entry) -> Result<(), LayerError> {
        let shown = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        let target = split(&entry.link, shown)?;
        let missing = || LayerError::HardLink {
            path: shown.to_path_buf(),
            target: PathBuf::from(std::ffi::OsStr::from_bytes(&entry.link)),
        };
        if target.is_empty() {
            return Err(missing());
        }
        let target = self.tree.find(&target)?.ok_or_else(missing)?;
        let found = stat(&target.parent, &target.name).at("stat", shown)?;
        let found = found.filter(|s| !is_whiteout(s)).ok_or_else(missing)?;
        if is_directory(&found) {
            return Err(LayerError::refused(shown, "a hard link to a directory"));
        }
        let place = self.tree.place(components)?;
        let there = stat(&place.parent, &place.name).at("stat", shown)?;
        if there.is_some_and(|s| (s.st_dev, s.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(()); // to itself, or twice
        }
        self.tree.clear(&place, false)?;
        let none = AtFlags::empty();
        match fs::linkat(&*target.parent, &*target.name, &*place.parent, &*place.name, none) {
            Ok(()) => Ok(()),
            // Clearing the way has removed the target's directory.
            Err(Errno::NOENT) => Err(missing()),
            Err(failed) => Err(DiskError::new("link", shown, failed).into()),
        }
    }

    /// `.wh.name`: the lower layers' `name` is gone. What this layer has of that name stays.
    fn whiteout(
        &mut self,
        parents: &[&[u8]],
        hidden: &[u8],
        shown: &Path,
    ) -> Result<(), LayerError> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(WHITEOUT) {
            return Err(LayerError::refused(shown, "not the name of a whiteout"));
        }
        let components: Vec<&[u8]> = parents.iter().copied().chain([hidden]).collect();
        let place = self.tree.place(&components)?;
        match stat(&place.parent, &place.name).at("stat", shown)? {
            Some(found) if is_directory(&found) => {
                Ok(make_opaque(&place.open_directory()?, shown)?)
            }
            Some(_) => Ok(()),
            None => {
                let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
                let made = fs::mknodat(&*place.parent, &*place.name, kind, mode, 0);
                Ok(made.at("create the whiteout", shown)?)
            }
        }
    }

    /// `.wh..wh..opq`: the lower layers' content of this directory is gone.
    fn opaque(&mut self, parents: &[&[u8]], shown: &Path) -> Result<(), LayerError> {
        if parents.is_empty() {
            return Ok(make_opaque(&self.tree.root().clone(), shown)?);
        }
        let components: Vec<&[u8]> = parents.iter().copied().chain([&b"x"[..]]).collect();
        let place = self.tree.place(&components)?;
        Ok(make_opaque(&place.parent, shown)?)
    }
}

/// Symbolic links, devices and pipes.
fn special(place: &Place, entry: &Entry) -> Result<(), LayerError> {
    let (parent, name, path) = (&*place.parent, &*place.name, &place.path);
    let node = |kind, major, minor| {
        let device = fs::makedev(major, minor);
        fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
    };
    match entry.kind {
        Kind::Character(0, 0) => {
            return Err(LayerError::refused(path, "device 0/0 would delete a file beneath it"));
        }
        Kind::Character(major, minor) => node(FileType::CharacterDevice, major, minor),
        Kind::Block(major, minor) => node(FileType::BlockDevice, major, minor),
        Kind::Fifo => node(FileType::Fifo, 0, 0),
        Kind::Symlink if entry.link.is_empty() || entry.link.contains(&0) => {
            return Err(LayerError::refused(path, "a symbolic link without a valid target"));
        }
        Kind::Symlink => fs::symlinkat(&*entry.link, parent, name),
        Kind::File | Kind::Directory | Kind::HardLink => unreachable!("handled by the caller"),
    }
    .at("create", path)?;
    let (uid, gid) = (fs::Uid::from_raw(entry.uid), fs::Gid::from_raw(entry.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    fs::chownat(parent, name, Some(uid), Some(gid), nofollow).at("own", path)?;
    if entry.kind != Kind::Symlink {
        // We have just made it, in a directory of our own: it is no symbolic link.
        let mode = Mode::from_raw_mode(entry.mode);
        fs::chmodat(parent, name, mode, AtFlags::empty()).at("set the mode of", path)?;
    }
    for (name, value) in wanted_xattrs(entry, path)? {
        place.set_xattr(name, value).map_err(|failed| xattr_error(failed, path))?;
    }
    Ok(fs::utimensat(parent, name, &times(entry.mtime), nofollow).at("date", path)?)
}

/// Owner first: changing it clears set-user-id bits and capabilities.
fn own(fd: &OwnedFd, entry: &Entry, path: &Path) -> Result<(), DiskError> {
    let (uid, gid) = (fs::Uid::from_raw(entry.uid), fs::Gid::from_raw(entry.gid));
    fs::fchown(fd, Some(uid), Some(gid)).at("own", path)?;
    fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).at("set the mode of", path)
}

fn times((tv_sec, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Splits a path of the archive. Only what stays inside by its very form is accepted.
fn split<'p>(path: &'p [u8], shown: &Path) -> Result<Vec<&'p [u8]>, LayerError> {
    if path.is_empty() || path.contains(&0) {
        return Err(LayerError::refused(shown, "its name is empty or holds a NUL"));
    }
    // A lone slash is how some builders write the root.
    if path.starts_with(b"/") && path != b"/" {
        return Err(LayerError::refused(shown, "its name is absolute"));
    }
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<&[u8]> = parts.collect();
    if parts.contains(&&b".."[..]) {
        return Err(LayerError::refused(shown, "its name leads upwards"));
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err(LayerError::refused(shown, "its name is too long"));
    }
    Ok(parts)
}

/// Names and values.
type Xattrs<'e> = Vec<(&'e [u8], &'e [u8])>;

/// The extended attributes to set. Those that would steer the overlay file system are refused;
/// security labels of the machine that built the image mean nothing on this one and stay behind.
fn wanted_xattrs<'e>(entry: &'e Entry, path: &Path) -> Result<Xattrs<'e>, LayerError> {
    let mut wanted = Vec::new();
    for (name, value) in &entry.xattrs {
        let foreign_label = name.starts_with(b"security.") || name == b"system.nfs4_acl";
        match &name[..] {
            b"security.capability" => wanted.push((&name[..], &value[..])),
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                wanted.push((&name[..], &value[..]));
            }
            _ if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.") => {
                return Err(LayerError::refused(path, "an attribute would steer the overlay"));
            }
            _ if name.starts_with(b"user.") => wanted.push((&name[..], &value[..])),
            _ if foreign_label => {
                tracing::debug!(path = %path.display(), "left a security label behind");
            }
            _ => return Err(LayerError::refused(path, "an attribute of an unknown kind")),
        }
    }
    Ok(wanted)
}

fn xattr_error(failed: Errno, path: &Path) -> LayerError {
    match failed {
        Errno::INVAL | Errno::PERM | Errno::RANGE | Errno::TOOBIG => {
            LayerError::refused(path, "the kernel does not accept one of its attributes")
        }
        other => DiskError::new("set an attribute of", path, other).into(),
    }
}
