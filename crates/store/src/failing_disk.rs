//! Tests of a disk that refuses and recovers.

use crate::{
    CommitError, DiskFault, Record, Store, WriteError, disk::OpenDatabase, store::lock_dir,
};
use redb::{StorageBackend, backends::FileBackend};
use serde::{Deserialize, Serialize};
use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
};
use tempfile::TempDir;
use world::World;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    id: String,
    text: String,
}

impl Record for Note {
    const TABLE: &'static str = "test.note";
    fn key(&self) -> String {
        self.id.clone()
    }
}

const WELL: u8 = 0;
/// Writes fail, as on a full disk.
const FULL: u8 = 1;
/// Writes arrive but their flush fails: what they left is uncertain.
const NO_FLUSH: u8 = 2;
/// The database code itself fails.
const PANIC: u8 = 3;

#[derive(Debug)]
struct FailingFile {
    file: FileBackend,
    mode: Arc<AtomicU8>,
}

impl FailingFile {
    fn check(&self, refused: &[u8]) -> io::Result<()> {
        let mode = self.mode.load(SeqCst);
        assert!(mode != PANIC, "the disk driver has a bug");
        if refused.contains(&mode) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(&[FULL])?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check(&[FULL, NO_FLUSH])?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(&[FULL])?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn failing(path: &Path, mode: &Arc<AtomicU8>) -> OpenDatabase {
    let (path, mode) = (path.to_owned(), mode.clone());
    Box::new(move || {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let file = FileBackend::new(file)?;
        redb::Database::builder().create_with_backend(FailingFile { file, mode: mode.clone() })
    })
}

fn open(dir: &Path, mode: &Arc<AtomicU8>) -> Store {
    let lock = lock_dir(dir).unwrap();
    let path = dir.join("state.redb");
    Store::open_database(failing(&path, mode), &path, lock, World::system()).unwrap()
}

async fn put(store: &Store, id: &str, text: &str) -> Result<(), DiskFault> {
    let note = Note { id: id.into(), text: text.into() };
    store
        .write(|tx| {
            tx.put(note);
            Ok(())
        })
        .await
}

fn texts(store: &Store) -> Vec<String> {
    store.read().scan::<Note>().map(|note| format!("{}={}", note.id, note.text)).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_everyone_and_later_works_again() {
    for trouble in [FULL, NO_FLUSH, PANIC] {
        let dir = TempDir::new().unwrap();
        let mode = Arc::new(AtomicU8::new(WELL));
        let store = open(dir.path(), &mode);
        put(&store, "a", "1").await.unwrap();
        put(&store, "b", "1").await.unwrap();
        let mut watch = store.watch::<Note>();

        mode.store(trouble, SeqCst);
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = store.clone();
            writers.spawn(async move { put(&store, &format!("n{n}"), "lost").await });
        }
        let changed = put(&store, "a", "lost").await.unwrap_err();
        assert!(!matches!(*changed.0, CommitError::Closed | CommitError::Simulated));
        let deleted: Result<bool, WriteError<()>> =
            store.try_write(|tx| Ok(tx.delete::<Note>("b"))).await;
        assert!(matches!(deleted, Err(WriteError::Disk(_))));
        assert!(writers.join_all().await.iter().all(Result::is_err));
        assert_eq!(texts(&store), ["a=1", "b=1"]);

        mode.store(WELL, SeqCst);
        put(&store, "c", "1").await.unwrap();
        assert_eq!(texts(&store), ["a=1", "b=1", "c=1"]);
        let commit = watch.next().await.unwrap();
        assert_eq!(commit.changes.len(), 1, "only what is durable is told of");

        // What the refused transactions may have left on disk must not come back.
        drop(store);
        let store = open(dir.path(), &mode);
        store.declare::<Note>().unwrap();
        assert_eq!(texts(&store), ["a=1", "b=1", "c=1"], "after trouble {trouble}");
    }
}

/// A head that is not durable yet must not leak into an answer: the disk takes neither the change
/// nor the refusal that was based on it.
#[tokio::test]
async fn a_refusal_waits_for_what_it_was_based_on() {
    let dir = TempDir::new().unwrap();
    let mode = Arc::new(AtomicU8::new(WELL));
    let store = open(dir.path(), &mode);
    mode.store(FULL, SeqCst);
    let create = || {
        store.try_write(|tx| {
            if tx.get::<Note>("a").is_some() {
                return Err("exists");
            }
            tx.put(Note { id: "a".into(), text: "1".into() });
            Ok(())
        })
    };
    for _ in 0..50 {
        let (first, second) = tokio::join!(create(), create());
        assert!(matches!(first, Err(WriteError::Disk(_))));
        assert!(matches!(second, Err(WriteError::Disk(_))), "refused by what never was");
    }
}
