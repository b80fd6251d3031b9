//! A task as the control plane holds it.

use super::{EngineError, Events, ExecSession, Output, blocking, exec, watched};
use crate::{
    cgroup::Cgroup,
    journal::{EventKind, JournalWriter, StopReason},
    protocol::{self, ExecRequest, Request, Response, TaskStats},
    shim::{self, Identified},
    spec::TaskSpec,
    spool::SpoolReader,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{io::unix::AsyncFd, sync::watch};
use world::World;

/// A shim that lives answers at once.
const ANSWER: Duration = Duration::from_secs(30);
/// Processes that were killed are gone after this time, unless the kernel is stuck.
const DEATH: Duration = Duration::from_secs(10);

/// A task. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) inner: Arc<TaskInner>,
}

pub(super) struct TaskInner {
    dir: PathBuf,
    spec: TaskSpec,
    cgroup: Cgroup,
    shim: Option<Identified>,
    pidfd: OnceLock<OwnedFd>,
    world: World,
    /// Changes whenever journal or spool may have grown.
    pub(super) grown: watch::Sender<u64>,
    /// Becomes true when the shim has ended and its journal is closed.
    pub(super) ended: watch::Sender<bool>,
}

impl Task {
    pub(super) fn found(
        cgroup: Cgroup,
        dir: PathBuf,
        spec: TaskSpec,
        shim: Option<Identified>,
        world: &World,
    ) -> Self {
        let inner = TaskInner {
            dir,
            spec,
            cgroup,
            shim,
            pidfd: OnceLock::new(),
            world: world.clone(),
            grown: watch::Sender::new(0),
            ended: watch::Sender::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.inner.spec.id
    }

    /// What it was created with.
    pub fn spec(&self) -> &TaskSpec {
        &self.inner.spec
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The path of its network namespace while the shim lives. It belongs to the task's user
    /// namespace.
    pub fn netns(&self) -> Option<PathBuf> {
        let shim = self.inner.shim.filter(Identified::is_alive)?;
        Some(PathBuf::from(format!("/proc/{}/fd/{}", shim.pid, shim.netns_fd?)))
    }

    /// The shim's process, while it lives.
    pub fn shim_pid(&self) -> Option<i32> {
        self.inner.shim.filter(Identified::is_alive).map(|s| s.pid)
    }

    /// Whether the shim has ended and the journal is closed: nothing more will happen to this task.
    pub fn has_ended(&self) -> bool {
        *self.inner.ended.borrow()
    }

    /// Waits until [`Task::has_ended`].
    pub async fn ended(&self) {
        let mut ended = self.inner.ended.subscribe();
        // The sender lives as long as this task.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Starts the containers; the network should be there. Starting again changes nothing.
    pub async fn start(&self) -> Result<(), EngineError> {
        self.order(Request::Start).await
    }

    /// Begins to stop the task: each container gets its stop signal, and its stop timeout, in
    /// reverse order of dependency. [`EventKind::TaskStopped`] tells when that is done.
    pub async fn stop(&self, reason: impl Into<String>) -> Result<(), EngineError> {
        self.order(Request::Stop { reason: reason.into() }).await
    }

    /// Kills every container at once.
    pub async fn kill(&self, reason: impl Into<String>) -> Result<(), EngineError> {
        self.order(Request::Kill { reason: reason.into() }).await
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(
        &self,
        container: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let container = container.to_owned();
        self.order(Request::Resize { container, rows, columns }).await
    }

    /// What it uses now.
    pub async fn stats(&self) -> Result<TaskStats, EngineError> {
        match self.ask(&Request::Stats, &[]).await?.0 {
            Response::Stats(stats) => Ok(stats),
            other => Err(self.unexpected(other)),
        }
    }

    /// The root directory of a running container, opened as a path only. Whatever is beneath it is the container's:
    /// open it with `openat2` and `RESOLVE_IN_ROOT`, and expect names, sizes and kinds of files that were made to harm.
    pub async fn root(&self, container: &str) -> Result<OwnedFd, EngineError> {
        let request = Request::Root { container: container.to_owned() };
        match self.ask(&request, &[]).await? {
            (Response::Done, mut received, _) if !received.is_empty() => Ok(received.remove(0)),
            (other, ..) => Err(self.unexpected(other)),
        }
    }

    /// Runs a command in a running container.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecSession, EngineError> {
        exec::begin(self, request).await
    }

    /// What happened, from event number `from_seq` on (1 is the first), and what will.
    pub fn events(&self, from_seq: u64) -> Events {
        Events::new(self.clone(), from_seq)
    }

    /// What the containers wrote, from the last acknowledgement on. There should be one reader.
    pub fn output(&self) -> Result<Output, EngineError> {
        let reader = SpoolReader::open(&self.inner.dir.join(shim::SPOOL))?;
        Ok(Output::new(self.clone(), reader))
    }

    pub(super) fn journal_path(&self) -> PathBuf {
        self.inner.dir.join(shim::JOURNAL)
    }

    /// Tells the shim how far output is consumed. A dead one need not know.
    pub(super) async fn acknowledged(&self, position: u64) {
        if let Err(error) = self.order(Request::Acknowledge { position }).await
            && !self.has_ended()
            && self.shim_pid().is_some()
        {
            let error = crate::chain(&error);
            tracing::warn!(task = self.id(), error, "a shim was not told what is consumed");
        }
    }

    async fn order(&self, request: Request) -> Result<(), EngineError> {
        match self.ask(&request, &[]).await?.0 {
            Response::Done => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    pub(super) fn unexpected(&self, response: Response) -> EngineError {
        match response {
            Response::Refused { message } => EngineError::Refused(self.id().to_owned(), message),
            other => EngineError::Refused(self.id().to_owned(), format!("answered {other:?}")),
        }
    }

    /// Asks the shim, and keeps what came with the answer and the connection.
    pub(super) async fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>, AsyncFd<OwnedFd>), EngineError> {
        let id = || self.id().to_owned();
        let socket = protocol::connect(&self.inner.dir);
        let socket = socket.and_then(watched);
        let socket = socket.map_err(|e| EngineError::Unreachable(id(), e))?;
        protocol::send(socket.get_ref().as_fd(), request, fds)
            .map_err(|e| EngineError::Talk(id(), e))?;
        let answer = self.inner.world.timeout(ANSWER, receive(&socket)).await;
        let answer = answer.ok_or_else(|| EngineError::Silent(id()))?;
        let (response, received) = answer.map_err(|e| EngineError::Talk(id(), e))?;
        Ok((response, received, socket))
    }

    /// Begins to watch the shim, or, if it is dead, closes the task. Answers whether it lives.
    pub(super) async fn attach(&self, world: &World) -> Result<bool, EngineError> {
        let pidfd = self.inner.shim.and_then(|shim| {
            let pid = Pid::from_raw(shim.pid)?;
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
            // Looked at again, now that the descriptor holds it: the id may have been used anew.
            shim.is_alive().then_some(pidfd)
        });
        if let Some(pidfd) = pidfd {
            let pidfd = self.inner.pidfd.get_or_init(|| pidfd);
            if let Ok((Response::Done, _, socket)) = self.ask(&Request::Watch, &[]).await {
                let task = self.clone();
                world.spawn("shim watch", async move { task.watch(socket).await });
                return Ok(true);
            }
            // It lives and does not answer: it died while beginning, or is about to.
            // An error means that it has died.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        self.bury().await?;
        Ok(false)
    }

    async fn watch(&self, socket: AsyncFd<OwnedFd>) {
        // What happened before the watch began.
        self.inner.grown.send_modify(|n| *n += 1);
        while receive(&socket).await.is_ok() {
            self.inner.grown.send_modify(|n| *n += 1);
        }
        if let Err(error) = self.bury().await {
            let error = crate::chain(&error);
            tracing::error!(task = self.id(), error, "a dead shim's task cannot be closed");
        }
    }

    /// Waits for the shim's end, ends what it may have left, and closes the journal.
    async fn bury(&self) -> Result<(), EngineError> {
        self.await_shim().await;
        self.end_processes().await?;
        let (path, now) = (self.journal_path(), self.inner.world.now().millis());
        blocking(move || {
            let (mut journal, events) = JournalWriter::open(&path)?;
            let closed = |k: &EventKind| matches!(k, EventKind::TaskStopped { .. });
            if !events.last().is_some_and(|e| closed(&e.kind)) {
                let reason = StopReason::ShimDied;
                journal.append(now, EventKind::TaskStopped { reason })?;
                journal.sync()?;
            }
            Ok(())
        })
        .await?;
        self.inner.grown.send_modify(|n| *n += 1);
        self.inner.ended.send_replace(true);
        Ok(())
    }

    /// Waits until the shim is gone; one that does not go is killed.
    pub(super) async fn await_shim(&self) {
        let Some(pidfd) = self.inner.pidfd.get() else { return };
        let wait = async {
            if let Ok(pidfd) = pidfd.try_clone().and_then(watched) {
                // Readable once it has ended; an error means that the runtime is ending.
                let _ = pidfd.readable().await;
            }
        };
        if self.inner.world.timeout(DEATH, wait).await.is_none() {
            // An error means that it has ended after all.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Kills whatever is in the task's cgroup, and removes that once it is empty.
    pub(super) async fn end_processes(&self) -> Result<(), EngineError> {
        end_cgroup(&self.inner.world, self.inner.cgroup.clone(), self.id()).await
    }
}

/// Kills whatever is in a cgroup, and removes that once it is empty.
pub(super) async fn end_cgroup(world: &World, cgroup: Cgroup, id: &str) -> Result<(), EngineError> {
    if !cgroup.exists() {
        return Ok(());
    }
    let deadline = world.monotonic() + DEATH;
    let mut pause = Duration::from_millis(1);
    loop {
        let group = cgroup.clone();
        let removed = blocking(move || {
            if group.is_populated() {
                group.kill()?;
                return Ok(false);
            }
            // Busy for a moment after the last process was seen.
            Ok(group.remove().is_ok())
        });
        if removed.await? {
            return Ok(());
        }
        if world.monotonic() >= deadline {
            return Err(EngineError::Undead(id.to_owned()));
        }
        world.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Receives a message as soon as there is one.
pub(super) async fn receive(
    socket: &AsyncFd<OwnedFd>,
) -> Result<(Response, Vec<OwnedFd>), protocol::PacketError> {
    loop {
        let mut ready = socket.readable().await.map_err(protocol::PacketError::Socket)?;
        match protocol::receive::<Response>(socket.get_ref().as_fd()) {
            Err(e) if e.is_would_block() => ready.clear_ready(),
            outcome => return outcome,
        }
    }
}
