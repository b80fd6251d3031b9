//! Blocks: some hundred kilobytes of one stream's events, sorted, in columns, compressed.

use crate::{
    codec::{Reader, put_signed, put_varint},
    event::{Position, Row},
};
use std::cell::RefCell;

/// About how many bytes of messages a block holds before it is compressed.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// What a block may at most decompress to: one message more than is aimed at, and the columns.
const MAX_RAW_BYTES: usize = 64 << 20;
/// Fast; logs shrink well at any level.
const LEVEL: i32 = 1;

/// What is known of a block without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockMeta {
    /// Where it begins in its segment.
    pub(crate) offset: u64,
    /// Its compressed length.
    pub(crate) length: u32,
    pub(crate) checksum: u32,
    /// Its length when decompressed.
    pub(crate) raw_length: u32,
    pub(crate) count: u32,
    pub(crate) message_bytes: u64,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
}

/// Makes a block of sorted rows. The offset is left 0.
pub(crate) fn encode(rows: &[Row<'_>]) -> std::io::Result<(BlockMeta, Vec<u8>)> {
    let message_bytes: usize = rows.iter().map(|row| row.message.len()).sum();
    let mut raw = Vec::with_capacity(message_bytes + rows.len() * 6);
    // The messages lie side by side, so that a search may run over all of them at once.
    for row in rows {
        raw.extend_from_slice(row.message.as_bytes());
    }
    let (mut time, mut sequence, mut ingestion) = (0i64, 0u64, 0i64);
    for row in rows {
        put_signed(&mut raw, row.position.timestamp_ms.wrapping_sub(time));
        put_signed(&mut raw, row.position.sequence.wrapping_sub(sequence) as i64);
        put_signed(&mut raw, row.ingestion_ms.wrapping_sub(ingestion));
        put_varint(&mut raw, row.message.len() as u64);
        (time, sequence) = (row.position.timestamp_ms, row.position.sequence);
        ingestion = row.ingestion_ms;
    }
    let packed = compress(&raw)?;
    let meta = BlockMeta {
        offset: 0,
        length: packed.len() as u32,
        checksum: crc32fast::hash(&packed),
        raw_length: raw.len() as u32,
        count: rows.len() as u32,
        message_bytes: message_bytes as u64,
        min_ms: rows.first().map_or(i64::MAX, |row| row.position.timestamp_ms),
        max_ms: rows.last().map_or(i64::MIN, |row| row.position.timestamp_ms),
    };
    Ok((meta, packed))
}

thread_local! {
    // Contexts are a few hundred kilobytes and slow to make.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(LEVEL)?),
        };
        compressor.compress(raw)
    })
}

fn decompress(packed: &[u8], raw_length: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(packed, raw_length)
    })
}

/// A decompressed block.
#[derive(Debug)]
pub(crate) struct Block {
    /// All messages, side by side.
    text: String,
    /// For each row: timestamp, arrival and ingestion, each relative to the row before; length.
    columns: Vec<u8>,
}

impl Block {
    /// Checks and decompresses; says what is wrong with a damaged block.
    pub(crate) fn decode(meta: &BlockMeta, packed: &[u8]) -> Result<Self, &'static str> {
        if crc32fast::hash(packed) != meta.checksum {
            return Err("the checksum of a block does not match");
        }
        let raw_length = meta.raw_length as usize;
        if raw_length > MAX_RAW_BYTES {
            return Err("a block claims an absurd size");
        }
        let mut raw = decompress(packed, raw_length).map_err(|_| "a block does not decompress")?;
        let boundary = usize::try_from(meta.message_bytes).ok().filter(|at| *at <= raw.len());
        let columns = raw.split_off(boundary.ok_or("a block is too short")?);
        let text = String::from_utf8(raw).map_err(|_| "a block's text is not UTF-8")?;
        Ok(Self { text, columns })
    }

    /// All messages, side by side.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The memory it holds.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity() + self.columns.capacity() + std::mem::size_of::<Self>()
    }

    /// The rows, in order; ends early where a damaged block that passed its checksum makes no
    /// sense.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut reader = Reader::new(&self.columns);
        let mut rest = self.text.as_str();
        let (mut time, mut sequence, mut ingestion_ms) = (0i64, 0u64, 0i64);
        std::iter::from_fn(move || {
            time = time.wrapping_add(reader.signed()?);
            sequence = sequence.wrapping_add(reader.signed()? as u64);
            ingestion_ms = ingestion_ms.wrapping_add(reader.signed()?);
            let length = usize::try_from(reader.varint()?).ok()?;
            let (message, behind) = rest.split_at_checked(length)?;
            rest = behind;
            let position = Position { timestamp_ms: time, sequence };
            Some(Row { position, ingestion_ms, message })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_read_back(rows: Vec<(i64, u64, i64, String)>) {
            let rows: Vec<_> = rows
                .iter()
                .map(|(timestamp_ms, sequence, ingestion_ms, message)| Row {
                    position: Position { timestamp_ms: *timestamp_ms, sequence: *sequence },
                    ingestion_ms: *ingestion_ms,
                    message,
                })
                .collect();
            let (meta, packed) = encode(&rows).unwrap();
            let block = Block::decode(&meta, &packed).unwrap();
            let read: Vec<_> = block.rows().collect();
            prop_assert_eq!(read.len(), rows.len());
            for (read, row) in read.iter().zip(&rows) {
                prop_assert_eq!(read.position, row.position);
                prop_assert_eq!(read.ingestion_ms, row.ingestion_ms);
                prop_assert_eq!(read.message, row.message);
            }
        }

        /// With a right checksum over wrong bytes: the decoder itself must stand.
        #[test]
        fn any_bytes_decode_or_not(
            mut raw: Vec<u8>, message_bytes in 0u64..64, flip: Option<(usize, u8)>,
        ) {
            let mut packed = compress(&raw).unwrap();
            if let Some((at, byte)) = flip && !packed.is_empty() {
                let at = at % packed.len();
                packed[at] = byte;
            }
            raw.truncate(1000);
            let meta = BlockMeta {
                offset: 0,
                length: packed.len() as u32,
                checksum: crc32fast::hash(&packed),
                raw_length: raw.len() as u32,
                count: 3,
                message_bytes,
                min_ms: 0,
                max_ms: 0,
            };
            if let Ok(block) = Block::decode(&meta, &packed) {
                prop_assert!(block.rows().count() <= raw.len());
            }
        }
    }
}
