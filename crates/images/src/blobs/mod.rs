//! A store of blobs by their digest: `<root>/blobs/<algorithm>/<first two digits>/<digits>`.
//!
//! A blob is there whole and verified, or not there at all: it is written under `uploads/`, hashed
//! on the way, synced, and renamed into its place. One process at a time owns a store.

mod sweep;
mod upload;

pub use sweep::Swept;
pub use upload::Upload;

use crate::disk::{At, DiskError, blocking, private_dir};
use crate::{Algorithm, Digest, Hasher};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use world::World;

/// The largest blob accepted unless told otherwise, in bytes.
pub const MAX_BLOB_BYTES: u64 = 64 << 30;

/// Something about a blob failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("blob {0} is not in the store")]
    NotFound(Digest),
    /// The bytes are not what their digest says.
    #[error("the content has digest {actual}, not {expected}")]
    Mismatch {
        /// What was said.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More bytes than a blob may have.
    #[error("the blob is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is accepted.
        limit_bytes: u64,
    },
    /// No such upload; it may have been finished, cancelled or expired.
    #[error("upload {0:?} is not known")]
    UploadUnknown(String),
    /// Somebody else is writing to it right now.
    #[error("upload {0:?} is being written by another request")]
    UploadBusy(String),
    /// The next chunk does not begin where the last one ended.
    #[error("the upload holds {have} bytes, but the chunk begins at {given}")]
    OutOfOrder {
        /// How many bytes the upload holds.
        have: u64,
        /// Where the chunk was said to begin.
        given: u64,
    },
    /// The disk.
    #[error("the blob store's disk failed")]
    Disk(#[from] DiskError),
}

/// A store of blobs. Cheap to clone; clones are one store.
#[derive(Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    world: World,
    max_blob_bytes: u64,
    /// Uploads that are open or were written by this process, with their running hash.
    uploads: Mutex<HashMap<String, Arc<tokio::sync::Mutex<upload::Session>>>>,
    /// Held to look at a blob's age and remove it, or to renew its age: so the two exclude each
    /// other.
    ages: Mutex<()>,
}

/// An open blob. It stays readable even if the store deletes it meanwhile.
#[derive(Debug, Clone)]
pub struct Blob {
    file: Arc<File>,
    /// Its length in bytes.
    pub size: u64,
}

impl Blob {
    /// Up to `length` bytes from `offset`; fewer only at the blob's end.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        let length =
            length.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(length));
        blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    /// The open file, for reading at offsets; its own position is shared.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl BlobStore {
    /// Opens the store at `root`, creating it if need be.
    pub fn open(root: &Path, world: &World) -> Result<Self, DiskError> {
        Self::open_bounded(root, world, MAX_BLOB_BYTES)
    }

    /// Like [`BlobStore::open`], refusing blobs above `max_blob_bytes`.
    pub fn open_bounded(
        root: &Path,
        world: &World,
        max_blob_bytes: u64,
    ) -> Result<Self, DiskError> {
        private_dir(&root.join("uploads"))?;
        private_dir(&root.join("blobs"))?;
        let inner = Inner {
            root: root.to_path_buf(),
            world: world.clone(),
            max_blob_bytes,
            uploads: Mutex::default(),
            ages: Mutex::default(),
        };
        Ok(BlobStore { inner: Arc::new(inner) })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        self.inner.root.join("blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    /// Opens a blob.
    pub async fn get(&self, digest: &Digest) -> Result<Blob, BlobError> {
        let (path, digest) = (self.path(digest), digest.clone());
        blocking(move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
                    return Err(BlobError::NotFound(digest));
                }
                Err(source) => return Err(DiskError::new("open", &path, source).into()),
            };
            let size = file.metadata().at("stat", &path)?.len();
            Ok(Blob { file: Arc::new(file), size })
        })
        .await
    }

    /// A whole small blob (a manifest, a configuration), verified once more.
    pub async fn read(&self, digest: &Digest, limit_bytes: usize) -> Result<Bytes, BlobError> {
        let blob = self.get(digest).await?;
        if blob.size > limit_bytes as u64 {
            return Err(BlobError::TooLarge { limit_bytes: limit_bytes as u64 });
        }
        let path = self.path(digest);
        let bytes = blob.read_at(0, limit_bytes).await.at("read", &path)?;
        verify(digest, digest.alike(&bytes))?;
        Ok(bytes)
    }

    /// The blob's length in bytes, `None` if it is not there.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.get(digest).await {
            Ok(blob) => Ok(Some(blob.size)),
            Err(BlobError::NotFound(_)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// True if the blob is there.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Stores a small blob, verifying it. Storing what is there already renews its age.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), BlobError> {
        verify(digest, digest.alike(&bytes))?;
        if self.renew(digest).await? {
            return Ok(());
        }
        let mut upload = self.start().await?;
        let written = upload.append(bytes).await;
        match written {
            Ok(()) => upload.finish(digest).await,
            Err(failed) => {
                upload.cancel().await?;
                Err(failed)
            }
        }
    }

    /// Makes the blob's age zero, so that no sweep takes it before the caller has linked it
    /// somewhere. False if it is not there.
    pub async fn renew(&self, digest: &Digest) -> Result<bool, BlobError> {
        let (store, path) = (self.clone(), self.path(digest));
        blocking(move || {
            let _ages = store.inner.ages.lock().expect("no panic while held");
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(DiskError::new("open", &path, source).into()),
            };
            store.stamp(&file, &path)?;
            Ok(true)
        })
        .await
    }

    /// Removes a blob; false if it was not there.
    pub async fn delete(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        blocking(move || match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(DiskError::new("remove", &path, source).into()),
        })
        .await
    }

    /// Sets a file's modification time to the world's now; ages are counted from it.
    fn stamp(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        let since_epoch =
            std::time::Duration::from_millis(self.inner.world.now().millis().max(0) as u64);
        file.set_modified(std::time::UNIX_EPOCH + since_epoch).at("stamp", path)
    }
}

fn verify(expected: &Digest, actual: Digest) -> Result<(), BlobError> {
    match *expected == actual {
        true => Ok(()),
        false => Err(BlobError::Mismatch { expected: expected.clone(), actual }),
    }
}

/// Hashes an open file from its beginning; also tells its length.
pub(crate) fn hash_file(
    file: &File,
    algorithm: Algorithm,
    path: &Path,
) -> Result<(Hasher, u64), DiskError> {
    let (mut hasher, mut total) = (Hasher::new(algorithm), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read_at(&mut buffer, total).at("read", path)?;
        if n == 0 {
            return Ok((hasher, total));
        }
        hasher.update(&buffer[..n]);
        total += n as u64;
    }
}

/// Reads at most `limit` bytes of a file, `None` if it holds more.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
