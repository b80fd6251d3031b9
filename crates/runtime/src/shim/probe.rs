//! What this machine can do, found out by doing it, in a process of its own (`--probe`, the
//! directory in the environment variable below): some of it can only be tried by a process with one
//! thread.

use super::{
    rootfs::{Root, Stage},
    sandbox::{self, Sandbox},
};
use crate::{
    capabilities::{Capabilities, Check},
    cgroup::{self, Cgroup},
    chain, disk,
    spec::{IdRange, TaskLimits},
    sys::{self, Forked},
};
use std::{
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Where layers will lie: whether ids can be mapped depends on the file system.
pub(crate) const DIR: &str = "NEARGATE_PROBE_DIR";
/// Where the id ranges of tasks begin.
pub(crate) const FIRST_ID: &str = "NEARGATE_PROBE_FIRST_ID";

pub(super) fn main() -> ExitCode {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        eprintln!("{DIR} is not set");
        return ExitCode::FAILURE;
    };
    let first = std::env::var(FIRST_ID).ok().and_then(|f| f.parse().ok()).unwrap_or(1 << 30);
    let capabilities = probe(&dir, first);
    let text = serde_json::to_string(&capabilities).expect("plain data");
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn check(name: &str, required: bool, outcome: Result<String, String>) -> Check {
    let (ok, detail) = match outcome {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Check { name: name.to_owned(), ok, required, detail }
}

fn probe(dir: &Path, first: u32) -> Capabilities {
    let root = match rustix::process::geteuid().is_root() {
        true => Ok("this process is root".to_owned()),
        false => Err("containers need root; this process is not".to_owned()),
    };
    let cgroups = cgroups();
    let ids = Some(IdRange { first, count: 65_536 });
    let userns = sandbox::create(ids, None).map_err(|e| chain(&e));
    let network = match &userns {
        Ok(_) => Ok("can be made".to_owned()),
        Err(_) => sandbox::create(None, None).map(|_| "can be made".into()).map_err(|e| chain(&e)),
    };
    let disk = try_disk(dir);
    let on_disk = disk.is_ok();
    let overlay = with_dirs(dir, on_disk, |layers, own| try_overlay(layers, own, None, on_disk));
    let mapped = match &userns {
        Ok(sandbox) => {
            with_dirs(dir, on_disk, |layers, own| try_overlay(layers, own, Some(sandbox), on_disk))
        }
        Err(_) => Err("needs user namespaces".to_owned()),
    };
    let user_namespace = userns.is_ok() && mapped.is_ok();
    let userns = userns.map(|_| "root inside is not root outside".to_owned());
    let mapped =
        mapped.map(|()| "layers are shared between tasks, each with its own owners".into());
    Capabilities {
        user_namespace,
        disk_limit: disk.is_ok(),
        checks: vec![
            check("root", true, root),
            check("cgroups", true, cgroups),
            check("network namespaces", true, network),
            check("overlayfs", true, overlay.map(|()| "works on the data directory".into())),
            check("seccomp", true, seccomp()),
            check("user namespaces", false, userns),
            check("id-mapped layers", false, mapped),
            check("ephemeral storage limit", false, disk),
            check("shared directories", false, fuse()),
            check("XFS on EBS volumes", false, xfs()),
        ],
    }
}

fn cgroups() -> Result<String, String> {
    let layout = cgroup::detect().map_err(|e| chain(&e))?;
    let words = layout.describe().to_owned();
    let group = Cgroup::of_task(layout, &format!("probe-{}", std::process::id()), "probe");
    let limits = TaskLimits {
        cpu_millis: Some(1000),
        memory_bytes: Some(64 << 20),
        pids: Some(100),
        disk_bytes: None,
    };
    let made = group.create_task(&limits).map_err(|e| chain(&e));
    let removed = group.remove().and_then(|()| group.remove_instance()).map_err(|e| chain(&e));
    made.and(removed).map(|()| words)
}

/// Access points of EFS need it.
fn fuse() -> Result<String, String> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    let opened = opened.map_err(|e| format!("/dev/fuse: {e}; EFS access points cannot be mounted"));
    opened.map(|_| "a task can act as somebody else there (FUSE)".to_owned())
}

fn xfs() -> Result<String, String> {
    match disk::program("mkfs.xfs") {
        Ok(_) => Ok("can be made".to_owned()),
        Err(error) => Err(format!("{error} (xfsprogs); they can be ext4 or ext3")),
    }
}

fn seccomp() -> Result<String, String> {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    match actions.split_whitespace().any(|a| a == "errno") {
        true => Ok("filters can answer with errors".to_owned()),
        false => Err("the kernel has no filters that answer with errors".to_owned()),
    }
}

/// Runs `f` with a directory that has a layer's files and one that is, or with `on_disk` becomes, a task's own.
fn with_dirs(
    dir: &Path,
    on_disk: bool,
    f: impl Fn(&Path, &Path) -> Result<(), String>,
) -> Result<(), String> {
    let base = dir.join(format!(".probe-{}", std::process::id()));
    let (layer, own) = (base.join("layer"), base.join("own"));
    let make = || {
        std::fs::create_dir_all(&layer)?;
        std::fs::write(layer.join("file"), "x")?;
        std::fs::create_dir_all(&own)?;
        match on_disk {
            true => disk::make(
                &own.with_extension("disk"),
                disk::SMALLEST_BYTES,
                crate::Filesystem::Scratch,
            ),
            false => make_own(&own),
        }
    };
    let outcome =
        make().map_err(|e| format!("{}: {e}", base.display())).and_then(|()| f(&layer, &own));
    match std::fs::remove_dir_all(&base) {
        Ok(()) => outcome,
        Err(e) => outcome.and(Err(format!("{}: {e}", base.display()))),
    }
}

fn make_own(own: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(own.join("upper"))?;
    std::fs::create_dir_all(own.join("work"))
}

/// Gives a process of its own a small disk.
fn try_disk(dir: &Path) -> Result<String, String> {
    let base = dir.join(format!(".probe-disk-{}", std::process::id()));
    let (image, point) = (base.join("image"), base.join("point"));
    let made = std::fs::create_dir_all(&point)
        .and_then(|()| disk::make(&image, disk::SMALLEST_BYTES, crate::Filesystem::Scratch))
        .map_err(|e| format!("a task can fill the machine's disk: {e}"));
    let tried = made.and_then(|()| {
        in_child(|| {
            super::own_mounts()
                .and_then(|()| super::mount_disk(&image, &point))
                .and_then(|()| std::fs::write(point.join("file"), "x"))
                .map_err(|e| format!("a task can fill the machine's disk: {e}"))
        })
    });
    match std::fs::remove_dir_all(&base) {
        Ok(()) => tried.map(|()| "each task has a disk of its size".to_owned()),
        Err(e) => tried.and(Err(format!("{}: {e}", base.display()))),
    }
}

/// Mounts a root file system in a process of its own, and looks whether the owner is right.
fn try_overlay(
    layer: &Path,
    own: &Path,
    sandbox: Option<&Sandbox>,
    on_disk: bool,
) -> Result<(), String> {
    let userns = sandbox.and_then(|s| s.userns.as_ref());
    in_child(|| {
        if on_disk {
            let mounted = super::own_mounts()
                .and_then(|()| super::mount_disk(&own.with_extension("disk"), own));
            mounted.and_then(|()| make_own(own)).map_err(|e| format!("a disk: {e}"))?;
        }
        let mount = || {
            Stage::leave_host()?;
            let root = Root::open(&[layer.to_owned()], own, userns.map(AsFd::as_fd))?;
            Stage::set_up()?.put_root(&root)
        };
        let path = mount().map_err(|e| e.to_string())?.join("file");
        let owner = std::fs::metadata(&path).map_err(|e| e.to_string())?;
        let owner = std::os::unix::fs::MetadataExt::uid(&owner);
        match userns.is_none() == (owner == 0) {
            true => Ok(()),
            false => Err(format!("ids were not mapped (owner {owner})")),
        }
    })
}

/// Tries something in a process of its own, with which all of it goes.
fn in_child(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let (read, write) = rustix::pipe::pipe().map_err(|e| e.to_string())?;
    match sys::fork(false).map_err(|e| e.to_string())? {
        Forked::Child => {
            let message = f().err().unwrap_or_default();
            // The exit code tells as well.
            let _ = rustix::io::write(&write, message.as_bytes());
            sys::exit_now(i32::from(!message.is_empty()));
        }
        Forked::Parent(pid) => {
            drop(write);
            let mut message = String::new();
            let text = std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut message);
            text.map_err(|e| e.to_string())?;
            let pid = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let status = ended.map_err(|e| e.to_string())?.and_then(|(_, s)| s.exit_status());
            match status {
                Some(0) => Ok(()),
                _ => Err(message),
            }
        }
    }
}
