//! The processes of the task: starting them, hearing how that went, and their ends.

use super::{
    exec::{self, Exec},
    launch::{self, Launch, Launching, Stdio},
    state::{Probe, Shim, Source},
};
use crate::{
    journal::{Exit, StartFailure},
    lifecycle::Input,
    protocol::{self, ExecRequest, PacketError, Report},
    spec::HealthCommand,
    spool::Stream,
};
use rustix::{
    fs::{Mode, OFlags},
    pipe::PipeFlags,
    process::{Pid, Signal, WaitOptions, WaitStatus},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// Setting up a command may take this long.
const START_MS: u64 = 60_000;

/// Whose command it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Owner {
    /// A container's own.
    Container(usize),
    /// A health check's, of this start of the container.
    Probe(usize, u64),
    /// An exec's, by its connection.
    Session(u64),
}

/// A command being started.
pub(super) struct Starting {
    pub(super) report: OwnedFd,
    pub(super) deadline: u64,
    /// Whether it is set up ahead of time and waits for the word to go.
    held: bool,
    /// Whether all who could report have ended, while it was held.
    over: bool,
    owner: Owner,
    launcher: i32,
    pid: Option<i32>,
    terminal: Option<OwnedFd>,
    failure: Option<StartFailure>,
    /// It may have ended before it is known that it ran.
    ended: Option<WaitStatus>,
}

/// A running command.
pub(super) struct Child {
    owner: Owner,
    /// Where it is being started, until that is over.
    starting: Option<u64>,
}

fn code_of(status: WaitStatus) -> (i32, Option<i32>) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

impl Shim {
    /// Sets up the containers that will start first, up to the last step, while the network is
    /// still being plugged in.
    pub(super) fn prepare(&mut self) {
        for container in 0..self.runs.len() {
            if !self.spec.containers[container].depends_on.is_empty() {
                continue;
            }
            if let Err(error) = self.set_up(container) {
                // It is tried again, and told, when it is to start.
                self.log("a container cannot be set up ahead", error.as_ref());
            }
        }
    }

    /// Starts a container.
    pub(super) fn launch(&mut self, container: usize) {
        let held = self.sources.iter().find_map(|(token, source)| match source {
            Source::Starting(s) if s.held && s.owner == Owner::Container(container) => Some(*token),
            _ => None,
        });
        match held.map_or_else(|| self.set_up(container), Ok) {
            Ok(token) => self.release(token),
            Err(error) => {
                let message = crate::chain(error.as_ref());
                let failure = StartFailure::Runtime { message };
                self.input(Input::StartFailed { container, failure });
            }
        }
    }

    /// Gives the word to go.
    fn release(&mut self, token: u64) {
        let deadline = self.now() + START_MS;
        let Some(Source::Starting(starting)) = self.sources.get_mut(&token) else { return };
        (starting.held, starting.deadline) = (false, deadline);
        // Should nobody listen, the end of the report tells why.
        let _ = rustix::io::write(&starting.report, &[launch::GO]);
        if starting.over {
            self.is_started(token);
        }
    }

    fn set_up(&mut self, container: usize) -> Result<u64, Box<dyn std::error::Error>> {
        self.runs[container].generation += 1;
        let spec = &self.spec.containers[container];
        let cgroup = self.cgroup.child(&spec.name);
        cgroup.create_container(&spec.limits)?;
        self.runs[container].has_cgroup = true;
        self.runs[container].oom_kills = cgroup.oom_kills()?;
        let (tty, stdin_open) = (spec.tty, spec.stdin_open);
        let (mut stdio, mut outputs) = (None, Vec::new());
        if !tty {
            let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
            let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
            let stdin = match stdin_open {
                true => {
                    let (read, write) = pipe()?;
                    self.runs[container].stdin = Some(write);
                    read
                }
                false => null()?,
            };
            stdio = Some([stdin, out_write, err_write]);
            outputs = vec![(out_read, Stream::Stdout), (err_read, Stream::Stderr)];
        }
        let launch = Launch {
            dir: &self.dir,
            task: &self.spec,
            container: &self.spec.containers[container],
            sandbox: &self.sandbox,
            cgroup: &cgroup,
        };
        let launching = launch::begin(&launch, stdio)?;
        for (fd, stream) in outputs {
            self.listen_to(fd, container, stream)?;
        }
        Ok(self.starting(launching, Owner::Container(container), true)?)
    }

    /// Runs a health check.
    pub(super) fn probe(&mut self, container: usize) {
        let spec = &self.spec.containers[container];
        let Some(health) = &spec.health else { return };
        let args = match &health.command {
            HealthCommand::Exec(args) => args.clone(),
            HealthCommand::Shell(text) => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()]
            }
        };
        let deadline = self.now() + health.timeout_ms;
        let request = ExecRequest {
            container: spec.name.clone(),
            args,
            env: Vec::new(),
            user: None,
            cwd: None,
            terminal: None,
        };
        let owner = Owner::Probe(container, self.runs[container].generation);
        let stdio = || Ok::<_, io::Error>([null()?, null()?, null()?]);
        self.runs[container].probe = Some(Probe { pid: None, deadline, timed_out: false });
        let begun = stdio().and_then(|stdio| self.exec(container, &request, Some(stdio), owner));
        if let Err(error) = begun {
            self.log("a health check cannot be run", &error);
            self.probed(container, false);
        }
    }

    fn probed(&mut self, container: usize, passed: bool) {
        self.runs[container].probe = None;
        self.input(Input::Probed { container, passed });
    }

    /// Runs a command in a running container.
    pub(super) fn exec(
        &mut self,
        container: usize,
        request: &ExecRequest,
        stdio: Option<Stdio>,
        owner: Owner,
    ) -> io::Result<()> {
        let Some(init) = self.runs[container].pid else {
            return Err(io::Error::other("the container is not running"));
        };
        let exec = Exec {
            task: &self.spec,
            container: &self.spec.containers[container],
            cgroup: &self.cgroup.child(&self.spec.containers[container].name),
            init,
            request,
        };
        let launching = exec::begin(&exec, stdio)?;
        self.starting(launching, owner, false).map(drop)
    }

    fn starting(&mut self, launching: Launching, owner: Owner, held: bool) -> io::Result<u64> {
        let flags = rustix::fs::fcntl_getfl(&launching.report)? | OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&launching.report, flags)?;
        let deadline = if held { u64::MAX } else { self.now() + START_MS };
        self.add(Source::Starting(Starting {
            report: launching.report,
            deadline,
            held,
            over: false,
            owner,
            launcher: launching.launcher,
            pid: None,
            terminal: None,
            failure: None,
            ended: None,
        }))
    }

    /// Hears how starting a command goes.
    pub(super) fn read_report(&mut self, token: u64) {
        loop {
            let Some(Source::Starting(starting)) = self.sources.get_mut(&token) else { return };
            match protocol::receive::<Report>(starting.report.as_fd()) {
                Ok((Report::Pid(pid), _)) => {
                    starting.pid = Some(pid);
                    let owner = starting.owner;
                    self.children.insert(pid, Child { owner, starting: Some(token) });
                    self.note_probe(owner, pid);
                }
                Ok((Report::Terminal, fds)) => starting.terminal = fds.into_iter().next(),
                Ok((Report::Failed(failure), _)) => {
                    starting.failure.get_or_insert(failure);
                }
                Err(e) if e.is_would_block() => return,
                Err(error) => {
                    if !matches!(error, PacketError::Closed) {
                        let message = crate::chain(&error);
                        starting.failure.get_or_insert(StartFailure::Runtime { message });
                    }
                    if !starting.held {
                        return self.is_started(token);
                    }
                    starting.over = true;
                    return self.listen(token, false);
                }
            }
        }
    }

    fn note_probe(&mut self, owner: Owner, pid: i32) {
        if let Owner::Probe(container, generation) = owner
            && self.runs[container].generation == generation
            && let Some(probe) = &mut self.runs[container].probe
        {
            probe.pid = Some(pid);
        }
    }

    /// Everybody who could report has ended or become the command.
    fn is_started(&mut self, token: u64) {
        let Some(Source::Starting(starting)) = self.take(token) else { return };
        let Starting { owner, pid, terminal, failure, ended, .. } = starting;
        let silent = || StartFailure::Runtime { message: "the setup ended without a word".into() };
        let started = match (failure, pid) {
            (Some(failure), _) => Err(failure),
            (None, Some(pid)) => Ok(pid),
            (None, None) => Err(silent()),
        };
        match &started {
            Ok(pid) => {
                if let Some(child) = self.children.get_mut(pid) {
                    child.starting = None;
                }
            }
            Err(_) => {
                if let Some(pid) = pid {
                    self.children.remove(&pid);
                }
            }
        }
        match (owner, started) {
            (Owner::Container(container), Ok(pid)) => {
                self.container_started(container, pid, terminal)
            }
            (Owner::Container(container), Err(failure)) => {
                self.container_failed(container, failure);
            }
            (Owner::Session(connection), Ok(pid)) => {
                self.session_started(connection, pid, terminal);
            }
            (Owner::Session(connection), Err(failure)) => {
                self.session_failed(connection, failure);
            }
            (Owner::Probe(..), Ok(_)) => {}
            (Owner::Probe(container, generation), Err(failure)) => {
                if self.runs[container].generation == generation {
                    self.log("a health check cannot be run", &failure);
                    self.probed(container, false);
                }
            }
        }
        if let (Some(status), Some(pid)) = (ended, pid)
            && self.children.remove(&pid).is_some()
        {
            self.ended(owner, status);
        }
    }

    fn container_started(&mut self, container: usize, pid: i32, terminal: Option<OwnedFd>) {
        self.runs[container].pid = Some(pid);
        if let Some(terminal) = terminal
            && let Err(error) = self.listen_to(terminal, container, Stream::Stdout)
        {
            self.log("the terminal cannot be read", &error);
        }
        self.input(Input::Started { container, pid });
    }

    fn container_failed(&mut self, container: usize, failure: StartFailure) {
        self.kill(container);
        self.drain_container(container);
        self.input(Input::StartFailed { container, failure });
    }

    /// Sends a signal to a container's first process.
    pub(super) fn signal(&mut self, container: usize, signal: i32) {
        if let Some(pid) = self.runs[container].pid {
            // SAFETY: takes numbers. The process is not reaped yet, so the number is still its own.
            let result = unsafe { libc::kill(pid, signal) };
            if result != 0 {
                self.log("a container cannot be signalled", &io::Error::last_os_error());
            }
        }
    }

    /// Kills everything in a container.
    pub(super) fn kill(&mut self, container: usize) {
        if let Err(error) = self.cgroup.child(&self.spec.containers[container].name).kill() {
            self.log("a container cannot be killed", &error);
        }
    }

    /// Looks who has ended.
    pub(super) fn reap(&mut self) {
        // What was reported before an end is heard before it.
        let starting = |s: &Source| matches!(s, Source::Starting(_));
        let tokens: Vec<u64> =
            self.sources.iter().filter(|(_, s)| starting(s)).map(|(token, _)| *token).collect();
        for token in tokens {
            self.read_report(token);
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            // Processes that only helped to start something are not among the children.
            let Some(child) = self.children.get(&pid) else { continue };
            match child.starting.and_then(|token| self.sources.get_mut(&token)) {
                Some(Source::Starting(starting)) => starting.ended = Some(status),
                _ => {
                    let owner = child.owner;
                    self.children.remove(&pid);
                    self.ended(owner, status);
                }
            }
        }
    }

    fn ended(&mut self, owner: Owner, status: WaitStatus) {
        let (code, signal) = code_of(status);
        match owner {
            Owner::Container(container) => self.container_ended(container, code, signal),
            Owner::Session(connection) => self.session_ended(connection, code),
            Owner::Probe(container, generation) => {
                let run = &self.runs[container];
                if run.generation == generation
                    && let Some(probe) = &run.probe
                {
                    let passed = code == 0 && !probe.timed_out;
                    self.probed(container, passed);
                }
            }
        }
    }

    fn container_ended(&mut self, container: usize, code: i32, signal: Option<i32>) {
        let cgroup = self.cgroup.child(&self.spec.containers[container].name);
        let run = &mut self.runs[container];
        (run.pid, run.probe, run.stdin) = (None, None, None);
        // A health check of this start must not be taken for one of the next.
        run.generation += 1;
        let before = run.oom_kills;
        let oom = match cgroup.oom_kills() {
            Ok(kills) => kills > before,
            Err(error) => {
                self.log("whether memory ran out is not known", &error);
                false
            }
        };
        // With a process namespace of its own nothing is left; in a common one something may be.
        self.kill(container);
        self.drain_container(container);
        self.input(Input::Exited { container, exit: Exit { code, signal, oom } });
    }

    pub(super) fn time_out_probes(&mut self, now: u64) {
        for container in 0..self.runs.len() {
            let Some(probe) = &mut self.runs[container].probe else { continue };
            if probe.timed_out || now < probe.deadline {
                continue;
            }
            probe.timed_out = true;
            match probe.pid {
                Some(pid) => kill_group(pid),
                // Still being started; it counts as failed when that is over.
                None => {
                    let generation = self.runs[container].generation;
                    self.abandon(Owner::Probe(container, generation));
                }
            }
        }
    }

    fn abandon(&mut self, owner: Owner) {
        for source in self.sources.values_mut() {
            if let Source::Starting(starting) = source
                && starting.owner == owner
            {
                give_up(starting);
            }
        }
    }

    pub(super) fn time_out_starts(&mut self, now: u64) {
        let mut late = Vec::new();
        for source in self.sources.values_mut() {
            if let Source::Starting(starting) = source
                && starting.deadline <= now
            {
                give_up(starting);
                late.push(starting.owner);
            }
        }
        for owner in late {
            if let Owner::Container(container) = owner {
                self.kill(container);
            }
        }
    }
}

fn give_up(starting: &mut Starting) {
    starting.failure.get_or_insert(StartFailure::TimedOut);
    // What was killed closes its end of the report soon; should it not, not to look again at once.
    starting.deadline = starting.deadline.saturating_add(START_MS);
    for pid in [Some(starting.launcher), starting.pid].into_iter().flatten() {
        kill_process(pid);
    }
}

fn kill_process(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Kills a command and what it started, as far as that stayed in its group.
pub(super) fn kill_group(pid: i32) {
    kill_process(pid);
    if let Some(pid) = Pid::from_raw(pid) {
        // As above.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}
