//! Process 1 of a container that asked for an init, and of a common process namespace: it reaps
//! what is orphaned, passes signals on, and ends as its command ends.
//!
//! It is a copy of the process that set the container up, not a program of its own in the
//! container: there is nothing to mount, nothing that must match the container's C library, and
//! nothing inside that a container could replace. Being not dumpable, neither its memory nor the
//! shim's program file can be reached from inside through `/proc/1`.

use crate::sys;
use std::io;

/// Reaps until the shim ends.
pub(crate) fn pause() -> ! {
    sys::set_name(c"neargate-pause");
    if sys::die_with_parent().is_err() || sys::close_from(0, false).is_err() {
        sys::exit_now(1);
    }
    reap_until(None)
}

/// Is init for the command `child`.
pub(crate) fn run(child: i32) -> ! {
    sys::set_name(c"init");
    // The command has its own standard descriptors; init needs none, and would keep pipes open.
    if sys::die_with_parent().is_err() || sys::close_from(0, false).is_err() {
        sys::exit_now(1);
    }
    reap_until(Some(child))
}

fn reap_until(child: Option<i32>) -> ! {
    let Ok(signals) = all_signals() else { sys::exit_now(1) };
    loop {
        if let Some(code) = reap(child) {
            sys::exit_now(code);
        }
        // SAFETY: the set is initialised and lives through the call; no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(&signals, std::ptr::null_mut()) };
        if let Some(child) = child.filter(|_| signal > 0 && signal != libc::SIGCHLD) {
            // SAFETY: takes numbers. The child is not reaped yet, so the number is still its own.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// Blocks every signal, so that each can be waited for.
fn all_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: all pointers are to locals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        match libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) {
            0 => Ok(set),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Reaps whatever has ended; the exit code of `child` when that was among it.
fn reap(child: Option<i32>) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: the status is a local.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return code;
        }
        if Some(pid) == child {
            code = Some(match libc::WIFSIGNALED(status) {
                true => 128 + libc::WTERMSIG(status),
                false => libc::WEXITSTATUS(status),
            });
        }
    }
}
