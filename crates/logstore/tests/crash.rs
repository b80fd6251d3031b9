//! A process that ships lines into several streams is killed at random points, many times over one
//! store. A shipper goes on from the offset that the store remembers, as a log driver does; in the
//! end every line is there exactly once.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use logstore::{LogStore, NewEvent, Query, SourceRange};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use world::{Timestamp, World};

const SHIPPERS: u64 = 6;

/// The child: not a test of its own.
#[test]
#[ignore = "the process that the crash test kills"]
fn child() {
    let Some(dir) = std::env::var_os("LOGSTORE_CRASH_DIR") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = LogStore::open(Path::new(&dir), World::system()).unwrap();
        for shipper in 0..SHIPPERS {
            World::system().spawn("shipper", ship_forever(store.clone(), shipper));
        }
        // Moving into segments at any time, also under a kill.
        loop {
            store.seal_all().await;
        }
    });
}

fn stream(shipper: u64) -> String {
    format!("stream-{}", shipper % 3)
}

/// Line `n` of a shipper's source.
fn line(shipper: u64, n: u64) -> String {
    format!("{shipper} {n} {}", "x".repeat((n * 31 % 300) as usize))
}

async fn ship_forever(store: LogStore, shipper: u64) {
    let (stream, source) = (stream(shipper), format!("source-{shipper}"));
    let mut next = store.source_offset(&stream, &source).await.unwrap().unwrap_or(0);
    loop {
        let end = next + 1 + (next + shipper) % 20;
        let event = |n| NewEvent { timestamp_ms: (n ^ 5) as i64, message: line(shipper, n) };
        let events: Vec<_> = (next..end).map(event).collect();
        let range = SourceRange { source: source.clone(), start: next, end };
        let appended = store.append(&stream, &events, Some(range)).await.unwrap();
        assert!(!appended.duplicate);
        let ack = format!("ack {shipper} {end}\n");
        // One write(2) a line, so that no line is torn.
        std::io::stdout().write_all(ack.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
        next = end;
    }
}

#[tokio::test]
async fn kill_nine_at_random_points_neither_loses_nor_doubles_a_line() {
    let kills: u64 = std::env::var("NEARGATE_LOGSTORE_KILLS").map_or(100, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("NEARGATE_LOGSTORE_SEED").map_or(1, |n| n.parse().unwrap());
    println!("{kills} kills, seed {seed}");
    let chance = World::simulated(seed, Timestamp::from_millis(0));
    let dir = TempDir::new().unwrap();
    let mut acknowledged = HashMap::new();
    for kill in 0..kills {
        let acks = draw(&chance, 50);
        let acks = if acks < 6 { 0 } else { acks };
        let delay = Duration::from_micros(draw(&chance, 3000));
        live_and_die(dir.path(), acks, delay, &mut acknowledged);
        check(dir.path(), kill, &acknowledged, kill % 10 == 9 || kill + 1 == kills).await;
    }
    assert!(acknowledged.values().sum::<u64>() > kills * 20, "the shippers hardly shipped");
}

/// A number below `below`.
fn draw(chance: &World, below: u64) -> u64 {
    u64::from_str_radix(&chance.hex(8), 16).unwrap() % below
}

#[allow(clippy::disallowed_methods)] // the child is another process: no injected clock reaches it
fn live_and_die(dir: &Path, acks: u64, delay: Duration, acknowledged: &mut HashMap<u64, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("LOGSTORE_CRASH_DIR", dir)
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

fn note(line: &str, acknowledged: &mut HashMap<u64, u64>) -> u64 {
    let Some(ack) = line.strip_prefix("ack ").filter(|line| line.ends_with('\n')) else { return 0 };
    let (shipper, end) = ack.trim().split_once(' ').unwrap();
    acknowledged.insert(shipper.parse().unwrap(), end.parse().unwrap());
    1
}

async fn check(dir: &Path, kill: u64, acknowledged: &HashMap<u64, u64>, every_line: bool) {
    let store = LogStore::open(dir, World::system()).unwrap();
    for shipper in 0..SHIPPERS {
        let offset = store.source_offset(&stream(shipper), &format!("source-{shipper}")).await;
        let offset = offset.unwrap().unwrap_or(0);
        let acknowledged = acknowledged.get(&shipper).copied().unwrap_or(0);
        assert!(offset >= acknowledged, "kill {kill}: an acknowledged offset is lost");
    }
    if !every_line {
        return;
    }
    for number in 0..3u64 {
        let mut found: HashMap<u64, Vec<u64>> = HashMap::new();
        let query = Query {
            streams: vec![format!("stream-{number}")],
            max_events: usize::MAX,
            max_bytes: usize::MAX,
            ..Query::default()
        };
        let page = store.read(query).await.unwrap();
        assert!(page.end && page.damaged.is_empty());
        for event in page.events {
            let mut words = event.message.split(' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (shipper, n) = (number(), number());
            assert_eq!(event.message, line(shipper, n));
            found.entry(shipper).or_default().push(n);
        }
        for shipper in [number, number + 3] {
            let offset = store.source_offset(&stream(shipper), &format!("source-{shipper}")).await;
            let mut lines = found.remove(&shipper).unwrap_or_default();
            lines.sort_unstable();
            let expected: Vec<_> = (0..offset.unwrap().unwrap_or(0)).collect();
            assert_eq!(lines, expected, "kill {kill}: lines of shipper {shipper} lost or doubled");
        }
        assert!(found.is_empty());
    }
}
