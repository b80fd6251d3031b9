//! The shim's loop and what it keeps.

use super::{
    children::{Child, Starting},
    connections::Connection,
    output::Output,
    sandbox::Sandbox,
};
use crate::{
    cgroup::Cgroup,
    chain,
    journal::{EventKind, JournalWriter, StopReason},
    lifecycle::{Action, Input, Lifecycle},
    protocol,
    spec::TaskSpec,
    spool::{SpoolWriter, Stream},
    sys,
};
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, EventData, EventFlags},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Instant, SystemTime},
};

/// After a full disk refused something, it is tried again this often.
const RETRY_MS: u64 = 1000;

/// What the loop waits for.
pub(super) enum Source {
    Signals(OwnedFd),
    Listener(OwnedFd),
    Connection(Connection),
    Output(Output),
    Starting(Starting),
}

impl Source {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Signals(fd) | Self::Listener(fd) => fd.as_fd(),
            Self::Connection(connection) => connection.fd.as_fd(),
            Self::Output(output) => output.fd.as_fd(),
            Self::Starting(starting) => starting.report.as_fd(),
        }
    }
}

/// A container as the shim handles it.
#[derive(Default)]
pub(super) struct Run {
    /// Its first process, while that is not reaped.
    pub(super) pid: Option<i32>,
    /// Grows with each start, so that what belongs to an earlier one is recognised.
    pub(super) generation: u64,
    /// Kills for want of memory before this start.
    pub(super) oom_kills: u64,
    /// Lines that were dropped and not yet written down.
    pub(super) dropped: u64,
    /// The health check that runs: its process, and when it has taken too long.
    pub(super) probe: Option<Probe>,
    /// Held open so that standard input does not end.
    pub(super) stdin: Option<OwnedFd>,
    /// Whether it was ever started.
    pub(super) has_cgroup: bool,
}

pub(super) struct Probe {
    pub(super) pid: Option<i32>,
    pub(super) deadline: u64,
    pub(super) timed_out: bool,
}

/// Everything that the shim is.
pub(crate) struct Shim {
    pub(super) dir: PathBuf,
    pub(super) spec: TaskSpec,
    pub(super) life: Lifecycle,
    pub(super) spool: SpoolWriter,
    pub(super) cgroup: Cgroup,
    pub(super) sandbox: Sandbox,
    pub(super) runs: Vec<Run>,
    pub(super) children: HashMap<i32, Child>,
    pub(super) sources: HashMap<u64, Source>,
    /// Output that the disk had no room for.
    pub(super) stalled: VecDeque<(i64, u16, Stream, Vec<u8>)>,
    pub(super) buffer: Vec<u8>,
    /// Whether watchers are to be woken.
    pub(super) grew: bool,
    journal: JournalWriter,
    unwritten: VecDeque<(i64, EventKind)>,
    inputs: VecDeque<Input>,
    retry_at: Option<u64>,
    epoll: OwnedFd,
    next_token: u64,
    began: Instant,
    finished: bool,
}

/// The wall clock, in ms since the Unix epoch.
#[allow(clippy::disallowed_methods)] // a process of its own, outside any simulated world
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}

impl Shim {
    pub(super) fn new(
        dir: &Path,
        spec: TaskSpec,
        journal: JournalWriter,
        spool: SpoolWriter,
        cgroup: Cgroup,
        sandbox: Sandbox,
        listener: OwnedFd,
    ) -> io::Result<Self> {
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM])?;
        let life = Lifecycle::new(&spec);
        let runs = spec.containers.iter().map(|_| Run::default()).collect();
        #[allow(clippy::disallowed_methods)] // as for the wall clock
        let began = Instant::now();
        let mut shim = Self {
            dir: dir.to_owned(),
            spec,
            life,
            spool,
            cgroup,
            sandbox,
            runs,
            children: HashMap::new(),
            sources: HashMap::new(),
            stalled: VecDeque::new(),
            buffer: Vec::new(),
            grew: false,
            journal,
            unwritten: VecDeque::new(),
            inputs: VecDeque::new(),
            retry_at: None,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            next_token: 0,
            began,
            finished: false,
        };
        shim.add(Source::Signals(signals))?;
        shim.add(Source::Listener(listener))?;
        Ok(shim)
    }

    /// Milliseconds of a clock that never goes back.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(super) fn add(&mut self, source: Source) -> io::Result<u64> {
        let token = self.next_token;
        epoll::add(&self.epoll, source.fd(), EventData::new_u64(token), EventFlags::IN)?;
        self.next_token += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Takes a source out of the loop.
    pub(super) fn take(&mut self, token: u64) -> Option<Source> {
        self.listen(token, false);
        self.sources.remove(&token)
    }

    /// Waits for a source, or for nothing of it, not even its end.
    pub(super) fn listen(&self, token: u64, listening: bool) {
        let Some(source) = self.sources.get(&token) else { return };
        let (fd, data) = (source.fd(), EventData::new_u64(token));
        let changed = match listening {
            true => epoll::add(&self.epoll, fd, data, EventFlags::IN),
            // Closing alone would not do where another process holds the same description.
            false => epoll::delete(&self.epoll, fd),
        };
        match changed {
            // It was waited for, or not, already.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::EXIST) => {}
            Err(e) => self.log("a source could not be changed", &io::Error::from(e)),
        }
    }

    /// Writes to the shim's log file.
    pub(super) fn log(&self, what: &str, error: &dyn std::error::Error) {
        eprintln!("{} {what}: {}", wall_ms(), chain(error));
    }

    /// Owns the task until its end.
    pub(super) fn run(mut self) -> ExitCode {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(32);
        loop {
            self.work_off();
            self.wake_watchers();
            if self.finished && self.unwritten.is_empty() && self.stalled.is_empty() {
                return self.end();
            }
            let timeout = self.deadline().map(|at| {
                let ms = at.saturating_sub(self.now());
                Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 }
            });
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    self.log("the event loop failed", &io::Error::from(e));
                    return ExitCode::FAILURE;
                }
            }
            for event in std::mem::take(&mut events) {
                let token = event.data;
                self.handle(token.u64());
            }
            events.reserve(32);
            self.timers();
        }
    }

    fn handle(&mut self, token: u64) {
        match self.sources.get(&token) {
            Some(Source::Signals(_)) => self.signals(token),
            Some(Source::Listener(_)) => self.accept(token),
            Some(Source::Connection(_)) => self.converse(token),
            Some(Source::Output(_)) => self.read_output(token),
            Some(Source::Starting(_)) => self.read_report(token),
            None => {}
        }
    }

    fn signals(&mut self, token: u64) {
        // 128 bytes for each; it is known which there are, so only SIGTERM is looked for.
        let mut info = [0u8; 128 * 8];
        let mut term = false;
        if let Some(Source::Signals(fd)) = self.sources.get(&token) {
            while let Ok(read) = rustix::io::read(fd, &mut info) {
                let signal = |i: &[u8]| i32::from_ne_bytes([i[0], i[1], i[2], i[3]]);
                term |= info[..read].chunks(128).any(|i| signal(i) == libc::SIGTERM);
            }
        }
        if term {
            let reason = "the machine or its operator asked the shim to end".to_owned();
            self.input(Input::Stop { reason: StopReason::Requested { reason } });
        }
        self.reap();
    }

    /// Notes something for the machine of the task's life.
    pub(super) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Lets the machine of the task's life take everything into account, and does what it says.
    fn work_off(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let now = self.now();
            for action in self.life.step(input, now) {
                self.apply(action);
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Launch { container } => self.launch(container),
            Action::Signal { container, signal } => self.signal(container, signal),
            Action::Kill { container } => self.kill(container),
            Action::Probe { container } => self.probe(container),
            Action::Record(kind) => self.record(kind),
            Action::Finish => self.finish(),
        }
    }

    /// Writes an event down; when the disk is full, as soon as there is room.
    pub(super) fn record(&mut self, kind: EventKind) {
        self.unwritten.push_back((wall_ms(), kind));
        self.write_events();
    }

    fn write_events(&mut self) {
        while let Some((time, kind)) = self.unwritten.front() {
            match self.journal.append(*time, kind.clone()) {
                Ok(_) => {
                    self.unwritten.pop_front();
                    self.grew = true;
                }
                Err(error) => {
                    self.log("an event cannot be written down yet", &error);
                    return self.retry_later();
                }
            }
        }
    }

    pub(super) fn retry_later(&mut self) {
        self.retry_at = Some(self.now() + RETRY_MS);
    }

    fn deadline(&self) -> Option<u64> {
        let probes = self.runs.iter().filter_map(|r| r.probe.as_ref());
        let probes = probes.filter(|p| !p.timed_out).map(|p| p.deadline);
        let starts = self.sources.values().filter_map(|s| match s {
            Source::Starting(starting) => Some(starting.deadline),
            _ => None,
        });
        let others = [self.life.next_deadline(), self.retry_at];
        probes.chain(starts).chain(others.into_iter().flatten()).min()
    }

    fn timers(&mut self) {
        let now = self.now();
        if self.life.next_deadline().is_some_and(|at| at <= now) {
            self.input(Input::Tick);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.write_events();
            self.write_stalled();
        }
        self.time_out_probes(now);
        self.time_out_starts(now);
    }

    fn finish(&mut self) {
        self.drain_outputs();
        if let Err(error) = self.journal.sync() {
            self.log("the journal cannot be made durable", &error);
        }
        self.finished = true;
    }

    /// Leaves nothing behind but the task's directory.
    fn end(mut self) -> ExitCode {
        self.wake_watchers();
        if let Err(error) = self.cgroup.kill() {
            self.log("leftover processes cannot be killed", &error);
        }
        let mut left = self.cgroup.remove();
        for _ in 0..400 {
            if left.is_ok() {
                break;
            }
            // Processes that were killed may take a moment to be gone; nothing tells when they are.
            #[allow(clippy::disallowed_methods)] // nobody waits for this process any more
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.reap();
            left = self.cgroup.remove();
        }
        if let Err(error) = left {
            self.log("the cgroup cannot be removed", &error);
        }
        match std::fs::remove_file(self.dir.join(protocol::SOCKET)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.log("the socket cannot be removed", &error);
                ExitCode::FAILURE
            }
        }
    }
}
