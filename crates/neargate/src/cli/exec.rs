//! `neargate exec`: a command in a container of a running task.

use super::{Format, output::Failure};
use crate::control::{
    self, BeginReply, FRAME_EOF, FRAME_EXIT, FRAME_STDERR, FRAME_STDIN, FRAME_STDOUT, MOST_FRAME,
    Request,
};
use clap::Args;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::{
    io::{self, IsTerminal, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
};

#[derive(Args)]
pub(crate) struct Options {
    /// The task's id, its beginning, or its ARN.
    task: String,
    /// The container, when the task has several.
    #[arg(short, long)]
    container: Option<String>,
    /// Run it on a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Also when the task was run without --enable-execute-command.
    #[arg(long)]
    force: bool,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(data_dir: &Path, options: &Options, format: Format) -> ExitCode {
    match attempt(data_dir, options) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(failure) => failure.tell(format),
    }
}

fn attempt(data_dir: &Path, options: &Options) -> Result<i32, Failure> {
    let on_terminal = options.tty && io::stdin().is_terminal();
    let request = Request::Exec {
        task: options.task.clone(),
        container: options.container.clone(),
        args: options.command.clone(),
        terminal: options.tty.then(|| size().unwrap_or((24, 80))),
        force: options.force,
    };
    let (_, mut reader): (BeginReply, _) = control::begin(data_dir, &request)?;
    let writer = reader.get_ref().try_clone()?;
    // Input ends with the process: nothing is to be waited for when the command has ended.
    std::thread::spawn(move || send_input(writer));
    let _raw = if on_terminal { Raw::enter() } else { None };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    loop {
        let mut head = [0u8; 5];
        reader.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MOST_FRAME {
            return Err(Failure::new("Neargate's answer cannot be read; are two versions mixed?"));
        }
        let mut content = vec![0u8; length];
        reader.read_exact(&mut content)?;
        match head[0] {
            FRAME_STDOUT => {
                out.write_all(&content)?;
                out.flush()?;
            }
            FRAME_STDERR => err.write_all(&content)?,
            FRAME_EXIT => {
                let code = content.try_into().map(i32::from_be_bytes);
                return code.map_err(|_| Failure::new("the exit code cannot be read"));
            }
            _ => {}
        }
    }
}

fn send_input(mut writer: UnixStream) {
    let mut buffer = [0u8; 8192];
    let mut input = io::stdin().lock();
    loop {
        let (kind, length) = match input.read(&mut buffer) {
            Ok(0) | Err(_) => (FRAME_EOF, 0),
            Ok(length) => (FRAME_STDIN, length),
        };
        let mut frame = vec![kind];
        frame.extend((length as u32).to_be_bytes());
        frame.extend(&buffer[..length]);
        if writer.write_all(&frame).is_err() || kind == FRAME_EOF {
            return;
        }
    }
}

/// Rows and columns of our own terminal, from the variables that shells keep.
fn size() -> Option<(u16, u16)> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    Some((number("LINES")?, number("COLUMNS")?))
}

/// The terminal hands every key on while this lives.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
