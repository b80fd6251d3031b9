//! What a task is: its containers, their order, their limits. Plain data, written by the control
//! plane into `task.json` and read by the shim; nothing in it changes while the task lives.

mod validate;

pub use validate::SpecError;
pub(crate) use validate::is_name;
#[cfg(test)]
pub(crate) use validate::tests;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
};

/// The most containers a task may have.
pub const MAX_CONTAINERS: usize = 32;
/// Output of a task that may lie unconsumed on disk before blocking containers are made to wait.
pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 20;

/// The most that a [`Mount::Text`] holds, in bytes.
pub const MAX_TEXT_BYTES: usize = 256 << 10;

/// A task: containers that share a network, limits and an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Names the task's directory and cgroup; 1 to 64 of `a-z A-Z 0-9 _ -`.
    pub id: String,
    /// What `hostname` says inside.
    pub hostname: String,
    /// The containers; the order means nothing, `depends_on` does.
    pub containers: Vec<ContainerSpec>,
    /// Where those volumes come from, by name, that do not start empty and end with the task.
    #[serde(default)]
    pub volumes: BTreeMap<String, VolumeSource>,
    /// What the containers together may use.
    #[serde(default)]
    pub limits: TaskLimits,
    /// The content of every container's `/etc/resolv.conf`.
    #[serde(default)]
    pub resolv_conf: String,
    /// The content of every container's `/etc/hosts`.
    #[serde(default)]
    pub hosts: String,
    /// Host ids that the task's user namespace maps to 0 and up; `None` runs without a user
    /// namespace. The engine fills it in.
    #[serde(default)]
    pub ids: Option<IdRange>,
    /// Whether the containers see each other's processes (ECS `pidMode: task`).
    #[serde(default)]
    pub share_pids: bool,
    /// Output that may lie unconsumed, in bytes, before containers that log blocking are made to
    /// wait.
    #[serde(default = "default_spool_bytes")]
    pub spool_bytes: u64,
}

fn default_spool_bytes() -> u64 {
    DEFAULT_SPOOL_BYTES
}

/// Host user and group ids `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host id that is 0 inside.
    pub first: u32,
    /// How many ids exist inside.
    pub count: u32,
}

/// What a whole task may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Thousandths of a CPU (1000 = one vCPU), enforced as a quota.
    pub cpu_millis: Option<u32>,
    /// Memory in bytes; above it the kernel kills.
    pub memory_bytes: Option<u64>,
    /// Processes and threads; `None` is [`DEFAULT_PIDS`].
    pub pids: Option<u64>,
    /// What its containers and volumes may hold together, in bytes; without, what the machine's disk
    /// holds. The engine leaves it out where the machine cannot limit it.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
}

/// Processes and threads of a task whose spec names no limit: a fork bomb must never be the host's.
pub const DEFAULT_PIDS: u64 = 16_384;

/// One container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Unique in the task; 1 to 255 of `a-z A-Z 0-9 _ -`.
    pub name: String,
    /// Unpacked read-only layers, lowest first, with overlayfs whiteouts.
    pub layers: Vec<PathBuf>,
    /// The command and its arguments (entry point and command already joined).
    pub args: Vec<String>,
    /// Environment, in order.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The working directory; made when it is missing. Empty is `/`.
    #[serde(default)]
    pub cwd: String,
    /// `uid`, `uid:gid`, `name` or `name:group`, looked up in the container's own files. Empty is
    /// root.
    #[serde(default)]
    pub user: String,
    /// Whether the task ends with this container.
    #[serde(default)]
    pub essential: bool,
    /// What must have happened before this container starts.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// How long dependants wait for this container to reach their condition, from its start, in ms.
    #[serde(default)]
    pub start_timeout_ms: Option<u64>,
    /// From the stop signal to SIGKILL, in ms.
    #[serde(default = "default_stop_timeout_ms")]
    pub stop_timeout_ms: u64,
    /// The stop signal's number (the image's STOPSIGNAL); SIGTERM unless set.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: i32,
    /// How its health is found out.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Whether and when it is started again after an exit.
    #[serde(default)]
    pub restart: Option<RestartPolicy>,
    /// What it alone may use.
    #[serde(default)]
    pub limits: ContainerLimits,
    /// Capabilities beyond (or short of) the default set, without the `CAP_` prefix.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Whether it may mount, make namespaces, set its network up and look into its processes, as whoever builds images
    /// must: power over what its task's user namespace owns, none over the machine. Refused without one.
    #[serde(default)]
    pub privileged: bool,
    /// Whether setuid binaries lose their power inside.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Whether `/` is read-only.
    #[serde(default)]
    pub read_only_root: bool,
    /// Whether process 1 is a small init that reaps and forwards signals.
    #[serde(default)]
    pub init: bool,
    /// Whether stdin, stdout and stderr are a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether stdin stays open (nothing is ever written to it).
    #[serde(default)]
    pub stdin_open: bool,
    /// Resource limits of its processes.
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of its own namespaces (`net.*` and those of System V IPC and message
    /// queues).
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Volumes, binds and tmpfs.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm`, in bytes; 64 MiB unless set.
    #[serde(default)]
    pub shm_bytes: Option<u64>,
    /// What happens when its output is not consumed fast enough.
    #[serde(default)]
    pub log: LogMode,
}

fn default_stop_timeout_ms() -> u64 {
    30_000
}

fn default_stop_signal() -> i32 {
    libc::SIGTERM
}

impl ContainerSpec {
    /// A container with `name`, `layers` and `args`, and defaults elsewhere; essential.
    pub fn new(name: impl Into<String>, layers: Vec<PathBuf>, args: Vec<String>) -> Self {
        Self {
            name: name.into(),
            layers,
            args,
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            essential: true,
            depends_on: Vec::new(),
            start_timeout_ms: None,
            stop_timeout_ms: default_stop_timeout_ms(),
            stop_signal: default_stop_signal(),
            health: None,
            restart: None,
            limits: ContainerLimits::default(),
            capabilities: Capabilities::default(),
            privileged: false,
            no_new_privileges: false,
            read_only_root: false,
            init: false,
            tty: false,
            stdin_open: false,
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            mounts: Vec::new(),
            shm_bytes: None,
            log: LogMode::Blocking,
        }
    }
}

/// "This container starts once that one has …".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other container's name.
    pub container: String,
    /// What it must have reached.
    pub condition: Condition,
}

/// What a dependency must have reached (ECS `ContainerDependency.condition`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// It was started.
    Start,
    /// It ran to its end, however it ended.
    Complete,
    /// It ended with exit code 0.
    Success,
    /// Its health check passed.
    Healthy,
}

/// How a container's health is found out (ECS `HealthCheck`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is run inside the container; exit code 0 is healthy.
    pub command: HealthCommand,
    /// From the end of one run to the start of the next, in ms.
    pub interval_ms: u64,
    /// How long one run may take, in ms.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Failures within this time from the start do not count, in ms.
    pub start_period_ms: u64,
}

/// The command of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthCommand {
    /// Run as it is (`CMD`).
    Exec(Vec<String>),
    /// Run by the container's `/bin/sh -c` (`CMD-SHELL`).
    Shell(String),
}

/// When an exited container is started again (ECS `ContainerRestartPolicy`, enabled).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Exit codes that are final.
    pub ignored_exit_codes: BTreeSet<i32>,
    /// How long it must have run, in ms; an earlier exit is final.
    pub attempt_period_ms: u64,
}

/// What one container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLimits {
    /// Its weight against the others when CPU is short (1024 = one vCPU's share).
    pub cpu_shares: Option<u64>,
    /// Memory in bytes; above it the kernel kills.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that is kept for it when memory is short.
    pub memory_reservation_bytes: Option<u64>,
}

/// Capabilities beyond, or short of, the default set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Given besides the defaults; only `SYS_PTRACE` may be.
    pub add: Vec<String>,
    /// Taken from the defaults; `ALL` takes every one.
    pub drop: Vec<String>,
}

/// A resource limit of processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in ECS: `nofile`, `nproc`, `core`, ….
    pub name: String,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A volume of the task. It starts empty and ends with it, unless [`TaskSpec::volumes`] says otherwise.
    Volume {
        /// Its name in the task; 1 to 255 of `a-z A-Z 0-9 _ -`.
        name: String,
        /// Where it appears.
        target: String,
        /// Whether the container may not write.
        read_only: bool,
        /// Whether an empty volume first gets what the image has at `target`; not one that comes from elsewhere.
        copy_up: bool,
    },
    /// A file of this content, which the container cannot change.
    Text {
        /// What it holds; at most [`MAX_TEXT_BYTES`].
        content: String,
        /// Where it appears.
        target: String,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// How much it holds.
        size_bytes: u64,
        /// Mount options beside `size`.
        options: Vec<String>,
    },
}

/// Where a volume comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A directory of the host. Host id N appears as N inside.
    Directory(Directory),
    /// A directory of the host in which everything is done as somebody else. Host id N appears as N inside.
    Share {
        /// Which.
        directory: Directory,
        /// Who does it.
        actor: Actor,
    },
    /// A disk that outlives the task: a file of the host made by [`crate::make_disk`]. One task at a time may have it;
    /// whoever names it sees to that. Host id N appears as N inside.
    Disk {
        /// The file's path on the host.
        image: PathBuf,
        /// What is on it.
        filesystem: Filesystem,
    },
}

/// A directory of the host. Whoever had it before may have changed what is beneath the base, so no link is followed
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// A path on the host.
    pub base: PathBuf,
    /// A path beneath it, without a leading slash; empty for the base itself.
    pub beneath: PathBuf,
}

impl Directory {
    /// Opens it as a path only.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = rustix::fs::open(&self.base, flags, Mode::empty())?;
        if self.beneath.as_os_str().is_empty() {
            return Ok(base);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(rustix::fs::openat2(&base, &self.beneath, flags, Mode::empty(), resolve)?)
    }
}

/// Who acts in a shared directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// One user, whoever asks.
    Fixed {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its other groups.
        groups: Vec<u32>,
    },
    /// Whoever asks, but root as nobody (65534).
    RootSquashed,
}

/// What is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filesystem {
    /// ext4 without a journal and barriers, which does not outlive a crash of the machine.
    Scratch,
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl Mount {
    /// Where it appears inside.
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. }
            | Self::Text { target, .. }
            | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// What happens when a container writes faster than its output is consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogMode {
    /// It is made to wait.
    #[default]
    Blocking,
    /// New lines beyond this many unconsumed bytes are dropped and counted.
    NonBlocking {
        /// Unconsumed output that is kept, in bytes.
        max_buffer_bytes: u64,
    },
}

/// Capabilities of a container unless dropped: those that docker gives, too.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What a privileged container has besides. Whatever is asked of the machine itself, the kernel refuses to any
/// capability of a user namespace.
pub(crate) const PRIVILEGED_CAPABILITIES: [&str; 5] =
    ["DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"];

/// Resource limits by ECS's names, with the kernel's numbers.
pub(crate) const ULIMITS: [(&str, u32); 15] = [
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];
