//! How much file systems hold. As on AWS it is metered now and then, and not exact.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use world::Timestamp;

/// How long what was metered is good for.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// What an empty file system is metered as, in bytes.
pub(crate) const EMPTY: i64 = 6144;

/// What was metered, by file system: when, and how many bytes.
#[derive(Default)]
pub(crate) struct Sizes(Mutex<HashMap<String, (Timestamp, i64)>>);

impl Sizes {
    /// What a file system holds. Blocks when it has to be metered.
    pub(crate) fn of(&self, id: &str, directory: &Path, now: Timestamp) -> (Timestamp, i64) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        if let Some(known) = known.filter(|(at, _)| now.since(*at) < GOOD_FOR) {
            return known;
        }
        let metered = (now, EMPTY + bytes_below(directory));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), metered);
        metered
    }

    pub(crate) fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// What cannot be looked at counts nothing: files come and go meanwhile.
fn bytes_below(directory: &Path) -> i64 {
    let mut directories = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            match metadata.is_dir() {
                true => directories.push(entry.path()),
                false => bytes += i64::try_from(metadata.blocks() * 512).unwrap_or(i64::MAX),
            }
        }
    }
    bytes
}
