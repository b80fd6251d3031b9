//! Events, batches of them as they arrive, and positions between them.

use crate::{
    codec::{Reader, put_signed, put_varint},
    error::AppendError,
};
use std::{fmt, str::FromStr, sync::Arc};

/// The longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The longest batch, in bytes of its messages, with 13 more for each.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// What a row takes beside its message, at most: ten bytes of time, three of length.
const ROW_BYTES: usize = 13;

/// An event to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// When it happened, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The line.
    pub message: String,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The stream it belongs to.
    pub stream: Arc<str>,
    /// When it happened, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub ingestion_ms: i64,
    /// The store-wide number of its arrival: unique, and greater for what arrived later.
    pub sequence: u64,
    /// The line.
    pub message: String,
}

impl Event {
    /// Where this event stands among all others.
    pub fn position(&self) -> Position {
        Position { timestamp_ms: self.timestamp_ms, sequence: self.sequence }
    }
}

/// A place in the order of reading: by timestamp, then by arrival. It stays valid while events are
/// added and removed. As text it is 32 hexadecimal digits that sort alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The event's timestamp.
    pub timestamp_ms: i64,
    /// The event's arrival; 0 is before all events of the timestamp, the greatest number behind
    /// them.
    pub sequence: u64,
}

impl Position {
    /// Before every event of this millisecond.
    pub fn before(timestamp_ms: i64) -> Self {
        Self { timestamp_ms, sequence: 0 }
    }

    /// Behind every event of this millisecond.
    pub fn behind(timestamp_ms: i64) -> Self {
        Self { timestamp_ms, sequence: u64::MAX }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Flipping the sign bit makes the unsigned order of the text the signed order of time.
        let time = self.timestamp_ms as u64 ^ (1 << 63);
        write!(f, "{time:016x}{:016x}", self.sequence)
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a log")]
pub struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let hex = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| BadPosition);
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadPosition);
        }
        let (time, sequence) = text.split_at(16);
        let timestamp_ms = (hex(time)? ^ (1 << 63)) as i64;
        Ok(Self { timestamp_ms, sequence: hex(sequence)? })
    }
}

/// Which part of a source (a container's output, say) a batch was made of. A batch that was stored
/// already is not stored again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The source, unique in the stream.
    pub source: String,
    /// The offset in the source where the batch begins.
    pub start: u64,
    /// The offset where it ends: what to go on with.
    pub end: u64,
}

/// Encoded rows: timestamp (relative to the ingestion), length, message.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u64,
    pub(crate) message_bytes: u64,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
}

impl Rows {
    pub(crate) fn encode(ingestion_ms: i64, events: &[NewEvent]) -> Result<Self, AppendError> {
        let mut message_bytes = 0usize;
        for event in events {
            let bytes = event.message.len();
            if bytes > MAX_MESSAGE_BYTES {
                let limit = MAX_MESSAGE_BYTES;
                return Err(AppendError::TooLarge { what: "a message", bytes, limit });
            }
            message_bytes += bytes;
        }
        // The framing counts too, so that a crowd of empty messages is bounded as well.
        let bytes = message_bytes + events.len() * ROW_BYTES;
        if bytes > MAX_BATCH_BYTES {
            let limit = MAX_BATCH_BYTES;
            return Err(AppendError::TooLarge { what: "a batch", bytes, limit });
        }
        let mut rows = Self::empty(Vec::with_capacity(bytes));
        for event in events {
            put_signed(&mut rows.bytes, event.timestamp_ms.wrapping_sub(ingestion_ms));
            put_varint(&mut rows.bytes, event.message.len() as u64);
            rows.bytes.extend_from_slice(event.message.as_bytes());
            rows.note(event.timestamp_ms, event.message.len());
        }
        Ok(rows)
    }

    /// Checks encoded rows; `None` when they are damaged.
    pub(crate) fn check(ingestion_ms: i64, bytes: &[u8]) -> Option<Self> {
        let mut rows = Self::empty(bytes.to_vec());
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let timestamp_ms = ingestion_ms.wrapping_add(reader.signed()?);
            rows.note(timestamp_ms, reader.text()?.len());
        }
        Some(rows)
    }

    fn empty(bytes: Vec<u8>) -> Self {
        Self { bytes, count: 0, message_bytes: 0, min_ms: i64::MAX, max_ms: i64::MIN }
    }

    fn note(&mut self, timestamp_ms: i64, length: usize) {
        self.count += 1;
        self.message_bytes += length as u64;
        self.min_ms = self.min_ms.min(timestamp_ms);
        self.max_ms = self.max_ms.max(timestamp_ms);
    }
}

/// A durable batch that is not in a segment yet.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The arrival of its first event; the others follow one by one.
    pub(crate) first: u64,
    pub(crate) ingestion_ms: i64,
    pub(crate) rows: Rows,
    /// The journal file that holds it.
    pub(crate) journal: u64,
}

/// An event inside a batch or a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) position: Position,
    pub(crate) ingestion_ms: i64,
    pub(crate) message: &'a str,
}

impl Row<'_> {
    pub(crate) fn to_event(self, stream: &Arc<str>) -> Event {
        Event {
            stream: stream.clone(),
            timestamp_ms: self.position.timestamp_ms,
            ingestion_ms: self.ingestion_ms,
            sequence: self.position.sequence,
            message: self.message.to_owned(),
        }
    }
}

impl Batch {
    /// The last arrival in it.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.rows.count.saturating_sub(1)
    }

    /// The memory it holds, about.
    pub(crate) fn memory(&self) -> usize {
        self.rows.bytes.capacity() + std::mem::size_of::<Self>()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let mut reader = Reader::new(&self.rows.bytes);
        (0..self.rows.count).map_while(move |n| {
            let timestamp_ms = self.ingestion_ms.wrapping_add(reader.signed()?);
            let position = Position { timestamp_ms, sequence: self.first + n };
            Some(Row { position, ingestion_ms: self.ingestion_ms, message: reader.text()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_read_back_and_sort_as_text(a: (i64, u64), b: (i64, u64)) {
            let a = Position { timestamp_ms: a.0, sequence: a.1 };
            let b = Position { timestamp_ms: b.0, sequence: b.1 };
            prop_assert_eq!(a.to_string().parse::<Position>(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_is_a_position_or_not(text: String) {
            let read = text.parse::<Position>();
            prop_assert!(read.is_err() || read.map(|p| p.to_string()) == Ok(text));
        }

        #[test]
        fn batches_read_back(events: Vec<(i64, String)>, ingestion_ms: i64) {
            let events: Vec<_> = events
                .into_iter()
                .map(|(timestamp_ms, message)| NewEvent { timestamp_ms, message })
                .collect();
            let rows = Rows::encode(ingestion_ms, &events).unwrap();
            let rows = Rows::check(ingestion_ms, &rows.bytes).unwrap();
            let batch = Batch { first: 9, ingestion_ms, rows, journal: 0 };
            let read: Vec<_> = batch
                .iter()
                .map(|row| NewEvent {
                    timestamp_ms: row.position.timestamp_ms,
                    message: row.message.into(),
                })
                .collect();
            prop_assert_eq!(read, events);
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let long = |bytes| NewEvent { timestamp_ms: 0, message: "x".repeat(bytes) };
        assert!(Rows::encode(0, &[long(MAX_MESSAGE_BYTES)]).is_ok());
        assert!(Rows::encode(0, &[long(MAX_MESSAGE_BYTES + 1)]).is_err());
        assert!(Rows::encode(0, &vec![long(MAX_MESSAGE_BYTES); 17]).is_err());
        assert!(Rows::encode(0, &vec![long(0); MAX_BATCH_BYTES / ROW_BYTES + 1]).is_err());
    }
}
