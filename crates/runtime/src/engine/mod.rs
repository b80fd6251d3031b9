//! The control plane's half: starts shims, talks to them, and cleans up after them.

mod clean;
mod create;
mod exec;
mod follow;
mod task;

pub use clean::Leak;
pub use exec::{ExecIo, ExecSession, Terminal};
pub use follow::{Events, Output};
pub use task::Task;

use crate::{
    capabilities::Capabilities,
    cgroup::{self, Cgroup, CgroupError, Layout},
    journal::{JournalError, StartFailure},
    protocol::PacketError,
    shim::{self, Identified},
    spec::{IdRange, SpecError, TaskSpec},
    spool::SpoolError,
};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::io::unix::AsyncFd;
use world::World;

/// Ids in one task's user namespace.
const IDS_PER_TASK: u32 = 1 << 16;
/// Id ranges of one instance. Instances take one of 16 regions, by their name, so that two of them
/// rarely use the same.
const SLOTS: u32 = 2048;
const FIRST_ID: u32 = 1 << 30;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The program that is the shim, and the arguments before the shim's own (a subcommand, say).
    pub exe: PathBuf,
    /// See `exe`.
    pub shim_args: Vec<String>,
    /// The directory of all tasks; made when it is missing.
    pub tasks_dir: PathBuf,
    /// The directory of empty disks that tasks' disks are copied from; made when it is missing.
    pub disks_dir: PathBuf,
    /// Tells this engine's cgroups from those of others; 1 to 32 of `a-z A-Z 0-9 _ -`.
    pub instance: String,
    /// Whether tasks get user namespaces where the machine can make them. Without, root inside is
    /// root outside, held only by namespaces, seccomp and missing capabilities.
    pub user_namespaces: bool,
    /// The first host id that tasks' user namespaces use; chosen by the instance's name unless set.
    pub first_id: Option<u32>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The instance's name is not one.
    #[error("{0:?} is not a valid instance name")]
    Instance(String),
    /// The task's spec is not valid.
    #[error("the task is not valid")]
    Spec(#[from] SpecError),
    /// There is a task of this id.
    #[error("there is a task {0} already")]
    Exists(String),
    /// Every id range is in use.
    #[error("{SLOTS} tasks exist; there are no user ids for another")]
    NoIds,
    /// A file or directory of a task cannot be handled.
    #[error("cannot {0} {1}")]
    Files(&'static str, PathBuf, #[source] io::Error),
    /// The shim's program cannot be run.
    #[error("cannot run the shim {0}")]
    Spawn(PathBuf, #[source] io::Error),
    /// The shim says why it cannot own the task.
    #[error("the shim of task {0} failed: {1}")]
    Shim(String, String),
    /// The shim ended or said nothing.
    #[error("the shim of task {0} gave no sign of life")]
    Silent(String),
    /// The shim cannot be reached: it has ended.
    #[error("the shim of task {0} cannot be reached")]
    Unreachable(String, #[source] io::Error),
    /// Talking with the shim failed.
    #[error("talking with the shim of task {0} failed")]
    Talk(String, #[source] PacketError),
    /// The shim does not do what was asked.
    #[error("task {0}: {1}")]
    Refused(String, String),
    /// A command could not be started in a container.
    #[error("task {0}: the command could not be started")]
    Exec(String, #[source] StartFailure),
    /// A cgroup cannot be handled.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A journal cannot be handled.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A spool cannot be handled.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What the machine can do could not be found out.
    #[error("the machine could not be examined: {0}")]
    Probe(String),
    /// Processes of a task do not end although they were killed.
    #[error("processes of task {0} do not end")]
    Undead(String),
    /// The program ends.
    #[error("the control plane is shutting down")]
    Ending,
}

/// Starts, finds and removes tasks. Cheap to clone; clones share their tasks.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    world: World,
    layout: Layout,
    tasks: Mutex<HashMap<String, Task>>,
    slots: Mutex<BTreeMap<u32, String>>,
    capabilities: tokio::sync::OnceCell<Capabilities>,
}

/// A task that an earlier control plane left.
#[derive(Clone)]
pub struct Adopted {
    /// The task; its journal and output can be read either way.
    pub task: Task,
    /// Whether its shim lives. If not, its processes were ended and its journal closed.
    pub alive: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder panics with the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn files<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EngineError + 'a {
    move |e| EngineError::Files(what, path.to_owned(), e)
}

/// Runs what blocks elsewhere than where others wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(EngineError::Ending),
    }
}

/// Lets a descriptor be waited for.
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor answers with the same number until it is dropped, and the
    // registration is dropped with it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

impl Engine {
    /// An engine with no tasks yet; see [`Engine::adopt`].
    pub fn new(config: EngineConfig, world: World) -> Result<Self, EngineError> {
        if !crate::spec::is_name(&config.instance, 32) {
            return Err(EngineError::Instance(config.instance));
        }
        for dir in [&config.tasks_dir, &config.disks_dir] {
            std::fs::create_dir_all(dir).map_err(files("create", dir))?;
        }
        let layout = cgroup::detect()?;
        let inner = Inner {
            config,
            world,
            layout,
            tasks: Mutex::default(),
            slots: Mutex::default(),
            capabilities: tokio::sync::OnceCell::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What this machine can do; tried once.
    pub async fn capabilities(&self) -> Result<&Capabilities, EngineError> {
        self.inner.capabilities.get_or_try_init(|| self.examine()).await
    }

    async fn examine(&self) -> Result<Capabilities, EngineError> {
        let config = &self.inner.config;
        let mut command = tokio::process::Command::new(&config.exe);
        command.args(&config.shim_args).arg("--probe").env_clear();
        command.env(shim::probe::DIR, &config.tasks_dir);
        command.env(shim::probe::FIRST_ID, self.first_id().to_string());
        let output = command.output().await;
        let output = output.map_err(|e| EngineError::Spawn(config.exe.clone(), e))?;
        let words = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.success() {
            true => serde_json::from_slice(&output.stdout)
                .map_err(|e| EngineError::Probe(format!("{e}: {}", words()))),
            false => Err(EngineError::Probe(words())),
        }
    }

    /// The task `id`, if it was created or adopted and not removed.
    pub fn task(&self, id: &str) -> Option<Task> {
        lock(&self.inner.tasks).get(id).cloned()
    }

    /// Whether a container of a task that was created or adopted, and not removed, is made of `layer`.
    pub fn uses(&self, layer: &Path) -> bool {
        lock(&self.inner.tasks).values().any(|task| {
            let containers = &task.spec().containers;
            containers.iter().any(|container| container.layers.iter().any(|used| used == layer))
        })
    }

    /// Finds the tasks in the directory. Those whose shim lives go on; of the others what is left
    /// of processes is ended, and their journals say so.
    pub async fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        let mut adopted = Vec::new();
        for (dir, spec) in self.directories()? {
            if self.task(&spec.id).is_some() {
                continue;
            }
            self.take_slot(&spec);
            let shim = Identified::read(&dir).filter(Identified::is_alive);
            let task = Task::found(self.cgroup(&spec.id), dir, spec, shim, &self.inner.world);
            let alive = task.attach(&self.inner.world).await?;
            lock(&self.inner.tasks).insert(task.id().to_owned(), task.clone());
            adopted.push(Adopted { task, alive });
        }
        Ok(adopted)
    }

    fn cgroup(&self, id: &str) -> Cgroup {
        Cgroup::of_task(self.inner.layout.clone(), &self.inner.config.instance, id)
    }

    /// Directories that are tasks.
    fn directories(&self) -> Result<Vec<(PathBuf, TaskSpec)>, EngineError> {
        let mut found = Vec::new();
        for (dir, spec) in self.all_directories()? {
            if let Some(spec) = spec {
                found.push((dir, spec));
            }
        }
        Ok(found)
    }

    /// Directories, with the task that each is, if it is one.
    fn all_directories(&self) -> Result<Vec<(PathBuf, Option<TaskSpec>)>, EngineError> {
        let tasks_dir = &self.inner.config.tasks_dir;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(tasks_dir).map_err(files("list", tasks_dir))? {
            let dir = entry.map_err(files("list", tasks_dir))?.path();
            let text = std::fs::read(dir.join(shim::SPEC)).ok();
            let spec = text.and_then(|t| serde_json::from_slice::<TaskSpec>(&t).ok());
            let named = |s: &TaskSpec| dir.file_name().is_some_and(|n| n == s.id.as_str());
            found.push((dir.clone(), spec.filter(named)));
        }
        Ok(found)
    }

    fn first_id(&self) -> u32 {
        let region = crc32fast::hash(self.inner.config.instance.as_bytes()) % 16;
        let chosen = FIRST_ID + region * SLOTS * IDS_PER_TASK;
        self.inner.config.first_id.unwrap_or(chosen)
    }

    /// The lowest id range that no task has.
    fn free_ids(&self, id: &str) -> Result<IdRange, EngineError> {
        let mut slots = lock(&self.inner.slots);
        let free = (0..SLOTS).find(|slot| !slots.contains_key(slot)).ok_or(EngineError::NoIds)?;
        slots.insert(free, id.to_owned());
        Ok(IdRange { first: self.first_id() + free * IDS_PER_TASK, count: IDS_PER_TASK })
    }

    fn take_slot(&self, spec: &TaskSpec) {
        let offset = spec.ids.and_then(|ids| ids.first.checked_sub(self.first_id()));
        if let Some(slot) = offset.map(|o| o / IDS_PER_TASK).filter(|slot| *slot < SLOTS) {
            lock(&self.inner.slots).insert(slot, spec.id.clone());
        }
    }

    fn free_slot(&self, id: &str) {
        lock(&self.inner.slots).retain(|_, holder| holder != id);
    }
}
