//! What a task is: its containers, their order, their limits. Plain data, written by the control plane
//! into `task.json` and read by the shim; nothing in it changes while the task lives.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The most containers a task may have.
pub const MAX_CONTAINERS: usize = 32;
/// Output of a task that may lie unconsumed on disk before blocking containers are made to wait.
pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 20;

/// A task: containers that share a network, limits and an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Names the task's directory and cgroup; 1 to 64 of `a-z A-Z 0-9 _ -`.
    pub id: String,
    /// What `hostname` says inside.
    pub hostname: String,
    /// The containers; the order means nothing, `depends_on` does.
    pub containers: Vec<ContainerSpec>,
    /// What the containers together may use.
    #[serde(default)]
    pub limits: TaskLimits,
    /// The content of every container's `/etc/resolv.conf`.
    #[serde(default)]
    pub resolv_conf: String,
    /// The content of every container's `/etc/hosts`.
    #[serde(default)]
    pub hosts: String,
    /// Host ids that the task's user namespace maps to 0 and up; `None` runs without a user namespace.
    /// The engine fills it in.
    #[serde(default)]
    pub ids: Option<IdRange>,
    /// Whether the containers see each other's processes (ECS `pidMode: task`).
    #[serde(default)]
    pub share_pids: bool,
    /// Output that may lie unconsumed, in bytes, before containers that log blocking are made to wait.
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
    /// `uid`, `uid:gid`, `name` or `name:group`, looked up in the container's own files. Empty is root.
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
    /// Kernel parameters of its own namespaces (`net.*` and those of System V IPC and message queues).
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
    /// A volume of the task, which starts empty and ends with it.
    Volume {
        /// Its name in the task; 1 to 255 of `a-z A-Z 0-9 _ -`.
        name: String,
        /// Where it appears.
        target: String,
        /// Whether the container may not write.
        read_only: bool,
        /// Whether an empty volume first gets what the image has at `target`.
        copy_up: bool,
    },
    /// A directory or file of the host.
    Host {
        /// Its path on the host.
        source: PathBuf,
        /// Where it appears.
        target: String,
        /// Whether the container may not write.
        read_only: bool,
        /// Whether host id N is to appear as N inside the user namespace (false: ids stay the host's).
        map_ids: bool,
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

impl Mount {
    /// Where it appears inside.
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. }
            | Self::Host { target, .. }
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

/// Why a spec cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name is empty, too long, or has characters that do not belong in one.
    #[error("{0:?} is not a valid name for a {1}")]
    Name(String, &'static str),
    /// No container, or too many.
    #[error("a task has 1 to {MAX_CONTAINERS} containers, not {0}")]
    Containers(usize),
    /// Two containers have one name.
    #[error("two containers are called {0:?}")]
    Duplicate(String),
    /// A dependency names no container of the task.
    #[error("container {0:?} depends on {1:?}, which is not in the task")]
    UnknownDependency(String, String),
    /// Containers depend on each other in a circle.
    #[error("container {0:?} depends on itself, directly or through others")]
    Circle(String),
    /// `HEALTHY` is awaited of a container without a health check.
    #[error("container {0:?} waits for {1:?} to be healthy, which has no health check")]
    NoHealthCheck(String, String),
    /// No command.
    #[error("container {0:?} has no command")]
    NoCommand(String),
    /// No layers.
    #[error("container {0:?} has no layers")]
    NoLayers(String),
    /// A NUL byte, or an environment variable without a name.
    #[error("container {0:?}: {1} cannot be passed to a process")]
    Text(String, &'static str),
    /// A path that is not absolute or climbs.
    #[error("container {0:?}: {1:?} is not an absolute path without '..'")]
    Path(String, String),
    /// A capability that may not be given, or does not exist.
    #[error("container {0:?}: capability {1:?} cannot be {2}")]
    Capability(String, String, &'static str),
    /// A kernel parameter that is not of the container's own namespaces.
    #[error("container {0:?}: the kernel parameter {1:?} may not be set")]
    Sysctl(String, String),
    /// A resource limit that does not exist, or whose soft limit is above the hard one.
    #[error("container {0:?}: the resource limit {1:?} is not valid")]
    Ulimit(String, String),
    /// A signal number outside 1 to 64.
    #[error("container {0:?}: {1} is not a signal")]
    Signal(String, i32),
    /// A mount option that is not a plain tmpfs option.
    #[error("container {0:?}: the tmpfs option {1:?} is not supported")]
    TmpfsOption(String, String),
    /// A health check that could never run.
    #[error("container {0:?}: the health check has no command, no retries, or no time")]
    Health(String),
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

const TMPFS_OPTIONS: [&str; 13] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "noatime",
    "relatime",
    "strictatime",
];

/// Whether `name` may name a task, container or volume, and so a file.
pub(crate) fn is_name(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl TaskSpec {
    /// Everything that can be known to be wrong before anything is started.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !is_name(&self.id, 64) {
            return Err(SpecError::Name(self.id.clone(), "task"));
        }
        let hostname = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if !(1..=64).contains(&self.hostname.len()) || !self.hostname.bytes().all(hostname) {
            return Err(SpecError::Name(self.hostname.clone(), "host"));
        }
        if !(1..=MAX_CONTAINERS).contains(&self.containers.len()) {
            return Err(SpecError::Containers(self.containers.len()));
        }
        let mut names = BTreeSet::new();
        for container in &self.containers {
            container.validate()?;
            if !names.insert(container.name.as_str()) {
                return Err(SpecError::Duplicate(container.name.clone()));
            }
        }
        self.validate_order()
    }

    fn validate_order(&self) -> Result<(), SpecError> {
        let by_name: BTreeMap<&str, &ContainerSpec> =
            self.containers.iter().map(|c| (c.name.as_str(), c)).collect();
        for container in &self.containers {
            for dependency in &container.depends_on {
                let (one, other) = (container.name.clone(), dependency.container.clone());
                let Some(target) = by_name.get(dependency.container.as_str()) else {
                    return Err(SpecError::UnknownDependency(one, other));
                };
                if dependency.condition == Condition::Healthy && target.health.is_none() {
                    return Err(SpecError::NoHealthCheck(one, other));
                }
            }
        }
        // Take away containers whose dependencies are gone until none is left; what stays is a circle.
        let mut left = self.containers.iter().collect::<Vec<_>>();
        while !left.is_empty() {
            let waiting: BTreeSet<&str> = left.iter().map(|c| c.name.as_str()).collect();
            let free = |c: &ContainerSpec| {
                !c.depends_on.iter().any(|d| waiting.contains(d.container.as_str()))
            };
            let before = left.len();
            let next: Vec<_> = left.iter().copied().filter(|c| !free(c)).collect();
            if next.len() == before {
                return Err(SpecError::Circle(next[0].name.clone()));
            }
            left = next;
        }
        Ok(())
    }
}

impl ContainerSpec {
    fn validate(&self) -> Result<(), SpecError> {
        let name = || self.name.clone();
        if !is_name(&self.name, 255) {
            return Err(SpecError::Name(name(), "container"));
        }
        if self.args.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand(name()));
        }
        if self.layers.is_empty() {
            return Err(SpecError::NoLayers(name()));
        }
        self.validate_text()?;
        self.validate_paths()?;
        if !(1..=64).contains(&self.stop_signal) {
            return Err(SpecError::Signal(name(), self.stop_signal));
        }
        if let Some(health) = &self.health {
            let empty = match &health.command {
                HealthCommand::Exec(args) => args.first().is_none_or(String::is_empty),
                HealthCommand::Shell(text) => text.is_empty(),
            };
            if empty || health.retries == 0 || health.interval_ms == 0 || health.timeout_ms == 0 {
                return Err(SpecError::Health(name()));
            }
        }
        for added in &self.capabilities.add {
            if added != "SYS_PTRACE" {
                return Err(SpecError::Capability(name(), added.clone(), "added"));
            }
        }
        for dropped in &self.capabilities.drop {
            let known = libcontainer::oci_spec::runtime::Capability::try_from(dropped.as_str());
            if dropped != "ALL" && known.is_err() {
                return Err(SpecError::Capability(name(), dropped.clone(), "dropped"));
            }
        }
        for key in self.sysctls.keys() {
            if !is_own_sysctl(key) {
                return Err(SpecError::Sysctl(name(), key.clone()));
            }
        }
        for limit in &self.ulimits {
            let known = ULIMITS.iter().any(|(known, _)| *known == limit.name);
            if !known || limit.soft > limit.hard {
                return Err(SpecError::Ulimit(name(), limit.name.clone()));
            }
        }
        Ok(())
    }

    fn validate_text(&self) -> Result<(), SpecError> {
        let refuse = |what| Err(SpecError::Text(self.name.clone(), what));
        let nul = |text: &String| text.contains('\0');
        if self.args.iter().any(nul) {
            return refuse("an argument with a NUL byte");
        }
        if self.env.iter().any(|(k, v)| k.is_empty() || k.contains('=') || nul(k) || nul(v)) {
            return refuse("an environment variable without a name, or with a NUL byte");
        }
        if self.user.len() > 1024 || self.user.contains(['\0', '\n']) {
            return refuse("the user");
        }
        Ok(())
    }

    fn validate_paths(&self) -> Result<(), SpecError> {
        let check = |path: &str| match is_plain(path) {
            true => Ok(()),
            false => Err(SpecError::Path(self.name.clone(), path.to_owned())),
        };
        if !self.cwd.is_empty() {
            check(&self.cwd)?;
        }
        for mount in &self.mounts {
            check(mount.target())?;
            match mount {
                Mount::Volume { name, .. } if !is_name(name, 255) => {
                    return Err(SpecError::Name(name.clone(), "volume"));
                }
                Mount::Volume { .. } => {}
                Mount::Host { source, .. } => check(&source.to_string_lossy())?,
                Mount::Tmpfs { options, .. } => {
                    if let Some(bad) = options.iter().find(|o| !is_tmpfs_option(o)) {
                        return Err(SpecError::TmpfsOption(self.name.clone(), bad.clone()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_plain(path: &str) -> bool {
    path.len() <= 4096
        && path.starts_with('/')
        && !path.contains('\0')
        && !Path::new(path).components().any(|c| c == std::path::Component::ParentDir)
}

fn is_tmpfs_option(option: &str) -> bool {
    let number =
        |text: &str| (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match option.split_once('=') {
        Some(("mode" | "uid" | "gid" | "nr_inodes", value)) => number(value),
        Some(_) => false,
        None => TMPFS_OPTIONS.contains(&option),
    }
}

/// Kernel parameters that belong to the network and IPC namespaces, which are the container's own.
fn is_own_sysctl(key: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    key.len() <= 256
        && key.bytes().all(plain)
        && !key.contains("..")
        && (key.starts_with("net.") || key.starts_with("fs.mqueue.") || IPC.contains(&key))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn task(containers: Vec<ContainerSpec>) -> TaskSpec {
        TaskSpec {
            id: "t1".into(),
            hostname: "host".into(),
            containers,
            limits: TaskLimits::default(),
            resolv_conf: String::new(),
            hosts: String::new(),
            ids: None,
            share_pids: false,
            spool_bytes: DEFAULT_SPOOL_BYTES,
        }
    }

    pub(crate) fn container(name: &str) -> ContainerSpec {
        ContainerSpec::new(name, vec!["/layer".into()], vec!["true".into()])
    }

    fn after(name: &str, other: &str) -> ContainerSpec {
        let condition = Condition::Start;
        let depends_on = vec![Dependency { container: other.into(), condition }];
        ContainerSpec { depends_on, ..container(name) }
    }

    #[test]
    fn a_circle_is_refused() {
        let spec = task(vec![container("x"), after("a", "b"), after("b", "c"), after("c", "a")]);
        assert!(matches!(spec.validate(), Err(SpecError::Circle(_))));
        let spec = task(vec![after("a", "b"), after("b", "c"), container("c")]);
        assert_eq!(spec.validate(), Ok(()));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        type Spoil = fn(&mut ContainerSpec);
        let cases: [Spoil; 9] = [
            |c| c.capabilities.add.push("SYS_ADMIN".into()),
            |c| c.capabilities.drop.push("NONSENSE".into()),
            |c| drop(c.sysctls.insert("kernel.core_pattern".into(), "|/x".into())),
            |c| drop(c.sysctls.insert("net.../kernel.x".into(), "1".into())),
            |c| c.cwd = "/a/../b".into(),
            |c| c.env.push(("a=b".into(), String::new())),
            |c| c.args = vec!["a\0b".into()],
            |c| c.stop_signal = 65,
            |c| c.ulimits.push(Ulimit { name: "nofile".into(), soft: 2, hard: 1 }),
        ];
        for spoil in cases {
            let mut bad = container("a");
            spoil(&mut bad);
            assert!(task(vec![bad]).validate().is_err());
        }
    }
}
