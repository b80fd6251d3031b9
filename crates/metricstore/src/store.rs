//! The file of points, and the one thread that writes to it.

use crate::summary::Summary;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Series by name: the number that stands for it in points, and the time of its last point.
const SERIES: TableDefinition<&str, (u64, i64)> = TableDefinition::new("series");
/// Points by series, resolution in seconds, and time.
const POINTS: TableDefinition<(u64, u32, i64), &[u8]> = TableDefinition::new("points");
/// Numbers that outlive the process: of the last series.
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const LAST_SERIES: &str = "series";

/// redb's page cache, in bytes: points that are read are mostly the newest.
const CACHE_BYTES: usize = 4 << 20;
/// How many puts may wait for the disk; who comes then waits to be one of them.
const WAITING: usize = 256;

/// How finely time is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    Hour,
}

impl Resolution {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::FiveMinutes, Self::Hour];

    /// In seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::FiveMinutes => 300,
            Self::Hour => 3600,
        }
    }
}

/// How long points of a resolution are kept, in seconds, before they become points of the next or, of the last, go.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The resolution.
    pub resolution: Resolution,
    /// Its points' longest age, in seconds.
    pub seconds: i64,
    /// What they become then.
    pub next: Option<Resolution>,
}

/// A point to be put.
#[derive(Clone, Debug)]
pub struct Point {
    /// The name of its series.
    pub series: String,
    /// When it was measured, in seconds since the Unix epoch.
    pub at: i64,
    /// How finely its time is kept.
    pub resolution: Resolution,
    /// What was measured.
    pub summary: Summary,
}

/// Why points could not be written or read.
#[derive(Debug, Error)]
pub enum MetricStoreError {
    /// The file cannot be opened.
    #[error("cannot open the metrics {path}")]
    Open {
        /// The file.
        path: PathBuf,
        #[source]
        #[allow(missing_docs)]
        source: Box<redb::Error>,
    },
    /// The file cannot be read.
    #[error("cannot read metrics")]
    Read(#[source] Box<redb::Error>),
    /// The file cannot be written.
    #[error("cannot write metrics")]
    Write(#[source] Box<redb::Error>),
    /// A point is not in the form that points are written in.
    #[error("a point of the series {0} is damaged")]
    Damaged(String),
    /// The thread that writes has ended.
    #[error("metrics are not written any more")]
    Closed,
}

type Outcome = Result<(), Arc<MetricStoreError>>;

/// What the writing thread is asked for.
enum Ask {
    Put(Vec<Point>, oneshot::Sender<Outcome>),
    Age(Vec<Kept>, i64, oneshot::Sender<Outcome>),
}

/// Points of all series, in one file.
pub struct MetricStore {
    file: Arc<File>,
    /// There until the store is dropped.
    asks: Option<mpsc::Sender<Ask>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for MetricStore {
    /// Waits for what is being written: nobody can open the file before.
    fn drop(&mut self) {
        self.asks.take();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes metrics had panicked");
        }
    }
}

impl MetricStore {
    /// The store in the file at `path`, which is made or opened when it is first needed.
    pub fn new(path: &Path) -> Self {
        let file = Arc::new(File { path: path.to_owned(), database: Mutex::new(None) });
        let (asks, asked) = mpsc::channel(WAITING);
        let writer = file.clone();
        let run = move || write(&writer, asked);
        let named = std::thread::Builder::new().name("metrics".into()).spawn(run);
        let writer = named.expect("a machine that runs containers has room for a thread");
        Self { file, asks: Some(asks), writer: Some(writer) }
    }

    /// Puts points: they are on disk when this returns, all or none.
    pub async fn put(&self, points: Vec<Point>) -> Outcome {
        self.ask(|answer| Ask::Put(points, answer)).await
    }

    /// Makes points that are older than they are kept for, at the time `now`, ones of the next resolution, and removes
    /// those that have none.
    pub async fn age(&self, rules: Vec<Kept>, now: i64) -> Outcome {
        self.ask(|answer| Ask::Age(rules, now, answer)).await
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<Outcome>) -> Ask) -> Outcome {
        let closed = || Arc::new(MetricStoreError::Closed);
        let (answer, answered) = oneshot::channel();
        let asks = self.asks.as_ref().ok_or_else(closed)?;
        asks.send(ask(answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// The points of a series whose stretch of time begins within `times`, in order of time within each resolution.
    /// Reads the disk.
    pub fn read(
        &self,
        series: &str,
        times: Range<i64>,
    ) -> Result<Vec<(i64, Summary)>, MetricStoreError> {
        let Some(database) = self.file.existing()? else { return Ok(Vec::new()) };
        let read = || {
            let reading = database.begin_read()?;
            let Some((number, _)) = reading.open_table(SERIES)?.get(series)?.map(|at| at.value())
            else {
                return Ok(Vec::new());
            };
            let points = reading.open_table(POINTS)?;
            let mut found = Vec::new();
            for resolution in Resolution::ALL {
                let seconds = resolution.seconds();
                for point in
                    points.range((number, seconds, times.start)..(number, seconds, times.end))?
                {
                    let (key, bytes) = point?;
                    found.push((key.value().2, Summary::decode(bytes.value())));
                }
            }
            Ok(found)
        };
        let found = read().map_err(|error| MetricStoreError::Read(Box::new(error)))?;
        let whole = |(at, summary): (i64, Option<Summary>)| Some((at, summary?));
        let found: Option<Vec<_>> = found.into_iter().map(whole).collect();
        found.ok_or_else(|| MetricStoreError::Damaged(series.to_owned()))
    }

    /// The names of the series that begin with `prefix` and have a point since `since`, in order. Reads the disk.
    pub fn series(&self, prefix: &str, since: i64) -> Result<Vec<String>, MetricStoreError> {
        let Some(database) = self.file.existing()? else { return Ok(Vec::new()) };
        let read = || {
            let table = database.begin_read()?.open_table(SERIES)?;
            let mut found = Vec::new();
            for series in table.range(prefix..)? {
                let (name, at) = series?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                if at.value().1 >= since {
                    found.push(name.value().to_owned());
                }
            }
            Ok(found)
        };
        read().map_err(|error| MetricStoreError::Read(Box::new(error)))
    }
}

/// The file. It is opened anew after it refused something: redb does nothing more then.
struct File {
    path: PathBuf,
    database: Mutex<Option<Arc<Database>>>,
}

impl File {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        // Whoever panicked with the lock left a whole value.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, made if there is none.
    fn open(&self) -> Result<Arc<Database>, MetricStoreError> {
        let mut slot = self.slot();
        if let Some(database) = &*slot {
            return Ok(database.clone());
        }
        let open = || {
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(&self.path)?;
            let writing = database.begin_write()?;
            drop((writing.open_table(SERIES)?, writing.open_table(POINTS)?));
            drop(writing.open_table(COUNTERS)?);
            writing.commit()?;
            Ok(Arc::new(database))
        };
        let told =
            |error| MetricStoreError::Open { path: self.path.clone(), source: Box::new(error) };
        Ok(slot.insert(open().map_err(told)?).clone())
    }

    /// The database, if there is one.
    fn existing(&self) -> Result<Option<Arc<Database>>, MetricStoreError> {
        match self.slot().is_some() || self.path.exists() {
            true => self.open().map(Some),
            false => Ok(None),
        }
    }
}

/// The writing thread: until nobody can ask any more.
fn write(file: &File, mut asked: mpsc::Receiver<Ask>) {
    while let Some(first) = asked.blocking_recv() {
        let mut puts = Vec::new();
        let mut ask = Some(first);
        // All puts that wait share a flush; what is no put ends the group.
        while let Some(Ask::Put(points, answer)) = ask {
            puts.push((points, answer));
            ask = asked.try_recv().ok();
        }
        if !puts.is_empty() {
            let points = puts.iter().flat_map(|(points, _)| points);
            let outcome = settle(file, |writing| put(writing, points));
            for (_, answer) in puts {
                // Who stopped waiting does not want to know.
                let _ = answer.send(outcome.clone());
            }
        }
        if let Some(Ask::Age(rules, now, answer)) = ask {
            let outcome = rules.iter().try_for_each(|rule| settle(file, |it| age(it, rule, now)));
            let _ = answer.send(outcome);
        }
    }
}

/// Makes changes and flushes them; after a failure the file is closed.
fn settle(
    file: &File,
    change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Outcome {
    let database = file.open()?;
    let attempt = || {
        let writing = database.begin_write()?;
        change(&writing)?;
        writing.commit().map_err(redb::Error::from)
    };
    attempt().map_err(|error| {
        file.slot().take();
        Arc::new(MetricStoreError::Write(Box::new(error)))
    })
}

type Points<'a> = Table<'a, (u64, u32, i64), &'static [u8]>;

fn merge(points: &mut Points, key: (u64, u32, i64), summary: &Summary) -> Result<(), redb::Error> {
    let known = points.get(key)?.and_then(|bytes| Summary::decode(bytes.value()));
    let merged = match known {
        Some(mut known) => {
            known.merge(summary);
            known.encode()
        }
        None => summary.encode(),
    };
    points.insert(key, merged.as_slice())?;
    Ok(())
}

fn put<'a>(
    writing: &WriteTransaction,
    new: impl Iterator<Item = &'a Point>,
) -> Result<(), redb::Error> {
    let (mut series, mut points) = (writing.open_table(SERIES)?, writing.open_table(POINTS)?);
    let mut counters = writing.open_table(COUNTERS)?;
    for point in new {
        let known = series.get(point.series.as_str())?.map(|known| known.value());
        let (number, last) = match known {
            Some(known) => known,
            None => {
                let next = counters.get(LAST_SERIES)?.map_or(0, |last| last.value()) + 1;
                counters.insert(LAST_SERIES, next)?;
                (next, i64::MIN)
            }
        };
        if known.is_none() || point.at > last {
            series.insert(point.series.as_str(), (number, last.max(point.at)))?;
        }
        let seconds = point.resolution.seconds();
        let start = point.at - point.at.rem_euclid(i64::from(seconds));
        merge(&mut points, (number, seconds, start), &point.summary)?;
    }
    Ok(())
}

/// Carries one rule out.
fn age(writing: &WriteTransaction, rule: &Kept, now: i64) -> Result<(), redb::Error> {
    let (mut series, mut points) = (writing.open_table(SERIES)?, writing.open_table(POINTS)?);
    let (seconds, oldest) = (rule.resolution.seconds(), now - rule.seconds);
    let mut known = Vec::new();
    for one in series.iter()? {
        let (name, at) = one?;
        known.push((name.value().to_owned(), at.value()));
    }
    for (name, (number, last)) in known {
        let old = (number, seconds, i64::MIN)..(number, seconds, oldest);
        let mut moved = Vec::new();
        for point in points.extract_from_if(old, |_, _| true)? {
            let (key, bytes) = point?;
            moved.extend(Summary::decode(bytes.value()).map(|summary| (key.value().2, summary)));
        }
        let Some(next) = rule.next else {
            if last < oldest {
                series.remove(name.as_str())?;
            }
            continue;
        };
        for (at, summary) in moved {
            let start = at - at.rem_euclid(i64::from(next.seconds()));
            merge(&mut points, (number, next.seconds(), start), &summary)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(series: &str, at: i64, resolution: Resolution, value: f64) -> Point {
        let summary = Summary::of_values([(value, 1.0)]).unwrap();
        Point { series: series.into(), at, resolution, summary }
    }

    fn sums(store: &MetricStore, series: &str) -> Vec<(i64, f64)> {
        let points = store.read(series, 0..i64::MAX).unwrap();
        points.into_iter().map(|(at, summary)| (at, summary.sum)).collect()
    }

    #[tokio::test]
    async fn points_of_a_minute_are_one_and_survive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics");
        let store = MetricStore::new(&path);
        assert!(store.read("a", 0..100).unwrap().is_empty());
        assert!(!path.exists(), "what is not used has no file");
        let all = [61, 119, 120].map(|at| point("a", at, Resolution::Minute, 2.0));
        store.put(all.to_vec()).await.unwrap();
        store.put(vec![point("ab", 7, Resolution::Second, 1.0)]).await.unwrap();
        drop(store);
        let store = MetricStore::new(&path);
        assert_eq!(sums(&store, "a"), [(60, 4.0), (120, 2.0)]);
        assert_eq!(sums(&store, "ab"), [(7, 1.0)]);
        assert_eq!(store.series("a", 0).unwrap(), ["a", "ab"]);
        assert_eq!(store.series("a", 8).unwrap(), ["a"]);
        assert_eq!(store.series("b", 0).unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_old_is_rolled_up_and_then_goes() {
        let directory = tempfile::tempdir().unwrap();
        let store = MetricStore::new(&directory.path().join("metrics"));
        let minute = Kept {
            resolution: Resolution::Minute,
            seconds: 600,
            next: Some(Resolution::FiveMinutes),
        };
        let five = Kept { resolution: Resolution::FiveMinutes, seconds: 6000, next: None };
        let all = [0, 60, 299, 300, 900].map(|at| point("a", at, Resolution::Minute, 1.0));
        store.put(all.to_vec()).await.unwrap();
        store.age(vec![minute, five], 1000).await.unwrap();
        assert_eq!(sums(&store, "a"), [(900, 1.0), (0, 3.0), (300, 1.0)]);
        store.age(vec![minute, five], 6400).await.unwrap();
        assert_eq!(sums(&store, "a"), [(900, 1.0)]);
        store.age(vec![minute, five], 9000).await.unwrap();
        assert_eq!(store.series("", 0).unwrap(), [""; 0]);
        // A series that comes back does not find another's points.
        let more = [
            point("b", 10_000, Resolution::Minute, 5.0),
            point("a", 10_000, Resolution::Minute, 6.0),
        ];
        store.put(more.to_vec()).await.unwrap();
        assert_eq!(sums(&store, "b"), [(9960, 5.0)]);
        assert_eq!(sums(&store, "a"), [(9960, 6.0)]);
    }
}
