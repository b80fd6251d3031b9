//! From the queue of transactions to the disk: one thread takes all that wait, flushes once,
//! publishes and answers them.

use crate::{
    disk::Disk,
    error::CommitError,
    lock::DirLock,
    state::State,
    tx::Changes,
    watch::{Commit, Hub},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
};
use tokio::sync::oneshot;

pub(crate) type Outcome = Result<(), Arc<CommitError>>;

/// What store, committer and watchers share.
#[derive(Default)]
pub(crate) struct Core {
    head: Mutex<Head>,
    /// Wakes the committing thread.
    queued: Condvar,
    durable: RwLock<State>,
    pub(crate) hub: Arc<Hub>,
}

/// The newest state and the transactions that led to it but are not taken to the disk yet.
#[derive(Default)]
pub(crate) struct Head {
    pub(crate) state: State,
    pub(crate) queue: VecDeque<Queued>,
    closing: bool,
}

/// A transaction on its way to the disk. Without changes it only waits for those before it.
pub(crate) struct Queued {
    pub(crate) after: State,
    pub(crate) changes: Changes,
    pub(crate) answer: oneshot::Sender<Outcome>,
}

impl Core {
    pub(crate) fn new(state: State) -> Self {
        let head = Head { state: state.clone(), ..Head::default() };
        Self { head: Mutex::new(head), durable: RwLock::new(state), ..Self::default() }
    }

    /// The head, for one transaction. A closure that panicked has changed nothing (the state is
    /// only replaced by a finished transaction), so a poisoned lock is sound.
    pub(crate) fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> State {
        self.durable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn enqueue(&self, head: &mut Head, queued: Queued) {
        head.queue.push_back(queued);
        self.queued.notify_one();
    }

    pub(crate) fn close(&self) {
        self.head().closing = true;
        self.queued.notify_one();
    }

    /// Makes durable transactions visible: first to readers, then to watchers.
    pub(crate) fn publish(&self, after: State, commits: Vec<Commit>) {
        *self.durable.write().unwrap_or_else(PoisonError::into_inner) = after;
        self.hub.publish(commits);
    }

    /// The next group of transactions; empty when the store is closed and all are done.
    fn next_group(&self) -> VecDeque<Queued> {
        let mut head = self.head();
        while head.queue.is_empty() && !head.closing {
            head = self.queued.wait(head).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut head.queue)
    }

    fn settle(&self, group: VecDeque<Queued>) {
        let Some(last) = group.back() else { return };
        self.publish(last.after.clone(), commits(&group));
        for queued in group {
            // A writer that stopped waiting does not want to know.
            let _ = queued.answer.send(Ok(()));
        }
    }

    /// The disk refused: what was queued behind the group was built on it, so all of it falls.
    fn fall_back(&self, mut group: VecDeque<Queued>, error: CommitError) {
        let mut head = self.head();
        head.state = self.durable();
        group.append(&mut head.queue);
        drop(head);
        let error = Arc::new(error);
        for queued in group {
            // A writer that stopped waiting does not want to know.
            let _ = queued.answer.send(Err(error.clone()));
        }
    }
}

fn commits(group: &VecDeque<Queued>) -> Vec<Commit> {
    let changed = group.iter().filter(|queued| !queued.changes.is_empty());
    changed.map(|queued| Commit::new(queued.after.sequence, &queued.changes)).collect()
}

/// The committing thread's work: until the store is closed. Holds the directory's lock as long as
/// it may write.
pub(crate) fn run(core: &Core, mut disk: Disk, lock: DirLock) {
    loop {
        let group = core.next_group();
        if group.is_empty() {
            break;
        }
        let changes: Vec<_> = group.iter().map(|q| &q.changes).filter(|c| !c.is_empty()).collect();
        let outcome =
            if changes.is_empty() { Ok(()) } else { disk.commit(&changes, &core.durable()) };
        match outcome {
            Ok(()) => core.settle(group),
            Err(error) => {
                tracing::error!(error = chain(&error), "the disk refused a transaction");
                core.fall_back(group, error);
            }
        }
    }
    drop(disk);
    drop(lock);
}

/// The error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
