//! The spool: what containers wrote, on disk until the control plane has it in its own log store.
//! The shim appends frames to segment files; the consumer reads them at its own pace, also while
//! the shim is gone, and acknowledges durably how far it came; segments that lie wholly before that
//! are deleted.
//!
//! A frame is `length u32 | crc32 u32 | time_ms i64 | container u16 | stream u8 | zero u8 | bytes`,
//! numbers little-endian; the checksum covers everything after itself. A position counts bytes from
//! the beginning of the first segment ever; a segment is named by its first position.

mod reader;
mod writer;

pub use reader::SpoolReader;
pub(crate) use writer::SpoolWriter;

use std::path::{Path, PathBuf};

/// The most bytes of output in one frame.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 20;
const SEGMENT_BYTES: u64 = 4 << 20;
const ACKED: &str = "acked";

/// Where a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a container's output, as it was read: neither whole lines nor whole characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When it was read, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The container's index in the task's spec.
    pub container: u16,
    /// Where it was written.
    pub stream: Stream,
    /// What was written.
    pub bytes: Vec<u8>,
    /// The position after it: what to acknowledge once it is kept elsewhere.
    pub end: u64,
}

/// Why a spool cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be listed.
    #[error("cannot list the spool {0}")]
    List(PathBuf, #[source] std::io::Error),
    /// A segment cannot be opened.
    #[error("cannot open the spool's segment {0}")]
    Open(PathBuf, #[source] std::io::Error),
    /// A segment cannot be read.
    #[error("cannot read the spool's segment at {0}")]
    Read(u64, #[source] std::io::Error),
    /// A segment cannot be written.
    #[error("cannot write the spool's segment at {0}")]
    Write(u64, #[source] std::io::Error),
    /// A consumed segment cannot be deleted.
    #[error("cannot delete the consumed segment {0}")]
    Delete(PathBuf, #[source] std::io::Error),
    /// The acknowledgement cannot be stored.
    #[error("cannot store the acknowledgement {0}")]
    Acknowledge(PathBuf, #[source] std::io::Error),
    /// A frame that is followed by others is damaged.
    #[error("the spool is damaged at {0}")]
    Damaged(u64),
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.seg"))
}

/// The first positions of the segments in `dir`, ascending.
fn segments(dir: &Path) -> Result<Vec<u64>, SpoolError> {
    let list = |e| SpoolError::List(dir.to_owned(), e);
    let mut starts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        let start =
            name.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse::<u64>().ok());
        starts.extend(start);
    }
    starts.sort_unstable();
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(reader: &mut SpoolReader) -> Vec<Frame> {
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn what_is_acknowledged_is_deleted_and_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::open(dir.path(), 1 << 30).unwrap();
        let mut reader = SpoolReader::open(dir.path()).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        let chunk = vec![7u8; MAX_FRAME_BYTES];
        for time in 0..150 {
            writer.append(time, 0, Stream::Stdout, &chunk).unwrap();
        }
        assert_eq!(segments(dir.path()).unwrap().len(), 3);
        let frames = all(&mut reader);
        assert_eq!(frames.len(), 150);
        reader.acknowledge(frames[99].end).unwrap();
        assert_eq!(segments(dir.path()).unwrap().len(), 2);
        let again = all(&mut SpoolReader::open(dir.path()).unwrap());
        assert_eq!(
            again.iter().map(|f| f.time_ms).collect::<Vec<_>>(),
            (100..150).collect::<Vec<_>>()
        );
        writer.acknowledged(frames[149].end);
        assert_eq!(writer.unconsumed(0), 0);
    }

    #[test]
    fn fullness_is_told_by_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::open(dir.path(), 300).unwrap();
        writer.append(1, 0, Stream::Stdout, &[1; 200]).unwrap();
        assert!(!writer.is_full());
        writer.append(1, 1, Stream::Stderr, &[1; 100]).unwrap();
        assert!(writer.is_full());
        assert_eq!((writer.unconsumed(0), writer.unconsumed(1)), (200, 100));
        writer.acknowledged(writer.end());
        assert!(!writer.is_full());
    }

    proptest! {
        #[test]
        fn a_torn_tail_loses_only_itself(sizes in proptest::collection::vec(0usize..300, 1..30),
                                         cut in 0u64..600) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = SpoolWriter::open(dir.path(), 1 << 30).unwrap();
            let mut ends = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                writer.append(i as i64, 3, Stream::Stderr, &vec![i as u8; *size]).unwrap();
                ends.push(writer.end());
            }
            let length = writer.end().saturating_sub(cut);
            let path = segment_path(dir.path(), 0);
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
            let frames = all(&mut SpoolReader::open(dir.path()).unwrap());
            prop_assert_eq!(frames.len(), ends.iter().filter(|e| **e <= length).count());
            for (i, frame) in frames.iter().enumerate() {
                prop_assert_eq!(&frame.bytes, &vec![i as u8; sizes[i]]);
                prop_assert_eq!((frame.container, frame.stream), (3, Stream::Stderr));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(segment_path(dir.path(), 0), bytes).unwrap();
            let mut reader = SpoolReader::open(dir.path()).unwrap();
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
