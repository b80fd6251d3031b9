//! Clearing away: blobs that nothing refers to any more, and uploads that nobody came back for.

use super::{BlobError, BlobStore, upload::Session};
use crate::Digest;
use crate::disk::{At, DiskError, blocking, discard};
use std::{
    fs::{DirEntry, Metadata},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What a sweep removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

impl BlobStore {
    /// Removes every blob that `keep` does not want and that was neither stored nor renewed within
    /// `grace`: that long a manifest may take to follow its layers.
    pub async fn sweep<K>(&self, keep: K, grace: Duration) -> Result<Swept, BlobError>
    where
        K: Fn(&Digest) -> bool + Send + 'static,
    {
        let store = self.clone();
        blocking(move || {
            let mut swept = Swept::default();
            for algorithm in entries(&store.inner.root.join("blobs"))? {
                for shard in entries(&algorithm.path())? {
                    for blob in entries(&shard.path())? {
                        let name = blob.file_name();
                        let text = [algorithm.file_name(), name].map(|n| n.into_string().ok());
                        let [Some(algorithm), Some(hex)] = text else { continue };
                        let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                            continue;
                        };
                        if !keep(&digest) {
                            let size = store.remove_if_old(&blob.path(), grace)?;
                            swept.blobs += u64::from(size.is_some());
                            swept.bytes += size.unwrap_or(0);
                        }
                    }
                }
            }
            Ok(swept)
        })
        .await
    }

    /// Removes uploads that got no byte within `idle`. Gives how many.
    pub async fn expire_uploads(&self, idle: Duration) -> Result<u64, BlobError> {
        let store = self.clone();
        blocking(move || {
            let mut expired = 0;
            for file in entries(&store.inner.root.join("uploads"))? {
                let path = file.path();
                let Some(metadata) = stat(&path)? else { continue };
                if store.age(&metadata) < idle {
                    continue;
                }
                let id = file.file_name().to_string_lossy().into_owned();
                let mut uploads = store.uploads();
                if uploads.get(&id).is_some_and(|session: &Arc<_>| !Session::end(session)) {
                    continue; // somebody is writing to it now
                }
                uploads.remove(&id);
                drop(uploads);
                discard(&path);
                expired += 1;
            }
            Ok(expired)
        })
        .await
    }

    /// The size of the removed blob; `None` if it was too young or gone.
    fn remove_if_old(&self, path: &Path, grace: Duration) -> Result<Option<u64>, DiskError> {
        let _ages = self.inner.ages.lock().expect("no panic while held");
        let Some(metadata) = stat(path)? else { return Ok(None) };
        if self.age(&metadata) < grace {
            return Ok(None);
        }
        std::fs::remove_file(path).at("remove", path)?;
        Ok(Some(metadata.len()))
    }

    /// How long ago a file was stamped.
    fn age(&self, metadata: &Metadata) -> Duration {
        let now = self.inner.world.now().millis();
        let stamped = stamped_millis(metadata);
        Duration::from_millis(now.saturating_sub(stamped).max(0) as u64)
    }
}

fn stamped_millis(metadata: &Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000)
}

fn stat(path: &Path) -> Result<Option<Metadata>, DiskError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiskError::new("stat", path, source)),
    }
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>, DiskError> {
    std::fs::read_dir(dir).and_then(|all| all.collect::<io::Result<Vec<_>>>()).at("list", dir)
}
