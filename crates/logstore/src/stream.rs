//! One stream: its segments' index, and its events that are only in the journal yet.

use crate::{
    block::BlockMeta,
    error::{Damage, LoadError},
    event::Batch,
    segment::{self, Group, Mark, Placed, Scan},
    tail::Subscriber,
};
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// How many sources a stream remembers; then it forgets the one that was quiet longest.
const MAX_MARKS: usize = 256;

/// A segment's blocks.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: Arc<Path>,
    pub(crate) bytes: u64,
    pub(crate) blocks: Vec<BlockMeta>,
    /// It ends in damage: what comes next goes into a new one.
    pub(crate) closed: bool,
}

/// A stream in memory. Lock `files` before `state`, and `files` only where files are changed.
pub(crate) struct Stream {
    pub(crate) id: Arc<str>,
    pub(crate) dir: PathBuf,
    state: Mutex<State>,
    /// Held while segments are written or removed.
    files: Mutex<()>,
}

#[derive(Default)]
pub(crate) struct State {
    loaded: bool,
    pub(crate) deleted: bool,
    pub(crate) segments: Vec<Segment>,
    pub(crate) next_segment: u64,
    /// Durable batches that are in no segment yet, as they arrived.
    pub(crate) waiting: Vec<Arc<Batch>>,
    pub(crate) waiting_memory: usize,
    /// Every event up to this arrival is in a segment.
    pub(crate) sealed_through: u64,
    pub(crate) marks: Vec<Mark>,
    pub(crate) last_ingestion_ms: Option<i64>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) subscribers: Vec<Weak<Subscriber>>,
}

/// What is known of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// How many events it holds.
    pub events: u64,
    /// The bytes of their messages.
    pub message_bytes: u64,
    /// What they take on disk (those in the journal count uncompressed).
    pub disk_bytes: u64,
    /// The earliest timestamp.
    pub first_event_ms: Option<i64>,
    /// The latest timestamp.
    pub last_event_ms: Option<i64>,
    /// When the last event was stored. Outlives the events.
    pub last_ingestion_ms: Option<i64>,
}

impl Stream {
    pub(crate) fn new(id: Arc<str>, streams_dir: &Path) -> Self {
        let dir = streams_dir.join(&*id);
        Self { id, dir, state: Mutex::default(), files: Mutex::new(()) }
    }

    /// Whoever panicked under these locks had changed nothing yet or only added: they are never
    /// poisoned in a way that matters.
    pub(crate) fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, loaded.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, LoadError> {
        self.state_from_journal(None)
    }

    /// The state as it is, loaded or not.
    pub(crate) fn raw_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, loaded at start with the first arrival that the journal holds of this stream: a
    /// group that can be made again from the journal is cut off if it is damaged.
    pub(crate) fn state_from_journal(
        &self,
        journal_from: Option<u64>,
    ) -> Result<MutexGuard<'_, State>, LoadError> {
        let mut state = self.raw_state();
        if !state.loaded {
            load(&mut state, &self.dir, journal_from)?;
            state.loaded = true;
        }
        Ok(state)
    }
}

impl State {
    /// Up to where `source` is consumed.
    pub(crate) fn mark(&self, source: &str) -> Option<u64> {
        self.marks.iter().find(|mark| mark.source == source).map(|mark| mark.end)
    }

    pub(crate) fn set_mark(&mut self, mark: Mark) {
        self.marks.retain(|old| old.source != mark.source);
        if self.marks.len() >= MAX_MARKS {
            self.marks.remove(0);
        }
        self.marks.push(mark);
    }

    /// Takes a durable batch.
    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        self.last_ingestion_ms = self.last_ingestion_ms.max(Some(batch.ingestion_ms));
        self.waiting_memory += batch.memory();
        self.waiting.push(batch);
    }

    /// Drops the first `count` waiting batches; tells the memory that they held.
    pub(crate) fn release(&mut self, count: usize) -> usize {
        let memory = self.waiting.drain(..count).map(|batch| batch.memory()).sum();
        self.waiting_memory -= memory;
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        memory
    }

    /// Empties a deleted stream for good: its files, which may be there a little longer, are not
    /// looked at again. Tells the memory that waiting batches held.
    pub(crate) fn delete(&mut self) -> usize {
        let memory = self.waiting_memory;
        let subscribers = std::mem::take(&mut self.subscribers);
        *self = Self { loaded: true, deleted: true, subscribers, ..Self::default() };
        memory
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let mut stats =
            StreamStats { last_ingestion_ms: self.last_ingestion_ms, ..StreamStats::default() };
        let mut range: Option<(i64, i64)> = None;
        let mut note = |min: i64, max: i64| {
            let (a, b) = range.unwrap_or((min, max));
            range = Some((a.min(min), b.max(max)));
        };
        for block in self.segments.iter().flat_map(|segment| &segment.blocks) {
            stats.events += u64::from(block.count);
            stats.message_bytes += block.message_bytes;
            stats.disk_bytes += u64::from(block.length);
            note(block.min_ms, block.max_ms);
        }
        for batch in self.waiting.iter().filter(|batch| batch.rows.count > 0) {
            stats.events += batch.rows.count;
            stats.message_bytes += batch.rows.message_bytes;
            stats.disk_bytes += batch.rows.bytes.len() as u64;
            note(batch.rows.min_ms, batch.rows.max_ms);
        }
        (stats.first_event_ms, stats.last_event_ms) = range.unzip();
        stats
    }

    /// Puts a group's contents into the index.
    pub(crate) fn adopt(&mut self, group: Group, number: u64, path: &Path, end: u64) {
        self.sealed_through = self.sealed_through.max(group.sealed_through);
        if group.last_ingestion_ms > i64::MIN {
            self.last_ingestion_ms = self.last_ingestion_ms.max(Some(group.last_ingestion_ms));
        }
        match self.segments.last_mut().filter(|segment| segment.number == number) {
            Some(segment) => {
                segment.blocks.extend(group.blocks);
                segment.bytes = end;
            }
            None => self.segments.push(Segment {
                number,
                path: path.into(),
                bytes: end,
                blocks: group.blocks,
                closed: false,
            }),
        }
        self.next_segment = self.next_segment.max(number + 1);
    }
}

/// Reads the headers of all segments.
fn load(state: &mut State, dir: &Path, journal_from: Option<u64>) -> Result<(), LoadError> {
    let segments = segment::list(dir).map_err(|e| LoadError::new("list", dir, e))?;
    let last = segments.last().map(|(number, _)| *number);
    for (number, path) in segments {
        let mut scan =
            segment::scan(&path).map_err(|e| LoadError::new("read the index of", &path, e))?;
        // Only what the journal still holds can be made again; other damage stays and is told of.
        if let Some(from) = journal_from.filter(|_| Some(number) == last) {
            cut_tail(&path, &mut scan, from)
                .map_err(|e| LoadError::new("cut the torn end of", &path, e))?;
        }
        if let Some(offset) = scan.torn_at {
            let what = "the end of a segment is damaged";
            scan.damage.push(Damage { path: path.clone(), offset, what });
        }
        for damage in &scan.damage {
            tracing::error!(%damage, "log events are lost");
        }
        state.damage.append(&mut scan.damage);
        state.next_segment = number + 1;
        for Placed { end, group, .. } in scan.groups {
            state.marks.clone_from(&group.marks);
            state.adopt(group, number, &path, end);
        }
        if let Some(segment) = state.segments.last_mut().filter(|s| s.number == number) {
            segment.closed = scan.torn_at.is_some();
        }
    }
    Ok(())
}

/// Cuts off what a crash left at the end of the newest segment: half a group, or a whole one whose
/// blocks did not all reach the disk and whose events are in the journal still.
fn cut_tail(path: &Path, scan: &mut Scan, journal_from: u64) -> std::io::Result<()> {
    let mut cut = scan.torn_at.take();
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    while let Some(placed) = scan.groups.last() {
        let repeatable = placed.group.sealed_through >= journal_from;
        if !repeatable || is_intact(&file, path, &placed.group)? {
            break;
        }
        cut = Some(placed.start);
        scan.groups.pop();
    }
    if let Some(length) = cut {
        tracing::warn!(path = %path.display(), length, "the torn end of a log segment is cut off");
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok(())
}

fn is_intact(file: &File, path: &Path, group: &Group) -> std::io::Result<bool> {
    for block in &group.blocks {
        if segment::read_block(file, path, block)?.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `id` may be a file's name.
pub(crate) fn is_stream_id(id: &str) -> bool {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=200).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(fit)
}
