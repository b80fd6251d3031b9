//! Starting a shim.

use super::{Engine, EngineError, Task, blocking, files, lock};
use crate::{
    disk,
    protocol::Hello,
    shim::{self, Identified},
    spec::{Filesystem, TaskSpec},
};
use std::{
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// How long a shim may take to say that it is ready.
const READY: Duration = Duration::from_secs(30);
/// The longest that it may say.
const MAX_HELLO: u64 = 64 << 10;

impl Engine {
    /// Starts a shim for the task and waits until its namespaces exist. The network can then be
    /// plugged into [`Task::netns`], and the containers started with [`Task::start`].
    pub async fn create(&self, mut spec: TaskSpec) -> Result<Task, EngineError> {
        spec.validate()?;
        let possible = self.capabilities().await?;
        let has_userns = possible.user_namespace && self.inner.config.user_namespaces;
        spec.limits.disk_bytes = spec.limits.disk_bytes.filter(|_| possible.disk_limit);
        let dir = self.inner.config.tasks_dir.join(&spec.id);
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(EngineError::Exists(spec.id));
            }
            made => made.map_err(files("create", &dir))?,
        }
        let id = spec.id.clone();
        spec.ids = None;
        let task = match has_userns {
            true => match self.free_ids(&id) {
                Ok(ids) => {
                    spec.ids = Some(ids);
                    self.spawn(dir, spec).await
                }
                Err(error) => Err(error),
            },
            false => self.spawn(dir, spec).await,
        };
        match task {
            Ok(task) => {
                lock(&self.inner.tasks).insert(id, task.clone());
                Ok(task)
            }
            Err(error) => {
                if let Err(leftover) = self.remove(&id).await {
                    let leftover = crate::chain(&leftover);
                    tracing::warn!(task = id, leftover, "a task that failed left something behind");
                }
                Err(error)
            }
        }
    }

    async fn spawn(&self, dir: PathBuf, spec: TaskSpec) -> Result<Task, EngineError> {
        let path = dir.join(shim::SPEC);
        let text = serde_json::to_vec(&spec).expect("a spec is plain data");
        std::fs::write(&path, text).map_err(files("write", &path))?;
        if let Some(bytes) = spec.limits.disk_bytes {
            self.give_disk(&dir, bytes).await?;
        }
        let log = dir.join("shim.log");
        let stderr = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
        let config = &self.inner.config;
        let mut child = tokio::process::Command::new(&config.exe)
            .args(&config.shim_args)
            .arg("--task-dir")
            .arg(&dir)
            .args(["--instance", &config.instance])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.map_err(files("create", &log))?)
            .spawn()
            .map_err(|e| EngineError::Spawn(config.exe.clone(), e))?;
        let stdout = child.stdout.take().expect("it is piped");
        // Reaped whenever it ends, as long as this process lives.
        self.inner.world.spawn("shim reaper", async move {
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, "a shim cannot be waited for");
            }
        });
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.take(MAX_HELLO));
        let read = self.inner.world.timeout(READY, reader.read_line(&mut line)).await;
        let hello = match read {
            Some(Ok(_)) => serde_json::from_str(&line).ok(),
            _ => None,
        };
        match hello {
            Some(Hello::Ready { pid, netns_fd }) => self.attach_new(dir, spec, pid, netns_fd).await,
            Some(Hello::Failed { message }) => Err(EngineError::Shim(spec.id, message)),
            None => Err(self.silence(&dir, spec.id)),
        }
    }

    /// Copies an empty disk into the task's directory; the first of its size is made.
    async fn give_disk(&self, dir: &Path, bytes: u64) -> Result<(), EngineError> {
        let template = self.inner.config.disks_dir.join(bytes.to_string());
        let disk = dir.join(shim::DISK);
        blocking(move || {
            if !template.exists() {
                disk::make(&disk, bytes, Filesystem::Scratch).map_err(files("make", &disk))?;
                // Several may do so at once, with the same outcome.
                std::fs::rename(&disk, &template).map_err(files("keep", &template))?;
            }
            disk::copy(&template, &disk).map_err(files("make", &disk))
        })
        .await
    }

    async fn attach_new(
        &self,
        dir: PathBuf,
        spec: TaskSpec,
        pid: i32,
        netns_fd: i32,
    ) -> Result<Task, EngineError> {
        let shim = Identified::read(&dir).filter(|s| s.pid == pid && s.netns_fd == Some(netns_fd));
        let Some(shim) = shim else { return Err(self.silence(&dir, spec.id)) };
        let task = Task::found(self.cgroup(&spec.id), dir, spec, Some(shim), &self.inner.world);
        match task.attach(&self.inner.world).await? {
            true => Ok(task),
            false => Err(EngineError::Silent(task.id().to_owned())),
        }
    }

    /// The log may know what a silent shim could not say.
    fn silence(&self, dir: &Path, id: String) -> EngineError {
        let log = std::fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
        match log.trim().lines().last() {
            Some(last) => EngineError::Shim(id, last.to_owned()),
            None => EngineError::Silent(id),
        }
    }
}
