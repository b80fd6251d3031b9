//! The journal of a task: what happened, in order, one checksummed line per event. The shim writes
//! it; the control plane reads it at any time from any point, also after the shim is gone. It is
//! the truth about a task that survives everything but the disk.

use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The longest line that is believed.
const MAX_LINE: usize = 256 << 10;

/// Something that happened to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1 for the first event of a task, then without gaps.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The namespaces exist; the network may be plugged in.
    SandboxReady,
    /// The container's processes are being set up.
    ContainerCreated {
        /// Which.
        container: String,
    },
    /// Its command runs.
    ContainerStarted {
        /// Which.
        container: String,
        /// Its process on the host.
        pid: i32,
        /// 0 for the first start, then the number of the restart.
        restarts: u32,
    },
    /// Its health became known or changed.
    ContainerHealth {
        /// Which.
        container: String,
        /// What it is now.
        health: Health,
    },
    /// Its command ended.
    ContainerExited {
        /// Which.
        container: String,
        /// How.
        exit: Exit,
        /// Whether it will be started again.
        restarting: bool,
    },
    /// It was not started, and never will be.
    ContainerFailed {
        /// Which.
        container: String,
        /// Why not.
        failure: StartFailure,
    },
    /// Lines of a non-blocking container were dropped since the last such event.
    OutputDropped {
        /// Which.
        container: String,
        /// How many.
        lines: u64,
    },
    /// The task is being stopped.
    TaskStopping {
        /// Why.
        reason: StopReason,
    },
    /// Everything has ended. The last event of a task.
    TaskStopped {
        /// Why.
        reason: StopReason,
    },
}

/// A container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Not known (yet).
    #[default]
    Unknown,
    /// The last check passed.
    Healthy,
    /// Enough checks in a row failed.
    Unhealthy,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + N when signal N ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom: bool,
}

/// Why a container was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StartFailure {
    /// The command does not exist in the container.
    #[error("exec: {command:?}: executable file not found")]
    CommandNotFound {
        /// As it was given.
        command: String,
    },
    /// The command may not be executed.
    #[error("exec: {command:?}: permission denied")]
    PermissionDenied {
        /// As it was given.
        command: String,
    },
    /// The kernel refused the command for another reason (a wrong architecture, say).
    #[error("exec: {command:?}: {message}")]
    Exec {
        /// As it was given.
        command: String,
        /// The kernel's words.
        message: String,
    },
    /// The user or group is not known in the container.
    #[error("unable to find {what}: no matching entries")]
    User {
        /// The user or group as it was given.
        what: String,
    },
    /// The working directory cannot be made or entered.
    #[error("working directory {path:?}: {message}")]
    WorkingDirectory {
        /// As it was given.
        path: String,
        /// The kernel's words.
        message: String,
    },
    /// A mount's source is missing or unfit.
    #[error("mount of {path:?}: {message}")]
    Mount {
        /// What was to be mounted.
        path: String,
        /// The kernel's words.
        message: String,
    },
    /// The root file system could not be put together.
    #[error("root file system: {message}")]
    RootFs {
        /// At which step, and the kernel's words.
        message: String,
    },
    /// A resource limit or cgroup could not be set.
    #[error("limits: {message}")]
    Limits {
        /// At which step, and the kernel's words.
        message: String,
    },
    /// A container that it depends on cannot reach the condition any more.
    #[error("dependency {dependency:?} {message}")]
    Dependency {
        /// The other container.
        dependency: String,
        /// What it failed to do.
        message: String,
    },
    /// The task was stopped first.
    #[error("the task was stopped before the container was started")]
    Stopped,
    /// Setting up took longer than a minute.
    #[error("setting up the container timed out")]
    TimedOut,
    /// Another step failed.
    #[error("{message}")]
    Runtime {
        /// Which step, and why.
        message: String,
    },
}

/// Why a task stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StopReason {
    /// It was asked to.
    Requested {
        /// In the asker's words.
        reason: String,
    },
    /// An essential container ended.
    EssentialContainerExited {
        /// Which.
        container: String,
    },
    /// An essential container could not be started.
    ContainerFailedToStart {
        /// Which.
        container: String,
    },
    /// Every container had ended.
    AllContainersExited,
    /// The shim was killed, and the containers with it.
    ShimDied,
}

/// Why a journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened.
    #[error("cannot open the journal {0}")]
    Open(String, #[source] std::io::Error),
    /// It cannot be read.
    #[error("cannot read the journal")]
    Read(#[source] std::io::Error),
    /// It cannot be written.
    #[error("cannot write the journal")]
    Write(#[source] std::io::Error),
    /// A line in its midst is damaged.
    #[error("the journal is damaged at byte {0}")]
    Damaged(u64),
}

/// Appends events.
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    next_seq: u64,
    length: u64,
}

impl JournalWriter {
    /// Opens the journal at `path`, cuts off a torn last line, and goes on after its last event.
    /// Also answers with the events that are there.
    pub fn open(path: &Path) -> Result<(Self, Vec<Event>), JournalError> {
        let open = |e| JournalError::Open(path.display().to_string(), e);
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(open)?;
        let mut reader = JournalReader { file, position: 0 };
        let mut events = Vec::new();
        while let Some(event) = reader.next()? {
            events.push(event);
        }
        let JournalReader { mut file, position } = reader;
        file.set_len(position).map_err(JournalError::Write)?;
        file.seek(SeekFrom::End(0)).map_err(JournalError::Write)?;
        let next_seq = events.last().map_or(1, |e| e.seq + 1);
        Ok((Self { file, next_seq, length: position }, events))
    }

    /// Appends `kind`, which happened at `time_ms`.
    pub fn append(&mut self, time_ms: i64, kind: EventKind) -> Result<Event, JournalError> {
        let event = Event { seq: self.next_seq, time_ms, kind };
        let text = serde_json::to_string(&event).expect("an event is plain data");
        let line = format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()));
        // One write: a reader sees the whole line or a line without its end, which it leaves alone.
        if let Err(e) = self.file.write_all(line.as_bytes()) {
            // What was written of it would hide every later event.
            self.file.set_len(self.length).map_err(JournalError::Write)?;
            self.file.seek(SeekFrom::Start(self.length)).map_err(JournalError::Write)?;
            return Err(JournalError::Write(e));
        }
        self.length += line.len() as u64;
        self.next_seq += 1;
        Ok(event)
    }

    /// Waits until what was appended is on the disk.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::Write)
    }
}

/// Reads events, also while they are being written.
#[derive(Debug)]
pub struct JournalReader {
    file: File,
    position: u64,
}

impl JournalReader {
    /// Opens the journal at `path`, at its beginning.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file =
            File::open(path).map_err(|e| JournalError::Open(path.display().to_string(), e))?;
        Ok(Self { file, position: 0 })
    }

    /// The next event, or `None` when there is none yet. A last line without its end is not there
    /// yet; a last line with a wrong checksum is a torn one and never will be.
    #[allow(clippy::should_implement_trait)] // `None` is not the end
    pub fn next(&mut self) -> Result<Option<Event>, JournalError> {
        self.file.seek(SeekFrom::Start(self.position)).map_err(JournalError::Read)?;
        let mut line = Vec::new();
        let mut chunk = [0u8; 512];
        let end = loop {
            let read = self.file.read(&mut chunk).map_err(JournalError::Read)?;
            let before = line.len();
            line.extend_from_slice(&chunk[..read]);
            if let Some(end) = chunk[..read].iter().position(|b| *b == b'\n') {
                break before + end;
            }
            if read == 0 {
                return Ok(None);
            }
            if line.len() > MAX_LINE {
                return Err(JournalError::Damaged(self.position));
            }
        };
        match parse_line(&line[..end]) {
            Some(event) => {
                self.position += end as u64 + 1;
                Ok(Some(event))
            }
            None => {
                let length = self.file.metadata().map_err(JournalError::Read)?.len();
                match self.position + end as u64 + 1 >= length {
                    true => Ok(None),
                    false => Err(JournalError::Damaged(self.position)),
                }
            }
        }
    }
}

fn parse_line(line: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, text) = text.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (sum == crc32fast::hash(text.as_bytes())).then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stopped(code: i32) -> EventKind {
        let exit = Exit { code, signal: None, oom: false };
        EventKind::ContainerExited { container: "web".into(), exit, restarting: false }
    }

    #[test]
    fn a_reader_follows_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut writer, events) = JournalWriter::open(&path).unwrap();
        assert!(events.is_empty());
        let mut reader = JournalReader::open(&path).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        let first = writer.append(5, EventKind::SandboxReady).unwrap();
        assert_eq!(reader.next().unwrap(), Some(first));
        assert_eq!(reader.next().unwrap(), None);
        let second = writer.append(6, stopped(3)).unwrap();
        assert_eq!((second.seq, reader.next().unwrap()), (2, Some(second)));
    }

    proptest! {
        #[test]
        fn a_torn_tail_is_cut_and_the_rest_stays(codes in proptest::collection::vec(0..256, 1..20),
                                                 cut in 0usize..400) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            let (mut writer, _) = JournalWriter::open(&path).unwrap();
            let mut ends = vec![0u64];
            for code in &codes {
                writer.append(1, stopped(*code)).unwrap();
                ends.push(std::fs::metadata(&path).unwrap().len());
            }
            let length = ends[codes.len()].saturating_sub(cut as u64);
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            let (mut writer, events) = JournalWriter::open(&path).unwrap();
            prop_assert_eq!(events.len(), whole);
            let next = writer.append(2, EventKind::SandboxReady).unwrap();
            prop_assert_eq!(next.seq as usize, whole + 1);
            let (_, events) = JournalWriter::open(&path).unwrap();
            prop_assert_eq!(events.len(), whole + 1);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            std::fs::write(&path, bytes).unwrap();
            let mut reader = JournalReader::open(&path).unwrap();
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
