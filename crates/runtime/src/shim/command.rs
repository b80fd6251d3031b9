//! Running a container's command once everything around it is in place: finding it, becoming it,
//! and telling the shim precisely why that failed.

use super::{init, restrict::Restrictions};
use crate::{
    journal::StartFailure,
    protocol::{self, Report},
    sys::{self, Forked},
};
use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use std::{
    collections::HashMap,
    ffi::CString,
    io,
    os::fd::{BorrowedFd, RawFd},
    path::Path,
};

/// Where commands are looked for when the environment does not say (what other engines set, too).
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, ready to become this process.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// The working directory to enter, unless this process is in it already.
    pub(crate) cwd: Option<String>,
    /// What it gives up.
    pub(crate) restrictions: Restrictions,
    /// Whether this process stays behind as init.
    pub(crate) init: bool,
    /// Where failures are reported.
    pub(crate) report: RawFd,
}

impl Command {
    /// Becomes the command. Comes back only when that fails, after reporting why.
    pub(crate) fn run(&self) -> StartFailure {
        let failure = self.try_run();
        // SAFETY: the descriptor is this process's end of the report socket, open until exec.
        let report = unsafe { BorrowedFd::borrow_raw(self.report) };
        // If the shim is gone, this process is about to be killed anyway.
        let _ = protocol::send(report, &Report::Failed(failure.clone()), &[]);
        failure
    }

    fn try_run(&self) -> StartFailure {
        let runtime =
            |step: &str, e: io::Error| StartFailure::Runtime { message: format!("{step}: {e}") };
        if let Err(e) = sys::reset_signals() {
            return runtime("signals", e);
        }
        if self.init {
            match sys::fork(false) {
                Ok(Forked::Parent(child)) => init::run(child),
                Ok(Forked::Child) => {}
                Err(e) => return runtime("init", e),
            }
        }
        if let Err(failure) = self.enter() {
            return failure;
        }
        self.become_command()
    }

    /// Enters the directory and gives up what the command does not have. First as root, then as the
    /// user: a directory may be open to one of them only.
    fn enter(&self) -> Result<(), StartFailure> {
        let enter = || match self.cwd.as_deref() {
            None | Some("") => rustix::process::chdir("/"),
            Some(cwd) => rustix::process::chdir(cwd),
        };
        let entered = enter();
        self.restrictions.apply()?;
        if let Err(first) = entered
            && enter().is_err()
        {
            let path = self.cwd.clone().unwrap_or_default();
            let message = io::Error::from(first).to_string();
            return Err(StartFailure::WorkingDirectory { path, message });
        }
        Ok(())
    }

    fn become_command(&self) -> StartFailure {
        let command = self.args.first().cloned().unwrap_or_default();
        let text = |list: Vec<String>| list.into_iter().map(CString::new).collect::<Result<_, _>>();
        let env = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let (args, env): (Vec<CString>, Vec<CString>) = match (text(self.args.clone()), text(env)) {
            (Ok(args), Ok(env)) => (args, env),
            _ => return StartFailure::Exec { command, message: "contains a NUL byte".into() },
        };
        let mut denied = false;
        for candidate in self.candidates(&command) {
            let Ok(path) = CString::new(candidate.clone()) else { continue };
            let error = sys::execve(&path, &args, &env);
            match error.raw_os_error() {
                Some(libc::ENOENT) if Path::new(&candidate).exists() => {
                    let message = "no such file or directory (its interpreter is missing)".into();
                    return StartFailure::Exec { command, message };
                }
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => denied = true,
                _ => {
                    let message = error.to_string();
                    return StartFailure::Exec { command, message };
                }
            }
        }
        match denied {
            true => StartFailure::PermissionDenied { command },
            false => StartFailure::CommandNotFound { command },
        }
    }

    fn candidates(&self, command: &str) -> Vec<String> {
        if command.contains('/') {
            return vec![command.to_owned()];
        }
        let path = self.env.iter().rev().find(|(key, _)| key == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
        path.split(':').filter(|d| !d.is_empty()).map(|d| format!("{d}/{command}")).collect()
    }
}

/// The environment of a command: its own, and what every process expects.
pub(crate) fn environment(
    own: &[(String, String)],
    more: &[(String, String)],
    home: &str,
    hostname: &str,
    terminal: bool,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: &str| {
        env.retain(|(k, _)| k != key);
        env.push((key.to_owned(), value.to_owned()));
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", hostname);
    if terminal {
        set("TERM", "xterm");
    }
    for (key, value) in own.iter().chain(more) {
        set(key, value);
    }
    if !env.iter().any(|(key, value)| key == "HOME" && !value.is_empty()) {
        env.retain(|(key, _)| key != "HOME");
        env.push(("HOME".to_owned(), home.to_owned()));
    }
    env
}

/// libcontainer's hook for the last step.
impl Executor for Command {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        Err(ExecutorError::Other(self.run().to_string()))
    }

    /// Whether the command exists is found out by running it: only the kernel knows all reasons.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is handed to the command, not set on the way there.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_and_what_is_expected_is_there() {
        let own = [("A", "1"), ("PATH", "/x"), ("HOME", "")].map(|(k, v)| (k.into(), v.into()));
        let more = [("A".to_owned(), "2".to_owned())];
        let env = environment(&own, &more, "/root", "box", true);
        let value = |key: &str| {
            let all: Vec<_> =
                env.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect();
            assert!(all.len() <= 1);
            all.first().copied()
        };
        assert_eq!(
            (value("A"), value("PATH"), value("HOME")),
            (Some("2"), Some("/x"), Some("/root"))
        );
        assert_eq!((value("HOSTNAME"), value("TERM")), (Some("box"), Some("xterm")));
    }
}
