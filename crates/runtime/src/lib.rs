//! Tasks and their containers: the shim, its protocol and its client. Knows nothing of AWS.
//!
//! Each task is owned by a process of its own, the shim ([`shim::main`]): it makes the task's
//! namespaces and containers, restarts, checks and stops them, and keeps what happened (the
//! journal) and what was written (the spool) on disk. The control plane's half is the [`Engine`]:
//! it starts shims, finds those that an earlier control plane left, reads journals and spools, and
//! cleans up after shims that died. Neither needs the other to be alive.
//!
//! A task's directory is the truth about it:
//!
//! | file | what | written by |
//! | --- | --- | --- |
//! | `task.json` | the spec | engine, once |
//! | `journal` | what happened | shim; the engine when the shim died |
//! | `spool/*.seg` | output, in frames | shim |
//! | `spool/acked` | how far it is consumed | consumer |
//! | `shim.sock` | requests | |
//! | `shim.pid`, `shim.log` | for finding it, and finding out | shim |
//! | `scratch/containers/*/upper`, `scratch/volumes/*` | what containers wrote | containers |
//!
//! With a limit on its disk, `scratch` is that disk, mounted where only the shim and the containers see
//! it ([`TaskLimits::disk_bytes`]).

mod capabilities;
mod cgroup;
mod disk;
mod engine;
mod journal;
mod lifecycle;
mod protocol;
mod seccomp;
mod share;
pub mod shim;
mod spec;
mod spool;
mod sys;

pub use capabilities::{Capabilities, Check};
pub use cgroup::{CgroupError, CgroupStats};
pub use disk::make as make_disk;
pub use engine::{
    Adopted, Engine, EngineConfig, EngineError, Events, ExecIo, ExecSession, Leak, Output, Task,
    Terminal,
};
pub use journal::{
    Event, EventKind, Exit, Health, JournalError, JournalReader, StartFailure, StopReason,
};
pub use protocol::{ExecRequest, PacketError, TaskStats};
pub use spec::{
    Actor, Capabilities as ContainerCapabilities, Condition, ContainerLimits, ContainerSpec,
    DEFAULT_CAPABILITIES, DEFAULT_PIDS, DEFAULT_SPOOL_BYTES, Dependency, Directory, Filesystem,
    HealthCheck, HealthCommand, IdRange, LogMode, MAX_CONTAINERS, MAX_TEXT_BYTES, Mount,
    RestartPolicy, SpecError, TaskLimits, TaskSpec, Ulimit, VolumeSource,
};
pub use spool::{Frame, MAX_FRAME_BYTES, SpoolError, SpoolReader, Stream};

/// An error and everything that led to it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        // Transparent errors repeat their source's words.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = error.source();
    }
    text
}
