//! From callers to the journal: one thread takes all batches that wait, writes them with one flush,
//! shows them to readers and followers and answers.

use crate::{
    error::AppendError,
    event::{Batch, Rows, SourceRange},
    journal::{self, Journal},
    sealer::SEAL_BYTES,
    segment::Mark,
    store::Shared,
    stream::Stream,
    tail,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A group of batches ends when it is this long.
const GROUP_BYTES: usize = 8 << 20;

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// When the events were stored, in milliseconds since the Unix epoch.
    pub ingestion_ms: i64,
    /// The sequence of the first event; the others follow one by one.
    pub first_sequence: u64,
    /// The source range was stored before: nothing was done.
    pub duplicate: bool,
}

pub(crate) struct Append {
    pub(crate) stream: Arc<Stream>,
    pub(crate) ingestion_ms: i64,
    pub(crate) range: Option<SourceRange>,
    pub(crate) rows: Rows,
    pub(crate) answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// Bounds what waits here; given back with the answer.
    pub(crate) _permit: OwnedSemaphorePermit,
}

pub(crate) struct Delete {
    pub(crate) stream: Arc<Stream>,
    pub(crate) answer: oneshot::Sender<Result<(), AppendError>>,
}

pub(crate) enum Request {
    Append(Append),
    Delete(Delete),
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<(VecDeque<Request>, bool)>,
    added: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Request>, bool)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, request: Request) {
        self.lock().0.push_back(request);
        self.added.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().1 = true;
        self.added.notify_one();
    }

    /// The next group; none when the store is closed and all is written.
    fn next(&self) -> Option<Vec<Request>> {
        let mut inbox = self.lock();
        while inbox.0.is_empty() && !inbox.1 {
            inbox = self.added.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES
            && let Some(request) = inbox.0.pop_front()
        {
            if let Request::Append(append) = &request {
                bytes += append.rows.bytes.len();
            }
            group.push(request);
        }
        (!group.is_empty()).then_some(group)
    }
}

/// The writing thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    next_arrival: u64,
    frames: Vec<u8>,
}

/// A request that is in the frames, with what it will answer.
enum Planned {
    Append(Append, Appended),
    Delete(Delete),
}

/// What the requests of a group did so far, before any of it is durable.
#[derive(Default)]
struct Pending {
    marks: HashMap<(Arc<str>, String), u64>,
    deleted: HashSet<Arc<str>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, journal: Journal, next_arrival: u64) -> Self {
        Self { shared, journal, next_arrival, frames: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        while let Some(group) = self.shared.inbox.next() {
            if !self.shared.make_room() {
                group.into_iter().for_each(|request| refuse(request, AppendError::Backlog));
                continue;
            }
            self.write(group);
        }
    }

    fn write(&mut self, group: Vec<Request>) {
        self.frames.clear();
        let mut pending = Pending::default();
        let planned: Vec<_> =
            group.into_iter().filter_map(|request| self.plan(request, &mut pending)).collect();
        let written = if self.frames.is_empty() { Ok(()) } else { self.flush() };
        match written {
            Ok(()) => planned.into_iter().for_each(|planned| self.settle(planned)),
            Err(error) => {
                tracing::error!(%error, "the log journal cannot be written");
                let error = Arc::new(error);
                for planned in planned {
                    let request = match planned {
                        Planned::Append(append, _) => Request::Append(append),
                        Planned::Delete(delete) => Request::Delete(delete),
                    };
                    refuse(request, AppendError::Journal(error.clone()));
                }
            }
        }
        // One group's memory is kept for the next, a flood's is not.
        self.frames.shrink_to(1 << 20);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.journal.is_full() {
            self.journal = self.journal.next(self.next_arrival)?;
            self.shared.note_journal(self.journal.number, self.journal.bytes);
        }
        self.journal.write(&self.frames)?;
        self.shared.note_journal(self.journal.number, self.journal.bytes);
        Ok(())
    }

    /// Puts the request into the frames, or answers it at once if it is refused.
    fn plan(&mut self, request: Request, pending: &mut Pending) -> Option<Planned> {
        match request {
            Request::Append(append) => match self.plan_append(&append, pending) {
                Ok(appended) => Some(Planned::Append(append, appended)),
                Err(error) => {
                    refuse(Request::Append(append), error);
                    None
                }
            },
            Request::Delete(delete) => {
                journal::put_delete(&mut self.frames, &delete.stream.id);
                pending.deleted.insert(delete.stream.id.clone());
                Some(Planned::Delete(delete))
            }
        }
    }

    fn plan_append(
        &mut self,
        append: &Append,
        pending: &mut Pending,
    ) -> Result<Appended, AppendError> {
        let state = append.stream.state().map_err(AppendError::Load)?;
        if state.deleted || pending.deleted.contains(&append.stream.id) {
            return Err(AppendError::Deleted);
        }
        let first = self.next_arrival.max(state.sealed_through + 1);
        let ingestion_ms = append.ingestion_ms;
        let mut appended = Appended { ingestion_ms, first_sequence: first, duplicate: false };
        if let Some(range) = &append.range {
            let key = (append.stream.id.clone(), range.source.clone());
            let mark = pending.marks.get(&key).copied().or_else(|| state.mark(&range.source));
            if let Some(expected) = mark {
                if range.end <= expected {
                    appended.duplicate = true;
                    return Ok(appended);
                }
                if range.start < expected {
                    return Err(AppendError::Overlap { expected });
                }
            }
            pending.marks.insert(key, range.end);
        }
        drop(state);
        // A batch without events takes a number too: it moves a mark, and is told apart by its
        // number.
        self.next_arrival = first + append.rows.count.max(1);
        let mark = append.range.as_ref().map(|range| (range.source.as_str(), range.end));
        let (id, rows) = (&append.stream.id, &append.rows.bytes);
        journal::put_append(&mut self.frames, id, first, ingestion_ms, mark, rows);
        Ok(appended)
    }

    /// Shows and answers what is durable now.
    fn settle(&self, planned: Planned) {
        match planned {
            Planned::Append(append, appended) => {
                let Append { stream, ingestion_ms, range, rows, answer, .. } = append;
                if !appended.duplicate {
                    let batch = Batch {
                        first: appended.first_sequence,
                        ingestion_ms,
                        rows,
                        journal: self.journal.number,
                    };
                    self.show(&stream, batch, range);
                }
                // A caller that stopped waiting does not want to know.
                let _ = answer.send(Ok(appended));
            }
            Planned::Delete(delete) => {
                self.shared.forget(&delete.stream, self.journal.number);
                // A caller that stopped waiting does not want to know.
                let _ = delete.answer.send(Ok(()));
            }
        }
    }

    fn show(&self, stream: &Arc<Stream>, mut batch: Batch, range: Option<SourceRange>) {
        batch.rows.bytes.shrink_to_fit();
        let batch = Arc::new(batch);
        let mut state = stream.raw_state();
        // A deletion of the same group may have come behind it.
        if state.deleted {
            return;
        }
        let was = state.waiting_memory;
        self.shared.waiting.fetch_add(batch.memory(), Ordering::Relaxed);
        if let Some(SourceRange { source, end, .. }) = range {
            state.set_mark(Mark { source, end });
        }
        state.push(batch.clone());
        if state.waiting.len() == 1 {
            self.shared.note_dirty(stream, Some(batch.journal));
        }
        tail::announce(stream, &mut state.subscribers, &batch);
        if was < SEAL_BYTES && state.waiting_memory >= SEAL_BYTES {
            self.shared.sealing.seal(stream.clone());
        }
    }
}

fn refuse(request: Request, error: AppendError) {
    // A caller that stopped waiting does not want to know.
    match request {
        Request::Append(append) => drop(append.answer.send(Err(error))),
        Request::Delete(delete) => drop(delete.answer.send(Err(error))),
    }
}
