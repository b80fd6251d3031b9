//! The OCI runtime configuration of a container, for libcontainer.

use crate::spec::{ContainerSpec, Mount as MountSpec, TaskSpec};
use libcontainer::oci_spec::{
    OciSpecError,
    runtime::{
        LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
        MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use std::{
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// Kernel interfaces that tell about, or change, the whole machine.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// The namespaces that exist already.
pub(crate) struct Namespaces<'a> {
    pub(crate) user: Option<BorrowedFd<'a>>,
    pub(crate) net: BorrowedFd<'a>,
    pub(crate) pids: Option<BorrowedFd<'a>>,
}

/// A path on the stage, and where in the container it is mounted.
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// The configuration of `container`, whose root file system is at `root`.
pub(crate) fn build(
    task: &TaskSpec,
    container: &ContainerSpec,
    namespaces: &Namespaces<'_>,
    root: &Path,
    binds: &[Bind],
) -> Result<Spec, OciSpecError> {
    let mut process = ProcessBuilder::default()
        .terminal(container.tty)
        .user(UserBuilder::default().uid(0u32).gid(0u32).umask(0o022u32).build()?)
        .args(container.args.clone())
        // HOME is set so that libcontainer does not ask the C library, which would load name
        // service modules out of the container.
        .env(vec!["HOME=/".to_owned(), "PATH=/".to_owned()])
        .cwd("/")
        .build()?;
    // All that is left to the last step, where it is the same for every command of the container.
    process.set_no_new_privileges(None).set_capabilities(None).set_rlimits(None);
    let linux = LinuxBuilder::default()
        .namespaces(list_namespaces(namespaces)?)
        .sysctl(container.sysctls.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .rootfs_propagation("private")
        .cgroups_path("/none")
        .build()?;
    let mut linux = linux;
    linux.set_resources(None).set_devices(None).set_seccomp(None);
    SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path(root).readonly(container.read_only_root).build()?)
        .hostname(task.hostname.clone())
        .mounts(mounts(container, binds)?)
        .process(process)
        .linux(linux)
        .build()
}

fn list_namespaces(held: &Namespaces<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    // Each process that enters finds the descriptor among its own: they are inherited until exec.
    let path = |fd: BorrowedFd<'_>| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let mut list = Vec::new();
    let mut add = |kind, path: Option<PathBuf>| {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        let namespace = match path {
            Some(path) => namespace.path(path),
            None => namespace,
        };
        namespace.build().map(|n| list.push(n))
    };
    if let Some(user) = held.user {
        add(User, Some(path(user)))?;
    }
    add(Network, Some(path(held.net)))?;
    add(Pid, held.pids.map(path))?;
    for kind in [Ipc, Uts, Cgroup, Mount] {
        add(kind, None)?;
    }
    Ok(list)
}

fn mounts(container: &ContainerSpec, binds: &[Bind]) -> Result<Vec<Mount>, OciSpecError> {
    let mut list = Vec::new();
    let mut add = |target: &str, kind: &str, source: &Path, options: &[String]| {
        let mount = MountBuilder::default().destination(target).typ(kind).source(source);
        mount.options(options.to_vec()).build().map(|m| list.push(m))
    };
    let shm = format!("size={}", container.shm_bytes.unwrap_or(DEFAULT_SHM_BYTES));
    let pseudo = [
        ("/proc", "proc", "nosuid,noexec,nodev".to_owned()),
        ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k".to_owned()),
        ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5".into()),
        ("/sys", "sysfs", "nosuid,noexec,nodev,ro".to_owned()),
        ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev".to_owned()),
        ("/dev/shm", "tmpfs", format!("nosuid,noexec,nodev,mode=1777,{shm}")),
    ];
    for (target, kind, options) in &pseudo {
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        add(target, kind, Path::new(kind), &options)?;
    }
    // Shallow before deep, or the shallow would hide the deep.
    let depth = |target: &str| Path::new(target).components().count();
    enum Own<'a> {
        Bind(&'a Bind),
        Tmpfs(&'a str, u64, &'a [String]),
    }
    let mut own: Vec<(usize, Own<'_>)> =
        binds.iter().map(|b| (depth(&b.target), Own::Bind(b))).collect();
    for mount in &container.mounts {
        if let MountSpec::Tmpfs { target, size_bytes, options } = mount {
            own.push((depth(target), Own::Tmpfs(target, *size_bytes, options)));
        }
    }
    own.sort_by_key(|(depth, _)| *depth);
    for (_, mount) in own {
        match mount {
            Own::Bind(bind) => {
                let mut options = vec!["bind".to_owned()];
                options.extend(bind.read_only.then(|| "ro".to_owned()));
                add(&bind.target, "bind", &bind.source, &options)?;
            }
            Own::Tmpfs(target, size, options) => {
                let mut all: Vec<String> =
                    ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
                all.extend(options.iter().filter(|o| *o != "defaults").cloned());
                all.push(format!("size={size}"));
                add(target, "tmpfs", Path::new("tmpfs"), &all)?;
            }
        }
    }
    Ok(list)
}
