//! The directory a layer is unpacked into. Every path is resolved by the kernel beneath it
//! (`openat2` with `RESOLVE_IN_ROOT`), and the last component is never followed: so no name,
//! symbolic link or hard link in a tar reaches anything outside. The directory is private to us
//! until it is whole.

use super::LayerError;
use crate::disk::{At, DiskError};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

/// The overlay file system's mark on a directory that hides all beneath it.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A directory that stands for `/`.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    path: PathBuf,
    /// The directory last written into: archives list a directory's files together.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories made only because something lies in them, by their real path.
    bare: BTreeSet<Vec<u8>>,
}

/// Where an entry goes: an open directory and a name in it.
pub(super) struct Place {
    pub(super) parent: Rc<OwnedFd>,
    pub(super) name: Vec<u8>,
    /// The path, for messages.
    pub(super) path: PathBuf,
}

/// What stood in the way of a new entry, and has been removed unless it was a directory to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Whiteout,
    Directory,
    Other,
}

impl Tree {
    /// Opens an empty directory as a tree, whose root counts as bare until an entry describes it.
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        let root = fs::open(path, DIRECTORY, Mode::empty()).at("open", path)?;
        let bare = BTreeSet::from([Vec::new()]);
        let mut tree = Tree { root: Rc::new(root), path: path.to_path_buf(), last: None, bare };
        tree.path = tree.real(&tree.root.clone())?;
        Ok(tree)
    }

    /// The directories that no entry described.
    pub(super) fn into_bare(self) -> BTreeSet<Vec<u8>> {
        self.bare
    }

    /// Its root.
    pub(super) fn root(&self) -> &Rc<OwnedFd> {
        &self.root
    }

    /// Where `path` (already split) goes; missing parents are made.
    pub(super) fn place(&mut self, components: &[&[u8]]) -> Result<Place, LayerError> {
        let (name, dirs) = components.split_last().expect("the root is handled apart");
        let path = PathBuf::from(OsStr::from_bytes(&components.join(&b'/')));
        let joined = dirs.join(&b'/');
        let parent = match &self.last {
            Some((last, fd)) if *last == joined => fd.clone(),
            _ => {
                let fd = match self.resolve(&joined) {
                    Ok(fd) => Rc::new(fd),
                    Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(dirs, &path)?,
                    Err(failed) => return Err(refuse_or_fail(failed, &path)),
                };
                self.last = Some((joined, fd.clone()));
                fd
            }
        };
        Ok(Place { parent, name: name.to_vec(), path })
    }

    /// Where `path` is, without making anything; `None` if its parent does not exist here.
    pub(super) fn find(&self, components: &[&[u8]]) -> Result<Option<Place>, LayerError> {
        let (name, dirs) = components.split_last().expect("the root is handled apart");
        let path = PathBuf::from(OsStr::from_bytes(&components.join(&b'/')));
        match self.resolve(&dirs.join(&b'/')) {
            Ok(fd) => Ok(Some(Place { parent: Rc::new(fd), name: name.to_vec(), path })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(failed) => Err(refuse_or_fail(failed, &path)),
        }
    }

    /// Opens a directory, following symbolic links as they would lead inside a container.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        loop {
            // EAGAIN: something was renamed meanwhile somewhere on the system; try again, says the
            // manual.
            match fs::openat2(&*self.root, path, flags, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    fn make_parents(&mut self, dirs: &[&[u8]], path: &Path) -> Result<Rc<OwnedFd>, LayerError> {
        let mut at = self.root.clone();
        for depth in 1..=dirs.len() {
            let prefix = dirs[..depth].join(&b'/');
            let name = dirs[depth - 1];
            at = match self.resolve(&prefix) {
                Ok(fd) => Rc::new(fd),
                Err(Errno::NOENT) => self.make_bare(&at, name, path, false)?,
                Err(Errno::NOTDIR) => {
                    let found = stat(&at, name).at("stat", path)?;
                    if !found.is_some_and(|s| is_whiteout(&s)) {
                        return Err(LayerError::refused(path, "a parent is not a directory"));
                    }
                    fs::unlinkat(&*at, name, AtFlags::empty()).at("replace", path)?;
                    self.make_bare(&at, name, path, true)?
                }
                Err(failed) => return Err(refuse_or_fail(failed, path)),
            };
        }
        Ok(at)
    }

    /// Makes a directory that no entry has described yet.
    fn make_bare(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &Path,
        opaque: bool,
    ) -> Result<Rc<OwnedFd>, LayerError> {
        match fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let why = "a parent is a symbolic link that leads to nothing in this layer";
                return Err(LayerError::refused(path, why));
            }
            Err(failed) => return Err(refuse_or_fail(failed, path)),
        }
        let made = fs::openat(parent, name, DIRECTORY, Mode::empty()).at("open", path)?;
        // Exactly so, whatever the umask and a set-group-id parent say.
        fs::fchown(&made, Some(fs::Uid::ROOT), Some(fs::Gid::ROOT)).at("own", path)?;
        fs::fchmod(&made, Mode::from_raw_mode(0o755)).at("set the mode of", path)?;
        if opaque {
            make_opaque(&made, path)?;
        }
        self.bare.insert(self.relative(&made)?);
        Ok(Rc::new(made))
    }

    /// Clears the way for a new entry; a directory stays if `keep_directory`.
    pub(super) fn clear(
        &mut self,
        place: &Place,
        keep_directory: bool,
    ) -> Result<Before, LayerError> {
        let path = &place.path;
        let Some(found) = stat(&place.parent, &place.name).at("stat", path)? else {
            return Ok(Before::Nothing);
        };
        if is_directory(&found) {
            if keep_directory {
                return Ok(Before::Directory);
            }
            let gone = fs::openat(&*place.parent, &*place.name, DIRECTORY, Mode::empty());
            let gone = self.relative(&gone.at("open", path)?)?;
            let gone = Path::new(OsStr::from_bytes(&gone));
            self.bare.retain(|bare| !Path::new(OsStr::from_bytes(bare)).starts_with(gone));
            self.last = None;
            let tree = beneath(&place.parent, &place.name);
            std::fs::remove_dir_all(tree).at("replace", path)?;
            return Ok(Before::Other);
        }
        if found.st_mode & 0o170000 == 0o120000 {
            // A cached directory may have been reached through this link.
            self.last = None;
        }
        fs::unlinkat(&*place.parent, &*place.name, AtFlags::empty()).at("replace", path)?;
        Ok(if is_whiteout(&found) { Before::Whiteout } else { Before::Other })
    }

    /// An entry has described this directory.
    pub(super) fn described(&mut self, directory: &OwnedFd) -> Result<(), DiskError> {
        if !self.bare.is_empty() {
            let path = self.relative(directory)?;
            self.bare.remove(&path);
        }
        Ok(())
    }

    /// The path of an open directory beneath the root.
    fn relative(&self, directory: &OwnedFd) -> Result<Vec<u8>, DiskError> {
        let real = self.real(directory)?;
        let inside = real.strip_prefix(&self.path).unwrap_or_else(|_| {
            panic!("{} was opened beneath {}", real.display(), self.path.display())
        });
        Ok(inside.as_os_str().as_bytes().to_vec())
    }

    fn real(&self, directory: &OwnedFd) -> Result<PathBuf, DiskError> {
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        std::fs::read_link(&link).at("read", Path::new(&link))
    }
}

/// `name` in an open directory, as a path for the calls that want one. The directory is not looked
/// up again, so nothing can come between.
fn beneath(parent: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// Loops and the like are the layer's fault, the rest is the disk's.
fn refuse_or_fail(failed: Errno, path: &Path) -> LayerError {
    match failed {
        Errno::LOOP => LayerError::refused(path, "its symbolic links go in circles"),
        Errno::NAMETOOLONG => LayerError::refused(path, "its name is too long"),
        Errno::XDEV => LayerError::refused(path, "it leads to another file system"),
        Errno::NOTDIR => LayerError::refused(path, "a parent is not a directory"),
        other => DiskError::new("open the parent of", path, other).into(),
    }
}

pub(super) fn stat(parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// The overlay file system's mark for "deleted": a character device 0/0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn make_opaque(directory: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()).at("mark as opaque", path)
}

impl Place {
    /// Opens the directory at this place.
    pub(super) fn open_directory(&self) -> Result<OwnedFd, DiskError> {
        fs::openat(&*self.parent, &*self.name, DIRECTORY, Mode::empty()).at("open", &self.path)
    }

    /// Sets an extended attribute without following a symbolic link.
    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        fs::lsetxattr(beneath(&self.parent, &self.name), name, value, XattrFlags::empty())
    }
}
