//! A disk that is memory: for unit tests and the simulation. It outlives the stores opened on it,
//! as a disk outlives processes, and can be told to fail or to crash the process at any commit.

use crate::{record::Entry, state::State, tx::Changes};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// What becomes of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored.
    Commit,
    /// The disk refuses, as a full disk does; the process lives on.
    Refuse,
    /// The process dies before anything is stored.
    CrashBefore,
    /// The process dies when it is stored, before anyone is told.
    CrashAfter,
}

/// Decides the fate of a commit from its number, counted from 1 since the disk was made.
type Decide = Box<dyn FnMut(u64) -> Fate + Send>;

/// The simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    content: Mutex<Content>,
    crash: Notify,
}

#[derive(Default)]
struct Content {
    records: BTreeMap<(Arc<str>, Arc<str>), Vec<u8>>,
    commits: u64,
    decide: Option<Decide>,
    /// Which opening of the disk is alive; an older one is a dead process.
    life: u64,
    crashed: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `decide` tells what becomes of each commit, given its number since the disk was
    /// made, counted from 1.
    pub fn decide(&self, decide: impl FnMut(u64) -> Fate + Send + 'static) {
        self.content().decide = Some(Box::new(decide));
    }

    /// How many commits were tried since the disk was made.
    pub fn commits(&self) -> u64 {
        self.content().commits
    }

    /// Resolves when the process that has the disk open has crashed. Its writes never resolve; drop
    /// its tasks and open the disk again.
    pub async fn crashed(&self) {
        loop {
            let woken = self.inner.crash.notified();
            if self.content().crashed {
                return;
            }
            woken.await;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.inner.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new life: what the last one stored.
    pub(crate) fn load(&self) -> (u64, State) {
        let mut content = self.content();
        content.life += 1;
        content.crashed = false;
        let mut state = State::default();
        for ((table, key), json) in &content.records {
            state.set(table, key.clone(), Arc::new(Entry::from_json(json)));
        }
        (content.life, state)
    }

    /// What became of the commit of a store opened in `life`.
    pub(crate) fn commit(&self, life: u64, changes: &Changes) -> Fate {
        let mut content = self.content();
        if content.crashed || content.life != life {
            return Fate::CrashBefore;
        }
        content.commits += 1;
        let number = content.commits;
        let fate = content.decide.as_mut().map_or(Fate::Commit, |decide| decide(number));
        if matches!(fate, Fate::Commit | Fate::CrashAfter) {
            content.store(changes);
        }
        if matches!(fate, Fate::CrashBefore | Fate::CrashAfter) {
            content.crashed = true;
            self.inner.crash.notify_waiters();
        }
        fate
    }
}

impl Content {
    fn store(&mut self, changes: &Changes) {
        for (key, put) in changes {
            match put {
                Some(put) => self.records.insert(key.clone(), put.json.clone()),
                None => self.records.remove(key),
            };
        }
    }
}
