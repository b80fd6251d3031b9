//! A file system that is really full.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use logstore::{AppendError, LogStore, NewEvent, Query, SourceRange};
use std::{path::PathBuf, process::Command};
use tempfile::TempDir;
use world::World;

/// A small file system of its own, gone when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// None without the right to mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the test left a mount behind");
    }
}

async fn ship(store: &LogStore, n: u64, message: &str) -> Result<(), AppendError> {
    let event = NewEvent { timestamp_ms: n as i64, message: format!("{n} {message}") };
    let range = SourceRange { source: "task".into(), start: n, end: n + 1 };
    store.append("s", &[event], Some(range)).await.map(drop)
}

async fn numbers(store: &LogStore) -> Vec<u64> {
    let query = Query { streams: vec!["s".into()], max_bytes: usize::MAX, ..Query::default() };
    let page = store.read(query).await.unwrap();
    assert!(page.end && page.damaged.is_empty());
    page.events.iter().map(|e| e.message.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_and_later_takes_more_without_loss_or_doubles() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: needs the right to mount a tmpfs");
        return;
    };
    std::fs::write(disk.file("ballast"), vec![0; 2 << 20]).unwrap();
    let store = LogStore::open(&disk.file("logs"), World::system()).unwrap();
    let noise = World::system();
    let mut stored = 0;
    let refused = loop {
        match ship(&store, stored, &noise.hex(100_000)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the disk never filled up");
    };
    assert!(matches!(refused, AppendError::Journal(_)), "{refused:?}");
    store.seal_all().await;
    assert_eq!(numbers(&store).await, (0..stored).collect::<Vec<_>>());
    assert_eq!(store.source_offset("s", "task").await.unwrap(), Some(stored));

    std::fs::remove_file(disk.file("ballast")).unwrap();
    ship(&store, stored, "small").await.unwrap();
    drop(store);
    let store = LogStore::open(&disk.file("logs"), World::system()).unwrap();
    assert_eq!(numbers(&store).await, (0..=stored).collect::<Vec<_>>());
    store.seal_all().await;
    assert_eq!(numbers(&store).await, (0..=stored).collect::<Vec<_>>());
}
