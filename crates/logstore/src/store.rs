//! The log store: what its threads share, and its doors.

use crate::{
    cache::Cache,
    error::{AppendError, ExpireError, OpenError, ReadError},
    event::{NewEvent, Rows, SourceRange},
    read::{self, Page, Query},
    sealer::{self, Sealing},
    segment::Group,
    stream::{Stream, StreamStats, is_stream_id},
    tail::Tail,
    writer::{Append, Appended, Delete, Inbox, Request, Writer},
};
use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};
use world::World;

/// The longest name of a source.
const MAX_SOURCE_BYTES: usize = 1024;
/// How much may wait for the writer before callers have to wait, in KiB.
const INBOX_KIB: usize = 64 << 10;
/// How often idle memory is looked after, and how long events wait for company before they are
/// sealed.
const SWEEP: Duration = Duration::from_secs(600);
const SEAL_AFTER_MS: i64 = 3_600_000;
/// Above this many streams in memory, the idle ones are dropped from it.
const KEPT_STREAMS: usize = 1000;

/// A store of log streams. Cheap to clone; clones are the same store. The last clone that is
/// dropped writes what was accepted and lets go of the directory.
#[derive(Clone)]
pub struct LogStore {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: File,
}

/// What the threads share. Of its locks none is taken while another of them is held; a stream's own
/// locks come before them.
pub(crate) struct Shared {
    dir: PathBuf,
    world: World,
    streams: Mutex<HashMap<Arc<str>, Arc<Stream>>>,
    dirty: Mutex<HashMap<Arc<str>, Dirty>>,
    journals: Mutex<Vec<JournalFile>>,
    /// Deleted streams, and the journal file that says so.
    tombstones: Mutex<Vec<(u64, Arc<str>)>>,
    pub(crate) inbox: Inbox,
    room: Arc<Semaphore>,
    pub(crate) sealing: Sealing,
    /// The memory of all batches that are in no segment yet.
    pub(crate) waiting: AtomicUsize,
    pub(crate) cache: Cache,
}

/// A stream that needs the journal.
pub(crate) struct Dirty {
    pub(crate) stream: Arc<Stream>,
    /// The oldest file that it needs.
    pub(crate) journal: u64,
}

/// A journal file, the oldest first.
pub(crate) struct JournalFile {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

impl Shared {
    pub(crate) fn new(dir: &Path, world: World) -> Self {
        Self {
            dir: dir.into(),
            world,
            streams: Mutex::default(),
            dirty: Mutex::default(),
            journals: Mutex::default(),
            tombstones: Mutex::default(),
            inbox: Inbox::default(),
            room: Arc::new(Semaphore::new(INBOX_KIB)),
            sealing: Sealing::default(),
            waiting: AtomicUsize::new(0),
            cache: Cache::default(),
        }
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn streams_dir(&self) -> PathBuf {
        self.dir.join("streams")
    }

    /// The stream of this id, loaded or not; none when the id is not fit.
    pub(crate) fn stream(&self, id: &str) -> Option<Arc<Stream>> {
        if !is_stream_id(id) {
            return None;
        }
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(id) {
            return Some(stream.clone());
        }
        let id: Arc<str> = id.into();
        let stream = Arc::new(Stream::new(id.clone(), &self.streams_dir()));
        streams.insert(id, stream.clone());
        Some(stream)
    }

    pub(crate) fn dirty(&self) -> MutexGuard<'_, HashMap<Arc<str>, Dirty>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which journal file the stream needs, if any.
    pub(crate) fn note_dirty(&self, stream: &Arc<Stream>, journal: Option<u64>) {
        let mut dirty = self.dirty();
        match journal {
            Some(journal) => {
                dirty.insert(stream.id.clone(), Dirty { stream: stream.clone(), journal });
            }
            None => {
                dirty.remove(&stream.id);
            }
        }
    }

    pub(crate) fn journals(&self) -> MutexGuard<'_, Vec<JournalFile>> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_journal(&self, number: u64, bytes: u64) {
        let mut journals = self.journals();
        match journals.last_mut().filter(|last| last.number == number) {
            Some(last) => last.bytes = bytes,
            None => {
                journals.push(JournalFile { number, bytes });
                drop(journals);
                self.sealing.trim();
            }
        }
    }

    /// A stream's deletion is durable: empties it and has its files removed.
    pub(crate) fn forget(&self, stream: &Arc<Stream>, journal: u64) {
        let memory = stream.raw_state().delete();
        self.waiting.fetch_sub(memory, Ordering::Relaxed);
        let mut tombstones = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner);
        tombstones.push((journal, stream.id.clone()));
        drop(tombstones);
        // The journal file with the deletion stays until the files are gone.
        self.note_dirty(stream, Some(journal));
        self.sealing.remove(stream.clone());
    }

    /// Forgets the streams whose deletion no journal file speaks of any more.
    pub(crate) fn drop_tombstones(&self, first_journal: u64) {
        let mut tombstones = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner);
        let (gone, kept): (Vec<_>, Vec<_>) =
            tombstones.drain(..).partition(|(journal, _)| *journal < first_journal);
        *tombstones = kept;
        drop(tombstones);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, id) in gone {
            streams.remove(&id);
        }
    }

    /// Drops what idles in memory.
    fn sweep(&self) {
        self.seal_older(self.world.now().millis() - SEAL_AFTER_MS);
        self.cache.clear();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() > KEPT_STREAMS {
            // A stream that only this map knows has nothing waiting: else it would be among the
            // dirty ones.
            streams.retain(|_, stream| {
                Arc::strong_count(stream) > 1 || {
                    let state = stream.raw_state();
                    let followed = state.subscribers.iter().any(|s| s.strong_count() > 0);
                    followed || state.deleted || !state.waiting.is_empty()
                }
            });
            streams.shrink_to_fit();
        }
    }
}

impl LogStore {
    /// Opens the store in `dir`, which is made if it is missing. What a crash cut short is mended.
    /// Must be called inside a tokio runtime.
    pub fn open(dir: &Path, world: World) -> Result<Self, OpenError> {
        let shared = Shared::new(dir, world.clone());
        for dir in [dir, &shared.journal_dir(), &shared.streams_dir()] {
            std::fs::create_dir_all(dir).map_err(|e| disk_error("make", dir, e))?;
        }
        let lock = lock(dir)?;
        let shared = Arc::new(shared);
        let (journal, next_arrival) = crate::recover::recover(&shared)?;
        let writer = Writer::new(shared.clone(), journal, next_arrival);
        let sealer = shared.clone();
        let handle = Handle { shared, threads: Mutex::default(), _lock: lock };
        handle.start("log-write", || writer.run())?;
        handle.start("log-seal", move || sealer::run(&sealer))?;
        world.spawn("log sweep", sweep_forever(Arc::downgrade(&handle.shared), world.clone()));
        Ok(Self { handle: Arc::new(handle) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Stores events in `stream`, which is made by its first batch; resolves when they are on disk,
    /// all or none. With a `range`, the source's consumed offset is stored in the same write: a
    /// batch whose range was stored before is a [duplicate](Appended::duplicate), one that overlaps
    /// it is refused.
    ///
    /// Dropping the future does not take the batch back.
    pub async fn append(
        &self,
        stream: &str,
        events: &[NewEvent],
        range: Option<SourceRange>,
    ) -> Result<Appended, AppendError> {
        let shared = self.shared();
        let bad_id = || AppendError::StreamId(stream.into());
        let stream = shared.stream(stream).ok_or_else(bad_id)?;
        if let Some(range) = &range {
            check_range(range)?;
        }
        let ingestion_ms = shared.world.now().millis();
        let rows = Rows::encode(ingestion_ms, events)?;
        if rows.count == 0 && range.is_none() {
            return Ok(Appended { ingestion_ms, first_sequence: 0, duplicate: false });
        }
        // At least one, and at most what a batch's limit allows, which is less than there is.
        let kib = (rows.bytes.len() >> 10) as u32 + 1;
        let permit = shared.room.clone().acquire_many_owned(kib).await;
        let _permit = permit.map_err(|_| AppendError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let append = Append { stream, ingestion_ms, range, rows, answer, _permit };
        shared.inbox.push(Request::Append(append));
        answered.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Deletes a stream with all its events, durably. Its id must not be used again.
    pub async fn delete(&self, stream: &str) -> Result<(), AppendError> {
        let shared = self.shared();
        let bad_id = || AppendError::StreamId(stream.into());
        let stream = shared.stream(stream).ok_or_else(bad_id)?;
        let (answer, answered) = oneshot::channel();
        shared.inbox.push(Request::Delete(Delete { stream, answer }));
        answered.await.unwrap_or(Err(AppendError::Closed))
    }

    /// The offset up to which `source` is consumed into `stream`: what a shipper goes on with after
    /// a crash of either side. None when nothing of it was ever stored.
    pub async fn source_offset(
        &self,
        stream: &str,
        source: &str,
    ) -> Result<Option<u64>, ReadError> {
        let (stream, source) = (stream.to_owned(), source.to_owned());
        self.blocking(move |shared| {
            let stream = shared.stream(&stream).ok_or(ReadError::StreamId(stream))?;
            let state = stream.state().map_err(ReadError::Load)?;
            Ok(state.mark(&source))
        })
        .await
    }

    /// How much a stream holds, and from when to when.
    pub async fn stats(&self, stream: &str) -> Result<StreamStats, ReadError> {
        let stream = stream.to_owned();
        self.blocking(move |shared| {
            let stream = shared.stream(&stream).ok_or(ReadError::StreamId(stream))?;
            let state = stream.state().map_err(ReadError::Load)?;
            Ok(state.stats())
        })
        .await
    }

    /// Reads a page of events.
    pub async fn read(&self, query: Query) -> Result<Page, ReadError> {
        self.blocking(move |shared| read::read(shared, &query)).await
    }

    /// Follows streams as events arrive: see [`Tail::add`].
    pub fn tail(&self) -> Tail {
        Tail::new(self.shared().clone())
    }

    /// Drops the blocks of a stream in which every event is older than `before_ms`, and the
    /// segments in which every block is; gives back how many events went. Readers hide what is
    /// older in the blocks that stay by their range.
    pub async fn expire(&self, stream: &str, before_ms: i64) -> Result<u64, ExpireError> {
        let stream = stream.to_owned();
        self.blocking(move |shared| {
            let stream = shared.stream(&stream).ok_or(ExpireError::StreamId(stream))?;
            expire(&stream, before_ms)
        })
        .await
    }

    /// Moves everything that waits in memory into segments; resolves when it is done or has failed
    /// (what failed stays in the journal). Nothing is lost without it: it makes the next start
    /// quick and memory free.
    pub async fn seal_all(&self) {
        self.shared().seal_older(i64::MAX);
        // An error means that the store is closed, and then there is nothing to wait for.
        let _ = self.shared().sealing.done().await;
    }

    /// Runs `work`, which reads files, beside the runtime.
    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> R + Send + 'static,
    ) -> R {
        let shared = self.shared().clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        // It is never cancelled, so this is a panic inside `work`, which goes on where it belongs.
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

fn check_range(range: &SourceRange) -> Result<(), AppendError> {
    let bytes = range.source.len();
    if bytes > MAX_SOURCE_BYTES || bytes == 0 {
        let limit = MAX_SOURCE_BYTES;
        return Err(AppendError::TooLarge { what: "a source id", bytes, limit });
    }
    let SourceRange { start, end, .. } = *range;
    if start >= end { Err(AppendError::Range { start, end }) } else { Ok(()) }
}

fn expire(stream: &Stream, before_ms: i64) -> Result<u64, ExpireError> {
    let _files = stream.files();
    let mut state = stream.state().map_err(ExpireError::Load)?;
    let expired = |segment: &crate::stream::Segment| {
        segment.blocks.iter().all(|block| block.max_ms < before_ms)
    };
    // The newest group says what must outlive the events. If its segment goes, another must say it.
    let last_goes = state.segments.last().is_some_and(|s| !s.blocks.is_empty() && expired(s));
    if last_goes {
        let number = state.next_segment;
        let mut group = Group {
            sealed_through: state.sealed_through,
            last_ingestion_ms: state.last_ingestion_ms.unwrap_or(i64::MIN),
            marks: state.marks.clone(),
            blocks: Vec::new(),
        };
        let written = sealer::write_state(stream, number, &mut group);
        let (path, end) = written.map_err(ExpireError::Write)?;
        state.adopt(group, number, &path, end);
    }
    let mut events = 0;
    let kept = state.segments.len().saturating_sub(1);
    for at in (0..kept).rev().filter(|at| expired(&state.segments[*at])).collect::<Vec<_>>() {
        let segment = &state.segments[at];
        let path = segment.path.to_path_buf();
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ExpireError::Remove { path, source });
            }
            _ => {}
        }
        events += state.segments.remove(at).blocks.iter().map(|b| u64::from(b.count)).sum::<u64>();
    }
    for segment in &mut state.segments {
        let count = |segment: &crate::stream::Segment| {
            segment.blocks.iter().map(|block| u64::from(block.count)).sum::<u64>()
        };
        let before = count(segment);
        segment.blocks.retain(|block| block.max_ms >= before_ms);
        events += before - count(segment);
    }
    Ok(events)
}

async fn sweep_forever(shared: Weak<Shared>, world: World) {
    loop {
        world.sleep(SWEEP).await;
        match shared.upgrade() {
            Some(shared) => shared.sweep(),
            None => return,
        }
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| disk_error("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.into() }),
        Err(std::fs::TryLockError::Error(source)) => Err(disk_error("lock", &path, source)),
    }
}

pub(crate) fn disk_error(doing: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Disk { doing, path: path.into(), source }
}

impl Handle {
    fn start(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|source| OpenError::Thread { name, source })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (at, thread) in threads.drain(..).enumerate() {
            // The writer may need the sealer to make room, so it ends first.
            if at == 1 {
                self.shared.sealing.close();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the log store panicked");
            }
        }
        self.shared.sealing.close();
    }
}
