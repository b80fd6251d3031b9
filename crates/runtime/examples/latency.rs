//! How long it takes from "create" to a running container, and how much memory its shim holds;
//! beside `runc run` where that is installed. Needs root and a static busybox in `/bin`. Prints,
//! judges nothing.
//!
//!     cargo run --release -p runtime --example latency -- <the runtime-shim program> [rounds]

use runtime::{
    ContainerSpec, DEFAULT_SPOOL_BYTES, Engine, EngineConfig, EventKind, TaskLimits, TaskSpec,
};
use std::{error::Error, path::Path, time::Duration};
use world::World;

fn spec(id: String, layer: &Path) -> TaskSpec {
    let args = ["/bin/busybox", "sleep", "1000"].map(str::to_owned).to_vec();
    let mut container = ContainerSpec::new("main", vec![layer.to_owned()], args);
    container.stop_timeout_ms = 0;
    let limits = TaskLimits {
        cpu_millis: Some(250),
        memory_bytes: Some(512 << 20),
        pids: None,
        disk_bytes: Some(20 << 30),
    };
    TaskSpec {
        id,
        hostname: "box".into(),
        containers: vec![container],
        limits,
        resolv_conf: String::new(),
        hosts: String::new(),
        ids: None,
        share_pids: false,
        volumes: Default::default(),
        spool_bytes: DEFAULT_SPOOL_BYTES,
    }
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what:<28} p50 {:7.2} ms   p99 {:7.2} ms   ({} rounds)", at(50), at(99), times.len());
}

/// A process's own memory, in KiB: all that no other process maps, and of that what is not a copy
/// of a file (with a second shim, the program's pages are shared, and only this is left).
fn own_kib(pid: i32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((field("Private_Dirty:")? + field("Private_Clean:")?, field("Anonymous:")?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let exe = args.next().ok_or("name the runtime-shim program")?;
    let rounds: usize = args.next().map_or(Ok(100), |n| n.parse())?;
    let dir = tempfile::Builder::new().prefix("runtime-latency-").tempdir()?;
    let layer = dir.path().join("layer");
    std::fs::create_dir_all(layer.join("bin"))?;
    std::fs::copy("/bin/busybox", layer.join("bin/busybox"))?;
    let world = World::system();
    let config = EngineConfig {
        exe: exe.into(),
        shim_args: Vec::new(),
        tasks_dir: dir.path().join("tasks"),
        disks_dir: dir.path().join("disks"),
        instance: format!("bench{}", std::process::id()),
        user_namespaces: true,
        first_id: None,
    };
    let engine = Engine::new(config, world.clone())?;
    for check in &engine.capabilities().await?.checks {
        println!("{:<26} {} {}", check.name, if check.ok { "yes" } else { "no " }, check.detail);
    }
    let (mut creates, mut starts, mut totals, mut removes) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let began = world.monotonic();
        let task = engine.create(spec(format!("t{round}"), &layer)).await?;
        let created = world.monotonic();
        task.start().await?;
        let mut events = task.events(1);
        while let Some(event) = events.next().await {
            match event?.kind {
                EventKind::ContainerStarted { .. } => break,
                EventKind::TaskStopped { reason } => return Err(format!("{reason:?}").into()),
                _ => {}
            }
        }
        let running = world.monotonic();
        creates.push(created - began);
        starts.push(running - created);
        totals.push(running - began);
        if round == 0
            && let Some((private, own)) = task.shim_pid().and_then(own_kib)
        {
            println!("{:<28} {private} KiB, {own} KiB of it anonymous", "a shim's private memory");
        }
        let began = world.monotonic();
        engine.remove(task.id()).await?;
        removes.push(world.monotonic() - began);
    }
    tell("create (namespaces ready)", creates);
    tell("start (command runs)", starts);
    tell("both", totals);
    tell("remove", removes);
    runc(dir.path(), &layer, rounds, &world)?;
    Ok(())
}

fn runc(dir: &Path, layer: &Path, rounds: usize, world: &World) -> Result<(), Box<dyn Error>> {
    let bundle = dir.join("bundle");
    std::fs::create_dir(&bundle)?;
    let made = std::process::Command::new("runc").args(["spec", "-b"]).arg(&bundle).status();
    if !made.is_ok_and(|s| s.success()) {
        println!("runc is not here to be compared with");
        return Ok(());
    }
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config)?;
    let text = text
        .replace("\"terminal\": true", "\"terminal\": false")
        .replace("\"sh\"", "\"/bin/busybox\", \"true\"")
        .replace("\"path\": \"rootfs\"", &format!("\"path\": \"{}\"", layer.display()));
    std::fs::write(&config, text)?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let began = world.monotonic();
        let status = std::process::Command::new("runc")
            .args(["run", "-b"])
            .arg(&bundle)
            .arg(format!("latency-{}-{round}", std::process::id()))
            .status()?;
        times.push(world.monotonic() - began);
        if !status.success() {
            println!("runc run fails here");
            return Ok(());
        }
    }
    tell("runc run (to its end)", times);
    Ok(())
}
