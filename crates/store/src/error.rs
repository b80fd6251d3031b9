//! What can go wrong, a variant per step.

use crate::lock::LockError;
use std::{path::PathBuf, sync::Arc};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another engine works on this directory.
    #[error("{} is in use by {}", dir.display(), holder(*pid))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it, when it is known.
        pid: Option<u32>,
    },
    /// The directory could not be made.
    #[error("cannot make the data directory {}", dir.display())]
    MakeDir {
        /// The data directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The lock file could not be made, locked or written.
    #[error("cannot lock the data directory {}", dir.display())]
    Lock {
        /// The data directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: LockError,
    },
    /// The database file could not be made.
    #[error("cannot make the database {}", path.display())]
    MakeFile {
        /// The database file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The database file could not be opened or repaired.
    #[error("cannot open the database {}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<CommitError>,
    },
    /// The records could not be read.
    #[error("cannot read the records in {}", path.display())]
    Load {
        /// The database file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// The database was written in a layout that this version does not know.
    #[error("{} has layout {found}, this version reads layout {known}", path.display())]
    Layout {
        /// The database file.
        path: PathBuf,
        /// What the file says.
        found: String,
        /// What this version writes.
        known: &'static str,
    },
    /// The committing thread could not be started.
    #[error("cannot start the committing thread")]
    Thread(#[source] std::io::Error),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// Why a record on disk could not be read as its type.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its JSON does not fit the type.
    #[error("the record {table} {key:?} cannot be read")]
    Decode {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Its key differs from the one it is stored under.
    #[error("the record {table} {key:?} says that its key is {says:?}")]
    Key {
        /// The table.
        table: &'static str,
        /// The key it is stored under.
        key: String,
        /// The key made from its contents.
        says: String,
    },
    /// Two record types claim one table.
    #[error("the record {table} {key:?} is not a {wanted}: two record types claim the table")]
    OtherType {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// The type it was asked for as.
        wanted: &'static str,
    },
}

/// Why a transaction did not reach the disk.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The database could not be opened again after an earlier failure.
    #[error("cannot open the database")]
    Open(#[source] Box<redb::Error>),
    /// A disk transaction could not begin.
    #[error("cannot begin a disk transaction")]
    Begin(#[source] Box<redb::Error>),
    /// A record could not be written.
    #[error("cannot write the record {table} {key:?}")]
    Write {
        /// The table.
        table: String,
        /// The record's key.
        key: String,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// The disk transaction could not be flushed.
    #[error("cannot flush to disk")]
    Flush(#[source] Box<redb::Error>),
    /// The database code failed an assertion.
    #[error("the database code panicked: {0}")]
    Panicked(String),
    /// The store was closed before the transaction was committed.
    #[error("the store is closed")]
    Closed,
    /// A test's [`MemoryDisk`](crate::MemoryDisk) was told to refuse.
    #[error("the simulated disk refused")]
    Simulated,
}

/// The disk did not take a transaction; nothing of it is visible. Its `Display` and `source` tell
/// why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the change could not be stored")]
pub struct DiskFault(#[source] pub Arc<CommitError>);

/// The outcome of a write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The closure refused.
    #[error("refused")]
    Refused(E),
    /// The disk refused.
    #[error("the change could not be stored")]
    Disk(#[source] Arc<CommitError>),
}
