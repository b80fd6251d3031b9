//! What can go wrong with a disk, told apart where a caller must act differently: a full one is its
//! own case.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A step on the file system failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space or quota is left for what was being written.
    #[error("no space left to {step} {}", path.display())]
    Full {
        /// What was being done, as an infinitive without "to".
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done, as an infinitive without "to".
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// True when space or quota ran out.
    pub fn is_full(&self) -> bool {
        matches!(self, DiskError::Full { .. })
    }

    pub(crate) fn new(step: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let (source, path) = (source.into(), path.to_path_buf());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DiskError::Full { step, path, source }
            }
            _ => DiskError::Io { step, path, source },
        }
    }
}

/// Names the step and the path of an input/output result.
pub(crate) trait At<T> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::new(step, path, source))
    }
}

/// Runs blocking work off the async threads. A panic in it goes on in the caller.
#[allow(clippy::disallowed_methods)] // the pool for blocking calls, not a task of its own
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The pool only drops work unstarted while the whole runtime is being torn down.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Creates `path` and its parents, private to the owner.
pub(crate) fn private_dir(path: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create", path)
}

/// Makes a rename or creation in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    std::fs::File::open(dir).and_then(|d| d.sync_all()).at("sync", dir)
}

/// Removes a file that is no longer wanted. That it stays is worth a line in the log, no more:
/// every such file lies where the next start or collection clears it.
pub(crate) fn discard(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
        Err(source) => tracing::warn!(path = %path.display(), %source, "cannot remove"),
    }
}

/// Like [`discard`], for a directory and all beneath it.
pub(crate) fn discard_tree(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
        Err(source) => tracing::warn!(path = %path.display(), %source, "cannot remove"),
    }
}
