//! A process that commits under load is killed at random points, many times over one database.
//! After each death every acknowledged transaction is there, and no half of one.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use store::{DiskFault, Record, Store};
use tempfile::TempDir;
use world::{Timestamp, World};

const WRITERS: u32 = 8;

/// How far a writer got, written in one transaction with [`Right`] and [`Total`].
#[derive(Serialize, Deserialize)]
struct Left {
    writer: u32,
    n: u64,
    filler: String,
}

#[derive(Serialize, Deserialize)]
struct Right {
    writer: u32,
    n: u64,
}

/// The number of transactions of all writers: a read-modify-write shared by all.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Total {
    transactions: u64,
}

impl Record for Left {
    const TABLE: &'static str = "crash.left";
    fn key(&self) -> String {
        format!("{}/{}", self.writer, self.n % 10)
    }
}

impl Record for Right {
    const TABLE: &'static str = "crash.right";
    fn key(&self) -> String {
        self.writer.to_string()
    }
}

impl Record for Total {
    const TABLE: &'static str = "crash.total";
    fn key(&self) -> String {
        String::new()
    }
}

/// The child: not a test of its own.
#[test]
#[ignore = "the process that the crash test kills"]
fn child() {
    let Some(dir) = std::env::var_os("STORE_CRASH_DIR") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(Path::new(&dir), World::system()).unwrap();
        for writer in 0..WRITERS {
            let store = store.clone();
            World::system().spawn("writer", write_forever(store, writer));
        }
        std::future::pending::<()>().await;
    });
}

async fn write_forever(store: Store, writer: u32) {
    loop {
        let done: Result<u64, DiskFault> = store
            .write(|tx| {
                let n = tx.get::<Right>(&writer.to_string()).map_or(0, |right| right.n) + 1;
                let total = tx.get::<Total>("").map_or(0, |total| total.transactions) + 1;
                let filler = "x".repeat((n * 37 % 700) as usize);
                tx.put(Left { writer, n, filler });
                tx.put(Right { writer, n });
                tx.put(Total { transactions: total });
                Ok(n)
            })
            .await;
        // One write(2) a line, so that no line is torn.
        let line = format!("ack {writer} {}\n", done.unwrap());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn kill_nine_at_random_points_loses_nothing_acknowledged() {
    let kills: u64 = std::env::var("NEARGATE_STORE_KILLS").map_or(200, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("NEARGATE_STORE_SEED").map_or(1, |n| n.parse().unwrap());
    println!("{kills} kills, seed {seed}");
    let chance = World::simulated(seed, Timestamp::from_millis(0));
    let dir = TempDir::new().unwrap();
    let mut acknowledged = HashMap::new();
    for kill in 0..kills {
        let acks = draw(&chance, 50);
        // One life in eight is cut short without waiting for any acknowledgement: inside open and
        // repair.
        let acks = if acks < 8 { 0 } else { acks };
        let delay = Duration::from_micros(draw(&chance, 3000));
        live_and_die(dir.path(), acks, delay, &mut acknowledged);
        check(dir.path(), kill, &acknowledged);
    }
    let written: u64 = acknowledged.values().sum();
    assert!(written > kills * 8, "the writers hardly wrote: {written}");
}

/// A number below `below`.
fn draw(chance: &World, below: u64) -> u64 {
    u64::from_str_radix(&chance.hex(8), 16).unwrap() % below
}

/// Runs a child until it has acknowledged `acks` transactions, waits `delay`, kills it, and takes
/// note of everything that it acknowledged.
#[allow(clippy::disallowed_methods)] // the child is another process: no injected clock reaches it
fn live_and_die(dir: &Path, acks: u64, delay: Duration, acknowledged: &mut HashMap<u32, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("STORE_CRASH_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut seen = 0;
    while seen < acks && read_line(&mut output, &mut line) {
        seen += note(&line, acknowledged);
    }
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    // What it acknowledged before it died but was not read yet.
    while read_line(&mut output, &mut line) {
        note(&line, acknowledged);
    }
    assert!(seen >= acks, "the child ended by itself");
}

fn read_line(output: &mut impl BufRead, line: &mut String) -> bool {
    line.clear();
    output.read_line(line).unwrap() > 0
}

fn note(line: &str, acknowledged: &mut HashMap<u32, u64>) -> u64 {
    let Some(ack) = line.strip_prefix("ack ").filter(|line| line.ends_with('\n')) else { return 0 };
    let (writer, n) = ack.trim().split_once(' ').unwrap();
    acknowledged.insert(writer.parse().unwrap(), n.parse().unwrap());
    1
}

fn check(dir: &Path, kill: u64, acknowledged: &HashMap<u32, u64>) {
    let store = Store::open(dir, World::system()).unwrap();
    store.declare::<Left>().unwrap();
    store.declare::<Right>().unwrap();
    let snapshot = store.read();
    let mut total = 0;
    for writer in 0..WRITERS {
        let stored = snapshot.get::<Right>(&writer.to_string()).map_or(0, |right| right.n);
        let acknowledged = acknowledged.get(&writer).copied().unwrap_or(0);
        assert!(stored >= acknowledged, "kill {kill}: writer {writer} lost an acknowledged write");
        let prefix = format!("{writer}/");
        let lefts: Vec<u64> = snapshot.scan_prefix::<Left>(&prefix).map(|left| left.n).collect();
        assert_eq!(
            lefts.iter().max().copied().unwrap_or(0),
            stored,
            "kill {kill}: half a transaction"
        );
        assert_eq!(lefts.len() as u64, stored.min(10));
        total += stored;
    }
    let counted = snapshot.get::<Total>("").map_or(0, |total| total.transactions);
    assert_eq!(counted, total, "kill {kill}: half a transaction");
}
