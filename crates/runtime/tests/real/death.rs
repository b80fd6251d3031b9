//! Deaths of every kind, and what is left: nothing.

use crate::harness::{engine_in, eventually, finish, lab, wait_for, wait_started};
use runtime::{EventKind, Leak, StopReason};
use std::{
    io::{BufRead, Write},
    path::Path,
    process::{Command, Stdio},
};
use world::World;

const PARENT: &str = "RUNTIME_TEST_PARENT";

/// Whether a process lives; one that only waits to be reaped, by whoever inherited it, does not.
fn exists(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Not a test of its own: the control plane that another test kills.
#[tokio::test]
async fn a_control_plane_to_be_killed() {
    let Ok(dir) = std::env::var(PARENT) else { return };
    let (dir, instance) = dir.split_once('|').unwrap();
    let text = std::fs::read(Path::new(dir).join("spec.json")).unwrap();
    let engine = engine_in(Path::new(dir), instance, &World::system());
    let task = engine.create(serde_json::from_slice(&text).unwrap()).await.unwrap();
    task.start().await.unwrap();
    wait_started(&task, "main").await;
    // Some of the output is consumed, some is not.
    let mut output = task.output().unwrap();
    let frame = output.next().await.unwrap().unwrap();
    output.acknowledge(frame.end).await.unwrap();
    println!("\nsaw {}", String::from_utf8(frame.bytes).unwrap().lines().next().unwrap());
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_control_planes_death_changes_nothing() {
    let Some(lab) = lab() else { return };
    let script = "echo first; sleep 0.5; i=0; \
                  while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; \
                  while ! test -e /v/go; do sleep 0.05; done; echo last; exit 11";
    let mut main = lab.shell("main", script);
    main.mounts = vec![runtime::Mount::Volume {
        name: "v".into(),
        target: "/v".into(),
        read_only: false,
        copy_up: false,
    }];
    let text = serde_json::to_vec(&lab.spec("kept", vec![main])).unwrap();
    std::fs::write(lab.dir().join("spec.json"), text).unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death::a_control_plane_to_be_killed", "--nocapture"])
        .env(PARENT, format!("{}|{}", lab.dir().display(), lab.instance))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(parent.stdout.take().unwrap()).lines();
    let saw = lines.map(Result::unwrap).find(|l| l.starts_with("saw ")).unwrap();
    assert_eq!(saw, "saw first");
    parent.kill().unwrap();
    parent.wait().unwrap();

    let adopted = lab.engine.adopt().await.unwrap();
    assert_eq!(adopted.len(), 1);
    assert!(adopted[0].alive);
    let task = &adopted[0].task;
    assert!(task.netns().unwrap().exists());
    // Another task does not get the same ids.
    let other =
        lab.engine.create(lab.spec("other", vec![lab.shell("main", "true")])).await.unwrap();
    if task.spec().ids.is_some() {
        assert_ne!(other.spec().ids, task.spec().ids);
    }
    lab.engine.remove("other").await.unwrap();

    std::fs::write(task.dir().join("scratch/volumes/v/go"), "").unwrap();
    let ran = finish(task).await;
    let lines: Vec<&str> = ran.stdout("main").lines().collect();
    let expected: Vec<String> =
        (0..200).map(|i| format!("line {i}")).chain(["last".to_owned()]).collect();
    assert_eq!(lines, expected, "all that was not acknowledged, and nothing twice");
    assert_eq!(ran.exit("main").code, 11);

    // Its end is there for the next control plane as well.
    let next = engine_in(lab.dir(), &lab.instance, &lab.world);
    task.ended().await;
    let adopted = next.adopt().await.unwrap();
    assert!(!adopted[0].alive && adopted[0].task.has_ended());
    assert_eq!(finish(&adopted[0].task).await.exit("main").code, 11);
    next.remove("kept").await.unwrap();
    assert!(!lab.dir().join("tasks/kept").exists() && lab.cgroups().is_empty());
}

#[tokio::test]
async fn the_shims_death_ends_its_containers() {
    let Some(lab) = lab() else { return };
    let main = lab.shell("main", "echo before; sleep 1000 & sleep 1000");
    let task = lab.start(lab.spec("dead", vec![main])).await;
    let pid = wait_started(&task, "main").await;
    let stdout = || task.output().unwrap().try_next().map(drop);
    eventually(stdout).await;
    kill(task.shim_pid().unwrap());
    let ran = finish(&task).await;
    let reason = StopReason::ShimDied;
    assert_eq!(ran.events.last(), Some(&EventKind::TaskStopped { reason }));
    assert_eq!(ran.stdout("main"), "before\n");
    assert!(!exists(pid) && task.shim_pid().is_none() && lab.cgroups().is_empty());
    assert!(task.start().await.is_err());
    lab.engine.remove("dead").await.unwrap();
}

#[tokio::test]
async fn a_shim_that_died_unseen_is_buried_at_adoption() {
    let Some(lab) = lab() else { return };
    let task = lab.start(lab.spec("unseen", vec![lab.shell("main", "sleep 1000")])).await;
    let pid = wait_started(&task, "main").await;
    // This engine looks away: its watcher is gone with its world.
    lab.world.end().await;
    let shim = task.shim_pid().unwrap();
    kill(shim);
    let world = World::system();
    // As after a reboot: the process id is somebody else's now.
    std::fs::write(task.dir().join("shim.pid"), format!("{} 1 3\n", std::process::id())).unwrap();
    let next = engine_in(lab.dir(), &lab.instance, &world);
    let adopted = next.adopt().await.unwrap();
    assert!(!adopted[0].alive);
    let ran = finish(&adopted[0].task).await;
    assert_eq!(ran.events.last(), Some(&EventKind::TaskStopped { reason: StopReason::ShimDied }));
    eventually(|| (!exists(pid)).then_some(())).await;
    next.remove("unseen").await.unwrap();
    next.remove("unseen").await.unwrap();
    assert!(lab.cgroups().is_empty() && !task.dir().exists());
}

#[tokio::test]
async fn removal_leaves_nothing_at_any_moment() {
    let Some(lab) = lab() else { return };
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    // Never started, just started, running, ended.
    let spec = |id: &str| lab.spec(id, vec![lab.shell("main", "sleep 1000")]);
    let created = lab.engine.create(spec("created")).await.unwrap();
    let starting = lab.start(spec("starting")).await;
    let running = lab.start(spec("running")).await;
    let pid = wait_started(&running, "main").await;
    let ended = lab.start(lab.spec("ended", vec![lab.shell("main", "true")])).await;
    finish(&ended).await;
    let shims: Vec<i32> =
        [&created, &starting, &running].iter().map(|t| t.shim_pid().unwrap()).collect();
    assert!(matches!(
        lab.engine.create(spec("running")).await,
        Err(runtime::EngineError::Exists(_))
    ));
    let layer = running.spec().containers[0].layers[0].clone();
    assert!(lab.engine.uses(&layer));
    for id in ["created", "starting", "running", "ended", "never-was"] {
        lab.engine.remove(id).await.unwrap();
        assert!(lab.engine.task(id).is_none());
    }
    assert!(!lab.engine.uses(&layer));
    assert_eq!(std::fs::read_dir(lab.dir().join("tasks")).unwrap().count(), 0);
    assert!(lab.cgroups().is_empty() && !exists(pid));
    for shim in shims {
        eventually(|| (!exists(shim)).then_some(())).await;
    }
    assert_eq!(mounts(), before);
    assert!(!lab.has_instance_cgroup(), "the last one takes the instance's directory along");
    assert_eq!(lab.engine.leaks().await.unwrap(), []);
}

#[tokio::test]
async fn leaks_are_found_and_mended() {
    let Some(lab) = lab() else { return };
    let task = lab.start(lab.spec("lost", vec![lab.shell("main", "sleep 1000")])).await;
    let pid = wait_started(&task, "main").await;
    let shim = task.shim_pid().unwrap();
    lab.world.end().await;
    // Somebody deletes the directory, and leaves another.
    std::fs::remove_dir_all(task.dir()).unwrap();
    std::fs::create_dir(lab.dir().join("tasks/stray")).unwrap();
    let world = World::system();
    let engine = engine_in(lab.dir(), &lab.instance, &world);
    assert_eq!(engine.adopt().await.unwrap().len(), 0);
    let leaks = engine.leaks().await.unwrap();
    let cgroup = Leak::Cgroup { task: "lost".into() };
    let stray = Leak::Directory(lab.dir().join("tasks/stray"));
    let has_shim = |l: &Leak| matches!(l, Leak::Shim { pid, .. } if *pid == shim);
    assert!(leaks.contains(&cgroup) && leaks.contains(&stray), "{leaks:?}");
    assert!(leaks.iter().any(has_shim), "{leaks:?}");
    engine.mend(&leaks).await.unwrap();
    eventually(|| (!exists(shim) && !exists(pid)).then_some(())).await;
    assert_eq!(engine.leaks().await.unwrap(), []);
    assert!(lab.cgroups().is_empty());
}

#[tokio::test]
async fn instances_side_by_side_do_not_see_each_other() {
    let (Some(one), Some(two)) = (lab(), lab()) else { return };
    let spec = |lab: &crate::harness::Lab| lab.spec("same", vec![lab.shell("main", "sleep 1000")]);
    let a = one.start(spec(&one)).await;
    let b = two.start(spec(&two)).await;
    let (a_pid, b_pid) = (wait_started(&a, "main").await, wait_started(&b, "main").await);
    assert_eq!(one.engine.leaks().await.unwrap(), []);
    assert_eq!(two.engine.leaks().await.unwrap(), []);
    one.engine.remove("same").await.unwrap();
    assert!(!exists(a_pid) && exists(b_pid));
    b.stop("enough").await.unwrap();
    wait_for(&b, |e| matches!(e, EventKind::TaskStopping { .. })).await;
    two.engine.remove("same").await.unwrap();
}

#[tokio::test]
async fn a_shim_that_cannot_begin_says_why_and_leaves_nothing() {
    let Some(lab) = lab() else { return };
    let mut spec = lab.spec("bad", vec![lab.shell("main", "true")]);
    // More than the kernel's largest number of pages.
    spec.limits.pids = Some(u64::MAX);
    let error = lab.engine.create(spec).await.err().unwrap();
    assert!(matches!(error, runtime::EngineError::Shim(..)), "{error:?}");
    assert!(!lab.dir().join("tasks/bad").exists() && lab.cgroups().is_empty());
}
