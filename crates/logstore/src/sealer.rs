//! From memory into segments: a thread that moves streams' waiting events into compressed blocks,
//! removes deleted streams' files, and drops journal files that nobody needs any more.

use crate::{
    block::{self, BLOCK_BYTES},
    event::{Batch, Row},
    journal,
    segment::{self, Group, Mark, SEGMENT_BYTES},
    store::Shared,
    stream::Stream,
};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::sync::oneshot;

/// A stream with this much waiting is sealed.
pub(crate) const SEAL_BYTES: usize = 512 << 10;
/// With this much waiting in all, the largest streams are sealed.
const SOFT_LIMIT_BYTES: usize = 24 << 20;
/// With this much waiting in all, nothing more is taken until there is room.
const HARD_LIMIT_BYTES: usize = 64 << 20;
/// Above this, the streams that keep the oldest journal file alive are sealed.
const JOURNAL_LIMIT_BYTES: u64 = 128 << 20;
const JOURNAL_LIMIT_FILES: usize = 16;

enum Job {
    Seal(Arc<Stream>),
    Remove(Arc<Stream>),
    Trim,
    /// Tells that what was asked for before it is done.
    Tell(oneshot::Sender<()>),
}

/// The sealing thread's work, and what the writer must know of it.
#[derive(Default)]
pub(crate) struct Sealing {
    jobs: Mutex<Jobs>,
    added: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    closing: bool,
    /// The last seal failed.
    failing: bool,
}

impl Sealing {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, job: Job) {
        self.lock().queue.push_back(job);
        self.added.notify_one();
    }

    pub(crate) fn seal(&self, stream: Arc<Stream>) {
        self.add(Job::Seal(stream));
    }

    pub(crate) fn remove(&self, stream: Arc<Stream>) {
        self.add(Job::Remove(stream));
    }

    pub(crate) fn trim(&self) {
        self.add(Job::Trim);
    }

    /// Resolves when all that was asked for before is done, or the store is closed.
    pub(crate) fn done(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.add(Job::Tell(tell));
        told
    }

    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.added.notify_all();
        self.room.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            // What waits is in the journal: closing need not wait for it.
            if jobs.closing {
                return None;
            }
            if let Some(job) = jobs.queue.pop_front() {
                return Some(job);
            }
            jobs = self.added.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// Keeps what waits in memory bounded: asks for sealing, and waits for it when memory is full.
    /// False when memory is full and the disk refuses.
    pub(crate) fn make_room(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) <= SOFT_LIMIT_BYTES {
            return true;
        }
        if self.sealing.lock().queue.is_empty() {
            for stream in self.largest() {
                self.sealing.seal(stream);
            }
        }
        let mut jobs = self.sealing.lock();
        while self.waiting.load(Ordering::Relaxed) > HARD_LIMIT_BYTES && !jobs.closing {
            if jobs.failing && jobs.queue.is_empty() {
                // The next batch tries again.
                jobs.failing = false;
                return false;
            }
            jobs = self.sealing.room.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// The streams that have something waiting.
    fn dirty_streams(&self) -> Vec<Arc<Stream>> {
        self.dirty().values().map(|dirty| dirty.stream.clone()).collect()
    }

    /// The streams that hold most, together half of the soft limit or more.
    fn largest(&self) -> Vec<Arc<Stream>> {
        let mut streams: Vec<_> = self
            .dirty_streams()
            .into_iter()
            .map(|stream| {
                let memory = stream.raw_state().waiting_memory;
                (memory, stream)
            })
            .collect();
        streams.sort_by_key(|(memory, _)| std::cmp::Reverse(*memory));
        let mut sum = 0;
        let enough = streams.into_iter().take_while(|(memory, _)| {
            let more = sum < SOFT_LIMIT_BYTES / 2;
            sum += memory;
            more
        });
        enough.map(|(_, stream)| stream).collect()
    }

    /// Asks for sealing of what has waited since before `before_ms`.
    pub(crate) fn seal_older(&self, before_ms: i64) {
        let is_old = |stream: &Stream| {
            stream.raw_state().waiting.first().is_some_and(|batch| batch.ingestion_ms < before_ms)
        };
        for stream in self.dirty_streams().into_iter().filter(|stream| is_old(stream)) {
            self.sealing.seal(stream);
        }
    }
}

/// The sealing thread's work, until the store is closed.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(job) = shared.sealing.next() {
        match job {
            Job::Seal(stream) => {
                let sealed = seal(shared, &stream);
                if let Err(error) = &sealed {
                    let stream = &*stream.id;
                    tracing::error!(%error, stream, "log events stay in the journal for now");
                }
                let mut jobs = shared.sealing.lock();
                jobs.failing = sealed.is_err();
                shared.sealing.room.notify_all();
            }
            Job::Remove(stream) => remove(shared, &stream),
            Job::Trim => {}
            // Whoever stopped waiting does not want to know.
            Job::Tell(tell) => drop(tell.send(())),
        }
        if shared.sealing.lock().queue.is_empty() {
            trim(shared);
        }
    }
}

/// Moves all waiting events of a stream into a group of blocks.
fn seal(shared: &Shared, stream: &Arc<Stream>) -> io::Result<()> {
    let _files = stream.files();
    let (batches, marks, target) = {
        let state = stream.raw_state();
        if state.deleted || state.waiting.is_empty() {
            return Ok(());
        }
        let target = match state.segments.last() {
            Some(last) if last.bytes < SEGMENT_BYTES && !last.closed => {
                Target { number: last.number, path: last.path.to_path_buf(), at: last.bytes }
            }
            _ => Target::new(&stream.dir, state.next_segment),
        };
        (state.waiting.clone(), state.marks.clone(), target)
    };
    let (mut group, bodies) = build(&batches, marks)?;
    let bytes = group.encode(target.at, &bodies);
    drop(bodies);
    target.append(&stream.dir, &bytes)?;
    let end = target.at + bytes.len() as u64;
    let mut state = stream.raw_state();
    state.adopt(group, target.number, &target.path, end);
    let memory = state.release(batches.len());
    shared.waiting.fetch_sub(memory, Ordering::Relaxed);
    shared.note_dirty(stream, state.waiting.first().map(|batch| batch.journal));
    if state.waiting_memory >= SEAL_BYTES {
        // It grew on meanwhile.
        shared.sealing.seal(stream.clone());
    }
    Ok(())
}

/// Sorts the batches' rows into blocks.
fn build(batches: &[Arc<Batch>], marks: Vec<Mark>) -> io::Result<(Group, Vec<Vec<u8>>)> {
    let mut rows: Vec<Row<'_>> = batches.iter().flat_map(|batch| batch.iter()).collect();
    if !rows.is_sorted_by_key(|row| row.position) {
        rows.sort_unstable_by_key(|row| row.position);
    }
    let mut group = Group {
        sealed_through: batches.last().map_or(0, |batch| batch.last()),
        last_ingestion_ms: batches.iter().map(|b| b.ingestion_ms).max().unwrap_or(i64::MIN),
        marks,
        blocks: Vec::new(),
    };
    let mut bodies = Vec::new();
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|row| {
            let fits = bytes < BLOCK_BYTES;
            bytes += row.message.len() + 8;
            fits
        });
        let (chunk, behind) = rest.split_at(fitting.count());
        let (meta, body) = block::encode(chunk)?;
        group.blocks.push(meta);
        bodies.push(body);
        rest = behind;
    }
    Ok((group, bodies))
}

/// Where a group is to be written.
struct Target {
    number: u64,
    path: PathBuf,
    /// The length of what is there.
    at: u64,
}

impl Target {
    fn new(dir: &Path, number: u64) -> Self {
        Self { number, path: dir.join(segment::file_name(number)), at: 0 }
    }

    /// Writes durably; after a failure the file is as before or ends in a torn group that is
    /// overwritten next time.
    fn append(&self, dir: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.at == 0 {
            make_dir(dir)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // Gives the space back. If this fails too, the next load cuts the torn group off.
            let _ = file.set_len(self.at);
            return written;
        }
        if self.at == 0 {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Makes a stream's directory, durably.
fn make_dir(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => match dir.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a segment that holds no events, only what must outlive them; all or nothing.
pub(crate) fn write_state(
    stream: &Stream,
    number: u64,
    group: &mut Group,
) -> io::Result<(PathBuf, u64)> {
    let bytes = group.encode(0, &[]);
    let target = Target::new(&stream.dir, number);
    let draft = stream.dir.join("segment.new");
    let mut file = File::create(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, &target.path)?;
    File::open(&stream.dir)?.sync_all()?;
    Ok((target.path, bytes.len() as u64))
}

/// Removes a deleted stream's files. Until that is done the journal remembers the deletion.
fn remove(shared: &Shared, stream: &Arc<Stream>) {
    let _files = stream.files();
    match remove_dir(&stream.dir) {
        Ok(()) => shared.note_dirty(stream, None),
        Err(error) => {
            let path = stream.dir.display();
            tracing::error!(%error, %path, "a deleted log stream's files stay for now");
        }
    }
}

/// Removes a stream's directory with its segments, if it is there.
fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
    }
}

/// Drops the journal files that no stream needs, and asks for sealing when too many are left.
fn trim(shared: &Shared) {
    let oldest = shared.dirty().values().map(|dirty| dirty.journal).min();
    let mut files = shared.journals();
    while let Some(first) = files.first() {
        // The newest is being written to.
        if files.len() == 1 || oldest.is_some_and(|oldest| oldest <= first.number) {
            break;
        }
        let path = shared.journal_dir().join(journal::file_name(first.number));
        if let Err(error) = std::fs::remove_file(&path) {
            let path = path.display();
            tracing::error!(%error, %path, "a journal file that is not needed any more stays");
            break;
        }
        files.remove(0);
    }
    let first = files.first().map_or(0, |file| file.number);
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let small = bytes <= JOURNAL_LIMIT_BYTES && files.len() <= JOURNAL_LIMIT_FILES;
    drop(files);
    shared.drop_tombstones(first);
    if small {
        return;
    }
    let holding: Vec<_> = shared
        .dirty()
        .values()
        .filter(|dirty| Some(dirty.journal) == oldest)
        .map(|dirty| dirty.stream.clone())
        .collect();
    if shared.sealing.lock().failing {
        // It would fail again at once, without end.
        return;
    }
    for stream in holding {
        shared.sealing.seal(stream);
    }
}
