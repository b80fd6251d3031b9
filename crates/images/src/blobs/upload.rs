//! Upload sessions. The bytes lie in `<root>/uploads/<id>`, so a session survives a restart:
//! whoever comes back is told how many arrived, and the hash is made anew from the file.

use super::{BlobError, BlobStore, hash_file, verify};
use crate::disk::{At, DiskError, blocking, discard, private_dir, sync_dir};
use crate::{Algorithm, Digest, Hasher};
use bytes::{Bytes, BytesMut};
use std::{
    fs::File,
    io::{self},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Bytes gathered before they go to the disk in one call.
const GATHER_BYTES: usize = 512 << 10;
const ID_DIGITS: usize = 32;

/// What this process knows of an upload.
pub(super) struct Session {
    file: Arc<File>,
    path: PathBuf,
    /// In the file, and hashed.
    written: u64,
    hasher: Hasher,
    /// Not there any more: finished, cancelled or expired while somebody waited for it.
    over: bool,
}

/// An upload that the holder alone may write to. Dropping it keeps the session (but for bytes not
/// yet flushed), so that it can be taken up again by its id.
pub struct Upload {
    store: BlobStore,
    id: String,
    session: OwnedMutexGuard<Session>,
    gathered: BytesMut,
}

impl BlobStore {
    /// Begins an upload.
    pub async fn start(&self) -> Result<Upload, BlobError> {
        let id = self.inner.world.hex(ID_DIGITS);
        let (store, path) = (self.clone(), self.inner.root.join("uploads").join(&id));
        let session = blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            let file = Arc::new(file.at("create", &path)?);
            store.stamp(&file, &path)?;
            let hasher = Hasher::new(Algorithm::Sha256);
            Ok::<_, DiskError>(Session { file, path, written: 0, hasher, over: false })
        })
        .await?;
        let session = Arc::new(Mutex::new(session));
        self.uploads().insert(id.clone(), session.clone());
        let session = session.try_lock_owned().expect("nobody else knows of it yet");
        Ok(Upload { store: self.clone(), id, session, gathered: BytesMut::new() })
    }

    /// Takes up an upload that was begun earlier, by this process or one before it.
    pub async fn resume(&self, id: &str) -> Result<Upload, BlobError> {
        let unknown = || BlobError::UploadUnknown(id.to_string());
        // The id comes from outside and becomes a file name.
        if id.len() != ID_DIGITS || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let known = self.uploads().get(id).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let found = self.reopen(id).await?.ok_or_else(unknown)?;
                let fresh = Arc::new(Mutex::new(found));
                // Two requests may both have reopened it; the first one's session counts.
                self.uploads().entry(id.to_string()).or_insert(fresh).clone()
            }
        };
        let busy = |_| BlobError::UploadBusy(id.to_string());
        let session = session.try_lock_owned().map_err(busy)?;
        if session.over {
            return Err(unknown());
        }
        let (store, gathered) = (self.clone(), BytesMut::new());
        Ok(Upload { store, id: id.to_string(), session, gathered })
    }

    async fn reopen(&self, id: &str) -> Result<Option<Session>, BlobError> {
        let path = self.inner.root.join("uploads").join(id);
        blocking(move || {
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => Arc::new(file),
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(DiskError::new("open", &path, source).into()),
            };
            let (hasher, written) = hash_file(&file, Algorithm::Sha256, &path)?;
            Ok(Some(Session { file, path, written, hasher, over: false }))
        })
        .await
    }

    pub(super) fn uploads(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Arc<Mutex<Session>>>> {
        self.inner.uploads.lock().expect("no panic while held")
    }
}

impl Session {
    /// Ends the session from outside, if nobody is writing to it.
    pub(super) fn end(session: &Arc<Mutex<Session>>) -> bool {
        match session.try_lock() {
            Ok(mut session) => {
                session.over = true;
                true
            }
            Err(_) => false,
        }
    }
}

impl Upload {
    /// The name to take it up by again.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many bytes it holds; the next chunk begins there.
    pub fn offset(&self) -> u64 {
        self.session.written + self.gathered.len() as u64
    }

    /// Refuses a chunk that does not begin where the last one ended.
    pub fn check_offset(&self, given: u64) -> Result<(), BlobError> {
        match self.offset() {
            have if have == given => Ok(()),
            have => Err(BlobError::OutOfOrder { have, given }),
        }
    }

    /// Takes the next bytes. They may stay in memory until [`Upload::flush`] or [`Upload::finish`].
    /// When the disk is full the whole session is removed, to give back its space.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        if self.session.over {
            return Err(BlobError::UploadUnknown(self.id.clone()));
        }
        let limit_bytes = self.store.inner.max_blob_bytes;
        if self.offset().saturating_add(bytes.len() as u64) > limit_bytes {
            return Err(BlobError::TooLarge { limit_bytes });
        }
        self.gathered.extend_from_slice(&bytes);
        match self.gathered.len() >= GATHER_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Hands all taken bytes to the file, so that they survive the end of this process.
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = self.gathered.split().freeze();
        let (file, path) = (self.session.file.clone(), self.session.path.clone());
        let (offset, mut hasher) = (self.session.written, self.session.hasher.clone());
        let (store, length) = (self.store.clone(), bytes.len() as u64);
        let written = blocking(move || {
            file.write_all_at(&bytes, offset).at("write", &path)?;
            store.stamp(&file, &path)?;
            hasher.update(&bytes);
            Ok::<_, DiskError>(hasher)
        })
        .await;
        match written {
            Ok(hasher) => {
                self.session.hasher = hasher;
                self.session.written += length;
                Ok(())
            }
            Err(failed) => {
                self.end();
                Err(failed.into())
            }
        }
    }

    /// Verifies, syncs and publishes the blob. On a mismatch the session is gone, as its bytes are
    /// bad.
    pub async fn finish(mut self, expected: &Digest) -> Result<(), BlobError> {
        self.flush().await?;
        let (file, path) = (self.session.file.clone(), self.session.path.clone());
        let (target, expected) = (self.store.path(expected), expected.clone());
        let (store, hasher) = (self.store.clone(), self.session.hasher.clone());
        let published = blocking(move || {
            let hasher = match expected.algorithm() == hasher.algorithm() {
                true => hasher,
                false => hash_file(&file, expected.algorithm(), &path)?.0,
            };
            verify(&expected, hasher.finish())?;
            file.sync_all().at("sync", &path)?;
            let shard = target.parent().expect("a blob lies in a shard");
            let fresh = !shard.exists();
            private_dir(shard)?;
            let ages = store.inner.ages.lock().expect("no panic while held");
            store.stamp(&file, &path)?;
            // Over an equal blob, if somebody else was faster: the content is the same.
            std::fs::rename(&path, &target).at("move into place", &target)?;
            drop(ages);
            sync_dir(shard)?;
            if fresh {
                let algorithm = shard.parent().expect("a shard lies in its algorithm's directory");
                sync_dir(algorithm)?;
                sync_dir(algorithm.parent().expect("which lies in blobs"))?;
            }
            Ok(())
        })
        .await;
        self.end();
        published
    }

    /// Gives the upload up and removes its bytes.
    pub async fn cancel(mut self) -> Result<(), BlobError> {
        self.gathered.clear();
        self.end();
        Ok(())
    }

    /// Forgets the session; its file goes if it has not been renamed into place.
    fn end(&mut self) {
        self.session.over = true;
        self.store.uploads().remove(&self.id);
        discard(&self.session.path);
    }
}
