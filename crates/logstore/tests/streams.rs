//! Append, read, page, follow, expire, delete.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use logstore::{
    AppendError, Appended, Direction, Event, LogStore, NewEvent, OpenError, Page, Position, Query,
    SourceRange, pattern::Pattern,
};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use world::World;

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, World::system()).unwrap()
}

fn events(lines: &[(i64, &str)]) -> Vec<NewEvent> {
    let event = |(timestamp_ms, message): &(i64, &str)| NewEvent {
        timestamp_ms: *timestamp_ms,
        message: (*message).into(),
    };
    lines.iter().map(event).collect()
}

async fn append(store: &LogStore, stream: &str, lines: &[(i64, &str)]) -> Appended {
    store.append(stream, &events(lines), None).await.unwrap()
}

fn query(streams: &[&str]) -> Query {
    Query { streams: streams.iter().map(|s| (*s).into()).collect(), ..Query::default() }
}

async fn read(store: &LogStore, query: Query) -> Page {
    let page = store.read(query).await.unwrap();
    assert!(page.damaged.is_empty());
    assert!(page.events.is_sorted_by_key(Event::position));
    page
}

fn lines(page: &Page) -> Vec<&str> {
    page.events.iter().map(|event| event.message.as_str()).collect()
}

/// All events, page by page.
async fn read_all(store: &LogStore, mut query: Query) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let page = read(store, query.clone()).await;
        let (end, next) = (page.end, page.next);
        match query.direction {
            Direction::Forward => all.extend(page.events),
            Direction::Backward => {
                all.splice(0..0, page.events);
            }
        }
        if end {
            return all;
        }
        assert_ne!(query.from, Some(next), "a page that is no step");
        query.from = Some(next);
    }
}

#[tokio::test]
async fn events_come_back_in_the_order_of_time_and_arrival() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let first = append(&store, "s", &[(30, "c"), (10, "a"), (20, "b1")]).await;
    let second = append(&store, "s", &[(20, "b2"), (5, "0"), (20, "b3")]).await;
    assert!(second.first_sequence > first.first_sequence + 2);
    for round in 0..3 {
        let page = read(&store, query(&["s"])).await;
        assert_eq!(lines(&page), ["0", "a", "b1", "b2", "b3", "c"], "round {round}");
        assert!(page.end);
        assert_eq!(page.events[1].ingestion_ms, first.ingestion_ms);
        if round == 0 {
            store.seal_all().await;
            append(&store, "s", &[]).await;
        }
    }
    append(&store, "s", &[(20, "b4"), (1, "-1")]).await;
    let page = read(&store, query(&["s"])).await;
    assert_eq!(lines(&page), ["-1", "0", "a", "b1", "b2", "b3", "b4", "c"], "both places merged");
    assert_eq!(read(&store, query(&["s", "s"])).await.events.len(), 8);
    assert!(read(&store, query(&["never"])).await.events.is_empty());
    assert!(read(&store, query(&[])).await.end);
}

#[tokio::test]
async fn ranges_are_half_open() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    append(&store, "s", &[(1, "a"), (2, "b"), (3, "c"), (i64::MIN, "first"), (i64::MAX, "last")])
        .await;
    for start_ms in [None, Some(0), Some(2), Some(3), Some(4)] {
        for end_ms in [None, Some(1), Some(3), Some(4)] {
            for direction in [Direction::Forward, Direction::Backward] {
                let query = Query { start_ms, end_ms, direction, ..query(&["s"]) };
                let page = read(&store, query).await;
                for event in &page.events {
                    assert!(start_ms.is_none_or(|start| event.timestamp_ms >= start));
                    assert!(end_ms.is_none_or(|end| event.timestamp_ms < end));
                }
                let all = [i64::MIN, 1, 2, 3, i64::MAX];
                let inside = all.iter().filter(|t| {
                    start_ms.is_none_or(|start| **t >= start) && end_ms.is_none_or(|end| **t < end)
                });
                assert_eq!(page.events.len(), inside.count());
            }
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_in_both_directions_while_events_arrive() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut expected = Vec::new();
    for n in 0..500i64 {
        // Times go back and forth and repeat.
        let timestamp_ms = n * 7 % 50;
        let line = format!("line {n}");
        append(&store, ["a", "b", "c"][n as usize % 3], &[(timestamp_ms, &line)]).await;
        expected.push((timestamp_ms, n, line));
        if n == 200 {
            store.seal_all().await;
        }
    }
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, _, line)| line).collect();
    for direction in [Direction::Forward, Direction::Backward] {
        for (max_events, max_bytes, max_searched_bytes) in [
            (7, 1 << 20, 1 << 30),
            (10_000, 100, 1 << 30),
            (100, 1000, 1),
            (10_000, 1 << 20, 1 << 30),
        ] {
            let query = Query {
                direction,
                max_events,
                max_bytes,
                max_searched_bytes,
                ..query(&["a", "b", "c"])
            };
            let all = read_all(&store, query).await;
            let all: Vec<_> = all.into_iter().map(|event| event.message).collect();
            assert_eq!(all, expected, "{direction:?} {max_events} {max_bytes}");
        }
    }
    // Later events are found from where the end was.
    let page = read(&store, query(&["a"])).await;
    assert!(page.end);
    let from = Some(page.next.to_string().parse::<Position>().unwrap());
    append(&store, "a", &[(1000, "later")]).await;
    let page = read(&store, Query { from, ..query(&["a"]) }).await;
    assert_eq!(lines(&page), ["later"]);
    let from = Some(page.next);
    assert!(read(&store, Query { from, ..query(&["a"]) }).await.events.is_empty());
}

#[tokio::test]
async fn a_page_holds_one_event_however_long() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let long = "x".repeat(1 << 20);
    append(&store, "s", &[(1, &long), (2, &long), (3, "short")]).await;
    let query = Query { max_bytes: 10, ..query(&["s"]) };
    let page = read(&store, query.clone()).await;
    assert_eq!((page.events.len(), page.end), (1, false));
    assert_eq!(read_all(&store, query).await.len(), 3);
}

#[tokio::test]
async fn filters_find_lines_in_journal_and_segments() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for round in 0..2 {
        let many: Vec<String> =
            (0..5000).map(|n| format!("INFO request {n} took {}", n % 10)).collect();
        let many: Vec<_> = many.iter().map(|line| (round, line.as_str())).collect();
        append(&store, "s", &many).await;
        append(&store, "s", &[(round, "ERROR needle"), (round, "{\"level\":\"error\"}")]).await;
        if round == 0 {
            store.seal_all().await;
        }
    }
    let filtered = |pattern: &str| {
        let filter = Some(Arc::new(Pattern::parse(pattern).unwrap()));
        read_all(&store, Query { filter, max_events: 300, ..query(&["s"]) })
    };
    assert_eq!(filtered("ERROR").await.len(), 2);
    assert_eq!(filtered("{ $.level = error }").await.len(), 2);
    assert_eq!(filtered("[level, what, n, verb, ms >= 9]").await.len(), 1000);
    assert_eq!(filtered("-INFO -level").await.len(), 2);
    assert_eq!(filtered("absent").await.len(), 0);
}

#[tokio::test]
async fn everything_survives_reopening() {
    let dir = TempDir::new().unwrap();
    let range = |start, end| Some(SourceRange { source: "task/1".into(), start, end });
    for round in 0..5i64 {
        let store = open(dir.path());
        let (start, end) = (round as u64 * 10, round as u64 * 10 + 10);
        let offset = store.source_offset("s", "task/1").await.unwrap();
        assert_eq!(offset.unwrap_or(0), start);
        let line = format!("round {round}");
        let new = events(&[(round, &line)]);
        assert!(!store.append("s", &new, range(start, end)).await.unwrap().duplicate);
        if round % 2 == 1 {
            store.seal_all().await;
        }
        let page = read(&store, query(&["s"])).await;
        assert_eq!(page.events.len() as i64, round + 1);
        assert_eq!(lines(&page).last(), Some(&line.as_str()));
        let stats = store.stats("s").await.unwrap();
        assert_eq!((stats.first_event_ms, stats.last_event_ms), (Some(0), Some(round)));
        assert_eq!((stats.events as i64, stats.message_bytes as i64), (round + 1, (round + 1) * 7));
        assert_eq!(stats.last_ingestion_ms, page.events.last().map(|event| event.ingestion_ms));
    }
}

#[tokio::test]
async fn a_source_is_consumed_once() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let range = |start, end| Some(SourceRange { source: "task".into(), start, end });
    let new = events(&[(1, "a")]);
    assert!(!store.append("s", &new, range(0, 10)).await.unwrap().duplicate);
    assert!(store.append("s", &new, range(0, 10)).await.unwrap().duplicate);
    assert!(store.append("s", &new, range(3, 9)).await.unwrap().duplicate);
    let overlap = store.append("s", &new, range(5, 15)).await.unwrap_err();
    assert!(matches!(overlap, AppendError::Overlap { expected: 10 }));
    let backwards = store.append("s", &new, range(15, 15)).await.unwrap_err();
    assert!(matches!(backwards, AppendError::Range { start: 15, end: 15 }));
    // Lines that nobody wants move the offset too.
    assert!(!store.append("s", &[], range(10, 20)).await.unwrap().duplicate);
    assert_eq!(store.source_offset("s", "task").await.unwrap(), Some(20));
    assert_eq!(store.source_offset("s", "other").await.unwrap(), None);
    // Two in one flush.
    let (one, two) = tokio::join!(
        store.append("s", &new, range(20, 30)),
        store.append("s", &new, range(20, 30)),
    );
    assert_eq!([one.unwrap().duplicate, two.unwrap().duplicate].iter().filter(|d| **d).count(), 1);
    store.seal_all().await;
    drop(store);
    let store = open(dir.path());
    assert!(store.append("s", &new, range(0, 30)).await.unwrap().duplicate);
    assert_eq!(read(&store, query(&["s"])).await.events.len(), 2);
}

#[tokio::test]
async fn followers_are_woken_and_miss_nothing_unless_they_sleep() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    append(&store, "a", &[(1, "before")]).await;
    let tail = store.tail();
    tail.add("a").unwrap();
    tail.add("b").unwrap();
    let writing = async {
        append(&store, "other", &[(1, "elsewhere")]).await;
        for n in 0..100 {
            append(&store, if n % 2 == 0 { "a" } else { "b" }, &[(100 - n, &n.to_string())]).await;
        }
    };
    let following = async {
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let arrivals = tail.next().await;
            assert_eq!(arrivals.missed, 0);
            for event in &arrivals.events {
                let page = read(&store, query(&[&event.stream])).await;
                assert!(page.events.contains(event), "told before it could be read");
            }
            seen.extend(arrivals.events.into_iter().map(|event| event.message));
        }
        let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(seen, expected, "in the order of arrival");
    };
    tokio::join!(writing, following);

    let long = "x".repeat(1 << 20);
    for _ in 0..20 {
        append(&store, "a", &[(1, &long)]).await;
    }
    let arrivals = tail.next().await;
    assert_eq!(arrivals.missed as usize + arrivals.events.len(), 20);
    assert!((1..10).contains(&arrivals.events.len()), "a sleeper must not hold memory");
    assert!(tail.add("no/name").is_err());
}

#[tokio::test]
async fn old_blocks_go_and_what_must_stay_stays() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let range = |n: u64| Some(SourceRange { source: "task".into(), start: n, end: n + 1 });
    // Lines that do not shrink, so that there are several segments.
    let world = World::system();
    for hour in 0..24u64 {
        let lines: Vec<String> = (0..1000).map(|_| world.hex(1000)).collect();
        let lines: Vec<_> = lines.iter().map(|line| (hour as i64 * 1000, line.as_str())).collect();
        store.append("s", &events(&lines), range(hour)).await.unwrap();
    }
    store.seal_all().await;
    let files = || std::fs::read_dir(dir.path().join("streams/s")).unwrap().count();
    let before = files();
    assert!(before > 2);
    assert_eq!(store.expire("s", -5).await.unwrap(), 0);
    let gone = store.expire("s", 12_000).await.unwrap();
    assert!((10_000..=12_000).contains(&gone), "{gone}");
    assert!(files() < before);
    let stats = store.stats("s").await.unwrap();
    assert_eq!(stats.events, 24_000 - gone);
    let query =
        Query { start_ms: Some(12_000), max_bytes: 1 << 30, max_events: 1 << 20, ..query(&["s"]) };
    assert_eq!(read(&store, query.clone()).await.events.len(), 12_000);

    // All goes; offsets, the last ingestion and the order of arrival stay.
    assert_eq!(store.expire("s", i64::MAX).await.unwrap(), 24_000 - gone);
    assert_eq!(files(), 1);
    let stats = store.stats("s").await.unwrap();
    assert_eq!((stats.events, stats.disk_bytes, stats.first_event_ms), (0, 0, None));
    let last_ingestion_ms = stats.last_ingestion_ms;
    assert!(last_ingestion_ms.is_some());
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.source_offset("s", "task").await.unwrap(), Some(24));
    assert_eq!(store.stats("s").await.unwrap().last_ingestion_ms, last_ingestion_ms);
    append(&store, "s", &[(1, "new")]).await;
    assert_eq!(read_all(&store, Query { start_ms: None, ..query }).await.len(), 1);
}

#[tokio::test]
async fn a_deleted_stream_is_gone_for_good() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    append(&store, "sealed", &[(1, "a")]).await;
    store.seal_all().await;
    append(&store, "sealed", &[(2, "b")]).await;
    append(&store, "fresh", &[(1, "a")]).await;
    append(&store, "kept", &[(1, "a")]).await;
    for stream in ["sealed", "fresh", "never"] {
        store.delete(stream).await.unwrap();
        assert!(read(&store, query(&[stream])).await.events.is_empty());
        let refused = store.append(stream, &events(&[(1, "a")]), None).await;
        assert!(matches!(refused, Err(AppendError::Deleted)));
    }
    drop(store);
    let store = open(dir.path());
    store.seal_all().await;
    for stream in ["sealed", "fresh"] {
        assert!(read(&store, query(&[stream])).await.events.is_empty());
        assert!(!dir.path().join("streams").join(stream).exists());
    }
    assert_eq!(read(&store, query(&["kept"])).await.events.len(), 1);
}

#[tokio::test]
async fn many_streams_cost_little() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let store = store.clone();
        writing.spawn(async move {
            let id = format!("stream-{n}");
            store.append(&id, &events(&[(n, &id)]), None).await.unwrap();
        });
    }
    writing.join_all().await;
    let ids: Vec<String> = (0..10_000).map(|n| format!("stream-{n}")).collect();
    let query = Query { streams: ids, max_events: 999, ..Query::default() };
    let all = read_all(&store, query.clone()).await;
    assert_eq!(all.len(), 10_000);
    assert!(all.iter().enumerate().all(|(n, event)| *event.stream == *format!("stream-{n}")));
    drop(store);
    let store = open(dir.path());
    assert_eq!(read_all(&store, query).await.len(), 10_000);
}

/// More than memory may hold, over more journal files than may stay.
#[tokio::test]
async fn a_flood_is_taken_and_the_journal_stays_bounded() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writing.spawn(async move {
            let line = format!("{writer} {}", "all work and no play ".repeat(48));
            let batch: Vec<_> = (0..1000).map(|n| (n, line.as_str())).collect();
            for _ in 0..30 {
                append(&store, &format!("flood-{writer}"), &batch).await;
            }
        });
    }
    writing.join_all().await;
    for writer in 0..8 {
        let stats = store.stats(&format!("flood-{writer}")).await.unwrap();
        assert_eq!(stats.events, 30_000);
    }
    let journal: u64 = std::fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(journal < 200 << 20, "{journal}");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.stats("flood-3").await.unwrap().events, 30_000);
}

#[tokio::test]
async fn what_is_not_fit_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let long = "x".repeat(201);
    for id in ["", "a/b", "..", ".hidden", "a b", "ä", long.as_str()] {
        let refused = store.append(id, &events(&[(1, "a")]), None).await;
        assert!(matches!(refused, Err(AppendError::StreamId(_))), "{id}");
        assert!(store.read(query(&[id])).await.is_err());
        assert!(store.stats(id).await.is_err() && store.expire(id, 0).await.is_err());
        assert!(store.delete(id).await.is_err() && store.source_offset(id, "x").await.is_err());
    }
    let range = Some(SourceRange { source: String::new(), start: 0, end: 1 });
    assert!(store.append("s", &[], range).await.is_err());
    assert!(matches!(
        LogStore::open(dir.path(), World::system()).map(drop),
        Err(OpenError::InUse { .. })
    ));
}
