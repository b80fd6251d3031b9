use super::*;
use crate::spec::{
    ContainerSpec, Dependency, HealthCheck, HealthCommand, RestartPolicy,
    tests::{container, task},
};
use proptest::prelude::*;

fn after(name: &str, other: &str, condition: Condition) -> ContainerSpec {
    let depends_on = vec![Dependency { container: other.into(), condition }];
    ContainerSpec { depends_on, ..container(name) }
}

fn minor(spec: ContainerSpec) -> ContainerSpec {
    ContainerSpec { essential: false, ..spec }
}

fn checked(name: &str) -> ContainerSpec {
    let command = HealthCommand::Shell("check".into());
    let health =
        HealthCheck { command, interval_ms: 10, timeout_ms: 5, retries: 2, start_period_ms: 25 };
    ContainerSpec { health: Some(health), ..container(name) }
}

fn exit(code: i32) -> Exit {
    Exit { code, signal: None, oom: false }
}

fn launched(actions: &[Action]) -> Vec<usize> {
    let launch = |a: &Action| match a {
        Action::Launch { container } => Some(*container),
        _ => None,
    };
    actions.iter().filter_map(launch).collect()
}

fn signalled(actions: &[Action]) -> Vec<usize> {
    let signal = |a: &Action| match a {
        Action::Signal { container, .. } => Some(*container),
        _ => None,
    };
    actions.iter().filter_map(signal).collect()
}

fn stopped_because(actions: &[Action]) -> Option<StopReason> {
    actions.iter().find_map(|a| match a {
        Action::Record(EventKind::TaskStopped { reason }) => Some(reason.clone()),
        _ => None,
    })
}

fn begin(containers: Vec<ContainerSpec>) -> (Lifecycle, Vec<Action>) {
    let spec = task(containers);
    spec.validate().unwrap();
    let mut life = Lifecycle::new(&spec);
    let actions = life.step(Input::Start, 0);
    (life, actions)
}

fn start(life: &mut Lifecycle, container: usize, now: u64) -> Vec<Action> {
    life.step(Input::Started { container, pid: 1 }, now)
}

fn end(life: &mut Lifecycle, container: usize, code: i32, now: u64) -> Vec<Action> {
    life.step(Input::Exited { container, exit: exit(code) }, now)
}

#[test]
fn each_condition_lets_its_dependant_start() {
    let (mut life, actions) = begin(vec![
        minor(container("seed")),
        after("start", "seed", Condition::Start),
        after("complete", "seed", Condition::Complete),
        minor(after("success", "seed", Condition::Success)),
    ]);
    assert_eq!(launched(&actions), [0]);
    assert_eq!(launched(&start(&mut life, 0, 1)), [1]);
    let actions = end(&mut life, 0, 7, 2);
    assert_eq!(launched(&actions), [2]);
    let failed = |a: &Action| {
        matches!(a, Action::Record(EventKind::ContainerFailed { container, .. })
        if container == "success")
    };
    assert!(actions.iter().any(failed));
    assert!(stopped_because(&actions).is_none());
}

#[test]
fn a_healthy_dependency_is_awaited_and_given_up_after_its_start_timeout() {
    let slow = ContainerSpec { start_timeout_ms: Some(100), ..checked("db") };
    let (mut life, _) = begin(vec![slow.clone(), after("app", "db", Condition::Healthy)]);
    start(&mut life, 0, 0);
    assert_eq!(life.next_deadline(), Some(10));
    assert!(life.step(Input::Tick, 10).contains(&Action::Probe { container: 0 }));
    let actions = life.step(Input::Probed { container: 0, passed: true }, 12);
    assert_eq!(launched(&actions), [1]);

    let (mut life, _) = begin(vec![slow, after("app", "db", Condition::Healthy)]);
    start(&mut life, 0, 0);
    assert!(launched(&life.step(Input::Tick, 99)).is_empty());
    let actions = life.step(Input::Tick, 100);
    assert_eq!(signalled(&actions), [0]);
    let reason = StopReason::ContainerFailedToStart { container: "app".into() };
    assert_eq!(stopped_because(&end(&mut life, 0, 0, 101)), Some(reason));
}

#[test]
fn failures_count_after_the_start_period_and_in_a_row() {
    let (mut life, _) = begin(vec![checked("web")]);
    start(&mut life, 0, 0);
    let mut probe = |now, passed| {
        life.step(Input::Tick, now);
        life.step(Input::Probed { container: 0, passed }, now);
        life.health(0)
    };
    assert_eq!(probe(10, false), Health::Unknown);
    assert_eq!(probe(20, false), Health::Unknown);
    assert_eq!(probe(30, false), Health::Unknown);
    assert_eq!(probe(40, false), Health::Unhealthy);
    assert_eq!(probe(50, true), Health::Healthy);
    assert_eq!(probe(60, false), Health::Healthy);
    assert_eq!(probe(70, true), Health::Healthy);
    assert_eq!(probe(80, false), Health::Healthy);
    assert_eq!(probe(90, false), Health::Unhealthy);
}

#[test]
fn the_end_of_an_essential_container_stops_the_rest_in_reverse_order() {
    let (mut life, _) = begin(vec![
        minor(container("db")),
        minor(after("app", "db", Condition::Start)),
        container("main"),
    ]);
    for unit in 0..3 {
        start(&mut life, unit, 1);
    }
    assert_eq!(signalled(&end(&mut life, 2, 0, 10)), [1]);
    // The first is not signalled before the one that needs it has ended, however long that takes.
    let grace = 30_000;
    assert_eq!(life.next_deadline(), Some(10 + grace));
    assert_eq!(life.step(Input::Tick, 10 + grace), [Action::Kill { container: 1 }]);
    assert_eq!(signalled(&end(&mut life, 1, 137, 20 + grace)), [0]);
    let reason = StopReason::EssentialContainerExited { container: "main".into() };
    assert_eq!(stopped_because(&end(&mut life, 0, 0, 30 + grace)), Some(reason));
    assert!(life.is_finished());
}

#[test]
fn a_restart_needs_its_time_and_an_exit_code_that_counts() {
    let ignored_exit_codes = [3].into();
    let restart = Some(RestartPolicy { ignored_exit_codes, attempt_period_ms: 60 });
    let (mut life, _) = begin(vec![ContainerSpec { restart, ..container("web") }]);
    start(&mut life, 0, 0);
    assert_eq!(launched(&end(&mut life, 0, 1, 60)), [0]);
    let actions = start(&mut life, 0, 61);
    let again = EventKind::ContainerStarted { container: "web".into(), pid: 1, restarts: 1 };
    assert!(actions.contains(&Action::Record(again)));
    assert_eq!(launched(&end(&mut life, 0, 3, 500)), [0usize; 0]);
    assert!(life.is_finished());
}

#[test]
fn an_early_exit_is_not_restarted() {
    let restart = Some(RestartPolicy { ignored_exit_codes: [].into(), attempt_period_ms: 60 });
    let (mut life, _) = begin(vec![ContainerSpec { restart, ..container("web") }]);
    start(&mut life, 0, 0);
    assert!(stopped_because(&end(&mut life, 0, 1, 59)).is_some());
}

#[test]
fn a_stop_before_the_start_ends_at_once_and_a_late_start_is_stopped() {
    let spec = task(vec![container("a")]);
    let reason = StopReason::Requested { reason: "no more".into() };
    let mut life = Lifecycle::new(&spec);
    let actions = life.step(Input::Stop { reason: reason.clone() }, 0);
    assert_eq!(stopped_because(&actions), Some(reason.clone()));

    let mut life = Lifecycle::new(&spec);
    life.step(Input::Start, 0);
    assert!(stopped_because(&life.step(Input::Kill { reason }, 1)).is_none());
    assert!(start(&mut life, 0, 2).contains(&Action::Kill { container: 0 }));
}

/// A world that does what the machine asks, in any order and with any outcome.
#[derive(Default)]
struct Puppets {
    launching: Vec<usize>,
    running: Vec<usize>,
    probing: Vec<usize>,
    started_before: Vec<usize>,
}

impl Puppets {
    fn obey(&mut self, actions: &[Action], spec: &TaskSpec) {
        for action in actions {
            match action {
                Action::Launch { container } => {
                    assert!(
                        !self.launching.contains(container) && !self.running.contains(container)
                    );
                    for dependency in &spec.containers[*container].depends_on {
                        let at =
                            spec.containers.iter().position(|c| c.name == dependency.container);
                        assert!(self.started_before.contains(&at.unwrap()));
                    }
                    self.launching.push(*container);
                }
                Action::Signal { container, .. } | Action::Kill { container } => {
                    assert!(self.running.contains(container), "only what runs is signalled");
                }
                Action::Probe { container } => {
                    assert!(self.running.contains(container) && !self.probing.contains(container));
                    self.probing.push(*container);
                }
                Action::Record(_) => {}
                Action::Finish => assert!(self.launching.is_empty() && self.running.is_empty()),
            }
        }
    }

    fn next(&mut self, choice: u8, code: i32) -> Input {
        let pick = |list: &mut Vec<usize>| {
            (!list.is_empty()).then(|| list.remove(usize::from(choice) % list.len()))
        };
        let reason = StopReason::Requested { reason: "test".into() };
        match choice % 8 {
            0..=2 => match pick(&mut self.launching) {
                Some(container) if code == 9 => {
                    Input::StartFailed { container, failure: StartFailure::TimedOut }
                }
                Some(container) => {
                    self.running.push(container);
                    self.started_before.push(container);
                    Input::Started { container, pid: 1 }
                }
                None => Input::Tick,
            },
            3 | 4 => match pick(&mut self.running) {
                Some(container) => {
                    self.probing.retain(|p| *p != container);
                    Input::Exited { container, exit: exit(code) }
                }
                None => Input::Tick,
            },
            5 => match pick(&mut self.probing) {
                Some(container) => Input::Probed { container, passed: code == 0 },
                None => Input::Tick,
            },
            6 if code == 1 => Input::Stop { reason },
            7 if code == 2 => Input::Kill { reason },
            _ => Input::Tick,
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: dependencies are respected, only what runs is signalled,
    /// and once everything that runs ends, the task ends.
    #[test]
    fn every_history_ends(
        edges in proptest::collection::vec((0usize..5, 0usize..5, 0u8..4), 0..6),
        essential in proptest::collection::vec(any::<bool>(), 5),
        restarting in proptest::collection::vec(any::<bool>(), 5),
        history in proptest::collection::vec((any::<u8>(), 0i32..10, 0u64..40), 0..200),
    ) {
        let conditions =
            [Condition::Start, Condition::Complete, Condition::Success, Condition::Healthy];
        let mut containers: Vec<_> = (0..5).map(|i| checked(&format!("c{i}"))).collect();
        for (from, to, condition) in edges.into_iter().filter(|(from, to, _)| from > to) {
            let condition = conditions[usize::from(condition)];
            containers[from].depends_on.push(Dependency { container: format!("c{to}"), condition });
        }
        for (i, container) in containers.iter_mut().enumerate() {
            container.essential = essential[i];
            let policy = RestartPolicy { ignored_exit_codes: [0].into(), attempt_period_ms: 50 };
            container.restart = restarting[i].then_some(policy);
        }
        let spec = task(containers);
        spec.validate().unwrap();
        let (mut life, mut puppets, mut now) = (Lifecycle::new(&spec), Puppets::default(), 0);
        let actions = life.step(Input::Start, now);
        puppets.obey(&actions, &spec);
        for (choice, code, pause) in history {
            now += pause;
            let input = puppets.next(choice, code);
            let actions = life.step(input, now);
            puppets.obey(&actions, &spec);
        }
        // Now everything obeys at once.
        let reason = StopReason::Requested { reason: "end".into() };
        let actions = life.step(Input::Stop { reason }, now);
        puppets.obey(&actions, &spec);
        for _ in 0..20 {
            now += 1;
            for choice in [0, 3] {
                let input = puppets.next(choice, 0);
                let actions = life.step(input, now);
                puppets.obey(&actions, &spec);
            }
        }
        prop_assert!(life.is_finished());
    }
}
