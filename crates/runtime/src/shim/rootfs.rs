//! A container's root file system and everything that is mounted into it, put together in a mount
//! namespace of the launching process. Nothing of it is visible on the host, and it is gone with
//! the container's last process.
//!
//! Everything is gathered beneath one directory, the stage, on a memory file system: the process
//! that becomes the container is root of its user namespace only and could not walk through a data
//! directory that others may not enter; and the paths of a hundred layers must fit into one page.

use crate::{journal::StartFailure, sys};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Where the stage may be: a directory that everybody may enter on any Linux.
const STAGES: [&str; 3] = ["/tmp", "/mnt", "/run"];

/// Something to be mounted, taken hold of before the stage hides its path.
pub(crate) struct Source {
    tree: OwnedFd,
    is_dir: bool,
}

impl Source {
    /// Takes hold of `path`, without what is mounted beneath it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let flags = flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        Self::held(rustix::mount::open_tree(CWD, path, flags)?)
    }

    /// Takes hold of a directory that is open already, without what is mounted beneath it.
    pub(crate) fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let flags = flags | OpenTreeFlags::AT_EMPTY_PATH;
        Self::held(rustix::mount::open_tree(directory, "", flags)?)
    }

    fn held(tree: OwnedFd) -> io::Result<Self> {
        let mode = rustix::fs::fstat(&tree)?.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Ok(Self { tree, is_dir: true }),
            FileType::Symlink => Err(io::Error::other("is a symbolic link")),
            _ => Ok(Self { tree, is_dir: false }),
        }
    }

    /// Makes what is owned by N appear as owned by what the user namespace maps N to.
    pub(crate) fn map_ids(&self, userns: BorrowedFd<'_>) -> io::Result<()> {
        sys::map_ids(self.tree.as_fd(), userns)
    }

    /// Makes devices in it unusable and, with `read_only`, refuses writing.
    pub(crate) fn restrict(&self, read_only: bool) -> io::Result<()> {
        let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_NODEV | read_only,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        sys::mount_setattr(self.tree.as_fd(), &attributes)
    }

    /// Mounts it at `target`, which is made.
    fn attach(&self, target: &Path) -> io::Result<()> {
        match self.is_dir {
            true => std::fs::create_dir_all(target)?,
            false => drop(std::fs::File::create(target)?),
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(self.tree.as_fd(), "", CWD, target, flags)?)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

/// The layers of a container and what it writes, taken hold of.
pub(crate) struct Root {
    layers: Vec<Source>,
    writable: Source,
}

impl Root {
    /// `layers` lowest first; `writable` holds the directories `upper` and `work`.
    pub(crate) fn open(
        layers: &[PathBuf],
        writable: &Path,
        userns: Option<BorrowedFd<'_>>,
    ) -> Result<Self, StartFailure> {
        let open = |path: &PathBuf| {
            let source = Source::open(path)?;
            userns.map_or(Ok(()), |userns| source.map_ids(userns))?;
            Ok::<_, io::Error>(source)
        };
        let mut opened = Vec::with_capacity(layers.len());
        for path in layers {
            opened.push(open(path).map_err(|e| failed(&format!("layer {}", path.display()), e))?);
        }
        let writable = Source::open(writable).map_err(|e| failed("upper directory", e))?;
        Ok(Self { layers: opened, writable })
    }
}

/// A failure of a step of putting the root together.
pub(crate) fn failed(step: &str, error: impl std::fmt::Display) -> StartFailure {
    StartFailure::RootFs { message: format!("{step}: {error}") }
}

/// A private mount namespace with the stage in it.
pub(crate) struct Stage {
    dir: PathBuf,
    next: usize,
}

impl Stage {
    /// Leaves the host's mount namespace and hides `/tmp` (or its like) behind the stage. Sources
    /// must have been opened by [`Stage::leave_host`]'s caller in between.
    pub(crate) fn leave_host() -> Result<(), StartFailure> {
        sys::unshare(libc::CLONE_NEWNS).map_err(|e| failed("mount namespace", e))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(|e| failed("private mounts", e))
    }

    /// Sets the stage up, once every source is held.
    pub(crate) fn set_up() -> Result<Self, StartFailure> {
        let dir = STAGES.iter().map(Path::new).find(|d| d.is_dir());
        let dir = dir.ok_or_else(|| failed("stage", "there is no /tmp, /mnt or /run"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("stage", dir, c"tmpfs", flags, c"mode=755,size=16m")
            .map_err(|e| failed("stage", e))?;
        Ok(Self { dir: dir.to_owned(), next: 0 })
    }

    /// Hides the host's cgroups: libcontainer would move the process about in them, which is done
    /// already. On an empty directory it finds no hierarchy to do it in. (It looks for hierarchies
    /// by the last part of where they are mounted, so nothing on the stage may be called like one.)
    pub(crate) fn hide_cgroups(&self) -> Result<(), StartFailure> {
        let point = "/sys/fs/cgroup";
        match rustix::mount::unmount(point, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(failed("hiding cgroups", e)),
        }
        rustix::mount::mount("none", point, c"tmpfs", MountFlags::RDONLY, c"size=4k")
            .map_err(|e| failed("hiding cgroups", e))
    }

    /// A path on the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Mounts `source` on the stage and tells where.
    pub(crate) fn put(&mut self, source: &Source) -> io::Result<PathBuf> {
        let path = self.path(&format!("m{}", self.next));
        self.next += 1;
        source.attach(&path)?;
        Ok(path)
    }

    /// Mounts `source` at `name` on the stage.
    pub(crate) fn put_at(&self, source: &Source, name: &str) -> io::Result<()> {
        source.attach(&self.path(name))
    }

    /// Mounts the root file system and tells where.
    pub(crate) fn put_root(&mut self, root: &Root) -> Result<PathBuf, StartFailure> {
        let mut lower = Vec::with_capacity(root.layers.len());
        for (i, layer) in root.layers.iter().enumerate() {
            let name = format!("l{i}");
            self.put_at(layer, &name).map_err(|e| failed("layer", e))?;
            lower.push(self.path(&name).display().to_string());
        }
        // overlayfs wants the highest first.
        lower.reverse();
        self.put_at(&root.writable, "w").map_err(|e| failed("upper directory", e))?;
        let (target, writable) = (self.path("root"), self.path("w"));
        std::fs::create_dir(&target).map_err(|e| failed("root", e))?;
        // Volatile: what a task writes beside its volumes ends with it, so it is never waited for
        // to reach the disk. overlayfs marks such a directory and refuses it a second time (a
        // restart) unless the mark is taken away.
        match std::fs::remove_dir_all(writable.join("work/work/incompat")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("upper", e)),
            _ => {}
        }
        let writable = writable.display();
        let options = format!(
            "lowerdir={},upperdir={writable}/upper,workdir={writable}/work,volatile",
            lower.join(":")
        );
        if options.len() >= 4096 {
            return Err(failed("overlay", format!("{} layers are too many", lower.len())));
        }
        let options = std::ffi::CString::new(options).map_err(|e| failed("overlay", e))?;
        // No devices: an image may bring nodes of the host's disks.
        rustix::mount::mount("overlay", &target, c"overlay", MountFlags::NODEV, options.as_c_str())
            .map_err(|e| failed("overlay", e))?;
        Ok(target)
    }
}

/// Opens the directory `path` beneath `root`, symbolic links taken as the container would, and
/// makes what is missing of it, owned by `owner`.
pub(crate) fn make_dirs(root: BorrowedFd<'_>, path: &Path, owner: u32) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |at: &Path| rustix::fs::openat2(root, at, flags, Mode::empty(), resolve);
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut at = PathBuf::from(".");
    let mut dir = open(&at)?;
    for part in relative.components() {
        at.push(part);
        dir = match open(&at) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                let made = open(&at)?;
                let owner = rustix::fs::Uid::from_raw(owner);
                let group = rustix::fs::Gid::from_raw(owner.as_raw());
                rustix::fs::chownat(&made, "", Some(owner), Some(group), AtFlags::EMPTY_PATH)?;
                made
            }
            other => other?,
        };
    }
    Ok(dir)
}
