//! Contents of objects: files that are written whole or not at all, and never changed.
//!
//! A file is written beside the others and moved among them when it is on disk; then a record names it. A file that no
//! record names is left over from a crash, and goes at the next start.

use crate::{
    checksum::{Digests, Sums},
    faults,
    model::{Object, Part, Piece, Version},
};
use bytes::Bytes;
use futures_util::StreamExt;
use s3s::{S3Error, dto::StreamingBlob};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::Snapshot;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use world::World;

/// How long a client may pause within a body.
const PAUSE: Duration = Duration::from_secs(60);
/// What is read and written at once, in bytes.
const CHUNK: usize = 256 << 10;
/// The largest object or part that is put at once, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html>
pub(crate) const LARGEST: u64 = 5 << 30;

/// What went wrong with a file.
#[derive(Debug, Error)]
#[error("cannot {step} {path}")]
pub struct ContentError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn told(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContentError {
    let path = path.to_owned();
    move |source| ContentError { step, path, source }
}

/// All content files.
pub(crate) struct Contents {
    files: PathBuf,
    unfinished: PathBuf,
    world: World,
    readers: Arc<Mutex<Readers>>,
}

/// Files that are being read, and those of them that are to go when that is over.
#[derive(Default)]
struct Readers {
    reading: HashMap<PathBuf, usize>,
    doomed: HashSet<PathBuf>,
}

/// Keeps files from going while they are read.
struct Reading {
    paths: Vec<PathBuf>,
    readers: Arc<Mutex<Readers>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &self.paths {
            let left = readers.reading.get_mut(path).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                readers.reading.remove(path);
                if readers.doomed.remove(path) {
                    remove(path);
                }
            }
        }
    }
}

/// A file that does not go is found again at the next start; until then it only takes space.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a content file could not be removed");
    }
}

/// A content file that nothing names yet; it goes unless it is kept.
pub(crate) struct Fresh {
    pub(crate) piece: Piece,
    pub(crate) sums: Sums,
    path: PathBuf,
    kept: bool,
}

impl Fresh {
    /// A record names it now.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path);
        }
    }
}

/// Removes a file that was not finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
        }
    }
}

impl Contents {
    /// The files in `directory`. What the records of `snapshot` do not name is cleared away.
    pub(crate) fn open(
        directory: &Path,
        world: World,
        snapshot: &Snapshot,
    ) -> Result<Self, ContentError> {
        let files = directory.join("objects");
        let unfinished = directory.join("unfinished");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(told("clear", &unfinished)(error));
            }
            _ => {}
        }
        for path in [&files, &unfinished] {
            fs::create_dir_all(path).map_err(told("make", path))?;
        }
        let contents = Self { files, unfinished, world, readers: Arc::default() };
        contents.sweep(snapshot)?;
        Ok(contents)
    }

    fn sweep(&self, snapshot: &Snapshot) -> Result<(), ContentError> {
        let mut named: HashSet<String> = HashSet::new();
        for object in snapshot.scan::<Object>() {
            named.extend(object.pieces.iter().map(|piece| piece.id.clone()));
        }
        for version in snapshot.scan::<Version>() {
            let pieces = version.object.iter().flat_map(|object| &object.pieces);
            named.extend(pieces.map(|piece| piece.id.clone()));
        }
        named.extend(snapshot.scan::<Part>().map(|part| part.piece.id.clone()));
        for directory in fs::read_dir(&self.files).map_err(told("list", &self.files))? {
            let directory = directory.map_err(told("list", &self.files))?.path();
            for file in fs::read_dir(&directory).map_err(told("list", &directory))? {
                let file = file.map_err(told("list", &directory))?;
                if !file.file_name().to_str().is_some_and(|name| named.contains(name)) {
                    remove(&file.path());
                }
            }
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.files.join(&id[..2]).join(id)
    }

    /// Writes a body of at most [`LARGEST`] bytes to a file, down to the disk.
    pub(crate) async fn write(
        &self,
        body: Option<StreamingBlob>,
        digests: Digests,
    ) -> Result<Fresh, S3Error> {
        let id = self.world.hex(32);
        let beside = self.unfinished.join(&id);
        let mut unfinished = Unfinished(Some(beside.clone()));
        let failed = |error: ContentError| faults::disk(&error);
        let file = tokio::fs::File::create(&beside).await;
        let mut file = tokio::io::BufWriter::with_capacity(
            CHUNK,
            file.map_err(told("create", &beside)).map_err(failed)?,
        );
        let (mut digests, mut size) = (digests, 0_u64);
        let mut body = body;
        while let Some(stream) = &mut body {
            let next = self.world.timeout(PAUSE, stream.next()).await;
            let Some(next) = next else { return Err(faults::incomplete()) };
            let Some(next) = next else { break };
            let bytes = next.map_err(refused_body)?;
            size += bytes.len() as u64;
            if size > LARGEST {
                return Err(faults::too_large());
            }
            digests.update(&bytes);
            file.write_all(&bytes).await.map_err(told("write", &beside)).map_err(failed)?;
        }
        file.flush().await.map_err(told("write", &beside)).map_err(failed)?;
        file.get_ref().sync_all().await.map_err(told("sync", &beside)).map_err(failed)?;
        let path = self.path(&id);
        let (from, to) = (beside, path.clone());
        let moved = tokio::task::spawn_blocking(move || publish(&from, &to)).await;
        moved.expect("moving a file does not panic").map_err(failed)?;
        unfinished.0 = None;
        Ok(Fresh { piece: Piece { id, size }, sums: digests.finish(), path, kept: false })
    }

    /// Bytes from `start` to `end` of what the pieces hold together.
    pub(crate) async fn read(
        &self,
        pieces: &[Piece],
        start: u64,
        end: u64,
    ) -> Result<StreamingBlob, S3Error> {
        let mut wanted = Vec::new();
        let mut offset = 0;
        for piece in pieces {
            let (from, to) = (start.max(offset), end.min(offset + piece.size));
            if from < to {
                wanted.push((self.path(&piece.id), from - offset, to - from));
            }
            offset += piece.size;
        }
        let reading = self.pin(wanted.iter().map(|(path, ..)| path.clone()).collect());
        // The first is opened at once, so that a file that is missing is an error and no torn answer.
        let mut rest = wanted.into_iter();
        let first = match rest.next() {
            Some(slice) => {
                Some(open(slice).await.map_err(|error: ContentError| faults::disk(&error))?)
            }
            None => None,
        };
        let state = Slices { current: first, rest, _reading: reading };
        let stream = futures_util::stream::try_unfold(state, |mut state| async move {
            Ok::<_, io::Error>(state.next().await?.map(|bytes| (bytes, state)))
        });
        Ok(StreamingBlob::wrap(stream))
    }

    /// All of what the pieces hold.
    pub(crate) async fn read_all(&self, pieces: &[Piece], size: u64) -> Result<Vec<u8>, S3Error> {
        let mut stream = self.read(pieces, 0, size).await?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes.map_err(|error| faults::disk(&*error))?);
        }
        Ok(all)
    }

    fn pin(&self, paths: Vec<PathBuf>) -> Reading {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &paths {
            *readers.reading.entry(path.clone()).or_default() += 1;
        }
        Reading { paths, readers: self.readers.clone() }
    }

    /// Removes files that no record names any more; those that are being read, afterwards.
    pub(crate) fn discard(&self, pieces: Vec<Piece>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces {
            let path = self.path(&piece.id);
            if readers.reading.contains_key(&path) {
                readers.doomed.insert(path);
            } else {
                remove(&path);
            }
        }
    }
}

/// Moves a finished file among the others, for good.
fn publish(from: &Path, to: &Path) -> Result<(), ContentError> {
    let directory = to.parent().expect("content files lie in directories");
    match fs::create_dir(directory) {
        Ok(()) => {
            let above = directory.parent().expect("which lie in one directory");
            let sync = fs::File::open(above).and_then(|opened| opened.sync_all());
            sync.map_err(told("sync", above))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(told("make", directory)(error)),
    }
    fs::rename(from, to).map_err(told("make", to))?;
    let sync = fs::File::open(directory).and_then(|opened| opened.sync_all());
    sync.map_err(told("sync", directory))
}

/// A body that did not arrive whole, or not as it was signed.
fn refused_body(error: s3s::StdError) -> S3Error {
    tracing::debug!(%error, "a body broke off or was not as signed");
    match error.downcast::<S3Error>() {
        Ok(error) => *error,
        Err(error) if error.to_string().to_lowercase().contains("signature") => {
            S3Error::with_message(
                s3s::S3ErrorCode::SignatureDoesNotMatch,
                "The request signature we calculated does not match the signature you provided.",
            )
        }
        Err(_) => faults::incomplete(),
    }
}

type Slice = (PathBuf, u64, u64);

async fn open(
    (path, offset, length): Slice,
) -> Result<tokio::io::Take<tokio::fs::File>, ContentError> {
    let mut file = tokio::fs::File::open(&path).await.map_err(told("open", &path))?;
    file.set_max_buf_size(CHUNK);
    file.seek(io::SeekFrom::Start(offset)).await.map_err(told("read", &path))?;
    Ok(file.take(length))
}

/// Slices of files, one after the other.
struct Slices {
    current: Option<tokio::io::Take<tokio::fs::File>>,
    rest: std::vec::IntoIter<Slice>,
    _reading: Reading,
}

impl Slices {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(file) = &mut self.current else { return Ok(None) };
            if file.limit() > 0 {
                let mut bytes = bytes::BytesMut::with_capacity(CHUNK);
                if file.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                return Ok(Some(bytes.freeze()));
            }
            self.current = match self.rest.next() {
                Some(slice) => Some(open(slice).await.map_err(io::Error::other)?),
                None => None,
            };
        }
    }
}
