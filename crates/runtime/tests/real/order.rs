//! The order of containers' lives.

use crate::harness::{Ran, finish, lab, wait_for, wait_started};
use runtime::{
    Condition, ContainerSpec, Dependency, EventKind, Health, HealthCheck, HealthCommand,
    RestartPolicy, StartFailure, StopReason,
};

fn after(spec: ContainerSpec, container: &str, condition: Condition) -> ContainerSpec {
    let depends_on = vec![Dependency { container: container.into(), condition }];
    ContainerSpec { depends_on, ..spec }
}

fn minor(spec: ContainerSpec) -> ContainerSpec {
    ContainerSpec { essential: false, ..spec }
}

fn started(ran: &Ran, name: &str) -> usize {
    ran.position(
        |e| matches!(e, EventKind::ContainerStarted { container, .. } if container == name),
    )
}

fn exited(ran: &Ran, name: &str) -> usize {
    ran.position(|e| matches!(e, EventKind::ContainerExited { container, .. } if container == name))
}

#[tokio::test]
async fn dependencies_are_awaited_and_stopped_last() {
    let Some(lab) = lab() else { return };
    let serve = |name| lab.shell(name, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let spec = lab.spec(
        "deps",
        vec![
            after(lab.shell("main", "exit 3"), "app", Condition::Start),
            minor(after(serve("app"), "db", Condition::Start)),
            minor(after(serve("db"), "seed", Condition::Success)),
            minor(lab.shell("seed", "sleep 0.2")),
        ],
    );
    let task = lab.start(spec).await;
    let ran = finish(&task).await;
    assert!(exited(&ran, "seed") < started(&ran, "db"), "{ran:#?}");
    assert!(started(&ran, "db") < started(&ran, "app"), "{ran:#?}");
    assert!(started(&ran, "app") < started(&ran, "main"), "{ran:#?}");
    assert!(exited(&ran, "main") < exited(&ran, "app"), "{ran:#?}");
    assert!(exited(&ran, "app") < exited(&ran, "db"), "{ran:#?}");
    let reason = StopReason::EssentialContainerExited { container: "main".into() };
    assert_eq!(ran.events.last(), Some(&EventKind::TaskStopped { reason }));
    lab.engine.remove("deps").await.unwrap();
}

#[tokio::test]
async fn who_waits_for_success_in_vain_is_not_started() {
    let Some(lab) = lab() else { return };
    let seed = minor(lab.shell("seed", "exit 1"));
    let spec =
        lab.spec("vain", vec![seed, after(lab.shell("main", "true"), "seed", Condition::Success)]);
    let task = lab.start(spec).await;
    let ran = finish(&task).await;
    ran.position(|e| match e {
        EventKind::ContainerFailed { container, failure } => {
            container == "main" && matches!(failure, StartFailure::Dependency { .. })
        }
        _ => false,
    });
    lab.engine.remove("vain").await.unwrap();
}

fn check(spec: ContainerSpec, command: HealthCommand) -> ContainerSpec {
    let health =
        HealthCheck { command, interval_ms: 50, timeout_ms: 2000, retries: 2, start_period_ms: 0 };
    ContainerSpec { health: Some(health), ..spec }
}

#[tokio::test]
async fn health_is_checked_inside_and_changes() {
    let Some(lab) = lab() else { return };
    let main = lab.shell("main", "touch /tmp/well; sleep 100");
    let main = check(main, HealthCommand::Shell("test -e /tmp/well".into()));
    let friend = minor(after(lab.shell("friend", "true"), "main", Condition::Healthy));
    let task = lab.start(lab.spec("health", vec![main, friend])).await;
    let health = |now| {
        move |e: &EventKind| match e {
            EventKind::ContainerHealth { health, .. } => *health == now,
            _ => false,
        }
    };
    let well = wait_for(&task, health(Health::Healthy)).await;
    let friend = |e: &EventKind| match e {
        EventKind::ContainerStarted { container, .. } => container == "friend",
        _ => false,
    };
    assert!(wait_for(&task, friend).await.seq > well.seq);
    let args = ["rm", "/tmp/well"].map(str::to_owned).to_vec();
    let request = runtime::ExecRequest {
        container: "main".into(),
        args,
        env: vec![],
        user: None,
        cwd: None,
        terminal: None,
    };
    assert_eq!(task.exec(request).await.unwrap().wait().await.unwrap(), 0);
    wait_for(&task, health(Health::Unhealthy)).await;
    lab.engine.remove("health").await.unwrap();
}

#[tokio::test]
async fn a_check_that_hangs_is_killed_and_fails() {
    let Some(lab) = lab() else { return };
    let mut main = check(
        lab.shell("main", "sleep 100"),
        HealthCommand::Exec(vec!["sleep".into(), "77".into()]),
    );
    main.health.as_mut().unwrap().timeout_ms = 50;
    let task = lab.start(lab.spec("hang", vec![main])).await;
    wait_for(&task, |e| matches!(e, EventKind::ContainerHealth { health: Health::Unhealthy, .. }))
        .await;
    lab.engine.remove("hang").await.unwrap();
}

#[tokio::test]
async fn a_container_is_restarted_with_its_files() {
    let Some(lab) = lab() else { return };
    let script =
        "echo x >> /count; n=$(wc -l < /count); echo run $n; test $n -lt 3 && exit 1; exit 9";
    let mut main = lab.shell("main", script);
    main.restart = Some(RestartPolicy { ignored_exit_codes: [9].into(), attempt_period_ms: 0 });
    let ran = lab.run(main).await;
    assert_eq!(ran.stdout("main"), "run 1\nrun 2\nrun 3\n", "{ran:#?}");
    assert_eq!(ran.exit("main").code, 9);
    let restarting =
        |e: &&EventKind| matches!(e, EventKind::ContainerExited { restarting: true, .. });
    assert_eq!(ran.events.iter().filter(restarting).count(), 2);
}

#[tokio::test]
async fn a_stop_is_graceful_and_then_is_not() {
    let Some(lab) = lab() else { return };
    let polite = lab.shell("polite", "trap 'echo bye; exit 4' USR1; while :; do sleep 0.05; done");
    let polite = ContainerSpec { stop_signal: 10, ..polite };
    let deaf = lab.shell("deaf", "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let deaf = ContainerSpec { stop_timeout_ms: 100, ..deaf };
    let task = lab.start(lab.spec("stop", vec![polite, deaf])).await;
    wait_started(&task, "polite").await;
    wait_started(&task, "deaf").await;
    // A signal before the trap is set would not be caught.
    lab.world.sleep(std::time::Duration::from_millis(300)).await;
    task.stop("enough").await.unwrap();
    let ran = finish(&task).await;
    assert_eq!((ran.exit("polite").code, ran.stdout("polite")), (4, "bye\n"));
    assert_eq!((ran.exit("deaf").code, ran.exit("deaf").signal), (137, Some(9)));
    let reason = StopReason::Requested { reason: "enough".into() };
    assert_eq!(ran.events.last(), Some(&EventKind::TaskStopped { reason }));
    lab.engine.remove("stop").await.unwrap();
}

#[tokio::test]
async fn processes_are_shared_only_when_asked_for() {
    let Some(lab) = lab() else { return };
    for shared in [false, true] {
        let script = "sleep 0.3; ps | grep -c 'sleep 12[3]'";
        let main = lab.shell("main", script);
        let other = minor(lab.shell("other", "sleep 123"));
        let mut spec = lab.spec("pids", vec![other, after(main, "other", Condition::Start)]);
        spec.share_pids = shared;
        spec.containers[0].stop_timeout_ms = 0;
        let task = lab.start(spec).await;
        let ran = finish(&task).await;
        let seen = ran.stdout("main").trim().parse::<u32>().unwrap() > 0;
        assert_eq!(seen, shared, "{ran:#?}");
        lab.engine.remove("pids").await.unwrap();
    }
}
