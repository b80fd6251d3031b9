//! Control groups of tasks and containers, on version 2 and on version 1 (hybrid hosts included):
//! limits, membership, counters, killing and removal.
//!
//! This is ours and not libcontainer's because that one knows one cgroup per container only, joins
//! every version 1 hierarchy there is, and parses the mount table once for each of them.

mod layout;
mod stats;

pub(crate) use layout::{Layout, detect};
pub use stats::CgroupStats;

use crate::spec::{ContainerLimits, DEFAULT_PIDS, TaskLimits};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The period over which CPU quotas are enforced, in µs.
const CPU_PERIOD_US: u64 = 100_000;

/// Why a cgroup could not be made, limited, joined or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The mount table cannot be read.
    #[error("cannot read the mount table")]
    Mounts(#[source] io::Error),
    /// No cgroup hierarchy with the controllers that are needed.
    #[error("this machine has no cgroup controllers for {0}")]
    Missing(&'static str),
    /// A directory cannot be made.
    #[error("cannot create the cgroup {0}")]
    Create(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {1:?} to {0}")]
    Write(PathBuf, String, #[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A directory cannot be removed.
    #[error("cannot remove the cgroup {0}")]
    Remove(PathBuf, #[source] io::Error),
}

/// The cgroup of a task or of one of its containers: the same relative path in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    layout: Layout,
    path: PathBuf,
}

/// The name under which an instance keeps all its cgroups.
pub(crate) fn instance_name(instance: &str) -> String {
    format!("neargate-{instance}")
}

impl Cgroup {
    /// The cgroup of the task `id` of `instance`; nothing is made yet.
    pub(crate) fn of_task(layout: Layout, instance: &str, id: &str) -> Self {
        Self { layout, path: Path::new(&instance_name(instance)).join(id) }
    }

    /// The cgroup of one of its containers.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { layout: self.layout.clone(), path: self.path.join(name) }
    }

    /// Makes the task's cgroup with its limits.
    pub(crate) fn create_task(&self, limits: &TaskLimits) -> Result<(), CgroupError> {
        self.create()?;
        let pids = limits.pids.unwrap_or(DEFAULT_PIDS);
        self.write("pids", "pids.max", &pids.to_string())?;
        if let Some(bytes) = limits.memory_bytes {
            self.limit_memory(bytes)?;
        }
        let Some(millis) = limits.cpu_millis else { return Ok(()) };
        let quota = (CPU_PERIOD_US * u64::from(millis) / 1000).max(1000);
        match &self.layout {
            Layout::V2 { .. } => self.write("cpu", "cpu.max", &format!("{quota} {CPU_PERIOD_US}")),
            Layout::V1 { .. } => {
                self.write("cpu", "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())
            }
        }
    }

    /// Makes a container's cgroup with its limits; the task's must be there. Making it again is
    /// fine.
    pub(crate) fn create_container(&self, limits: &ContainerLimits) -> Result<(), CgroupError> {
        self.create()?;
        if let Some(bytes) = limits.memory_bytes {
            self.limit_memory(bytes)?;
        }
        let v2 = matches!(self.layout, Layout::V2 { .. });
        if let Some(bytes) = limits.memory_reservation_bytes {
            let file = if v2 { "memory.low" } else { "memory.soft_limit_in_bytes" };
            self.write("memory", file, &bytes.to_string())?;
        }
        if let Some(shares) = limits.cpu_shares {
            let shares = shares.clamp(2, 262_144);
            // The usual translation of 2..=262144 shares to a weight of 1..=10000.
            let weight = 1 + ((shares - 2) * 9_999) / 262_142;
            match v2 {
                true => self.write("cpu", "cpu.weight", &weight.to_string())?,
                false => self.write("cpu", "cpu.shares", &shares.to_string())?,
            }
        }
        Ok(())
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        let bytes = bytes.to_string();
        // Fargate has no swap. Where the kernel does not account for it, the file is missing, and
        // the limit on memory itself still holds.
        let (limit, swap, swap_limit) = match &self.layout {
            Layout::V2 { .. } => ("memory.max", "memory.swap.max", "0"),
            Layout::V1 { .. } => {
                ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes.as_str())
            }
        };
        self.write("memory", limit, &bytes)?;
        match self.write("memory", swap, swap_limit) {
            Err(CgroupError::Write(_, _, e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn create(&self) -> Result<(), CgroupError> {
        // The instance's directory goes with its last task, which may be just now.
        for _ in 0..8 {
            match self.try_create() {
                Err(CgroupError::Create(_, e) | CgroupError::Read(_, e))
                    if e.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        self.try_create()
    }

    fn try_create(&self) -> Result<(), CgroupError> {
        for root in self.layout.roots() {
            let mut dir = root.to_owned();
            for part in self.path.components() {
                if let Layout::V2 { controllers, .. } = &self.layout {
                    enable(&dir, controllers)?;
                }
                dir.push(part);
                match fs::create_dir(&dir) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(CgroupError::Create(dir, e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Moves the calling process in. It must have one thread only.
    pub(crate) fn join(&self) -> Result<(), CgroupError> {
        for root in self.layout.roots() {
            write(&root.join(&self.path).join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// How often the kernel killed for want of memory in here.
    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupError> {
        let file = match &self.layout {
            Layout::V2 { .. } => "memory.events",
            Layout::V1 { .. } => "memory.oom_control",
        };
        let path = self.file("memory", file)?;
        let text = fs::read_to_string(&path).map_err(|e| CgroupError::Read(path, e))?;
        Ok(stats::keyed(&text, "oom_kill").unwrap_or(0))
    }

    /// What it has used.
    pub(crate) fn stats(&self) -> CgroupStats {
        stats::read(self)
    }

    /// Whether a process is in here or below.
    pub(crate) fn is_populated(&self) -> bool {
        self.layout.roots().any(|root| !procs(&root.join(&self.path)).is_empty())
    }

    /// Whether any hierarchy has it.
    pub(crate) fn exists(&self) -> bool {
        self.layout.roots().any(|root| root.join(&self.path).exists())
    }

    /// Sends SIGKILL to every process in here and below. They may take a moment to be gone.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        if let Some(v2) = self.layout.v2() {
            let file = v2.join(&self.path).join("cgroup.kill");
            match fs::write(&file, "1") {
                Ok(()) => return Ok(()),
                // Before Linux 5.14, or never made: the slow way below.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                Err(e) => return Err(CgroupError::Write(file, "1".into(), e)),
            }
        }
        // A process may fork while it is looked for; its child is found in the next round. The
        // limit on processes bounds the rounds that a fork bomb can last.
        for _ in 0..1000 {
            let roots: Vec<_> = self.layout.roots().map(|r| r.join(&self.path)).collect();
            let pids: Vec<i32> = roots.iter().flat_map(|dir| procs(dir)).collect();
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    // It may be gone already, which is what is wanted.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Removes it and what is below; fails while a process is in there.
    pub(crate) fn remove(&self) -> Result<(), CgroupError> {
        for root in self.layout.roots() {
            remove_tree(&root.join(&self.path))?;
        }
        Ok(())
    }

    /// Removes the directory of its instance, if it holds nothing else.
    pub(crate) fn remove_instance(&self) -> Result<(), CgroupError> {
        let Some(parent) = self.path.parent() else { return Ok(()) };
        for root in self.layout.roots() {
            let dir = root.join(parent);
            match fs::remove_dir(&dir) {
                Ok(()) => {}
                Err(e) => match e.kind() {
                    // Another task is there, or nothing is.
                    io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy => {}
                    _ => return Err(CgroupError::Remove(dir, e)),
                },
            }
        }
        Ok(())
    }

    fn file(&self, controller: &'static str, name: &str) -> Result<PathBuf, CgroupError> {
        let root = self.layout.root_of(controller).ok_or(CgroupError::Missing(controller))?;
        Ok(root.join(&self.path).join(name))
    }

    fn write(&self, controller: &'static str, name: &str, text: &str) -> Result<(), CgroupError> {
        write(&self.file(controller, name)?, text)
    }

    /// The directories that show a container its own limits, with their place below
    /// `/sys/fs/cgroup`.
    pub(crate) fn views(&self) -> Vec<(PathBuf, String)> {
        match &self.layout {
            Layout::V2 { root, .. } => vec![(root.join(&self.path), String::new())],
            Layout::V1 { controllers, .. } => {
                let view =
                    |(name, root): (&String, &PathBuf)| (root.join(&self.path), name.clone());
                controllers.iter().map(view).collect()
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    let file = fs::OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut f| io::Write::write_all(&mut f, text.as_bytes()));
    written.map_err(|e| CgroupError::Write(path.to_owned(), text.to_owned(), e))
}

/// Lets the children of `dir` have `controllers`.
fn enable(dir: &Path, controllers: &[String]) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.subtree_control");
    let now = fs::read_to_string(&file).map_err(|e| CgroupError::Read(file.clone(), e))?;
    let has = |name: &String| now.split_whitespace().any(|n| n == name);
    let missing: Vec<_> = controllers.iter().filter(|c| !has(c)).map(|c| format!("+{c}")).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => write(&file, &missing.join(" ")),
    }
}

/// The processes in `dir` and below; none when it does not exist.
fn procs(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|l| l.parse().ok()).collect();
    pids.extend(children(dir).iter().flat_map(|child| procs(child)));
    pids
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

pub(crate) fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(CgroupError::Remove(dir.to_owned(), e))
        }
        _ => Ok(()),
    }
}

/// The task cgroups that `instance` has in any hierarchy.
pub(crate) fn tasks_of(layout: &Layout, instance: &str) -> std::collections::BTreeSet<String> {
    let dirs = layout.roots().map(|root| root.join(instance_name(instance)));
    let names = dirs.flat_map(|dir| children(&dir));
    names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The files that a kernel would make, in a directory.
    fn fixture(root: &Path, dirs: &[&str], files: &[&str]) {
        for dir in dirs {
            fs::create_dir_all(root.join(dir)).unwrap();
            for file in files {
                fs::write(root.join(dir).join(file), "").unwrap();
            }
        }
    }

    fn limits() -> (TaskLimits, ContainerLimits) {
        let task = TaskLimits {
            cpu_millis: Some(250),
            memory_bytes: Some(1 << 29),
            pids: Some(99),
            disk_bytes: None,
        };
        let container = ContainerLimits {
            cpu_shares: Some(1024),
            memory_bytes: Some(1 << 28),
            memory_reservation_bytes: Some(1 << 27),
        };
        (task, container)
    }

    #[test]
    fn version_2_is_written_as_the_kernel_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let files = [
            "cgroup.subtree_control",
            "cgroup.procs",
            "cgroup.kill",
            "pids.max",
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "cpu.max",
            "cpu.weight",
            "memory.events",
        ];
        let dirs = [".", "neargate-i", "neargate-i/t", "neargate-i/t/c"];
        fixture(&root, &dirs, &files);
        let controllers = ["memory", "cpu", "pids"].map(str::to_owned).to_vec();
        let task = Cgroup::of_task(Layout::V2 { root: root.clone(), controllers }, "i", "t");
        let (task_limits, container_limits) = limits();
        task.create_task(&task_limits).unwrap();
        let container = task.child("c");
        container.create_container(&container_limits).unwrap();
        container.kill().unwrap();
        fs::write(root.join("neargate-i/t/c/memory.events"), "oom 1\noom_kill 3\n").unwrap();
        assert_eq!(container.oom_kills().unwrap(), 3);
        let read = |path: &str| fs::read_to_string(root.join("neargate-i").join(path)).unwrap();
        assert_eq!(read("t/cpu.max"), "25000 100000");
        assert_eq!(
            (read("t/memory.max"), read("t/memory.swap.max")),
            ("536870912".into(), "0".into())
        );
        assert_eq!((read("t/pids.max"), read("t/c/cpu.weight")), ("99".into(), "39".into()));
        assert_eq!(read("t/c/memory.low"), (1u64 << 27).to_string());
        assert_eq!(read("t/cgroup.subtree_control"), "+memory +cpu +pids");
        assert_eq!(read("t/c/cgroup.subtree_control"), "", "a leaf, or no process could be in it");
        assert_eq!(read("t/c/cgroup.kill"), "1");
    }

    #[test]
    fn version_1_is_written_as_the_kernel_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "pids.max",
            "memory.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "cpu.shares",
        ];
        let mut controllers = BTreeMap::new();
        for name in ["cpu", "memory", "pids"] {
            let root = dir.path().join(name);
            fixture(&root, &["neargate-i/t/c", "neargate-i/t"], &files);
            controllers.insert(name.to_owned(), root);
        }
        let task = Cgroup::of_task(Layout::V1 { controllers, unified: None }, "i", "t");
        let (task_limits, container_limits) = limits();
        task.create_task(&task_limits).unwrap();
        task.child("c").create_container(&container_limits).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("cpu/neargate-i/t/cpu.cfs_quota_us"), "25000");
        assert_eq!(read("memory/neargate-i/t/c/memory.limit_in_bytes"), (1u64 << 28).to_string());
        assert_eq!(read("cpu/neargate-i/t/c/cpu.shares"), "1024");
        assert_eq!(read("pids/neargate-i/t/pids.max"), "99");
    }
}
