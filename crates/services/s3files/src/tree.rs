//! The files here. Tasks write among them while we do, and mean no good: nothing is done to a path without the
//! directory that it is in being opened without following links, and what is taken away is first moved where only we
//! are, and looked at there.

use crate::{model::Stamp, plan::Local};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec,
        Timestamps, UTIME_OMIT, Uid,
    },
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// The longest path, in bytes: with its prefix, S3's longest key.
const LONGEST: usize = 1024;
/// What the names begin with of what is about to become a file, or was one until just now.
const MOVED: &str = "moved-";

/// A file system's directory, and one beside it for what is neither here nor there.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) aside: PathBuf,
    /// The name, in the root, of the directory for what had to make way.
    pub(crate) lost: String,
}

/// Whose a file is, and what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub(crate) modified: i64,
}

/// What became of something that was to make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It did.
    Done,
    /// It holds something, or was changed in this moment: next time.
    Later,
}

impl Tree {
    /// All files and directories, by their paths. Links, devices and the like are not told, nor are names that are no
    /// UTF-8 or too long for keys: they stay here.
    pub(crate) fn walk(&self) -> io::Result<BTreeMap<String, Local>> {
        let mut found = BTreeMap::new();
        let mut directories = vec![String::new()];
        while let Some(path) = directories.pop() {
            let directory = match self.directory(&path) {
                // It went meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => continue,
                directory => directory?,
            };
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                let ours = path.is_empty() && name == self.lost;
                if matches!(name, "." | "..") || ours {
                    continue;
                }
                let below = join(&path, name);
                let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                else {
                    continue;
                };
                let local = local(&stat);
                if let Some(local) = local.filter(|_| below.len() <= LONGEST) {
                    if local.directory {
                        directories.push(below.clone());
                    }
                    found.insert(below, local);
                }
            }
        }
        Ok(found)
    }

    /// What is at a path.
    pub(crate) fn look(&self, path: &str) -> io::Result<Option<Local>> {
        let (parent, name) = match self.parent(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            parent => parent?,
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            stat => Ok(local(&stat?)),
        }
    }

    /// Copies a file out, as it is when nobody writes it; and tells what it looked like, or nothing where it was
    /// written meanwhile.
    pub(crate) fn copy(&self, path: &str, to: &Path) -> io::Result<Option<Stamp>> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::empty())?);
        let before = local(&rustix::fs::fstat(&file)?);
        let Some(before) = before.filter(|local| !local.directory) else { return Ok(None) };
        io::copy(&mut file, &mut File::create_new(to)?)?;
        let after = local(&rustix::fs::fstat(&file)?);
        Ok((after == Some(before)).then_some(before.stamp))
    }

    /// Gives a file, or a directory, its attributes; one that is not here yet, or that nobody has but we.
    pub(crate) fn dress(file: &File, attributes: Attributes) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
        file.set_permissions(Permissions::from_mode(attributes.mode))?;
        let modified = Timespec {
            tv_sec: attributes.modified.div_euclid(1_000_000_000),
            tv_nsec: attributes.modified.rem_euclid(1_000_000_000),
        };
        let untouched = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: untouched, last_modification: modified };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    /// Makes what lies aside the file (or empty directory) at a path, in place of `seen`. With a conflict what was
    /// there is kept among the lost; and so is what is not any more what was seen.
    pub(crate) fn install(
        &self,
        path: &str,
        new: &Path,
        seen: Option<Local>,
        conflict: bool,
    ) -> io::Result<Made> {
        let (parent, name) = self.made_parent(path)?;
        if let Some(seen) = seen
            && seen.directory
            && !conflict
        {
            match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => return Ok(Made::Later),
                Err(Errno::NOENT) => {}
                gone => gone?,
            }
        }
        let moved = self.aside.join(format!("{MOVED}{}", file_name(new)));
        std::fs::rename(new, &moved)?;
        match rustix::fs::renameat_with(CWD, &moved, &parent, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => {
                done?;
                return Ok(Made::Done);
            }
        }
        // Before, not after: else what is there now would have nowhere to go.
        self.lost()?;
        rustix::fs::renameat_with(CWD, &moved, &parent, name, RenameFlags::EXCHANGE)?;
        self.clear(&moved, path, seen, conflict)?;
        Ok(Made::Done)
    }

    /// Takes away what was seen at a path. What is something else by now, or in conflict, is kept among the lost.
    pub(crate) fn remove(
        &self,
        path: &str,
        seen: Local,
        conflict: bool,
        unused: &str,
    ) -> io::Result<Made> {
        let (parent, name) = match self.parent(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Made::Done),
            parent => parent?,
        };
        if seen.directory {
            return match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(Made::Later),
                Err(Errno::NOENT) => Ok(Made::Done),
                gone => Ok(gone.map(|()| Made::Done)?),
            };
        }
        self.lost()?;
        let moved = self.aside.join(format!("{MOVED}{unused}"));
        match rustix::fs::renameat_with(&parent, name, CWD, &moved, RenameFlags::NOREPLACE) {
            Err(Errno::NOENT) => return Ok(Made::Done),
            done => done?,
        }
        self.clear(&moved, path, Some(seen), conflict)?;
        Ok(Made::Done)
    }

    /// Deletes what had to make way, when it is what was seen; and keeps it among the lost when it is not.
    fn clear(
        &self,
        moved: &Path,
        path: &str,
        seen: Option<Local>,
        conflict: bool,
    ) -> io::Result<()> {
        let there = local(&rustix::fs::statat(CWD, moved, AtFlags::SYMLINK_NOFOLLOW)?);
        // To be moved changes when it was changed.
        let still = |local: Option<Local>| {
            local.map(|local| Local { stamp: Stamp { changed: 0, ..local.stamp }, ..local })
        };
        if !conflict && seen.is_some() && still(there) == still(seen) {
            return std::fs::remove_file(moved);
        }
        let leaf = path.rsplit('/').next().unwrap_or_default();
        let unique = file_name(moved);
        let unique = unique.strip_prefix(MOVED).unwrap_or(&unique);
        // The end of a name tells more than its beginning, and names have an end, too.
        let mut start = leaf.len().saturating_sub(255 - unique.len() - 1);
        while !leaf.is_char_boundary(start) {
            start += 1;
        }
        let name = format!("{unique}_{}", &leaf[start..]);
        Ok(rustix::fs::renameat(CWD, moved, self.lost()?, name)?)
    }

    /// What an earlier crash left between the sides: what may be the only copy goes among the lost.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.strip_prefix(MOVED) {
                Some(unique) => rustix::fs::renameat(CWD, entry.path(), self.lost()?, unique)?,
                None => std::fs::remove_file(entry.path())
                    .or_else(|_| std::fs::remove_dir(entry.path()))?,
            }
        }
        Ok(())
    }

    /// Sets a directory's owner and permissions, which is made where it is not.
    pub(crate) fn directory_at(&self, path: &str, attributes: Attributes) -> io::Result<()> {
        let (parent, name) = self.made_parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        let directory = self.directory(path)?;
        rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
        Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode))?)
    }

    fn lost(&self) -> io::Result<OwnedFd> {
        match std::fs::create_dir(self.root.join(&self.lost)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        Ok(self.directory(&self.lost)?)
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.root, flags, Mode::empty())?;
        if path.is_empty() {
            return Ok(root);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.directory(parent)?, name))
    }

    /// [`Tree::parent`], with directories made that are not there, as root's.
    fn made_parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        if let Err(Errno::NOENT) = self.parent(path).map(drop) {
            let mut parent = self.directory("")?;
            let mut so_far = String::new();
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            for name in above.split('/') {
                let mode = Mode::from_raw_mode(0o755);
                let made = rustix::fs::mkdirat(&parent, name, mode);
                so_far = join(&so_far, name);
                parent = self.directory(&so_far)?;
                match made {
                    Err(Errno::EXIST) => {}
                    // Whatever the umask says.
                    made => made.and_then(|()| rustix::fs::fchmod(&parent, mode))?,
                }
            }
        }
        self.parent(path)
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a file or directory looks like; nothing of anything else.
fn local(stat: &Stat) -> Option<Local> {
    let nanoseconds = |seconds: i64, nanoseconds: u64| {
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(nanoseconds).unwrap_or(0))
    };
    let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let stamp = Stamp { mode, uid, gid, ..Stamp::default() };
            Some(Local { directory: true, stamp })
        }
        FileType::RegularFile => {
            let stamp = Stamp {
                inode: stat.st_ino,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
                changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
                mode,
                uid,
                gid,
            };
            Some(Local { directory: false, stamp })
        }
        _ => None,
    }
}
