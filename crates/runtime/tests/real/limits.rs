//! Limits that bite.

use crate::harness::{eventually, finish, lab, wait_started};
use runtime::ContainerSpec;

#[tokio::test]
async fn too_much_memory_is_an_oom_kill() {
    let Some(lab) = lab() else { return };
    // tail keeps all of a line that does not end.
    let mut main = lab.shell("main", "tail -n 1 /dev/zero");
    main.args = ["tail", "-n", "1", "/dev/zero"].map(str::to_owned).to_vec();
    main.limits.memory_bytes = Some(32 << 20);
    let ran = lab.run(main).await;
    let exit = ran.exit("main");
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true), "{ran:#?}");
}

#[tokio::test]
async fn the_tasks_memory_is_limited_as_a_whole() {
    let Some(lab) = lab() else { return };
    let mut main = lab.shell("main", "");
    main.args = ["tail", "-n", "1", "/dev/zero"].map(str::to_owned).to_vec();
    let mut spec = lab.spec("mem", vec![main]);
    spec.limits.memory_bytes = Some(32 << 20);
    let task = lab.start(spec).await;
    let ran = finish(&task).await;
    assert!(ran.exit("main").oom, "{ran:#?}");
    lab.engine.remove("mem").await.unwrap();
}

#[tokio::test]
async fn the_cpu_quota_throttles() {
    let Some(lab) = lab() else { return };
    let mut spec = lab.spec("cpu", vec![lab.shell("main", "while :; do :; done")]);
    spec.limits.cpu_millis = Some(50);
    let task = lab.start(spec).await;
    wait_started(&task, "main").await;
    let mut throttled = 0;
    for _ in 0..1000 {
        throttled = task.stats().await.unwrap().task.throttled_periods.unwrap();
        if throttled > 2 {
            break;
        }
        lab.world.sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(throttled > 2);
    let stats = task.stats().await.unwrap();
    assert!(stats.task.cpu_ns.unwrap() > 0 && stats.containers["main"].cpu_ns.unwrap() > 0);
    lab.engine.remove("cpu").await.unwrap();
}

#[tokio::test]
async fn a_fork_bomb_stays_inside() {
    let Some(lab) = lab() else { return };
    let bomb = "trap '' TERM; i=0; while [ $i -lt 500 ]; do sleep 60 & i=$((i+1)); done; sleep 60";
    let main = ContainerSpec { stop_timeout_ms: 0, ..lab.shell("main", bomb) };
    let friend = lab.shell("friend", "sleep 60");
    let friend = ContainerSpec { essential: false, stop_timeout_ms: 0, ..friend };
    let mut spec = lab.spec("bomb", vec![main, friend]);
    spec.limits.pids = Some(60);
    let task = lab.start(spec).await;
    // The shell gives up when it cannot fork; the rest is killed. Nothing of it is left.
    let ran = finish(&task).await;
    assert!(ran.stderr("main").contains("can't fork"), "{ran:#?}");
    lab.engine.remove("bomb").await.unwrap();
    assert!(lab.cgroups().is_empty());
}

#[tokio::test]
async fn stats_are_told_by_task_and_container() {
    let Some(lab) = lab() else { return };
    let mut main = lab.shell("main", "sleep 100");
    main.limits.memory_bytes = Some(64 << 20);
    let task = lab.start(lab.spec("stats", vec![main])).await;
    wait_started(&task, "main").await;
    let stats = task.stats().await.unwrap();
    assert_eq!(stats.containers["main"].memory_limit_bytes, Some(64 << 20));
    assert_eq!(stats.task.memory_limit_bytes, None);
    assert!(stats.task.memory_bytes.unwrap() > 0 && stats.task.pids.unwrap() >= 1, "{stats:#?}");
    lab.engine.remove("stats").await.unwrap();
}

#[tokio::test]
async fn output_that_nobody_consumes_makes_the_writer_wait_or_is_dropped() {
    use runtime::{EventKind, LogMode};
    let Some(lab) = lab() else { return };
    // 20000 lines of 50 bytes each: ten times what is kept.
    let script = "i=0; while [ $i -lt 20000 ]; do echo \
                  '0123456789012345678901234567890123456789 '$((10000000 + i)); \
                  i=$((i+1)); done; touch /done";
    let mut spec = lab.spec("full", vec![lab.shell("main", script)]);
    spec.spool_bytes = 100_000;
    let task = lab.start(spec).await;
    wait_started(&task, "main").await;
    let mut output = task.output().unwrap();
    let (mut text, mut done) = (Vec::new(), false);
    while !done {
        let Some(frame) = output.next().await else { break };
        let frame = frame.unwrap();
        text.extend_from_slice(&frame.bytes);
        assert!(frame.end < 200_000 || !text.is_empty());
        output.acknowledge(frame.end).await.unwrap();
        done = text.len() == 20_000 * 50;
    }
    let text = String::from_utf8(text).unwrap();
    let numbers = text.lines().map(|l| l[41..].parse::<u32>().unwrap() - 10_000_000);
    assert!(numbers.eq(0..20_000), "no line is lost, and none is out of order");
    lab.engine.remove("full").await.unwrap();

    let mut main = lab.shell("main", script);
    main.log = LogMode::NonBlocking { max_buffer_bytes: 100_000 };
    let task = lab.start(lab.spec("drop", vec![main])).await;
    let ran = finish(&task).await;
    let kept = ran.stdout("main").lines().count() as u64;
    let dropped = |e: &EventKind| match e {
        EventKind::OutputDropped { lines, .. } => Some(*lines),
        _ => None,
    };
    let dropped: u64 = ran.events.iter().filter_map(dropped).sum();
    assert!(ran.stdout("main").lines().all(|l| l.len() == 49), "lines are dropped whole");
    assert_eq!(kept + dropped, 20_000);
    assert!(kept >= 1_000 && dropped > 0, "{kept} {dropped}");
    lab.engine.remove("drop").await.unwrap();
}

#[tokio::test]
async fn a_blocked_writer_waits() {
    let Some(lab) = lab() else { return };
    let script = "head -c 1000000 /dev/zero; touch /done; sleep 100";
    let mut spec = lab.spec("wait", vec![lab.shell("main", script)]);
    spec.spool_bytes = 100_000;
    let task = lab.start(spec).await;
    wait_started(&task, "main").await;
    let spool = task.dir().join("spool");
    let size = || {
        let files = std::fs::read_dir(&spool).unwrap().flatten();
        files.map(|f| f.metadata().unwrap().len()).sum::<u64>()
    };
    eventually(|| (size() >= 100_000).then_some(())).await;
    lab.world.sleep(std::time::Duration::from_millis(200)).await;
    assert!(size() < 400_000, "{}", size());
    let done = task.dir().join("scratch/containers/main/upper/done");
    assert!(!done.exists());
    let mut output = task.output().unwrap();
    while !done.exists() {
        let frame = output.next().await.unwrap().unwrap();
        output.acknowledge(frame.end).await.unwrap();
        if frame.end > 900_000 {
            eventually(|| done.exists().then_some(())).await;
        }
    }
    lab.engine.remove("wait").await.unwrap();
}
