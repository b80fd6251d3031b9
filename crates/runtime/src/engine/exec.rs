//! Commands run in running containers. Their streams are the processes' own: the shim passes
//! descriptors on, and no byte goes through it.

use super::{EngineError, Task, task::receive, watched};
use crate::protocol::{ExecRequest, Request, Response};
use rustix::termios::Winsize;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};
use tokio::{
    io::unix::AsyncFd,
    net::unix::pipe::{Receiver, Sender},
};

/// A command that runs in a container. Dropping it kills the command.
pub struct ExecSession {
    /// Its streams.
    pub io: ExecIo,
    pid: i32,
    task: Task,
    connection: AsyncFd<OwnedFd>,
}

/// The streams of a command.
pub enum ExecIo {
    /// Three pipes; `None` once taken.
    Pipes {
        /// What it reads; dropping it is the end of input.
        stdin: Option<Sender>,
        /// What it writes.
        stdout: Option<Receiver>,
        /// What it complains.
        stderr: Option<Receiver>,
    },
    /// A terminal.
    Terminal(Terminal),
}

/// The controlling end of a command's terminal.
pub struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)? | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&fd, flags)?;
        Ok(Self { fd: watched(fd)? })
    }

    /// Reads what appeared on the terminal; 0 when the last process on it has closed it.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::io::read(self.fd.get_ref(), &mut *buffer) {
                Ok(read) => return Ok(read),
                Err(rustix::io::Errno::IO) => return Ok(0),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Types `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.fd.writable().await?;
            match rustix::io::write(self.fd.get_ref(), bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Sets its size; programs on it are told.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.fd.get_ref(), size)?)
    }
}

impl ExecSession {
    /// Its process on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end; the exit code, 128 + N when signal N ended it. Streams should be read
    /// meanwhile.
    pub async fn wait(&mut self) -> Result<i32, EngineError> {
        let id = || self.task.id().to_owned();
        match receive(&self.connection).await {
            Ok((Response::ExecExited { code }, _)) => Ok(code),
            Ok((other, _)) => Err(self.task.unexpected(other)),
            Err(error) => Err(EngineError::Talk(id(), error)),
        }
    }
}

pub(super) async fn begin(task: &Task, request: ExecRequest) -> Result<ExecSession, EngineError> {
    let id = || task.id().to_owned();
    let pipes = |e: io::Error| EngineError::Unreachable(task.id().to_owned(), e);
    let terminal = request.terminal.is_some();
    let (ours, theirs) = match terminal {
        true => (None, None),
        false => {
            let (ours, theirs) = make_pipes().map_err(pipes)?;
            (Some(ours), Some(theirs))
        }
    };
    let fds: Vec<_> = theirs.iter().flatten().map(AsFd::as_fd).collect();
    let socket = crate::protocol::connect(task.dir()).and_then(watched).map_err(pipes)?;
    crate::protocol::send(socket.get_ref().as_fd(), &Request::Exec(request), &fds)
        .map_err(|e| EngineError::Talk(id(), e))?;
    drop(fds);
    // The command has them now; kept here, their ends would never be seen.
    drop(theirs);
    let (response, mut received) =
        receive(&socket).await.map_err(|e| EngineError::Talk(id(), e))?;
    let pid = match response {
        Response::ExecStarted { pid } => pid,
        Response::ExecFailed { failure } => return Err(EngineError::Exec(id(), failure)),
        other => return Err(task.unexpected(other)),
    };
    let io = match ours {
        Some(io) => io,
        None => {
            let fd = received.pop().ok_or_else(|| pipes(io::Error::other("no terminal came")))?;
            ExecIo::Terminal(Terminal::new(fd).map_err(pipes)?)
        }
    };
    Ok(ExecSession { io, pid, task: task.clone(), connection: socket })
}

fn make_pipes() -> io::Result<(ExecIo, [OwnedFd; 3])> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) =
        (pipe()?, pipe()?, pipe()?);
    for fd in [&in_write, &out_read, &err_read] {
        let flags = rustix::fs::fcntl_getfl(fd)? | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(fd, flags)?;
    }
    let io = ExecIo::Pipes {
        stdin: Some(Sender::from_owned_fd(in_write)?),
        stdout: Some(Receiver::from_owned_fd(out_read)?),
        stderr: Some(Receiver::from_owned_fd(err_read)?),
    };
    Ok((io, [in_read, out_write, err_write]))
}
