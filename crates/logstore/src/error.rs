//! What can go wrong, a variant per step.

use std::{io, path::PathBuf, sync::Arc};

/// Why a log store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another engine works on this directory.
    #[error("the log directory {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory or file could not be made, read or locked.
    #[error("cannot {doing} {}", path.display())]
    Disk {
        /// What was tried: "make", "read", "lock".
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A stream that the journal speaks of could not be loaded.
    #[error("cannot load a log stream")]
    Load(#[source] LoadError),
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a stream's files could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct LoadError {
    /// What was tried.
    pub doing: &'static str,
    /// With which file or directory.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: Arc<io::Error>,
}

impl LoadError {
    pub(crate) fn new(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { doing, path: path.into(), source: Arc::new(source) }
    }
}

/// Why events were not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream's id is not fit for a file name.
    #[error("the stream id {0:?} is not 1 to 200 letters, digits, '-', '_' or '.'")]
    StreamId(String),
    /// A message or a batch is too long.
    #[error("{what} of {bytes} bytes is longer than {limit}")]
    TooLarge {
        /// "a message", "a batch" or "a source id".
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The batch begins before the source's consumed offset and ends behind it.
    #[error("the batch overlaps what was stored: go on at offset {expected}")]
    Overlap {
        /// The offset that the source is consumed up to.
        expected: u64,
    },
    /// The batch ends before it begins.
    #[error("the batch's source range {start}..{end} is empty or backwards")]
    Range {
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// The stream was deleted.
    #[error("the stream was deleted")]
    Deleted,
    /// The stream's files could not be read.
    #[error("the stream cannot be loaded")]
    Load(#[source] LoadError),
    /// The journal could not be written; nothing was stored.
    #[error("cannot write the journal")]
    Journal(#[source] Arc<io::Error>),
    /// Memory is full of events that could not be moved to their segments.
    #[error("too many events wait for a disk that refuses them")]
    Backlog,
    /// The store was closed.
    #[error("the log store is closed")]
    Closed,
}

/// Why a stream could not be trimmed.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// The stream's id is not fit for a file name.
    #[error("the stream id {0:?} is not 1 to 200 letters, digits, '-', '_' or '.'")]
    StreamId(String),
    /// The stream's files could not be read.
    #[error("the stream cannot be loaded")]
    Load(#[source] LoadError),
    /// What must outlive the segments could not be written.
    #[error("cannot write a segment")]
    Write(#[source] io::Error),
    /// A segment could not be removed.
    #[error("cannot remove the segment {}", path.display())]
    Remove {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a read failed as a whole. A damaged block alone does not fail it: see [`Page::damaged`].
///
/// [`Page::damaged`]: crate::Page::damaged
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A stream's id is not fit for a file name.
    #[error("the stream id {0:?} is not 1 to 200 letters, digits, '-', '_' or '.'")]
    StreamId(String),
    /// A stream's files could not be read.
    #[error("a stream cannot be loaded")]
    Load(#[source] LoadError),
    /// A segment could not be opened or read.
    #[error("cannot read the segment {}", path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A part of a file that does not hold what was written. It is skipped and reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {offset}: {what}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the damaged part begins.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}
