//! Segment files: groups of blocks, one group for each time that a stream's waiting events were
//! moved out of the journal. A group's header says everything about its blocks, so that a stream's
//! index is read without touching them.
//!
//! ```text
//! group  = magic u32, header length u32, bodies length u64, header crc32 u32, header, bodies
//! header = sealed through u64, last ingestion i64, marks, blocks
//! ```
//!
//! A group is whole or it is no group: what a crash left of one is cut off when the stream is
//! loaded, and its events come from the journal again.

use crate::{
    block::{Block, BlockMeta},
    codec::{Reader, put_bytes, put_varint},
    error::Damage,
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: u32 = 0x3147_474e; // "NGG1"
const PREFIX_BYTES: usize = 20;
/// A group has at most some thousand blocks and some hundred marks.
const MAX_HEADER_BYTES: usize = 4 << 20;
/// A segment that is longer takes no further group.
pub(crate) const SEGMENT_BYTES: u64 = 4 << 20;

/// Up to where a source is consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) source: String,
    pub(crate) end: u64,
}

/// A group's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Every event of the stream up to this arrival is in this group or one before it.
    pub(crate) sealed_through: u64,
    pub(crate) last_ingestion_ms: i64,
    /// All marks of the stream, the longest unchanged first.
    pub(crate) marks: Vec<Mark>,
    pub(crate) blocks: Vec<BlockMeta>,
}

impl Group {
    /// The bytes to be appended to a segment of `at` bytes; sets the blocks' offsets.
    pub(crate) fn encode(&mut self, at: u64, bodies: &[Vec<u8>]) -> Vec<u8> {
        let header = self.header();
        let body_bytes: usize = bodies.iter().map(Vec::len).sum();
        let mut out = Vec::with_capacity(PREFIX_BYTES + header.len() + body_bytes);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&(body_bytes as u64).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        out.extend_from_slice(&header);
        for (block, body) in self.blocks.iter_mut().zip(bodies) {
            block.offset = at + out.len() as u64;
            out.extend_from_slice(body);
        }
        out
    }

    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.sealed_through.to_le_bytes());
        out.extend_from_slice(&self.last_ingestion_ms.to_le_bytes());
        put_varint(&mut out, self.marks.len() as u64);
        for mark in &self.marks {
            put_bytes(&mut out, mark.source.as_bytes());
            put_varint(&mut out, mark.end);
        }
        put_varint(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            for number in [block.length, block.checksum, block.raw_length, block.count] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&block.message_bytes.to_le_bytes());
            out.extend_from_slice(&block.min_ms.to_le_bytes());
            out.extend_from_slice(&block.max_ms.to_le_bytes());
        }
        out
    }

    /// Reads a header whose bodies begin at `offset` and fill `body_bytes`.
    fn decode(header: &[u8], mut offset: u64, body_bytes: u64) -> Option<Self> {
        let mut reader = Reader::new(header);
        let mut group = Self {
            sealed_through: reader.u64()?,
            last_ingestion_ms: reader.i64()?,
            ..Self::default()
        };
        for _ in 0..reader.varint()? {
            let source = reader.text()?.to_owned();
            group.marks.push(Mark { source, end: reader.varint()? });
        }
        let end = offset.checked_add(body_bytes)?;
        for _ in 0..reader.varint()? {
            let block = BlockMeta {
                offset,
                length: reader.u32()?,
                checksum: reader.u32()?,
                raw_length: reader.u32()?,
                count: reader.u32()?,
                message_bytes: reader.u64()?,
                min_ms: reader.i64()?,
                max_ms: reader.i64()?,
            };
            offset = offset.checked_add(u64::from(block.length))?;
            group.blocks.push(block);
        }
        (offset == end && reader.rest().is_empty()).then_some(group)
    }
}

/// A group and where it lies.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) group: Group,
}

/// What a segment file holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) groups: Vec<Placed>,
    /// Where the last whole group ends, if something else follows it.
    pub(crate) torn_at: Option<u64>,
    pub(crate) damage: Vec<Damage>,
}

/// Reads the headers of all groups. Between whole groups damage is skipped and reported; behind the
/// last one it is a torn tail.
pub(crate) fn scan(path: &Path) -> io::Result<Scan> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut scan = Scan::default();
    let mut at = 0;
    while at < length {
        if let Some((group, end)) = read_group(&file, at, length)? {
            if let Some(offset) = scan.torn_at.take() {
                let what = "the header of a group of blocks is damaged";
                scan.damage.push(Damage { path: path.into(), offset, what });
            }
            scan.groups.push(Placed { start: at, end, group });
            at = end;
            continue;
        }
        scan.torn_at.get_or_insert(at);
        match next_magic(&file, at + 1, length)? {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(scan)
}

/// The group at `at`, and where it ends; `None` when there is no whole one.
fn read_group(file: &File, at: u64, length: u64) -> io::Result<Option<(Group, u64)>> {
    let mut prefix = [0; PREFIX_BYTES];
    if length - at < PREFIX_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut prefix, at)?;
    let Some((header_length, body_bytes, checksum)) = parse_prefix(&prefix) else {
        return Ok(None);
    };
    let bodies = at + (PREFIX_BYTES + header_length) as u64;
    let end = bodies.checked_add(body_bytes).filter(|end| *end <= length);
    let Some(end) = end.filter(|_| header_length <= MAX_HEADER_BYTES) else { return Ok(None) };
    let mut header = vec![0; header_length];
    file.read_exact_at(&mut header, at + PREFIX_BYTES as u64)?;
    if crc32fast::hash(&header) != checksum {
        return Ok(None);
    }
    Ok(Group::decode(&header, bodies, body_bytes).map(|group| (group, end)))
}

fn parse_prefix(prefix: &[u8; PREFIX_BYTES]) -> Option<(usize, u64, u32)> {
    let mut reader = Reader::new(prefix);
    if reader.u32()? != MAGIC {
        return None;
    }
    Some((reader.u32()? as usize, reader.u64()?, reader.u32()?))
}

/// Where the magic number stands next, from `at` on.
fn next_magic(file: &File, mut at: u64, length: u64) -> io::Result<Option<u64>> {
    let magic = MAGIC.to_le_bytes();
    let mut window = vec![0; 64 << 10];
    while at < length {
        let size = window.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut window[..size], at)?;
        if let Some(found) = memchr::memmem::find(&window[..size], &magic) {
            return Ok(Some(at + found as u64));
        }
        // The number may straddle two windows.
        at += if size < window.len() { size } else { size - 3 } as u64;
    }
    Ok(None)
}

/// Reads and decodes a block.
pub(crate) fn read_block(
    file: &File,
    path: &Path,
    meta: &BlockMeta,
) -> io::Result<Result<Block, Damage>> {
    let mut packed = vec![0; meta.length as usize];
    let damaged = |what| Damage { path: path.into(), offset: meta.offset, what };
    match file.read_exact_at(&mut packed, meta.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(damaged("the segment is too short")));
        }
        other => other?,
    }
    Ok(Block::decode(meta, &packed).map_err(damaged))
}

/// The file name of a stream's segment.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:08}.seg")
}

/// The segments in a stream's directory, in order; none when it does not exist.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".seg")).and_then(|n| n.parse().ok());
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
    use proptest::prelude::*;

    proptest! {
        /// Groups between noise are found again, and nothing else is taken for one.
        #[test]
        fn any_bytes_scan(pieces: Vec<Option<Vec<u8>>>) {
            let dir = tempfile::TempDir::new().unwrap();
            let path = dir.path().join(file_name(1));
            let mut bytes = Vec::new();
            let mut groups = Vec::new();
            for (n, piece) in pieces.into_iter().enumerate() {
                match piece {
                    Some(noise) => bytes.extend(noise),
                    None => {
                        let marks = vec![Mark { source: format!("source {n}"), end: n as u64 }];
                        let sealed_through = n as u64;
                        let mut group = Group { sealed_through, marks, ..Group::default() };
                        bytes.extend(group.encode(bytes.len() as u64, &[]));
                        groups.push(group);
                    }
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            let scan = scan(&path).unwrap();
            let found: Vec<_> = scan.groups.into_iter().map(|placed| placed.group).collect();
            prop_assert_eq!(found, groups);
        }
    }
}
