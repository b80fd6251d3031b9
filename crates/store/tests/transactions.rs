//! Transactions, scans, watches and dumps, on disk and in memory alike.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use store::{DiskFault, Fate, Lagged, MemoryDisk, OpenError, ReadError, Record, Store};
use tempfile::TempDir;
use world::{Timestamp, World};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Task {
    id: String,
    state: u32,
}

impl Record for Task {
    const TABLE: &'static str = "test.task";
    fn key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    number: u64,
}

impl Record for Event {
    const TABLE: &'static str = "test.event";
    fn key(&self) -> String {
        format!("{:06}", self.number)
    }
}

#[derive(Debug)]
enum Fault {
    Exists,
    Disk,
}

impl From<DiskFault> for Fault {
    fn from(_: DiskFault) -> Self {
        Self::Disk
    }
}

fn task(id: &str, state: u32) -> Task {
    Task { id: id.into(), state }
}

async fn put(store: &Store, record: impl Record) {
    let done: Result<(), DiskFault> = store
        .write(|tx| {
            tx.put(record);
            Ok(())
        })
        .await;
    done.expect("the disk takes it");
}

/// Both kinds of store; the directory lives as long as it is held.
fn stores() -> Vec<(Option<TempDir>, Store)> {
    let dir = TempDir::new().unwrap();
    let disk = Store::open(&dir.path().join("data"), World::system()).unwrap();
    vec![(Some(dir), disk), (None, Store::in_memory(World::system()))]
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_readers_see_it_whole() {
    for (_dir, store) in stores() {
        let before = store.read();
        let seen: Result<_, DiskFault> = store
            .write(|tx| {
                tx.put(task("a", 1));
                tx.put(task("b", 2));
                tx.put(Event { number: 1 });
                assert!(tx.delete::<Task>("b"));
                assert!(!tx.delete::<Task>("b"));
                assert!(tx.update::<Task>("a", |task| task.state = 7));
                assert!(!tx.update::<Task>("b", |_| unreachable!()));
                Ok((tx.get::<Task>("a"), tx.count::<Task>()))
            })
            .await;
        assert_eq!(seen.unwrap(), (Some(Arc::new(task("a", 7))), 1));
        let after = store.read();
        assert!(before.get::<Task>("a").is_none(), "a snapshot never changes");
        assert_eq!(after.get::<Task>("a").as_deref(), Some(&task("a", 7)));
        assert_eq!(after.count::<Event>(), 1);
        assert!(after.get::<Task>("b").is_none());
    }
}

#[tokio::test]
async fn a_refusal_or_a_panic_writes_nothing() {
    for (_dir, store) in stores() {
        let refused: Result<(), Fault> = store
            .write(|tx| {
                tx.put(task("a", 1));
                Err(Fault::Exists)
            })
            .await;
        assert!(matches!(refused, Err(Fault::Exists)));
        let panicking = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || {
                let write = store.write(|tx| -> Result<(), Fault> {
                    tx.put(task("a", 1));
                    panic!("a bug in a handler");
                });
                tokio::runtime::Handle::current().block_on(write)
            })
        };
        assert!(panicking.await.is_err());
        assert_eq!(store.read().count::<Task>(), 0);
        put(&store, task("b", 1)).await;
        assert_eq!(store.read().scan::<Task>().count(), 1);
    }
}

#[tokio::test]
async fn scans_are_ordered_prefixed_and_paged() {
    for (_dir, store) in stores() {
        for key in ["web/2", "web/1", "db/1", "web0", "web/3", "web"] {
            put(&store, task(key, 0)).await;
        }
        let snapshot = store.read();
        let keys = |tasks: Vec<Arc<Task>>| tasks.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
        assert_eq!(
            keys(snapshot.scan().collect()),
            ["db/1", "web", "web/1", "web/2", "web/3", "web0"]
        );
        assert_eq!(keys(snapshot.scan_prefix("web/").collect()), ["web/1", "web/2", "web/3"]);
        assert_eq!(keys(snapshot.scan_prefix("web/").rev().take(1).collect()), ["web/3"]);
        assert_eq!(keys(snapshot.scan_from("web/", "web/1").collect()), ["web/2", "web/3"]);
        assert_eq!(keys(snapshot.scan_from("web/", "web/2x").collect()), ["web/3"]);
        assert_eq!(keys(snapshot.scan_from("web/", "a").collect()), ["web/1", "web/2", "web/3"]);
        assert!(snapshot.scan_from::<Task>("web/", "zzz").next().is_none());
        assert!(snapshot.scan_from::<Task>("web/", "web0").next().is_none());
        assert!(snapshot.scan_prefix::<Task>("nothing").next().is_none());
    }
}

#[tokio::test]
async fn writers_are_serialised() {
    for (_dir, store) in stores() {
        put(&store, task("n", 0)).await;
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..20 {
                    let done: Result<bool, DiskFault> =
                        store.write(|tx| Ok(tx.update::<Task>("n", |task| task.state += 1))).await;
                    assert!(done.unwrap());
                }
            });
        }
        writers.join_all().await;
        assert_eq!(store.read().get::<Task>("n").unwrap().state, 320);
    }
}

#[tokio::test]
async fn records_survive_reopening_and_grow_fields() {
    #[derive(Serialize, Deserialize)]
    struct TaskOfTomorrow {
        id: String,
        state: u32,
        #[serde(default)]
        reason: Option<String>,
    }
    impl Record for TaskOfTomorrow {
        const TABLE: &'static str = "test.task";
        fn key(&self) -> String {
            self.id.clone()
        }
    }
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), World::system()).unwrap();
    put(&store, task("a", 3)).await;
    drop(store);
    let store = Store::open(dir.path(), World::system()).unwrap();
    store.declare::<TaskOfTomorrow>().unwrap();
    let read = store.read().get::<TaskOfTomorrow>("a").unwrap();
    assert_eq!((read.state, &read.reason), (3, &None));
}

#[tokio::test]
async fn an_unreadable_record_is_named() {
    #[derive(Serialize, Deserialize)]
    struct Other {
        id: u64,
    }
    impl Record for Other {
        const TABLE: &'static str = "test.task";
        fn key(&self) -> String {
            self.id.to_string()
        }
    }
    let disk = MemoryDisk::new();
    put(&Store::on(&disk, World::system()), Other { id: 17 }).await;
    let store = Store::on(&disk, World::system());
    let error = store.declare::<Task>().unwrap_err();
    assert!(matches!(&error, ReadError::Decode { table: "test.task", key, .. } if key == "17"));

    #[derive(Serialize, Deserialize)]
    struct Renamed {
        id: u64,
    }
    impl Record for Renamed {
        const TABLE: &'static str = "test.task";
        fn key(&self) -> String {
            format!("task/{}", self.id)
        }
    }
    let error = Store::on(&disk, World::system()).declare::<Renamed>().unwrap_err();
    assert!(matches!(error, ReadError::Key { key, says, .. } if key == "17" && says == "task/17"));

    store.declare::<Other>().unwrap();
    let error = store.declare::<Task>().unwrap_err();
    assert!(matches!(error, ReadError::OtherType { .. }));
}

#[tokio::test]
async fn a_directory_has_one_engine() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), World::system()).unwrap();
    match Store::open(dir.path(), World::system()).map(drop) {
        Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("opened twice: {other:?}"),
    }
    drop(store);
    drop(Store::open(dir.path(), World::system()).unwrap());
}

#[tokio::test]
async fn the_database_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("new/data");
    let _store = Store::open(&data, World::system()).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("state.redb"))), (0o700, 0o600));
}

#[tokio::test]
async fn a_dump_is_lines_of_json() {
    for (dir, store) in stores() {
        put(&store, task("b", 1)).await;
        put(&store, Event { number: 4 }).await;
        put(&store, task("a\n", 2)).await;
        let store = match dir.as_ref() {
            // Reopened, so that the records are dumped as they were loaded.
            Some(dir) => {
                drop(store);
                Store::open(&dir.path().join("data"), World::system()).unwrap()
            }
            None => store,
        };
        let mut out = Vec::new();
        store.dump(&mut out).unwrap();
        let expected = concat!(
            r#"{"table":"test.event","key":"000004","record":{"number":4}}"#,
            "\n",
            r#"{"table":"test.task","key":"a\n","record":{"id":"a\n","state":2}}"#,
            "\n",
            r#"{"table":"test.task","key":"b","record":{"id":"b","state":1}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_watch_tells_of_its_tables_and_forgets_nothing() {
    for (_dir, store) in stores() {
        let mut watch = store.watch::<Task>();
        let mut both = store.watch_tables(&[Task::TABLE, Event::TABLE]);
        put(&store, Event { number: 1 }).await;
        let early = futures_poll(watch.changed()).await;
        assert!(early.is_none(), "another table's change");
        both.changed().await;
        // Changes before the wait are told of too, once.
        put(&store, task("a", 1)).await;
        put(&store, task("a", 2)).await;
        watch.changed().await;
        assert_eq!(store.read().get::<Task>("a").unwrap().state, 2);
        assert!(futures_poll(watch.changed()).await.is_none());
        // A waiter is woken.
        let waiting = store.world().spawn("waiter", async move {
            watch.changed().await;
            both.changed().await;
        });
        put(&store, task("b", 1)).await;
        waiting.await.unwrap();
    }
}

/// What `future` gives if it is ready now.
async fn futures_poll<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! { biased; out = future => Some(out), () = std::future::ready(()) => None }
}

#[tokio::test]
async fn a_watch_delivers_whole_transactions_in_order() {
    for (_dir, store) in stores() {
        let mut watch = store.watch::<Task>();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8u64 {
            let store = store.clone();
            writers.spawn(async move {
                for n in 0..25 {
                    let id = format!("{writer}-{n}");
                    let done: Result<(), DiskFault> = store
                        .write(|tx| {
                            tx.put(task(&id, 0));
                            tx.put(Event { number: writer * 100 + n });
                            tx.delete::<Event>(&format!("{:06}", writer * 100 + n - n.min(1)));
                            Ok(())
                        })
                        .await;
                    done.unwrap();
                    if n % 5 == 0 {
                        put(&store, Event { number: 999_999 }).await;
                    }
                }
            });
        }
        let mut next = std::collections::HashMap::<String, u32>::new();
        let mut last = 0;
        for _ in 0..200 {
            let commit = watch.next().await.unwrap();
            assert!(commit.sequence > last);
            last = commit.sequence;
            let tasks: Vec<_> = commit.of::<Task>().collect();
            assert_eq!(tasks.len(), 1, "one transaction, not a group");
            assert!(commit.of::<Event>().count() >= 1, "the other table's changes are there");
            let task = tasks[0].record::<Task>().unwrap();
            assert!(tasks[0].record::<Event>().is_none());
            assert!(store.read().get::<Task>(&task.id).is_some(), "told before it could be read");
            assert!(store.read().sequence() >= commit.sequence);
            let (writer, n) = task.id.split_once('-').unwrap();
            let expected = next.entry(writer.into()).or_default();
            assert_eq!(n.parse::<u32>().unwrap(), *expected, "in the order of commits");
            *expected += 1;
        }
        writers.join_all().await;
        assert!(futures_poll(watch.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_slow_watcher_is_told_to_scan_and_a_quiet_one_is_not() {
    let store = Store::in_memory(World::system());
    let mut slow = store.watch::<Task>();
    let mut quiet = store.watch::<Event>();
    for n in 0..3000 {
        put(&store, task("a", n)).await;
    }
    assert_eq!(slow.next().await.unwrap_err(), Lagged);
    assert!(futures_poll(slow.next()).await.is_none(), "goes on from now");
    put(&store, task("a", 1)).await;
    put(&store, Event { number: 5 }).await;
    assert!(slow.next().await.unwrap().of::<Task>().all(|change| !change.is_delete()));
    assert_eq!(quiet.next().await.unwrap().of::<Event>().count(), 1, "nothing of its was lost");
}

#[tokio::test]
async fn a_dropped_write_still_happens() {
    for (_dir, store) in stores() {
        let mut watch = store.watch::<Task>();
        let write = store.write(|tx| -> Result<(), DiskFault> {
            tx.put(task("a", 1));
            Ok(())
        });
        futures_poll(write).await;
        watch.changed().await;
        assert!(store.read().get::<Task>("a").is_some());
    }
}

#[tokio::test]
async fn a_refused_commit_leaves_no_trace() {
    let disk = MemoryDisk::new();
    let store = Store::on(&disk, World::system());
    disk.decide(|n| if n == 2 { Fate::Refuse } else { Fate::Commit });
    put(&store, task("a", 1)).await;
    let refused: Result<bool, Fault> =
        store.write(|tx| Ok(tx.update::<Task>("a", |task| task.state = 2))).await;
    assert!(matches!(refused, Err(Fault::Disk)));
    let seen: Result<u32, Fault> = store.write(|tx| Ok(tx.get::<Task>("a").unwrap().state)).await;
    assert_eq!(seen.unwrap(), 1);
    put(&store, task("b", 1)).await;
    assert_eq!((store.read().count::<Task>(), disk.commits()), (2, 3));
}

/// The simulation's use: crash at every commit, before and after it is stored; a new life finds
/// whole transactions, and every acknowledged one.
#[tokio::test(start_paused = true)]
async fn a_simulated_crash_at_every_commit_loses_nothing_acknowledged() {
    for crash_at in 1..=10u64 {
        for fate in [Fate::CrashBefore, Fate::CrashAfter] {
            let world = World::simulated(crash_at, Timestamp::from_millis(0));
            let disk = MemoryDisk::new();
            disk.decide(move |n| if n == crash_at { fate } else { Fate::Commit });
            let acknowledged = Arc::new(Mutex::new(0));
            let store = Store::on(&disk, world.clone());
            let work = world.spawn("work", {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                async move {
                    for n in 1..=10u32 {
                        let done: Result<(), DiskFault> = store
                            .write(|tx| {
                                tx.put(task("n", n));
                                tx.put(Event { number: u64::from(n) });
                                Ok(())
                            })
                            .await;
                        done.unwrap();
                        *acknowledged.lock().unwrap() = n;
                    }
                }
            });
            disk.crashed().await;
            world.end().await;
            assert!(work.is_finished());
            let reborn = Store::on(&disk, world).read();
            let stored = reborn.get::<Task>("n").map_or(0, |task| task.state);
            assert_eq!(reborn.count::<Event>() as u32, stored, "half a transaction");
            let acknowledged = *acknowledged.lock().unwrap();
            assert_eq!(acknowledged, crash_at as u32 - 1);
            assert_eq!(stored, acknowledged + u32::from(fate == Fate::CrashAfter));
            // The dead process can do no more harm.
            let late = store.write(|tx| -> Result<(), DiskFault> {
                tx.put(task("ghost", 1));
                Ok(())
            });
            assert!(futures_poll(late).await.is_none());
        }
    }
}
