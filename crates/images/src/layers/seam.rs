//! Layers are unpacked apart, so that they can be shared and unpacked in parallel. That has one
//! catch: a tar may hold `tmp/x` without an entry for `tmp`. Unpacked over the lower layers, `tmp`
//! would stay as it is there (mode 1777, say); unpacked apart, it is made anew (0755), and in a
//! stack of directories the topmost decides. A seam is one more directory on top that holds nothing
//! but such directories, with the attributes they should have.

use super::tree::{OPAQUE, is_directory, stat};
use super::{Layer, LayerError};
use crate::disk::{At, DiskError};
use rustix::fs::{self, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// The kernel's limits on lists of attribute names and on values.
const XATTR_BYTES: usize = 64 << 10;

/// What a directory should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    mtime: (i64, i64),
}

/// Directories by path, parents before children.
pub(super) type Fixes = BTreeMap<Vec<u8>, Attributes>;

/// What a path is in the stack of all layers.
struct Seen {
    /// As the topmost layer has it.
    shown: Attributes,
    /// As the topmost layer that describes it has it, if it is not that one.
    described: Option<Attributes>,
}

/// The directories whose attributes the stack would show wrong, and their parents.
pub(super) fn fixes(layers: &[Layer]) -> Result<Fixes, LayerError> {
    let mut fixes = Fixes::new();
    for path in layers.iter().flat_map(|layer| layer.bare.iter()) {
        let Some(seen) = look(layers, path)? else { continue };
        let Some(described) = seen.described else { continue };
        let same = |a: &Attributes, b: &Attributes| {
            (a.mode, a.uid, a.gid, &a.xattrs) == (b.mode, b.uid, b.gid, &b.xattrs)
        };
        if !same(&described, &seen.shown) {
            fixes.insert(path.clone(), described);
        }
    }
    let mut parents: Vec<Vec<u8>> = Vec::new();
    for path in fixes.keys() {
        let ancestors = Path::new(OsStr::from_bytes(path)).ancestors().skip(1);
        parents.extend(ancestors.map(|parent| parent.as_os_str().as_bytes().to_vec()));
    }
    for parent in parents {
        if !fixes.contains_key(&parent)
            && let Some(seen) = look(layers, &parent)?
        {
            fixes.insert(parent, seen.described.unwrap_or(seen.shown));
        }
    }
    Ok(fixes)
}

/// Finds a directory in the stack, from the top down, as the overlay file system would.
fn look(layers: &[Layer], path: &[u8]) -> Result<Option<Seen>, LayerError> {
    let mut seen: Option<Seen> = None;
    for layer in layers.iter().rev() {
        let (found, deeper) = look_in(layer, path)?;
        if let Some(attributes) = found {
            let bare = layer.bare.contains(path);
            match (&mut seen, bare) {
                (None, true) => seen = Some(Seen { shown: attributes, described: None }),
                (None, false) => return Ok(Some(Seen { shown: attributes, described: None })),
                (Some(_), true) => {}
                (Some(seen), false) => {
                    seen.described = Some(attributes);
                    break;
                }
            }
        }
        if !deeper {
            break;
        }
    }
    Ok(seen)
}

/// The directory in one layer, and whether the layers beneath are seen through it there.
fn look_in(layer: &Layer, path: &[u8]) -> Result<(Option<Attributes>, bool), LayerError> {
    let shown = layer.path.join(OsStr::from_bytes(path));
    let mut at = fs::open(&layer.path, DIRECTORY, Mode::empty()).at("open", &layer.path)?;
    let mut deeper = !is_opaque(&at, &shown)?;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        let Some(found) = stat(&at, name).at("stat", &shown)? else {
            return Ok((None, deeper));
        };
        if !is_directory(&found) {
            return Ok((None, false));
        }
        at = fs::openat(&at, name, DIRECTORY, Mode::empty()).at("open", &shown)?;
        deeper &= !is_opaque(&at, &shown)?;
    }
    Ok((Some(read(&at, &shown)?), deeper))
}

fn is_opaque(directory: &OwnedFd, shown: &Path) -> Result<bool, DiskError> {
    let mut value = [0u8; 8];
    match fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA) => Ok(false),
        Err(failed) => Err(DiskError::new("read an attribute of", shown, failed)),
    }
}

fn read(directory: &OwnedFd, shown: &Path) -> Result<Attributes, DiskError> {
    let found = fs::fstat(directory).at("stat", shown)?;
    let mut names = vec![0; XATTR_BYTES];
    let n = fs::flistxattr(directory, &mut names[..]).at("list the attributes of", shown)?;
    let mut xattrs = BTreeMap::new();
    for name in names[..n].split(|b| *b == 0) {
        if name.is_empty() || name.starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES];
        let n = fs::fgetxattr(directory, name, &mut value[..]).at("read an attribute of", shown)?;
        value.truncate(n);
        xattrs.insert(name.to_vec(), value);
    }
    let (mode, uid, gid) = (found.st_mode & 0o7777, found.st_uid, found.st_gid);
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // differs among architectures
    let mtime = (found.st_mtime as i64, found.st_mtime_nsec as i64);
    Ok(Attributes { mode, uid, gid, xattrs, mtime })
}

/// Makes the directories beneath `root`, which exists.
pub(super) fn build(root: &Path, fixes: &Fixes) -> Result<(), DiskError> {
    for (path, attributes) in fixes {
        let path = root.join(OsStr::from_bytes(path));
        if path != *root {
            std::fs::create_dir(&path).at("create", &path)?;
        }
        let directory = fs::open(&path, DIRECTORY, Mode::empty()).at("open", &path)?;
        let owner = (fs::Uid::from_raw(attributes.uid), fs::Gid::from_raw(attributes.gid));
        fs::fchown(&directory, Some(owner.0), Some(owner.1)).at("own", &path)?;
        let mode = Mode::from_raw_mode(attributes.mode);
        fs::fchmod(&directory, mode).at("set the mode of", &path)?;
        for (name, value) in &attributes.xattrs {
            let set = fs::fsetxattr(&directory, &name[..], value, XattrFlags::empty());
            set.at("set an attribute of", &path)?;
        }
    }
    for (path, attributes) in fixes.iter().rev() {
        let path = root.join(OsStr::from_bytes(path));
        let directory = fs::open(&path, DIRECTORY, Mode::empty()).at("open", &path)?;
        let (tv_sec, tv_nsec) = attributes.mtime;
        #[allow(clippy::useless_conversion)] // differs among architectures
        let time = Timespec { tv_sec, tv_nsec: tv_nsec.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        fs::futimens(&directory, &times).at("date", &path)?;
    }
    Ok(())
}
