//! Everything that can be known to be wrong with a task before anything is started.

use super::{
    Condition, ContainerSpec, HealthCommand, MAX_CONTAINERS, MAX_TEXT_BYTES, Mount, TaskSpec,
    ULIMITS,
};
use crate::disk::SMALLEST_BYTES;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Why a spec cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name is empty, too long, or has characters that do not belong in one.
    #[error("{0:?} is not a valid name for a {1}")]
    Name(String, &'static str),
    /// A disk too small for a file system.
    #[error("a disk of {0} bytes is too small; the least is {SMALLEST_BYTES}")]
    Disk(u64),
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
    /// A file that is too large to come with the spec.
    #[error("container {0:?}: the file {1:?} is too large")]
    FileSize(String, String),
    /// A health check that could never run.
    #[error("container {0:?}: the health check has no command, no retries, or no time")]
    Health(String),
}

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
        if let Some(bytes) = self.limits.disk_bytes.filter(|bytes| *bytes < SMALLEST_BYTES) {
            return Err(SpecError::Disk(bytes));
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
        // Take away containers whose dependencies are gone until none is left; what stays is a
        // circle.
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
                Mount::Text { content, target } if content.len() > MAX_TEXT_BYTES => {
                    return Err(SpecError::FileSize(self.name.clone(), target.clone()));
                }
                Mount::Text { .. } => {}
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
    use crate::spec::{DEFAULT_SPOOL_BYTES, Dependency, TaskLimits, Ulimit};

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
            volumes: Default::default(),
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
