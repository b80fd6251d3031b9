//! Downloads of layers, which outlive connections and processes: the bytes lie in a file that the
//! next try goes on with. While they come in, [`TailReader`] reads them for unpacking; whether they
//! were the right ones is known at the end, before anything is published.

use crate::blobs::hash_file;
use crate::disk::{At, DiskError, blocking, discard};
use crate::flight::Audience;
use crate::manifest::Descriptor;
use crate::pull::{Event, PullError};
use crate::registry::pause;
use crate::source::{BlobBody, Source, SourceError};
use crate::{Hasher, Reference};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::BoxStream};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
};
use world::World;

const GATHER_BYTES: usize = 512 << 10;
/// Tries in a row that bring no byte.
const ATTEMPTS: u32 = 6;

/// A stream, and where in the blob it begins.
type Opened = (u64, BoxStream<'static, Result<Bytes, SourceError>>);

/// How far a file has been written, for somebody who reads it meanwhile.
#[derive(Default)]
struct Tail {
    state: Mutex<(u64, Option<bool>)>,
    changed: Condvar,
}

impl Tail {
    fn set(&self, change: impl FnOnce(&mut (u64, Option<bool>))) {
        change(&mut self.state.lock().expect("no panic while held"));
        self.changed.notify_all();
    }
}

/// Reads a file that is still being written, waiting for what has not come yet. Blocks.
pub(crate) struct TailReader {
    file: Arc<File>,
    tail: Arc<Tail>,
    position: u64,
}

impl Read for TailReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.tail.state.lock().expect("no panic while held");
        let available = loop {
            let (written, end) = *state;
            if written > self.position {
                break written - self.position;
            }
            match end {
                Some(true) => return Ok(0),
                Some(false) => return Err(io::Error::other("the download ended early")),
                None => state = self.tail.changed.wait(state).expect("no panic while held"),
            }
        };
        drop(state);
        let n = usize::try_from(available).map_or(buffer.len(), |n| n.min(buffer.len()));
        let n = self.file.read_at(&mut buffer[..n], self.position)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into()); // somebody has cut our file
        }
        self.position += n as u64;
        Ok(n)
    }
}

/// A download that has been begun, maybe long ago.
pub(crate) struct Download {
    file: Arc<File>,
    path: PathBuf,
    blob: Descriptor,
    hasher: Hasher,
    written: u64,
    tail: Arc<Tail>,
    /// Some of the bytes are from an earlier process, which may have lost some in a power cut.
    pub(crate) resumed: bool,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.abandon(); // whoever reads must not wait for ever
    }
}

impl Download {
    /// Opens the file and takes stock of what is there.
    pub(crate) async fn open(path: PathBuf, blob: Descriptor) -> Result<Self, DiskError> {
        blocking(move || {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path);
            let file = Arc::new(file.at("open", &path)?);
            if file.metadata().at("stat", &path)?.len() > blob.size {
                file.set_len(0).at("empty", &path)?;
            }
            let (hasher, written) = hash_file(&file, blob.digest.algorithm(), &path)?;
            let tail = Arc::new(Tail::default());
            tail.set(|(length, _)| *length = written);
            Ok(Download { file, path, blob, hasher, written, tail, resumed: written > 0 })
        })
        .await
    }

    /// How many bytes are there.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// A reader of all of it, from the beginning.
    pub(crate) fn reader(&self) -> TailReader {
        TailReader { file: self.file.clone(), tail: self.tail.clone(), position: 0 }
    }

    /// Tells the reader that there will be no more.
    fn abandon(&self) {
        self.tail.set(|(_, end)| *end = end.or(Some(false)));
    }

    /// Removes the file: its bytes are used, wrong, or in the way.
    pub(crate) fn remove(&self) {
        discard(&self.path);
    }

    /// Fetches the rest, over as many connections as it takes, and verifies all of it. `first` is a
    /// stream that has been opened already, and where it begins.
    pub(crate) async fn run(
        &mut self,
        world: &World,
        source: &dyn Source,
        reference: &Reference,
        first: Option<Opened>,
        audience: &Audience,
    ) -> Result<(), PullError> {
        let fetched = self.fetch_rest(world, source, reference, first, audience).await;
        let verified = fetched.and_then(|()| self.verify());
        if verified.is_err() {
            self.abandon();
        }
        verified
    }

    fn verify(&self) -> Result<(), PullError> {
        let (expected, actual) = (self.blob.digest.clone(), self.hasher.clone().finish());
        if expected != actual {
            self.remove();
            return Err(PullError::Digest { expected, actual });
        }
        self.tail.set(|(_, end)| *end = Some(true));
        Ok(())
    }

    async fn fetch_rest(
        &mut self,
        world: &World,
        source: &dyn Source,
        reference: &Reference,
        first: Option<Opened>,
        audience: &Audience,
    ) -> Result<(), PullError> {
        let (mut next, mut attempt) = (first, 0);
        while self.written < self.blob.size {
            let before = self.written;
            let failed = match self.open_stream(source, reference, next.take()).await {
                Ok((offset, stream)) => self.drain(offset, stream, audience).await?,
                Err(failed) => Some(failed),
            };
            let host = || reference.registry().to_string();
            let failed = match failed {
                Some(failed) => failed,
                None if self.written == self.blob.size => break,
                None => SourceError::Connection {
                    host: host(),
                    source: Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)),
                },
            };
            attempt = if self.written > before { 1 } else { attempt + 1 };
            if !failed.is_transient() || attempt == ATTEMPTS {
                let reference = reference.to_string();
                return Err(PullError::Source { reference, source: Arc::new(failed) });
            }
            let pause = pause(world, attempt, failed.retry_after());
            let blob = &self.blob.digest;
            tracing::info!(%blob, at = self.written, error = %failed, ?pause, "will resume");
            world.sleep(pause).await;
        }
        Ok(())
    }

    async fn open_stream(
        &self,
        source: &dyn Source,
        reference: &Reference,
        ready: Option<Opened>,
    ) -> Result<Opened, SourceError> {
        if let Some(ready) = ready {
            return Ok(ready);
        }
        match source.blob(reference, &self.blob, self.written).await? {
            BlobBody::Stream { offset, stream } if offset <= self.written => Ok((offset, stream)),
            BlobBody::Stream { .. } => {
                let detail = "it sends a later part of the blob than it was asked for".to_string();
                Err(SourceError::Protocol { host: reference.registry().into(), detail })
            }
            BlobBody::File(blob) => {
                let chunks = futures_util::stream::unfold(self.written, move |at| {
                    let blob = blob.clone();
                    async move {
                        let read = blob.read_at(at, GATHER_BYTES).await;
                        let path = std::path::Path::new("a blob of the local store");
                        match read.at("read", path) {
                            Ok(bytes) if bytes.is_empty() => None,
                            Ok(bytes) => {
                                let next = at + bytes.len() as u64;
                                Some((Ok(bytes), next))
                            }
                            Err(failed) => Some((Err(SourceError::Store(failed.into())), u64::MAX)),
                        }
                    }
                });
                Ok((self.written, chunks.boxed()))
            }
        }
    }

    /// Writes what the stream brings until it ends, well or (then the error is given) not.
    async fn drain(
        &mut self,
        mut offset: u64,
        mut stream: BoxStream<'static, Result<Bytes, SourceError>>,
        audience: &Audience,
    ) -> Result<Option<SourceError>, PullError> {
        let mut gathered = BytesMut::new();
        let failed = loop {
            let mut piece = match stream.next().await {
                None => break None,
                Some(Err(failed)) => break Some(failed),
                Some(Ok(piece)) => piece,
            };
            // A source that cannot begin in the middle repeats what we have; the hash covers ours.
            let have = self.written + gathered.len() as u64;
            let known = usize::try_from(have.saturating_sub(offset)).unwrap_or(usize::MAX);
            offset += piece.len() as u64;
            piece = piece.split_off(known.min(piece.len()));
            if have + piece.len() as u64 > self.blob.size {
                self.remove();
                let (digest, limit_bytes) = (self.blob.digest.clone(), self.blob.size);
                return Err(PullError::TooLarge { digest, limit_bytes });
            }
            gathered.extend_from_slice(&piece);
            if gathered.len() >= GATHER_BYTES {
                self.write(gathered.split().freeze(), audience).await?;
            }
        };
        self.write(gathered.freeze(), audience).await?;
        Ok(failed)
    }

    async fn write(&mut self, bytes: Bytes, audience: &Audience) -> Result<(), PullError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, path, at) = (self.file.clone(), self.path.clone(), self.written);
        let (mut hasher, length) = (self.hasher.clone(), bytes.len() as u64);
        let written = blocking(move || {
            file.write_all_at(&bytes, at).at("write", &path)?;
            hasher.update(&bytes);
            Ok::<_, DiskError>(hasher)
        });
        self.hasher = written.await.map_err(|failed| {
            if failed.is_full() {
                self.remove(); // give back what we can
            }
            PullError::disk(failed)
        })?;
        self.written += length;
        self.tail.set(|(length, _)| *length = self.written);
        let (layer, done, total) = (self.blob.digest.clone(), self.written, self.blob.size);
        audience.tell(&Event::Downloaded { layer, done, total });
        Ok(())
    }
}
