//! Commits per second with 1 and 32 writers, beside a bare loop of write and fsync on the same
//! disk.
//!
//!     cargo run --release -p store --example commits [DIR] [SECONDS]

use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{DiskFault, Record, Store};
use world::World;

/// A record of a control plane's usual size.
#[derive(Serialize, Deserialize)]
struct Service {
    arn: String,
    desired_count: u64,
    task_definition: String,
    events: Vec<String>,
}

impl Record for Service {
    const TABLE: &'static str = "bench.service";
    fn key(&self) -> String {
        self.arn.clone()
    }
}

fn service(number: u64) -> Service {
    Service {
        arn: format!("arn:aws:ecs:us-east-1:123456789012:service/default/s{}", number % 1000),
        desired_count: number,
        task_definition: "arn:aws:ecs:us-east-1:123456789012:task-definition/web:17".into(),
        events: vec!["(service web) has reached a steady state.".into(); 4],
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let base = args.next().unwrap_or_else(|| ".".into());
    let seconds: u64 = args.next().map_or(Ok(4), |text| text.parse())?;
    let dir = tempfile::Builder::new().prefix("store-bench").tempdir_in(&base)?;
    let limit = Duration::from_secs(seconds);
    println!("disk: {}", disk_of(dir.path()));
    println!("record: {} bytes of JSON", serde_json::to_vec(&service(1))?.len());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let world = World::system();
        // Bare flushes before and after: the disk's own pace drifts.
        let before = bare_flushes(&world, dir.path(), 1, limit / 2)?;
        let store = Store::open(&dir.path().join("data"), world.clone())?;
        let one = commits(&world, &store, 1, limit).await;
        let many = commits(&world, &store, 32, limit).await;
        let after = bare_flushes(&world, dir.path(), 1, limit / 2)?;
        let tree = bare_flushes(&world, dir.path(), TREE_PAGES, limit / 2)?;
        let bare = (before + after) / 2.0;
        println!("bare write+fdatasync   {bare:8.0} /s  ({before:.0} before, {after:.0} after)");
        println!(
            "the same, {TREE_PAGES} pages      {tree:8.0} /s  (what a copy-on-write tree writes)"
        );
        println!("commits,  1 writer     {one:8.0} /s  {:5.2} of a bare flush", one / bare);
        println!("commits, 32 writers    {many:8.0} /s  {:5.2} of a bare flush", many / bare);
        Ok(())
    })
}

/// Commits per second.
async fn commits(world: &World, store: &Store, writers: u64, limit: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let began = world.monotonic();
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let (world, store, done) = (world.clone(), store.clone(), done.clone());
        tasks.push(world.clone().spawn("writer", async move {
            let mut number = writer;
            while began.elapsed() < limit {
                let record = service(number);
                let written: Result<(), DiskFault> = store
                    .write(|tx| {
                        tx.put(record);
                        Ok(())
                    })
                    .await;
                written.expect("the disk takes it");
                number += writers;
                done.fetch_add(1, Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.expect("a writer does not panic");
    }
    done.load(Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// About how many scattered pages one small commit overwrites: header, user tree, system tree.
const TREE_PAGES: u64 = 8;

/// How often a second the disk takes overwrites of `pages` scattered pages of 4 KiB and a flush.
fn bare_flushes(world: &World, dir: &Path, pages: u64, limit: Duration) -> std::io::Result<f64> {
    use std::os::unix::fs::FileExt;
    const FILE_PAGES: u64 = 400;
    let mut file = File::create(dir.join("bare"))?;
    file.write_all(&vec![0; FILE_PAGES as usize * 4096])?;
    file.sync_all()?;
    let began = world.monotonic();
    let mut count = 0u64;
    while began.elapsed() < limit {
        for page in 0..pages {
            let place = (count * pages + page) * 7919 % FILE_PAGES;
            file.write_all_at(&[count as u8; 4096], place * 4096)?;
        }
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// The mount that `dir` is on.
fn disk_of(dir: &Path) -> String {
    let output = std::process::Command::new("findmnt")
        .args(["-n", "-o", "SOURCE,FSTYPE", "-T"])
        .arg(dir)
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("unknown ({error})"),
    }
}
