//! The journal: one file after another that every batch is written to before anybody is told of it.
//! A batch leaves memory when it is in a segment; a journal file goes when none of its batches is
//! in memory.
//!
//! ```text
//! file   = magic, next arrival u64, crc32 u32, frames
//! frame  = length u32, crc32 u32, payload
//! ```
//!
//! The frame that a crash cut short ends its file. A damaged frame with others behind it is
//! reported; the frames behind it are lost only if its length is damaged too.

use crate::{
    codec::{Reader, put_bytes, put_varint},
    error::Damage,
    event::{MAX_BATCH_BYTES, Rows},
    segment::Mark,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"NGJRNL01";
const HEADER_BYTES: usize = 20;
const FRAME_BYTES: usize = 8;
/// A file that is longer takes no further batch.
pub(crate) const FILE_BYTES: u64 = 32 << 20;
const MAX_PAYLOAD_BYTES: usize = MAX_BATCH_BYTES + (64 << 10);

const APPEND: u8 = 1;
const DELETE: u8 = 2;

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Record {
    Append { stream: String, first: u64, ingestion_ms: i64, mark: Option<Mark>, rows: Rows },
    Delete { stream: String },
}

/// Appends a frame for a batch to `out`.
pub(crate) fn put_append(
    out: &mut Vec<u8>,
    stream: &str,
    first: u64,
    ingestion_ms: i64,
    mark: Option<(&str, u64)>,
    rows: &[u8],
) {
    put_frame(out, |out| {
        out.push(APPEND);
        put_bytes(out, stream.as_bytes());
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&ingestion_ms.to_le_bytes());
        // A source id is never empty: see the check at append.
        let (source, end) = mark.unwrap_or(("", 0));
        put_bytes(out, source.as_bytes());
        put_varint(out, end);
        out.extend_from_slice(rows);
    });
}

/// Appends a frame for a deletion to `out`.
pub(crate) fn put_delete(out: &mut Vec<u8>, stream: &str) {
    put_frame(out, |out| {
        out.push(DELETE);
        put_bytes(out, stream.as_bytes());
    });
}

fn put_frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    payload(out);
    let (frame, payload) = out[start..].split_at_mut(FRAME_BYTES);
    frame[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

fn parse(payload: &[u8]) -> Option<Record> {
    let mut reader = Reader::new(payload);
    match reader.u8()? {
        APPEND => {
            let stream = reader.text()?.to_owned();
            let (first, ingestion_ms) = (reader.u64()?, reader.i64()?);
            let (source, end) = (reader.text()?.to_owned(), reader.varint()?);
            let mark = (!source.is_empty()).then_some(Mark { source, end });
            let rows = Rows::check(ingestion_ms, reader.rest())?;
            Some(Record::Append { stream, first, ingestion_ms, mark, rows })
        }
        DELETE => Some(Record::Delete { stream: reader.text()?.to_owned() }),
        _ => None,
    }
}

/// What a journal file holds.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The next arrival when the file was begun.
    pub(crate) next_arrival: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: u64,
    pub(crate) damage: Vec<Damage>,
    /// What follows the last frame that could be framed: a torn tail in the newest file, damage in
    /// others.
    pub(crate) tail: Option<Damage>,
}

/// Reads a journal file.
pub(crate) fn replay(path: &Path) -> io::Result<Replay> {
    let bytes = std::fs::read(path)?;
    let mut replay = Replay { bytes: bytes.len() as u64, ..Replay::default() };
    let damage = |offset: usize, what| Damage { path: path.into(), offset: offset as u64, what };
    let Some(next_arrival) = parse_header(&bytes) else {
        // A file without a whole header was begun in the moment of the crash and holds nothing.
        if bytes.len() > HEADER_BYTES {
            replay.damage.push(damage(0, "the header of the journal is damaged"));
        }
        return Ok(replay);
    };
    replay.next_arrival = next_arrival;
    let mut at = HEADER_BYTES;
    let mut bad = None;
    while let Some((payload, checksum)) = frame(&bytes, at) {
        let record = parse(payload).filter(|_| crc32fast::hash(payload) == checksum);
        match record {
            Some(record) => {
                // With a good frame behind it, the bad one is no torn tail.
                if let Some(offset) = bad.take() {
                    replay.damage.push(damage(offset, "a journal entry is damaged"));
                }
                replay.records.push(record);
            }
            None => bad = bad.or(Some(at)),
        }
        at += FRAME_BYTES + payload.len();
    }
    if let Some(offset) = bad.or((at < bytes.len()).then_some(at)) {
        replay.tail = Some(damage(offset, "the end of a journal file is damaged"));
    }
    Ok(replay)
}

fn parse_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..HEADER_BYTES)?;
    let mut reader = Reader::new(header);
    let magic = reader.take(8)?;
    let next_arrival = reader.u64()?;
    let checksum = reader.u32()?;
    (magic == MAGIC && crc32fast::hash(&header[..16]) == checksum).then_some(next_arrival)
}

/// The payload of the frame at `at`, and its checksum; `None` at the end or the torn tail.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], u32)> {
    let mut reader = Reader::new(bytes.get(at..)?);
    let length = reader.u32()? as usize;
    let checksum = reader.u32()?;
    // No payload is empty; zeros are what a crash leaves of a file that had grown.
    if length == 0 || length > MAX_PAYLOAD_BYTES {
        return None;
    }
    Some((reader.take(length)?, checksum))
}

/// The journal file that is written to.
pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// A failed write could not be taken back: this file takes no further batch.
    spoilt: bool,
}

impl Journal {
    /// Begins the file `number`.
    pub(crate) fn create(dir: &Path, number: u64, next_arrival: u64) -> io::Result<Self> {
        let path = dir.join(file_name(number));
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&next_arrival.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let written = file.write_all(&header).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| File::open(dir)?.sync_all()) {
            // Without this the number could not be tried again. The first error is the one to tell.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { dir: dir.into(), file, number, bytes: header.len() as u64, spoilt: false })
    }

    /// Whether the next batch belongs into a new file.
    pub(crate) fn is_full(&self) -> bool {
        self.spoilt || self.bytes >= FILE_BYTES
    }

    /// The file that follows this one.
    pub(crate) fn next(&self, next_arrival: u64) -> io::Result<Self> {
        Self::create(&self.dir, self.number + 1, next_arrival)
    }

    /// Appends frames, durably. After a failure the file is as before, or else takes nothing more.
    pub(crate) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        match self.file.write_all(frames).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.bytes += frames.len() as u64;
                Ok(())
            }
            Err(error) => {
                let undone = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all());
                // Written at the end of what there is: with the position behind it there would be a
                // hole.
                let undone = undone.and_then(|()| {
                    io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.bytes)).map(drop)
                });
                self.spoilt = undone.is_err();
                Err(error)
            }
        }
    }
}

/// The name of the journal file `number`.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}.journal")
}

/// The journal files in `dir`, in order.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|n| n.strip_suffix(".journal")).and_then(|n| n.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;
    use proptest::prelude::*;

    proptest! {
        /// A whole header, then anything, with whole frames in between.
        #[test]
        fn any_bytes_replay(pieces: Vec<Option<Vec<u8>>>) {
            let dir = tempfile::TempDir::new().unwrap();
            let mut journal = Journal::create(dir.path(), 1, 77).unwrap();
            let event = NewEvent { timestamp_ms: 5, message: "line".into() };
            let rows = Rows::encode(3, &[event]).unwrap();
            for piece in &pieces {
                let mut frames = Vec::new();
                match piece {
                    Some(noise) => frames.extend_from_slice(noise),
                    None => put_append(&mut frames, "s", 1, 3, Some(("source", 4)), &rows.bytes),
                }
                journal.write(&frames).unwrap();
            }
            let noisy = pieces.iter().flatten().any(|noise| !noise.is_empty());
            let whole = pieces.iter().filter(|piece| piece.is_none()).count();
            let replay = replay(&dir.path().join(file_name(1))).unwrap();
            prop_assert_eq!(replay.next_arrival, 77);
            prop_assert!(replay.records.len() <= whole);
            if !noisy {
                prop_assert!(replay.records.len() == whole && replay.tail.is_none());
            }
        }
    }
}
