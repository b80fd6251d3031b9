use super::*;
use crate::{
    api::TriggerType,
    model::{Disabled, Stop},
};
use proptest::prelude::*;
use serde_json::json;
use std::{cell::Cell, collections::BTreeMap};

const NOW: Timestamp = Timestamp::from_millis(1000);

/// A pipeline whose stages are made of actions by name and order.
fn pipeline(mode: ExecutionMode, stages: &[&[(&str, i32)]]) -> Pipeline {
    let action = |(name, order): &(&str, i32)| {
        let kind = json!({"category": "Deploy", "owner": "AWS", "provider": "ECS", "version": "1"});
        json!({"name": name, "runOrder": order, "actionTypeId": kind})
    };
    let stage = |(at, actions): (usize, &&[(&str, i32)])| {
        let actions: Vec<_> = actions.iter().map(action).collect();
        json!({"name": at.to_string(), "actions": actions})
    };
    let stages: Vec<_> = stages.iter().enumerate().map(stage).collect();
    let declaration = json!({
        "name": "p", "roleArn": "arn:r", "executionMode": mode.as_str(), "stages": stages,
    });
    Pipeline {
        realm: "1/r".to_owned(),
        declaration: serde_json::from_value(declaration).unwrap(),
        created: NOW,
        updated: NOW,
        tags: BTreeMap::new(),
        disabled: BTreeMap::new(),
        begun: 0,
        seen: BTreeMap::new(),
    }
}

/// A pipeline with its executions, which tests move.
struct Line {
    pipeline: Pipeline,
    all: Vec<Execution>,
    entries: u64,
    ids: Cell<u64>,
}

impl Line {
    fn new(mode: ExecutionMode, stages: &[&[(&str, i32)]]) -> Self {
        Self { pipeline: pipeline(mode, stages), all: Vec::new(), entries: 0, ids: Cell::new(0) }
    }

    fn begin(&mut self) -> usize {
        let number = self.all.len() as u64 + 1;
        self.all.push(Execution {
            realm: "1/r".to_owned(),
            pipeline: "p".to_owned(),
            version: 1,
            number,
            id: number.to_string(),
            mode: self.pipeline.mode(),
            status: PipelineExecutionStatus::InProgress,
            trigger: TriggerType::StartPipelineExecution,
            trigger_detail: String::new(),
            token: None,
            started: NOW,
            updated: NOW,
            stop: None,
            variables: BTreeMap::new(),
            outputs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            revisions: Vec::new(),
            overrides: Vec::new(),
            branch: None,
            at: 0,
            waiting: true,
            stages: self.pipeline.declaration.stages.iter().map(StageRun::new).collect(),
            rollback: None,
        });
        self.run();
        self.all.len() - 1
    }

    fn run(&mut self) {
        let id = || {
            self.ids.set(self.ids.get() + 1);
            self.ids.get().to_string()
        };
        advance(&self.pipeline, &mut self.all, &mut self.entries, NOW, &id, &mut |_, _| None);
        // A stage never holds two at once, and what is at rest stays so.
        if self.pipeline.mode() != ExecutionMode::Parallel {
            for at in 0..self.pipeline.declaration.stages.len() {
                let within = |one: &&Execution| one.is_open() && !one.waiting && one.at == at;
                assert!(self.all.iter().filter(within).count() <= 1, "two in stage {at}");
            }
        }
        assert!(!advance(
            &self.pipeline,
            &mut self.all,
            &mut self.entries,
            NOW,
            &id,
            &mut |_, _| None
        ));
    }

    fn end(&mut self, execution: usize, action: &str, status: ActionExecutionStatus) {
        let stages = self.all[execution].stages.iter_mut();
        let mut actions = stages.flat_map(|stage| &mut stage.actions);
        let found = actions.find(|run| run.declaration.name == action && run.is_under_way());
        found.unwrap_or_else(|| panic!("{action} is not under way")).status = Some(status);
        self.run();
    }

    fn done(&mut self, execution: usize, action: &str) {
        self.end(execution, action, ActionExecutionStatus::Succeeded);
    }

    fn under_way(&self, execution: usize) -> Vec<&str> {
        let stages = self.all[execution].stages.iter();
        let actions = stages.flat_map(|stage| &stage.actions).filter(|run| run.is_under_way());
        actions.map(|run| run.declaration.name.as_str()).collect()
    }

    fn statuses(&self) -> Vec<PipelineExecutionStatus> {
        self.all.iter().map(|execution| execution.status).collect()
    }
}

use PipelineExecutionStatus::{Failed, InProgress, Stopped, Stopping, Succeeded, Superseded};

const SIMPLE: &[&[(&str, i32)]] = &[&[("source", 1)], &[("deploy", 1)]];

#[test]
fn actions_run_by_their_order() {
    let stages: &[&[(&str, i32)]] =
        &[&[("source", 1)], &[("a", 1), ("b", 1), ("c", 2), ("d", 5)], &[("e", 1)]];
    let mut line = Line::new(ExecutionMode::Superseded, stages);
    let one = line.begin();
    assert_eq!(line.under_way(one), ["source"]);
    line.done(one, "source");
    assert_eq!(line.under_way(one), ["a", "b"]);
    line.done(one, "b");
    assert_eq!(line.under_way(one), ["a"]);
    line.done(one, "a");
    assert_eq!(line.under_way(one), ["c"]);
    line.done(one, "c");
    line.done(one, "d");
    line.done(one, "e");
    assert_eq!(line.statuses(), [Succeeded]);
}

#[test]
fn a_failure_waits_for_what_is_under_way_and_begins_nothing() {
    let stages: &[&[(&str, i32)]] = &[&[("source", 1)], &[("a", 1), ("b", 1), ("c", 2)]];
    let mut line = Line::new(ExecutionMode::Superseded, stages);
    let one = line.begin();
    line.done(one, "source");
    line.end(one, "a", ActionExecutionStatus::Failed);
    assert_eq!((line.statuses(), line.under_way(one)), (vec![InProgress], vec!["b"]));
    line.done(one, "b");
    assert_eq!(line.statuses(), [Failed]);
    assert_eq!(line.all[one].stages[1].status, Some(StageExecutionStatus::Failed));
    // It holds up nobody.
    let two = line.begin();
    line.done(two, "source");
    assert_eq!(line.under_way(two), ["a", "b"]);
}

#[test]
fn the_newest_of_those_that_wait_supersedes_the_others() {
    let mut line = Line::new(ExecutionMode::Superseded, SIMPLE);
    let one = line.begin();
    line.done(one, "source");
    for _ in 0..3 {
        let next = line.begin();
        line.done(next, "source");
    }
    assert_eq!(line.statuses(), [InProgress, Superseded, Superseded, InProgress]);
    assert_eq!(line.under_way(0), ["deploy"]);
    line.done(0, "deploy");
    assert_eq!(line.under_way(3), ["deploy"]);
    line.done(3, "deploy");
    assert_eq!(line.statuses(), [Succeeded, Superseded, Superseded, Succeeded]);
}

#[test]
fn a_rollback_runs_its_stage_and_nothing_else() {
    let stages: &[&[(&str, i32)]] = &[&[("source", 1)], &[("deploy", 1)], &[("after", 1)]];
    let mut line = Line::new(ExecutionMode::Superseded, stages);
    let one = line.begin();
    line.done(one, "source");
    // While the stage is busy a newer one waits for it; so does what takes it back, and neither drives out the other.
    let two = line.begin();
    line.done(two, "source");
    let stage = line.all[one].stages[1].name.clone();
    let disabled = Disabled { reason: String::new(), by: String::new(), at: NOW };
    line.pipeline.disabled.insert(stage, disabled);
    let mut back = line.all[two].clone();
    back.rollback = Some(line.all[one].id.clone());
    (back.id, back.number) = ("back".to_owned(), 3);
    line.all.push(back);
    line.run();
    assert_eq!(line.statuses(), [InProgress; 3]);
    line.done(one, "deploy");
    // A closed transition holds up what is on its way, not what goes back.
    assert_eq!((line.under_way(two), line.under_way(2)), (vec![], vec!["deploy"]));
    line.done(2, "deploy");
    assert_eq!(line.statuses()[2], Succeeded);
    assert_eq!(line.all[2].stages[2].status, None);
    line.pipeline.disabled.clear();
    line.run();
    assert_eq!(line.under_way(two), ["deploy"]);
}

#[test]
fn queued_ones_go_in_order_and_parallel_ones_at_once() {
    let mut line = Line::new(ExecutionMode::Queued, SIMPLE);
    for _ in 0..3 {
        line.begin();
    }
    assert_eq!([0, 1, 2].map(|one| line.under_way(one).len()), [1, 0, 0]);
    line.done(0, "source");
    line.done(1, "source");
    line.done(2, "source");
    assert_eq!([0, 1, 2].map(|one| line.under_way(one)), [vec!["deploy"], vec![], vec![]]);
    line.done(0, "deploy");
    assert_eq!(line.under_way(1), ["deploy"]);
    let mut line = Line::new(ExecutionMode::Parallel, SIMPLE);
    for _ in 0..3 {
        line.begin();
    }
    for one in 0..3 {
        line.done(one, "source");
    }
    assert_eq!(
        [0, 1, 2].map(|one| line.under_way(one)),
        [vec!["deploy"], vec!["deploy"], vec!["deploy"]]
    );
}

#[test]
fn nothing_enters_what_is_disabled() {
    let mut line = Line::new(ExecutionMode::Superseded, SIMPLE);
    let disabled = Disabled { reason: "x".to_owned(), by: "me".to_owned(), at: NOW };
    line.pipeline.disabled.insert("1".to_owned(), disabled);
    let one = line.begin();
    line.done(one, "source");
    let two = line.begin();
    line.done(two, "source");
    assert_eq!(line.statuses(), [Superseded, InProgress]);
    assert!(line.under_way(two).is_empty());
    line.pipeline.disabled.clear();
    line.run();
    assert_eq!(line.under_way(two), ["deploy"]);
}

#[test]
fn stopping_waits_and_abandoning_does_not() {
    let stages: &[&[(&str, i32)]] = &[&[("source", 1)], &[("a", 1), ("b", 2)]];
    for (abandon, between) in [(false, Stopping), (true, Stopped)] {
        let mut line = Line::new(ExecutionMode::Superseded, stages);
        let one = line.begin();
        line.done(one, "source");
        line.all[one].stop = Some(Stop { abandon, reason: None });
        line.all[one].status = Stopping;
        line.run();
        assert_eq!(line.statuses(), [between]);
        if !abandon {
            line.done(one, "a");
        }
        assert_eq!(line.statuses(), [Stopped]);
        assert!(line.under_way(one).is_empty());
    }
}

/// What happens to a pipeline, in any order.
#[derive(Clone, Debug)]
enum Happening {
    Begin,
    /// The action under way with this number (modulo how many there are) ends well or not.
    End(usize, bool),
    Stop(usize, bool),
    Toggle(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Begin),
        6 => (any::<usize>(), prop::bool::weighted(0.85)).prop_map(|(at, well)| Happening::End(at, well)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, abandon)| Happening::Stop(at, abandon)),
        1 => (1usize..3).prop_map(Happening::Toggle),
    ]
}

impl Line {
    fn all_under_way(&self) -> Vec<(usize, String)> {
        let each = (0..self.all.len()).flat_map(|one| {
            self.under_way(one).into_iter().map(move |action| (one, action.to_owned()))
        });
        each.collect()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Begin => {
                self.begin();
            }
            Happening::End(at, well) => {
                let under_way = self.all_under_way();
                if under_way.is_empty() {
                    return;
                }
                let (execution, action) = &under_way[at % under_way.len()];
                let status = match well {
                    true => ActionExecutionStatus::Succeeded,
                    false => ActionExecutionStatus::Failed,
                };
                self.end(*execution, action, status);
            }
            Happening::Stop(at, abandon) => {
                let open: Vec<usize> =
                    (0..self.all.len()).filter(|one| self.all[*one].is_open()).collect();
                if let Some(one) = open.get(at % open.len().max(1)) {
                    self.all[*one].stop = Some(Stop { abandon, reason: None });
                    self.all[*one].status = Stopping;
                    self.run();
                }
            }
            Happening::Toggle(stage) => {
                let name = stage.to_string();
                if self.pipeline.disabled.remove(&name).is_none() {
                    let disabled =
                        Disabled { reason: "x".to_owned(), by: "me".to_owned(), at: NOW };
                    self.pipeline.disabled.insert(name, disabled);
                }
                self.run();
            }
        }
    }
}

proptest! {
    /// Whatever happens, in whichever order: no two executions are in a stage (`run` asserts it), none is stuck, and
    /// what went through every stage did so in the order in which it began.
    #[test]
    fn nothing_is_lost_or_overtaken(
        mode in prop_oneof![Just(ExecutionMode::Superseded), Just(ExecutionMode::Queued)],
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let stages: &[&[(&str, i32)]] = &[&[("s", 1)], &[("a", 1), ("b", 1), ("c", 2)], &[("d", 1)]];
        let mut line = Line::new(mode, stages);
        let mut finished = Vec::new();
        let look = |line: &Line, finished: &mut Vec<usize>| {
            for (one, execution) in line.all.iter().enumerate() {
                if execution.status == Succeeded && !finished.contains(&one) {
                    finished.push(one);
                }
            }
        };
        for happening in happenings {
            line.happen(happening);
            look(&line, &mut finished);
        }
        // Then all goes well, and everything comes to an end.
        line.pipeline.disabled.clear();
        line.run();
        while let Some((execution, action)) = line.all_under_way().into_iter().next() {
            line.done(execution, &action);
            look(&line, &mut finished);
        }
        prop_assert!(line.all.iter().all(|execution| !execution.is_open()), "one is stuck");
        prop_assert!(finished.is_sorted(), "one overtook another: {finished:?}");
        let newest = line.all.last().map(|execution| execution.status);
        prop_assert!(newest != Some(Superseded), "what is newest is superseded by nothing");
    }
}
