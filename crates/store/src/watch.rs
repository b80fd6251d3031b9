//! Watches: who wants to know that tables changed, and what changed.

use crate::{
    record::{Erased, Record},
    tx::Changes,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::Notify;

/// How many commits, and how many bytes of their JSON, are kept for watchers that are behind.
const KEPT_COMMITS: usize = 1024;
const KEPT_BYTES: usize = 8 << 20;

/// One durable transaction.
#[derive(Debug)]
pub struct Commit {
    /// Counts the transactions since the store was opened, from 1.
    pub sequence: u64,
    /// The last change of each record that the transaction touched, ordered by table and key.
    pub changes: Vec<Change>,
    bytes: usize,
}

impl Commit {
    pub(crate) fn new(sequence: u64, changes: &Changes) -> Self {
        let bytes = changes.values().flatten().map(|put| put.json.len()).sum();
        let changes = changes
            .iter()
            .map(|((table, key), put)| Change {
                table: table.clone(),
                key: key.clone(),
                put: put.as_ref().and_then(|put| put.entry.erased()),
            })
            .collect();
        Self { sequence, changes, bytes }
    }

    /// The changes of one table.
    pub fn of<T: Record>(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| *change.table == *T::TABLE)
    }
}

/// What a transaction did to one record.
pub struct Change {
    /// The table's name.
    pub table: Arc<str>,
    /// The record's key.
    pub key: Arc<str>,
    put: Option<Erased>,
}

impl Change {
    /// The record as it was put; none when it was deleted or is not a `T`.
    pub fn record<T: Record>(&self) -> Option<Arc<T>> {
        self.put.clone()?.downcast().ok()
    }

    /// Whether the record was deleted.
    pub fn is_delete(&self) -> bool {
        self.put.is_none()
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.is_delete() { "delete" } else { "put" };
        write!(f, "{what} {} {:?}", self.table, self.key)
    }
}

/// A watcher fell so far behind that commits it had not seen are gone: scan the tables again. The
/// watch goes on from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind; scan the tables again")]
pub struct Lagged;

/// Tells of durable changes to some tables, from the moment it was made. To miss nothing: make the
/// watch, then read, then wait.
pub struct Watch {
    hub: Arc<Hub>,
    tables: Box<[&'static str]>,
    seen: u64,
    wake: Arc<Notify>,
}

impl Watch {
    /// Resolves when a transaction that this watch has not told of yet has changed one of its
    /// tables. Many changes may be told of at once; none is forgotten, also when this future is
    /// dropped.
    pub async fn changed(&mut self) {
        loop {
            if let Some(latest) = self.hub.newer(&self.tables, self.seen) {
                self.seen = latest;
                return;
            }
            self.wake.notified().await;
        }
    }

    /// The next transaction that touched one of the tables, whole and in order.
    pub async fn next(&mut self) -> Result<Arc<Commit>, Lagged> {
        loop {
            match self.hub.after(&self.tables, self.seen) {
                After::Commit(commit) => {
                    self.seen = commit.sequence;
                    return Ok(commit);
                }
                After::Lagged { latest } => {
                    self.seen = latest;
                    return Err(Lagged);
                }
                After::Nothing { latest } => self.seen = latest,
            }
            self.wake.notified().await;
        }
    }
}

/// Where commits are announced.
#[derive(Default)]
pub(crate) struct Hub {
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    /// The sequence of the last commit.
    latest: u64,
    /// The last commits, of consecutive sequences.
    kept: VecDeque<Arc<Commit>>,
    kept_bytes: usize,
    tables: HashMap<Arc<str>, TableBoard>,
}

#[derive(Default)]
struct TableBoard {
    /// The last commit that touched the table.
    latest: u64,
    /// The last commit that touched the table and is no longer kept.
    dropped: u64,
    watchers: Vec<Weak<Notify>>,
}

enum After {
    Commit(Arc<Commit>),
    Lagged { latest: u64 },
    Nothing { latest: u64 },
}

impl Hub {
    pub(crate) fn watch(self: &Arc<Self>, tables: &[&'static str]) -> Watch {
        let wake = Arc::new(Notify::new());
        let mut board = self.lock();
        for &table in tables {
            let watchers = &mut board.tables.entry(table.into()).or_default().watchers;
            watchers.retain(|watcher| watcher.strong_count() > 0);
            watchers.push(Arc::downgrade(&wake));
        }
        Watch { hub: self.clone(), tables: tables.into(), seen: board.latest, wake }
    }

    /// Announces durable commits, in order.
    pub(crate) fn publish(&self, commits: Vec<Commit>) {
        let mut board = self.lock();
        for commit in commits {
            board.add(Arc::new(commit));
        }
    }

    /// The newest commit's sequence, if one after `seen` touched one of `tables`.
    fn newer(&self, tables: &[&str], seen: u64) -> Option<u64> {
        let board = self.lock();
        let touched = |table: &&str| board.tables.get(*table).is_some_and(|t| t.latest > seen);
        tables.iter().any(touched).then_some(board.latest)
    }

    fn after(&self, tables: &[&str], seen: u64) -> After {
        let board = self.lock();
        let latest = board.latest;
        if tables.iter().any(|table| board.tables.get(*table).is_some_and(|t| t.dropped > seen)) {
            return After::Lagged { latest };
        }
        let first = board.kept.front().map_or(0, |commit| commit.sequence);
        let skip = (seen + 1).saturating_sub(first) as usize;
        let touches =
            |commit: &&Arc<Commit>| commit.changes.iter().any(|c| tables.contains(&&*c.table));
        match board.kept.iter().skip(skip).find(touches) {
            Some(commit) => After::Commit(commit.clone()),
            None => After::Nothing { latest },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn add(&mut self, commit: Arc<Commit>) {
        self.latest = commit.sequence;
        let mut last = None;
        for change in &commit.changes {
            // Changes are ordered by table: each table is woken once.
            if last == Some(&change.table) {
                continue;
            }
            last = Some(&change.table);
            if !self.tables.contains_key(&change.table) {
                self.tables.insert(change.table.clone(), TableBoard::default());
            }
            let table =
                self.tables.get_mut(&change.table).expect("inserted above if it was missing");
            table.latest = commit.sequence;
            table.watchers.retain(|watcher| match watcher.upgrade() {
                Some(wake) => {
                    wake.notify_one();
                    true
                }
                None => false,
            });
        }
        self.kept_bytes += commit.bytes;
        self.kept.push_back(commit);
        while self.kept.len() > KEPT_COMMITS || self.kept_bytes > KEPT_BYTES && self.kept.len() > 1
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        self.kept_bytes -= oldest.bytes;
        for change in &oldest.changes {
            if let Some(table) = self.tables.get_mut(&change.table) {
                table.dropped = oldest.sequence;
            }
        }
    }
}
