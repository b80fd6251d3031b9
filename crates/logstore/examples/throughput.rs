//! Ingest and scan, in MB/s of raw log and per core, beside the disk (write and fsync of the same
//! bytes) and `grep` over the same bytes in the same run.
//!
//!     cargo run --release -p logstore --example throughput [DIR] [MEGABYTES]

use logstore::{LogStore, NewEvent, Query, pattern::Pattern};
use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use world::World;

const MB: f64 = 1e6;
const STREAMS: usize = 8;
/// Lines in a batch: what a busy log driver sends at once.
const BATCH: usize = 1000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let base = args.next().unwrap_or_else(|| ".".into());
    let megabytes: usize = args.next().map_or(Ok(512), |text| text.parse())?;
    let dir = tempfile::Builder::new().prefix("logstore-bench").tempdir_in(&base)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(dir.path(), megabytes))
}

async fn measure(dir: &Path, megabytes: usize) -> Outcome<()> {
    let world = World::system();
    let lines = make_lines(&world, megabytes * 1_000_000);
    let bytes: usize = lines.iter().map(String::len).sum();
    println!("{} lines, {:.0} MB, {STREAMS} streams", lines.len(), bytes as f64 / MB);

    let plain = dir.join("plain.log");
    let disk = Lap::start(&world)?;
    let mut file = File::create(&plain)?;
    for batch in lines.chunks(BATCH) {
        file.write_all(batch.join("\n").as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_data()?;
    }
    disk.stop("disk: write + fsync a batch", bytes)?;

    let store = LogStore::open(&dir.join("logs"), world.clone())?;
    let ingest = Lap::start(&world)?;
    let mut writers = Vec::new();
    let lines = Arc::new(lines);
    for writer in 0..STREAMS {
        let (store, lines) = (store.clone(), lines.clone());
        writers.push(world.spawn("writer", async move {
            for (n, batch) in lines.chunks(BATCH).enumerate().skip(writer).step_by(STREAMS) {
                let event =
                    |line: &String| NewEvent { timestamp_ms: n as i64, message: line.clone() };
                let events: Vec<_> = batch.iter().map(event).collect();
                let stored = store.append(&format!("stream-{writer}"), &events, None).await;
                stored.expect("the disk takes it");
            }
        }));
    }
    for writer in writers {
        writer.await?;
    }
    ingest.stop("ingest (acknowledged)", bytes)?;
    store.seal_all().await;
    ingest.stop("ingest (all compressed)", bytes)?;
    let mut on_disk = 0;
    for stream in 0..STREAMS {
        on_disk += store.stats(&format!("stream-{stream}")).await?.disk_bytes;
    }
    println!("compressed to {:.1} %", on_disk as f64 / bytes as f64 * 100.0);

    for pattern in ["needle_in_the_hay", "needle_in_the_hay -GET", "%needle_[a-z_]+%", "404"] {
        scan(&world, &store, pattern, bytes).await?;
    }
    grep(&world, &plain, "needle_in_the_hay", bytes)?;
    grep(&world, &plain, "404", bytes)
}

async fn scan(world: &World, store: &LogStore, pattern: &str, bytes: usize) -> Outcome<()> {
    let filter = Some(Arc::new(Pattern::parse(pattern)?));
    let streams = (0..STREAMS).map(|stream| format!("stream-{stream}")).collect();
    let mut query = Query { streams, filter, max_searched_bytes: u64::MAX, ..Query::default() };
    query.max_events = 1 << 20;
    query.max_bytes = 1 << 30;
    let lap = Lap::start(world)?;
    let mut found = 0;
    loop {
        let page = store.read(query.clone()).await?;
        found += page.events.len();
        query.from = Some(page.next);
        if page.end {
            break;
        }
    }
    lap.stop(&format!("scan for {pattern} ({found} found)"), bytes)
}

fn grep(world: &World, plain: &Path, term: &str, bytes: usize) -> Outcome<()> {
    let began = world.monotonic();
    let output =
        Command::new("grep").args(["-F", term]).arg(plain).stderr(Stdio::null()).output()?;
    let found = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    report(&format!("grep -F {term} ({found} found)"), bytes, began.elapsed(), None);
    Ok(())
}

/// Access lines and JSON lines, as services write them, with a needle in every 10,000th.
fn make_lines(world: &World, bytes: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut made = 0;
    while made < bytes {
        let (n, id) = (lines.len(), world.hex(12));
        let needle = if n % 10_000 == 9_999 { "needle_in_the_hay" } else { "plain" };
        let status = [200, 200, 200, 201, 304, 404, 500][n % 7];
        let line = if n % 2 == 0 {
            format!(
                "10.0.{}.{} - - [02/Jan/2026:03:{:02}:{:02} +0000] \
                 \"GET /items/{id}/{needle} HTTP/1.1\" {status} {} \"-\" \"curl/8.5.0\"",
                n % 256,
                n * 7 % 256,
                n / 60 % 60,
                n % 60,
                n * 31 % 50_000
            )
        } else {
            format!(
                "{{\"level\":\"info\",\"time\":{},\"request_id\":\"{id}\",\
                 \"msg\":\"handled {needle}\",\"ms\":{}}}",
                1_767_323_045_678u64 + n as u64,
                n * 13 % 900
            )
        };
        made += line.len();
        lines.push(line);
    }
    lines
}

/// Wall and processor time from a moment on.
struct Lap {
    world: World,
    wall_ms: i64,
    processor: Duration,
}

impl Lap {
    fn start(world: &World) -> Outcome<Self> {
        let wall_ms = world.now().millis();
        Ok(Self { world: world.clone(), wall_ms, processor: processor()? })
    }

    fn stop(&self, what: &str, bytes: usize) -> Outcome<()> {
        let passed_ms = self.world.now().millis() - self.wall_ms;
        let passed = Duration::from_millis(passed_ms.unsigned_abs());
        report(what, bytes, passed, Some(processor()? - self.processor));
        Ok(())
    }
}

fn report(what: &str, bytes: usize, wall: Duration, processor: Option<Duration>) {
    let rate = |time: Duration| bytes as f64 / MB / time.as_secs_f64().max(1e-3);
    let per_core = processor.map(|time| format!("{:7.0} MB/s per core", rate(time)));
    println!("{what:45} {:7.0} MB/s  {}", rate(wall), per_core.unwrap_or_default());
}

/// The processor time that this process has used.
fn processor() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the command's name, which may hold spaces, utime and stime are the 12th and 13th
    // field.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
