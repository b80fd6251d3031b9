//! The store: reads, writes, watches.

use crate::{
    committer::{self, Core, Outcome, Queued},
    disk::{self, Disk, OpenDatabase},
    error::{CommitError, DiskFault, OpenError, ReadError, WriteError},
    lock::{self, DirLock, Locked},
    memory::{Fate, MemoryDisk},
    record::Record,
    state::Snapshot,
    tx::{Changes, Tx},
    watch::{Commit, Watch},
};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::oneshot;
use world::World;

/// Durable typed tables. Cheap to clone; clones are the same store. The last clone that is dropped
/// waits for what is queued to reach the disk and lets go of the directory.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    world: World,
    backing: Backing,
}

enum Backing {
    /// The committing thread; none once it is joined.
    Thread(Mutex<Option<JoinHandle<()>>>),
    /// A simulated disk, and which of its lives this store is.
    Memory { disk: MemoryDisk, life: u64 },
}

/// How a transaction will be answered.
enum Ticket {
    Settled(Outcome),
    Wait(oneshot::Receiver<Outcome>),
    /// The simulated process has crashed.
    Never,
}

impl Store {
    /// Opens the store in `dir`, which is made if it is missing (for the owner only). After a crash
    /// the database is repaired first. The directory is locked until the store is dropped.
    pub fn open(dir: &Path, world: World) -> Result<Self, OpenError> {
        let lock = lock_dir(dir)?;
        let path = dir.join("state.redb");
        make_file(dir, &path)
            .map_err(|source| OpenError::MakeFile { path: path.clone(), source })?;
        Self::open_database(disk::file(path.clone()), &path, lock, world)
    }

    pub(crate) fn open_database(
        open: OpenDatabase,
        path: &Path,
        lock: DirLock,
        world: World,
    ) -> Result<Self, OpenError> {
        let (disk, state) = Disk::open(open, path)?;
        let core = Arc::new(Core::new(state));
        let thread = std::thread::Builder::new().name("store-commit".into()).spawn({
            let core = core.clone();
            move || committer::run(&core, disk, lock)
        });
        let thread = thread.map_err(OpenError::Thread)?;
        let backing = Backing::Thread(Mutex::new(Some(thread)));
        Ok(Self { handle: Arc::new(Handle { core, world, backing }) })
    }

    /// A store without a disk, for tests: the same semantics, gone when it is dropped.
    pub fn in_memory(world: World) -> Self {
        Self::on(&MemoryDisk::new(), world)
    }

    /// A store on a simulated disk, with what earlier stores on it have committed. A store opened
    /// on the disk before is from now on a dead process: its writes never resolve.
    pub fn on(disk: &MemoryDisk, world: World) -> Self {
        let (life, state) = disk.load();
        let core = Arc::new(Core::new(state));
        let backing = Backing::Memory { disk: disk.clone(), life };
        Self { handle: Arc::new(Handle { core, world, backing }) }
    }

    /// The clock, randomness and tasks that go with this store.
    pub fn world(&self) -> &World {
        &self.handle.world
    }

    /// Reads the whole table of `T` and tells of the first record that does not fit its type. Every
    /// service declares its records at start; typed reads then cannot fail.
    pub fn declare<T: Record>(&self) -> Result<(), ReadError> {
        self.handle.core.durable().check::<T>()
    }

    /// The durable state of this moment.
    pub fn read(&self) -> Snapshot {
        Snapshot { state: self.handle.core.durable() }
    }

    /// Runs `transaction` on the newest state and resolves once its changes are on disk. It runs
    /// exactly once, when this future is first polled, with no other transaction beside it, so it
    /// must be short. If it answers `Err`, nothing is written. If the disk refuses, the answer is a
    /// [`DiskFault`].
    ///
    /// Any answer, also a refusal, waits until the state that it was based on is on disk. A future
    /// that is dropped after its first poll does not stop the transaction.
    pub async fn write<R, E, F>(&self, transaction: F) -> Result<R, E>
    where
        F: FnOnce(&mut Tx) -> Result<R, E>,
        E: From<DiskFault>,
    {
        self.try_write(transaction).await.map_err(|error| match error {
            WriteError::Refused(refusal) => refusal,
            WriteError::Disk(cause) => DiskFault(cause).into(),
        })
    }

    /// [`Store::write`] with the two kinds of failure kept apart.
    pub async fn try_write<R, E, F>(&self, transaction: F) -> Result<R, WriteError<E>>
    where
        F: FnOnce(&mut Tx) -> Result<R, E>,
    {
        let (answer, ticket) = self.run(transaction);
        let outcome = match ticket {
            Ticket::Settled(outcome) => outcome,
            Ticket::Wait(settled) => {
                settled.await.unwrap_or_else(|_| Err(Arc::new(CommitError::Closed)))
            }
            Ticket::Never => std::future::pending().await,
        };
        match outcome {
            Ok(()) => answer.map_err(WriteError::Refused),
            Err(cause) => Err(WriteError::Disk(cause)),
        }
    }

    /// Watches the table of `T`, from now.
    pub fn watch<T: Record>(&self) -> Watch {
        self.watch_tables(&[T::TABLE])
    }

    /// Watches several tables, from now.
    pub fn watch_tables(&self, tables: &[&'static str]) -> Watch {
        self.handle.core.hub.watch(tables)
    }

    /// Runs the closure and queues what it changed.
    fn run<R, E, F>(&self, transaction: F) -> (Result<R, E>, Ticket)
    where
        F: FnOnce(&mut Tx) -> Result<R, E>,
    {
        let core = &self.handle.core;
        let mut head = core.head();
        let mut tx = Tx::new(head.state.clone());
        let answer = transaction(&mut tx);
        let Tx { state: mut after, mut changes } = tx;
        if answer.is_err() {
            after = head.state.clone();
            changes.clear();
        }
        if changes.is_empty() && core.durable().sequence == after.sequence {
            return (answer, Ticket::Settled(Ok(())));
        }
        if !changes.is_empty() {
            after.sequence += 1;
        }
        let ticket = match &self.handle.backing {
            Backing::Memory { disk, life } => match disk.commit(*life, &changes) {
                Fate::Commit => {
                    head.state = after.clone();
                    core.publish(after.clone(), vec![Commit::new(after.sequence, &changes)]);
                    Ticket::Settled(Ok(()))
                }
                Fate::Refuse => Ticket::Settled(Err(Arc::new(CommitError::Simulated))),
                Fate::CrashBefore | Fate::CrashAfter => Ticket::Never,
            },
            Backing::Thread(_) => {
                head.state = after.clone();
                Ticket::Wait(queue(core, &mut head, after, changes))
            }
        };
        (answer, ticket)
    }
}

fn queue(
    core: &Core,
    head: &mut committer::Head,
    after: crate::state::State,
    changes: Changes,
) -> oneshot::Receiver<Outcome> {
    let (answer, settled) = oneshot::channel();
    core.enqueue(head, Queued { after, changes, answer });
    settled
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Backing::Thread(thread) = &mut self.backing else { return };
        self.core.close();
        let thread = thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committing thread panicked");
        }
    }
}

/// Makes the database file, for the owner only, if it is missing; durably, so that a power cut
/// cannot take a database that has acknowledged writes out of its directory again.
fn make_file(dir: &Path, path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    File::open(dir)?.sync_all()
}

/// Makes `dir` if it is missing and takes its lock.
pub(crate) fn lock_dir(dir: &Path) -> Result<DirLock, OpenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| OpenError::MakeDir { dir: dir.into(), source })?;
    match lock::lock(dir) {
        Ok(Locked::Ours(lock)) => Ok(lock),
        Ok(Locked::Theirs(pid)) => Err(OpenError::InUse { dir: dir.into(), pid }),
        Err(source) => Err(OpenError::Lock { dir: dir.into(), source }),
    }
}
