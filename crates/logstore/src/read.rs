//! Reading: a page of events in the order of time, out of any number of streams.
//!
//! Blocks are visited in the order in which they may contribute, and only the page's best
//! candidates are kept, so memory is bounded by the page however many streams there are. A page may
//! also end because enough was searched; the next one goes on from there.

use crate::{
    block::{Block, BlockMeta},
    error::{Damage, ReadError},
    event::{Batch, Event, Position, Row},
    pattern::Pattern,
    segment,
    store::Shared,
};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    fs::File,
    io,
    path::Path,
    sync::Arc,
};

/// Which end to begin at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the oldest event on.
    #[default]
    Forward,
    /// From the newest event back.
    Backward,
}

/// What to read.
#[derive(Clone)]
pub struct Query {
    /// From which streams. One that does not exist is empty.
    pub streams: Vec<String>,
    /// Only events of this millisecond or later.
    pub start_ms: Option<i64>,
    /// Only events before this millisecond.
    pub end_ms: Option<i64>,
    /// Go on from here: forward with the events behind it, backward with those before it.
    pub from: Option<Position>,
    /// Which way to go.
    pub direction: Direction,
    /// Only events that match.
    pub filter: Option<Arc<Pattern>>,
    /// At most this many events; at least 1.
    pub max_events: usize,
    /// At most this many bytes of messages, except that one event is always given.
    pub max_bytes: usize,
    /// Stop when about this many bytes of messages have been searched.
    pub max_searched_bytes: u64,
}

impl Default for Query {
    /// All events of no stream, in pages of 10,000 events or 1 MiB, as AWS has them.
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            start_ms: None,
            end_ms: None,
            from: None,
            direction: Direction::Forward,
            filter: None,
            max_events: 10_000,
            max_bytes: 1 << 20,
            max_searched_bytes: 1 << 30,
        }
    }
}

/// A page of events.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events, by time whatever the direction.
    pub events: Vec<Event>,
    /// Where the next page in this direction begins.
    pub next: Position,
    /// Whether there was nothing more in this direction. More may arrive: `next` is valid all the
    /// same.
    pub end: bool,
    /// What could not be read and was skipped.
    pub damaged: Vec<Damage>,
    /// How many bytes of messages were searched.
    pub searched_bytes: u64,
}

/// Where events come from.
struct Source {
    stream: Arc<str>,
    min_ms: i64,
    max_ms: i64,
    kind: Kind,
}

enum Kind {
    Block(Arc<Path>, BlockMeta),
    Batch(Arc<Batch>),
}

pub(crate) fn read(shared: &Shared, query: &Query) -> Result<Page, ReadError> {
    let mut reading = Reading::new(query);
    let sources = reading.sources(shared)?;
    let mut opened = None;
    let mut first_ms = None;
    for source in &sources {
        let edge_ms = reading.edge(source);
        let first_ms = *first_ms.get_or_insert(edge_ms);
        if reading.is_settled(edge_ms) {
            break;
        }
        // Progress is made only when a whole millisecond is left behind.
        if reading.searched >= query.max_searched_bytes && edge_ms != first_ms {
            reading.cut(edge_ms);
            break;
        }
        match &source.kind {
            Kind::Batch(batch) => {
                reading.searched += batch.rows.message_bytes;
                batch.iter().for_each(|row| reading.offer(&source.stream, row));
            }
            Kind::Block(path, meta) => {
                reading.searched += meta.message_bytes;
                let block = match load(shared, path, meta, &mut opened)? {
                    Loaded::Block(block) => block,
                    Loaded::Damaged(damage) => {
                        tracing::error!(%damage, "a block of log events is skipped");
                        reading.damaged.push(damage);
                        continue;
                    }
                    Loaded::Gone => continue,
                };
                if query.filter.as_ref().is_none_or(|filter| filter.may_match(block.text())) {
                    block.rows().for_each(|row| reading.offer(&source.stream, row));
                    shared.cache.put(path, meta.offset, block);
                }
            }
        }
    }
    Ok(reading.page())
}

enum Loaded {
    Block(Arc<Block>),
    Damaged(Damage),
    /// Deleted or expired since the page was begun.
    Gone,
}

/// Reads a block, keeping its file open for the next one.
fn load(
    shared: &Shared,
    path: &Arc<Path>,
    meta: &BlockMeta,
    opened: &mut Option<(Arc<Path>, File)>,
) -> Result<Loaded, ReadError> {
    if let Some(block) = shared.cache.get(path, meta.offset) {
        return Ok(Loaded::Block(block));
    }
    let failed = |source| ReadError::Segment { path: path.to_path_buf(), source };
    if opened.as_ref().is_none_or(|(at, _)| at != path) {
        match File::open(path) {
            Ok(file) => *opened = Some((path.clone(), file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Gone),
            Err(error) => return Err(failed(error)),
        }
    }
    let Some((_, file)) = opened else { return Ok(Loaded::Gone) };
    match segment::read_block(file, path, meta).map_err(failed)? {
        Ok(block) => Ok(Loaded::Block(Arc::new(block))),
        Err(damage) => Ok(Loaded::Damaged(damage)),
    }
}

/// A page in the making.
struct Reading<'a> {
    query: &'a Query,
    /// The events wanted: behind the first, before the second.
    behind: Position,
    before: Position,
    best: Best,
    searched: u64,
    damaged: Vec<Damage>,
    /// Where searching ended, if before the end of the range.
    cut: Option<Position>,
}

impl<'a> Reading<'a> {
    fn new(query: &'a Query) -> Self {
        // No event has the sequence 0 or the greatest one.
        let mut behind = Position::before(query.start_ms.unwrap_or(i64::MIN));
        let mut before = query.end_ms.map_or_else(|| Position::behind(i64::MAX), Position::before);
        match (query.direction, query.from) {
            (Direction::Forward, Some(from)) => behind = behind.max(from),
            (Direction::Backward, Some(from)) => before = before.min(from),
            (_, None) => {}
        }
        let best = Best {
            backward: query.direction == Direction::Backward,
            max_events: query.max_events.max(1),
            max_bytes: query.max_bytes,
            ..Best::default()
        };
        Self { query, behind, before, best, searched: 0, damaged: Vec::new(), cut: None }
    }

    /// Everything that may hold wanted events, in the order in which it is to be visited.
    fn sources(&self, shared: &Shared) -> Result<Vec<Source>, ReadError> {
        let mut sources = Vec::new();
        // A stream that is named twice is read once.
        let ids: BTreeSet<&String> = self.query.streams.iter().collect();
        for id in ids {
            let stream = shared.stream(id).ok_or_else(|| ReadError::StreamId(id.to_owned()))?;
            let state = stream.state().map_err(ReadError::Load)?;
            let blocks = state.segments.iter().flat_map(|segment| {
                segment.blocks.iter().map(|block| {
                    let kind = Kind::Block(segment.path.clone(), block.clone());
                    (block.min_ms, block.max_ms, kind)
                })
            });
            let batches = state.waiting.iter().filter(|batch| batch.rows.count > 0);
            let batches = batches
                .map(|batch| (batch.rows.min_ms, batch.rows.max_ms, Kind::Batch(batch.clone())));
            let wanted = blocks.chain(batches).filter(|(min_ms, max_ms, _)| {
                Position::behind(*max_ms) > self.behind && Position::before(*min_ms) < self.before
            });
            sources.extend(wanted.map(|(min_ms, max_ms, kind)| Source {
                stream: stream.id.clone(),
                min_ms,
                max_ms,
                kind,
            }));
        }
        match self.query.direction {
            Direction::Forward => sources.sort_by_key(|source| source.min_ms),
            Direction::Backward => sources.sort_by_key(|source| Reverse(source.max_ms)),
        }
        Ok(sources)
    }

    /// The millisecond where the source, and all that are visited after it, begin to contribute.
    fn edge(&self, source: &Source) -> i64 {
        match self.query.direction {
            Direction::Forward => source.min_ms.max(self.behind.timestamp_ms),
            Direction::Backward => source.max_ms.min(self.before.timestamp_ms),
        }
    }

    /// Whether nothing from `edge_ms` on can be on this page any more.
    fn is_settled(&self, edge_ms: i64) -> bool {
        self.best.barrier.is_some_and(|barrier| match self.query.direction {
            Direction::Forward => Position::before(edge_ms) > barrier,
            Direction::Backward => Position::behind(edge_ms) < barrier,
        })
    }

    /// Ends the page at `edge_ms`: what lies there may be incomplete.
    fn cut(&mut self, edge_ms: i64) {
        let cut = match self.query.direction {
            Direction::Forward => Position::before(edge_ms),
            Direction::Backward => Position::behind(edge_ms),
        };
        self.best.raise_barrier(cut);
        self.cut = Some(cut);
    }

    fn offer(&mut self, stream: &Arc<str>, row: Row<'_>) {
        if row.position <= self.behind || row.position >= self.before {
            return;
        }
        if !self.best.wants(row.position) {
            return;
        }
        if self.query.filter.as_ref().is_some_and(|filter| !filter.matches(row.message)) {
            return;
        }
        self.best.add(row.to_event(stream));
    }

    fn page(self) -> Page {
        let (forward, barrier) = (!self.best.backward, self.best.barrier);
        let mut events: Vec<Event> =
            self.best.heap.into_iter().map(|candidate| candidate.event).collect();
        events.sort_unstable_by_key(Event::position);
        let reached = if forward { events.last() } else { events.first() }.map(Event::position);
        let unmoved = if forward { self.behind } else { self.before };
        // At a cut everything before it was searched; at a full page the last event is the place.
        let next = match self.cut {
            Some(cut) if barrier == Some(cut) => cut,
            _ => reached.unwrap_or(unmoved),
        };
        Page {
            events,
            next,
            end: barrier.is_none(),
            damaged: self.damaged,
            searched_bytes: self.searched,
        }
    }
}

/// The candidates for a page: the earliest (or, going back, the latest) that fit.
#[derive(Default)]
struct Best {
    backward: bool,
    max_events: usize,
    max_bytes: usize,
    /// The one that goes first if a better one comes is on top.
    heap: BinaryHeap<Candidate>,
    bytes: usize,
    /// The best position that found no room: nothing from there on may be on this page.
    barrier: Option<Position>,
}

struct Candidate {
    backward: bool,
    event: Event,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let order = self.event.position().cmp(&other.event.position());
        if self.backward { order.reverse() } else { order }
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl Best {
    /// Whether `a` comes before `b` in the direction of reading.
    fn precedes(&self, a: Position, b: Position) -> bool {
        if self.backward { a > b } else { a < b }
    }

    fn wants(&self, position: Position) -> bool {
        self.barrier.is_none_or(|barrier| self.precedes(position, barrier))
    }

    fn add(&mut self, event: Event) {
        self.bytes += event.message.len();
        self.heap.push(Candidate { backward: self.backward, event });
        while self.heap.len() > self.max_events
            || self.bytes > self.max_bytes && self.heap.len() > 1
        {
            let Some(worst) = self.heap.pop() else { return };
            self.bytes -= worst.event.message.len();
            self.raise_barrier(worst.event.position());
        }
    }

    /// Lets nothing from `position` on be on the page.
    fn raise_barrier(&mut self, position: Position) {
        if self.wants(position) {
            self.barrier = Some(position);
        }
        while let Some(worst) = self.heap.peek() {
            let position = worst.event.position();
            if self.wants(position) {
                break;
            }
            self.bytes -= worst.event.message.len();
            self.heap.pop();
        }
    }
}
