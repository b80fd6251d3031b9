//! The shim's side of its socket.

use super::{
    children::{Owner, kill_group},
    state::{Shim, Source},
};
use crate::{
    journal::{StartFailure, StopReason},
    lifecycle::Input,
    protocol::{self, ExecRequest, Request, Response, TaskStats},
    spool::Stream,
};
use rustix::{
    fs::{Mode, OFlags},
    net::SocketFlags,
    termios::Winsize,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Connections at once; more are closed at once.
const MAX_CONNECTIONS: usize = 128;
/// Exec sessions at once.
const MAX_SESSIONS: usize = 32;

/// Somebody who asks.
pub(super) struct Connection {
    pub(super) fd: OwnedFd,
    role: Role,
}

#[derive(PartialEq)]
enum Role {
    /// Has not asked yet, or has been answered.
    Asking,
    /// Wants to know when journal or spool grow.
    Watching,
    /// Runs a command, which may have begun.
    Session(Option<i32>),
}

impl Shim {
    pub(super) fn accept(&mut self, token: u64) {
        loop {
            let Some(Source::Listener(listener)) = self.sources.get(&token) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(fd) = rustix::net::accept_with(listener, flags) else { return };
            let connections = self.sources.values().filter(|s| matches!(s, Source::Connection(_)));
            if connections.count() < MAX_CONNECTIONS {
                let connection = Connection { fd, role: Role::Asking };
                if let Err(error) = self.add(Source::Connection(connection)) {
                    self.log("a connection cannot be kept", &error);
                }
            }
        }
    }

    /// Hears a request, or that somebody went away.
    pub(super) fn converse(&mut self, token: u64) {
        let Some(Source::Connection(connection)) = self.sources.get(&token) else { return };
        match protocol::receive::<Request>(connection.fd.as_fd()) {
            Ok((request, fds)) if connection.role == Role::Asking => {
                self.answer(token, request, fds);
            }
            Err(e) if e.is_would_block() => {}
            // Also who says something meaningless, or speaks out of turn, is hung up on.
            _ => self.hang_up(token),
        }
    }

    fn hang_up(&mut self, token: u64) {
        if let Some(Source::Connection(connection)) = self.take(token)
            && let Role::Session(Some(pid)) = connection.role
            && self.children.contains_key(&pid)
        {
            kill_group(pid);
        }
    }

    fn say(&mut self, token: u64, response: &Response, fds: &[BorrowedFd<'_>]) {
        let Some(Source::Connection(connection)) = self.sources.get(&token) else { return };
        if let Err(error) = protocol::send(connection.fd.as_fd(), response, fds) {
            self.log("an answer cannot be sent", &error);
            self.hang_up(token);
        }
    }

    fn answer(&mut self, token: u64, request: Request, fds: Vec<OwnedFd>) {
        let response = match request {
            Request::Start => {
                self.input(Input::Start);
                Response::Done
            }
            Request::Stop { reason } => {
                self.input(Input::Stop { reason: StopReason::Requested { reason } });
                Response::Done
            }
            Request::Kill { reason } => {
                self.input(Input::Kill { reason: StopReason::Requested { reason } });
                Response::Done
            }
            Request::Stats => Response::Stats(self.stats()),
            Request::Acknowledge { position } => {
                self.spool.acknowledged(position);
                self.resume_outputs();
                Response::Done
            }
            Request::Watch => {
                if let Some(Source::Connection(connection)) = self.sources.get_mut(&token) {
                    connection.role = Role::Watching;
                }
                Response::Done
            }
            Request::Exec(request) => match self.begin_session(token, &request, fds) {
                Ok(()) => return,
                Err(message) => Response::Refused { message },
            },
            Request::Root { container } => match self.root(&container) {
                Ok(root) => return self.say(token, &Response::Done, &[root.as_fd()]),
                Err(message) => Response::Refused { message },
            },
            Request::Resize { container, rows, columns } => {
                match self.resize(&container, rows, columns) {
                    Ok(()) => Response::Done,
                    Err(message) => Response::Refused { message },
                }
            }
        };
        self.say(token, &response, &[]);
    }

    fn stats(&self) -> TaskStats {
        let started = self.spec.containers.iter().zip(&self.runs).filter(|(_, r)| r.has_cgroup);
        let containers = started.map(|(c, _)| (c.name.clone(), self.cgroup.child(&c.name).stats()));
        TaskStats { task: self.cgroup.stats(), containers: containers.collect() }
    }

    fn index_of(&self, name: &str) -> Result<usize, String> {
        let found = self.spec.containers.iter().position(|c| c.name == name);
        found.ok_or_else(|| format!("the task has no container {name:?}"))
    }

    /// The root directory of a running container, with what is mounted there.
    fn root(&self, container: &str) -> Result<OwnedFd, String> {
        let pid = self.runs[self.index_of(container)?].pid.ok_or("the container does not run")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Nobody but this process reaps the container, so the id is still its own.
        rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())
            .map_err(|e| e.to_string())
    }

    fn resize(&mut self, container: &str, rows: u16, columns: u16) -> Result<(), String> {
        let container = self.index_of(container)?;
        let terminal = self.sources.values().find_map(|source| match source {
            Source::Output(o) if o.container == container && o.stream == Stream::Stdout => {
                Some(&o.fd)
            }
            _ => None,
        });
        let terminal = terminal.filter(|_| self.spec.containers[container].tty);
        let terminal = terminal.ok_or("the container has no terminal")?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).map_err(|e| e.to_string())
    }

    fn begin_session(
        &mut self,
        token: u64,
        request: &ExecRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let container = self.index_of(&request.container)?;
        let session =
            |s: &&Source| matches!(s, Source::Connection(c) if matches!(c.role, Role::Session(_)));
        if self.sources.values().filter(session).count() >= MAX_SESSIONS {
            return Err(format!("{MAX_SESSIONS} commands are being run in the task already"));
        }
        if request.args.first().is_none_or(String::is_empty) {
            return Err("no command".to_owned());
        }
        let stdio = match request.terminal {
            Some(_) => None,
            None => Some(<[OwnedFd; 3]>::try_from(fds).map_err(|_| "needs three descriptors")?),
        };
        self.exec(container, request, stdio, Owner::Session(token)).map_err(|e| e.to_string())?;
        if let Some(Source::Connection(connection)) = self.sources.get_mut(&token) {
            connection.role = Role::Session(None);
        }
        Ok(())
    }

    pub(super) fn session_started(&mut self, token: u64, pid: i32, terminal: Option<OwnedFd>) {
        match self.sources.get_mut(&token) {
            Some(Source::Connection(connection)) => connection.role = Role::Session(Some(pid)),
            // Who asked has gone away meanwhile.
            _ => return kill_group(pid),
        }
        let fds: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        self.say(token, &Response::ExecStarted { pid }, &fds);
    }

    pub(super) fn session_failed(&mut self, token: u64, failure: StartFailure) {
        self.say(token, &Response::ExecFailed { failure }, &[]);
        self.take(token);
    }

    pub(super) fn session_ended(&mut self, token: u64, code: i32) {
        self.say(token, &Response::ExecExited { code }, &[]);
        self.take(token);
    }

    /// Tells watchers that journal or spool grew.
    pub(super) fn wake_watchers(&mut self) {
        if !std::mem::take(&mut self.grew) {
            return;
        }
        for source in self.sources.values() {
            if let Source::Connection(Connection { fd, role: Role::Watching }) = source {
                // Full: it has been told often enough. Gone: that is noticed when it is read.
                let _ = protocol::send(fd.as_fd(), &Response::Done, &[]);
            }
        }
    }
}
