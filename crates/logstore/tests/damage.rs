//! Torn ends and flipped bits: what can be mended is, what cannot is told of and skipped, and the
//! rest is read.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use logstore::{LogStore, NewEvent, Query, SourceRange};
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use world::World;

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, World::system()).unwrap()
}

async fn append(store: &LogStore, stream: &str, n: i64) {
    let message = format!("line {n}");
    store.append(stream, &[NewEvent { timestamp_ms: n, message }], None).await.unwrap();
}

/// The timestamps that are read, and how many blocks were damaged.
async fn read(store: &LogStore, stream: &str) -> (Vec<i64>, usize) {
    let page =
        store.read(Query { streams: vec![stream.into()], ..Query::default() }).await.unwrap();
    for event in &page.events {
        assert_eq!(event.message, format!("line {}", event.timestamp_ms));
    }
    (page.events.iter().map(|event| event.timestamp_ms).collect(), page.damaged.len())
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(ending));
    files.sort();
    files
}

fn segments(dir: &Path, stream: &str) -> Vec<PathBuf> {
    files(&dir.join("streams").join(stream), ".seg")
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("journal"), ".journal")
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

#[tokio::test]
async fn a_journal_cut_anywhere_keeps_what_was_whole() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 0..20 {
        append(&store, "s", n).await;
    }
    drop(store);
    let journal = journals(dir.path()).pop().unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let mut last = 20;
    for length in (0..whole.len()).rev() {
        std::fs::write(&journal, &whole[..length]).unwrap();
        for later in journals(dir.path()).into_iter().filter(|path| *path > journal) {
            std::fs::remove_file(later).unwrap();
        }
        let store = open(dir.path());
        let (read, damaged) = read(&store, "s").await;
        assert_eq!(read, (0..read.len() as i64).collect::<Vec<_>>());
        assert!(read.len() <= last && last - read.len() <= 1 && damaged == 0);
        last = read.len();
    }
    assert_eq!(last, 0);
}

#[tokio::test]
async fn a_journal_that_ends_in_zeros_or_noise_goes_on() {
    for tail in [vec![0; 5000], vec![0xa5; 5000]] {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        append(&store, "s", 0).await;
        drop(store);
        let journal = journals(dir.path()).pop().unwrap();
        OpenOptions::new().append(true).open(journal).unwrap().write_all(&tail).unwrap();
        let store = open(dir.path());
        append(&store, "s", 1).await;
        drop(store);
        assert_eq!(read(&open(dir.path()), "s").await, (vec![0, 1], 0));
    }
}

#[tokio::test]
async fn a_damaged_journal_entry_costs_only_itself() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 0..10 {
        append(&store, "s", n).await;
    }
    drop(store);
    let journal = journals(dir.path()).pop().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let at = bytes.windows(6).position(|w| w == b"line 5").unwrap();
    flip(&journal, at as u64);
    let (read, _) = read(&open(dir.path()), "s").await;
    assert_eq!(read, [0, 1, 2, 3, 4, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_damaged_block_is_reported_and_skipped() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 0..3 {
        append(&store, "s", n).await;
        append(&store, "other", n).await;
        store.seal_all().await;
    }
    let segment = segments(dir.path(), "s").pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let starts: Vec<_> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"NGG1")).collect();
    // The last byte before the third group is the end of the second group's block.
    flip(&segment, starts[2] as u64 - 1);
    assert_eq!(read(&store, "s").await, (vec![0, 2], 1));
    drop(store);
    let store = open(dir.path());
    assert_eq!(read(&store, "s").await, (vec![0, 2], 1));
    assert_eq!(read(&store, "other").await, (vec![0, 1, 2], 0));

    // A damaged header costs its group; the groups behind it are found again.
    flip(&segment, starts[1] as u64 + 24);
    drop(store);
    let store = open(dir.path());
    assert_eq!(read(&store, "s").await, (vec![0, 2], 0));
    append(&store, "s", 7).await;
    store.seal_all().await;
    drop(store);
    assert_eq!(read(&open(dir.path()), "s").await, (vec![0, 2, 7], 0));
}

/// The crash came while a group was written: its events are in the journal, and the group is
/// written again.
#[tokio::test]
async fn a_torn_group_comes_from_the_journal_again() {
    let dir = TempDir::new().unwrap();
    let range = |n| Some(SourceRange { source: "task".into(), start: n, end: n + 1 });
    let store = open(dir.path());
    append(&store, "s", 0).await;
    store.seal_all().await;
    let segment = segments(dir.path(), "s").pop().unwrap();
    let before = std::fs::read(&segment).unwrap();
    let new = NewEvent { timestamp_ms: 1, message: "line 1".into() };
    store.append("s", &[new], range(0)).await.unwrap();
    drop(store);
    let kept: Vec<_> =
        journals(dir.path()).into_iter().map(|p| (std::fs::read(&p).unwrap(), p)).collect();
    let store = open(dir.path());
    store.seal_all().await;
    drop(store);
    let after = std::fs::read(&segment).unwrap();
    assert!(after.len() > before.len());
    // Back to the moment of the crash, with the group written to different extents; and with all
    // its length there but not its content, as after a power cut.
    let mut torn: Vec<Vec<u8>> =
        (before.len()..after.len()).map(|length| after[..length].to_vec()).collect();
    torn.push([&after[..after.len() - 5], &[0; 5]].concat());
    torn.push([&before[..], &vec![0; after.len() - before.len()]].concat());
    for segment_bytes in torn {
        for path in journals(dir.path()) {
            std::fs::remove_file(path).unwrap();
        }
        for (bytes, path) in &kept {
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(&segment, &segment_bytes).unwrap();
        let store = open(dir.path());
        assert_eq!(read(&store, "s").await, (vec![0, 1], 0));
        assert_eq!(store.source_offset("s", "task").await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn any_flipped_byte_leaves_the_store_usable() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 0..2 {
        append(&store, "s", n).await;
        store.seal_all().await;
    }
    append(&store, "s", 2).await;
    drop(store);
    let mut paths = segments(dir.path(), "s");
    paths.extend(journals(dir.path()));
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x5a;
            std::fs::write(&path, &changed).unwrap();
            let store = open(dir.path());
            let (read, _) = read(&store, "s").await;
            assert!(
                read.len() >= 2 || path.ends_with(".journal"),
                "byte {at} of {path:?} cost {read:?}"
            );
            drop(store);
            std::fs::write(&path, &bytes).unwrap();
            for later in journals(dir.path()) {
                if std::fs::metadata(&later).unwrap().len() == 20 {
                    std::fs::remove_file(later).unwrap();
                }
            }
        }
    }
}
