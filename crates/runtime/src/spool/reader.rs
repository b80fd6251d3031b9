//! The consumer's half of the spool.

use super::{
    ACKED, Frame, HEADER_BYTES, MAX_FRAME_BYTES, SpoolError, Stream, segment_path, segments,
};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Reads frames from the acknowledged position on, also while they are being written.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    position: u64,
    acknowledged: u64,
    open: Option<(u64, File)>,
}

impl SpoolReader {
    /// Opens the spool in `dir` where the last acknowledgement left off.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        // Without a readable acknowledgement nothing is skipped: rather twice than never.
        let acknowledged = std::fs::read_to_string(dir.join(ACKED))
            .ok()
            .and_then(|text| {
                let (position, sum) = text.trim_end().split_once(' ')?;
                let right =
                    u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(position.as_bytes());
                right.then(|| position.parse::<u64>().ok())?
            })
            .unwrap_or(0);
        let first = segments(dir)?.first().copied().unwrap_or(0);
        let position = acknowledged.max(first);
        Ok(Self { dir: dir.to_owned(), position, acknowledged: position, open: None })
    }

    /// The position after the last frame that was read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The position that was last acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The next frame, or `None` when there is none yet (or, of a task that has stopped, ever).
    #[allow(clippy::should_implement_trait)] // `None` is not the end
    pub fn next(&mut self) -> Result<Option<Frame>, SpoolError> {
        loop {
            let Some((start, file)) = self.segment()? else { return Ok(None) };
            let read = |e| SpoolError::Read(start, e);
            let length = start + file.metadata().map_err(read)?.len();
            if self.position >= length {
                // A segment is complete once the next one exists, and that one begins where it
                // ends. That must be looked up after the length was, or a frame could be skipped.
                if start != self.position && segment_path(&self.dir, self.position).exists() {
                    self.open = None;
                    continue;
                }
                return Ok(None);
            }
            let available = length - self.position;
            return self.frame(available);
        }
    }

    /// Reads the frame at the position, of whose bytes `available` are there.
    fn frame(&mut self, available: u64) -> Result<Option<Frame>, SpoolError> {
        let at = self.position;
        let read = |e| SpoolError::Read(at, e);
        if available < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let (start, file) = self.open.as_ref().expect("`next` opened the segment");
        let mut header = [0u8; HEADER_BYTES];
        file.read_exact_at(&mut header, at - start).map_err(read)?;
        let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(SpoolError::Damaged(at));
        }
        let whole = (HEADER_BYTES + length) as u64;
        if whole > available {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at - start + HEADER_BYTES as u64).map_err(read)?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&header[8..]);
        sum.update(&bytes);
        if header[4..8] != sum.finalize().to_le_bytes() {
            return Err(SpoolError::Damaged(at));
        }
        self.position = at + whole;
        Ok(Some(Frame {
            time_ms: i64::from_le_bytes(header[8..16].try_into().expect("eight bytes")),
            container: u16::from_le_bytes([header[16], header[17]]),
            stream: if header[18] == 0 { Stream::Stdout } else { Stream::Stderr },
            bytes,
            end: self.position,
        }))
    }

    /// The open segment that holds the position.
    fn segment(&mut self) -> Result<Option<(u64, &File)>, SpoolError> {
        if self.open.is_none() {
            let starts = segments(&self.dir)?;
            let Some(start) = starts.into_iter().rev().find(|start| *start <= self.position) else {
                return Ok(None);
            };
            let path = segment_path(&self.dir, start);
            let file = File::open(&path).map_err(|e| SpoolError::Open(path, e))?;
            self.open = Some((start, file));
        }
        Ok(self.open.as_ref().map(|(start, file)| (*start, file)))
    }

    /// Stores durably that everything before `position` is kept elsewhere, and deletes the segments
    /// that hold nothing else.
    pub fn acknowledge(&mut self, position: u64) -> Result<(), SpoolError> {
        let position = position.min(self.position);
        if position <= self.acknowledged {
            return Ok(());
        }
        let path = self.dir.join(ACKED);
        let fresh = self.dir.join("acked.new");
        let text = position.to_string();
        let text = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
        let store = || {
            let mut file = File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            std::fs::rename(&fresh, &path)
        };
        store().map_err(|e| SpoolError::Acknowledge(path.clone(), e))?;
        self.acknowledged = position;
        let starts = segments(&self.dir)?;
        for pair in starts.windows(2) {
            let (start, next) = (pair[0], pair[1]);
            if next <= position {
                let path = segment_path(&self.dir, start);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => {
                        return Err(SpoolError::Delete(path, e));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
