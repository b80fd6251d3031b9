//! The shim's half of the spool.

use super::{HEADER_BYTES, MAX_FRAME_BYTES, SEGMENT_BYTES, SpoolError, Stream, segment_path};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io::{IoSlice, Write},
    path::{Path, PathBuf},
};

/// How finely the writer knows what has been consumed, in bytes.
const BUCKET_BYTES: u64 = 64 << 10;

/// Appends frames and knows how much is not yet consumed.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    dir: PathBuf,
    file: File,
    segment: u64,
    end: u64,
    limit: u64,
    /// What was appended and not acknowledged: the end of a stretch, and bytes of output by
    /// container.
    buckets: VecDeque<(u64, BTreeMap<u16, u64>)>,
}

impl SpoolWriter {
    /// Begins the spool of a new task in the empty directory `dir`. Above `limit` unconsumed bytes
    /// it says that it is full.
    pub(crate) fn open(dir: &Path, limit: u64) -> Result<Self, SpoolError> {
        let file = create(dir, 0)?;
        let buckets = VecDeque::new();
        Ok(Self { dir: dir.to_owned(), file, segment: 0, end: 0, limit, buckets })
    }

    /// The position after the last frame.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether containers that log blocking must wait.
    pub(crate) fn is_full(&self) -> bool {
        let unconsumed: u64 = self.buckets.iter().flat_map(|(_, by)| by.values()).sum();
        unconsumed >= self.limit
    }

    /// Bytes that `container` wrote and nobody acknowledged.
    pub(crate) fn unconsumed(&self, container: u16) -> u64 {
        self.buckets.iter().filter_map(|(_, by)| by.get(&container)).sum()
    }

    /// The consumer has everything before `position`.
    pub(crate) fn acknowledged(&mut self, position: u64) {
        while self.buckets.front().is_some_and(|(end, _)| *end <= position) {
            self.buckets.pop_front();
        }
    }

    /// Appends what `container` wrote, at most [`MAX_FRAME_BYTES`].
    pub(crate) fn append(
        &mut self,
        time_ms: i64,
        container: u16,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), SpoolError> {
        assert!(bytes.len() <= MAX_FRAME_BYTES, "the caller cuts output into frames");
        if self.end - self.segment >= SEGMENT_BYTES {
            self.file = create(&self.dir, self.end)?;
            self.segment = self.end;
        }
        let mut header = [0u8; HEADER_BYTES];
        header[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&time_ms.to_le_bytes());
        header[16..18].copy_from_slice(&container.to_le_bytes());
        header[18] = u8::from(stream == Stream::Stderr);
        let mut sum = crc32fast::Hasher::new();
        sum.update(&header[8..]);
        sum.update(bytes);
        header[4..8].copy_from_slice(&sum.finalize().to_le_bytes());
        self.write(&header, bytes)?;
        self.end += (HEADER_BYTES + bytes.len()) as u64;
        self.count(container, bytes.len() as u64);
        Ok(())
    }

    fn write(&mut self, header: &[u8], bytes: &[u8]) -> Result<(), SpoolError> {
        let parts = [IoSlice::new(header), IoSlice::new(bytes)];
        let whole = header.len() + bytes.len();
        let written = self.file.write_vectored(&parts).and_then(|written| match written == whole {
            true => Ok(()),
            false => Err(std::io::ErrorKind::WriteZero.into()),
        });
        written.map_err(|e| {
            // A frame is written whole or not at all; a half one would hide every later one. If
            // this cut fails too, the reader reports the damage.
            if let Err(error) = self.file.set_len(self.end - self.segment) {
                tracing::error!(%error, "a torn frame could not be cut off");
            }
            SpoolError::Write(self.end, e)
        })
    }

    fn count(&mut self, container: u16, bytes: u64) {
        match self.buckets.back_mut() {
            Some((end, by)) if self.end / BUCKET_BYTES == *end / BUCKET_BYTES => {
                *end = self.end;
                *by.entry(container).or_default() += bytes;
            }
            _ => self.buckets.push_back((self.end, BTreeMap::from([(container, bytes)]))),
        }
    }
}

fn create(dir: &Path, start: u64) -> Result<File, SpoolError> {
    let path = segment_path(dir, start);
    let open = OpenOptions::new().append(true).create_new(true).open(&path);
    open.map_err(|e| SpoolError::Open(path, e))
}
