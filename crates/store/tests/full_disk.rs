//! A file system that is really full.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use serde::{Deserialize, Serialize};
use std::{path::PathBuf, process::Command};
use store::{DiskFault, Record, Store};
use tempfile::TempDir;
use world::World;

#[derive(Serialize, Deserialize)]
struct Blob {
    id: u32,
    bytes: String,
}

impl Record for Blob {
    const TABLE: &'static str = "test.blob";
    fn key(&self) -> String {
        format!("{:06}", self.id)
    }
}

/// A small file system of its own, gone when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// None without the right to mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(dir.path());
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

async fn put(store: &Store, id: u32) -> Result<(), DiskFault> {
    let blob = Blob { id, bytes: "x".repeat(100_000) };
    store
        .write(|tx| {
            tx.put(blob);
            Ok(())
        })
        .await
}

#[tokio::test]
async fn nothing_is_lost_on_a_full_disk_and_writing_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: needs the right to mount a tmpfs");
        return;
    };
    std::fs::write(disk.file("ballast"), vec![0; 1 << 20]).unwrap();
    let store = Store::open(&disk.file("data"), World::system()).unwrap();
    let mut stored = 0;
    while put(&store, stored).await.is_ok() {
        stored += 1;
        assert!(stored < 1000, "the disk never filled up");
    }
    assert!(put(&store, stored).await.is_err(), "still full");
    assert_eq!(store.read().count::<Blob>() as u32, stored);

    std::fs::remove_file(disk.file("ballast")).unwrap();
    put(&store, 900).await.unwrap();
    drop(store);
    let store = Store::open(&disk.file("data"), World::system()).unwrap();
    store.declare::<Blob>().unwrap();
    let ids: Vec<u32> = store.read().scan::<Blob>().map(|blob| blob.id).collect();
    assert_eq!(ids, (0..stored).chain([900]).collect::<Vec<_>>());
}
