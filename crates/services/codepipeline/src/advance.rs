//! What comes next: pure, from where a pipeline's executions stand.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/concepts-how-it-works.html>
//!
//! A stage holds one execution at a time (unless the mode is PARALLEL); others wait to enter it. Of those that wait,
//! SUPERSEDED keeps the newest, QUEUED lets in the oldest.

use crate::{
    api::{ActionExecutionStatus, ExecutionMode, PipelineExecutionStatus, StageExecutionStatus},
    model::{ActionRun, Execution, Pipeline, StageRun},
};
use world::Timestamp;

/// What is done about an execution that has just failed, before anyone else gets its place: it may go on, counted as
/// one more entry of its stage, or another one may begin.
pub(crate) type AfterFailure<'a> = dyn FnMut(&mut Execution, &mut u64) -> Option<Execution> + 'a;

/// Moves the open executions of a pipeline, the oldest first, as far as they go; whether any moved. `id` makes ids.
pub(crate) fn advance(
    pipeline: &Pipeline,
    executions: &mut Vec<Execution>,
    entries: &mut u64,
    now: Timestamp,
    id: &dyn Fn() -> String,
    after_failure: &mut AfterFailure,
) -> bool {
    let mut moved = false;
    loop {
        let (mut again, mut begun) = (false, Vec::new());
        for execution in executions.iter_mut().filter(|execution| execution.is_open()) {
            if step(execution, now, id) {
                execution.updated = now;
                again = true;
                if execution.status == PipelineExecutionStatus::Failed {
                    begun.extend(after_failure(execution, entries));
                }
            }
        }
        executions.extend(begun);
        again |= enter(pipeline, executions, entries, now);
        if !again {
            return moved;
        }
        moved = true;
    }
}

/// One step within the stage that an execution is in.
fn step(execution: &mut Execution, now: Timestamp, id: &dyn Fn() -> String) -> bool {
    let stop = execution.stop.clone();
    if execution.waiting {
        // Between stages there is nothing to wait for.
        if stop.is_some() {
            execution.status = PipelineExecutionStatus::Stopped;
        }
        return stop.is_some();
    }
    let Some(stage) = execution.stages.get_mut(execution.at) else { return false };
    if stop.as_ref().is_some_and(|stop| stop.abandon) {
        for action in stage.actions.iter_mut().filter(|action| action.is_under_way()) {
            action.status = Some(ActionExecutionStatus::Abandoned);
            action.changed = now;
        }
        stage.status = Some(StageExecutionStatus::Stopped);
        execution.status = PipelineExecutionStatus::Stopped;
        return true;
    }
    if stage.actions.iter().any(ActionRun::is_under_way) {
        return start_ready(stage, stop.is_some(), now, id);
    }
    let all = |status| stage.actions.iter().all(|action| action.status == Some(status));
    let failed =
        stage.actions.iter().any(|action| action.status == Some(ActionExecutionStatus::Failed));
    if failed {
        stage.status = Some(StageExecutionStatus::Failed);
        execution.status = PipelineExecutionStatus::Failed;
    } else if all(ActionExecutionStatus::Succeeded) {
        stage.status = Some(StageExecutionStatus::Succeeded);
        if execution.rollback.is_some() {
            execution.status = PipelineExecutionStatus::Succeeded;
            return true;
        }
        execution.at += 1;
        execution.waiting = true;
        if execution.at == execution.stages.len() {
            execution.waiting = false;
            execution.status = PipelineExecutionStatus::Succeeded;
        }
    } else if stop.is_some() {
        stage.status = Some(StageExecutionStatus::Stopped);
        execution.status = PipelineExecutionStatus::Stopped;
    } else {
        return start_ready(stage, false, now, id);
    }
    true
}

/// Starts the actions whose turn it is: those of the lowest order that is not done. After a failure none begins.
fn start_ready(
    stage: &mut StageRun,
    stopping: bool,
    now: Timestamp,
    id: &dyn Fn() -> String,
) -> bool {
    let failed =
        stage.actions.iter().any(|action| action.status == Some(ActionExecutionStatus::Failed));
    if stopping || failed {
        return false;
    }
    let open = |action: &&ActionRun| action.status != Some(ActionExecutionStatus::Succeeded);
    let Some(turn) = stage.actions.iter().filter(open).map(ActionRun::order).min() else {
        return false;
    };
    let mut started = false;
    for action in &mut stage.actions {
        if action.order() == turn && action.status.is_none() {
            action.status = Some(ActionExecutionStatus::InProgress);
            (action.id, action.started, action.changed) = (id(), now, now);
            if action.declaration.action_type_id.provider == "Manual" {
                action.token = Some(id());
            }
            started = true;
        }
    }
    started
}

/// Lets executions that wait into their stages.
fn enter(
    pipeline: &Pipeline,
    executions: &mut [Execution],
    entries: &mut u64,
    now: Timestamp,
) -> bool {
    let mut moved = false;
    let deepest = executions.iter().map(|execution| execution.stages.len()).max().unwrap_or(0);
    // The last stages first: what leaves room there may be filled from before.
    for at in (0..deepest).rev() {
        let waits =
            |execution: &Execution| execution.is_open() && execution.waiting && execution.at == at;
        let mut waiting: Vec<usize> =
            (0..executions.len()).filter(|index| waits(&executions[*index])).collect();
        // What takes a stage back is not on its way through the pipeline: it is neither overtaken nor does it overtake.
        let on_its_way = |index: &usize| executions[*index].rollback.is_none();
        let through: Vec<usize> = waiting.iter().copied().filter(on_its_way).collect();
        let superseded = |mode| mode == ExecutionMode::Superseded;
        for index in through.iter().copied() {
            let Some(newest) = through.last().copied().filter(|newest| *newest != index) else {
                continue;
            };
            if superseded(executions[index].mode) && superseded(executions[newest].mode) {
                executions[index].status = PipelineExecutionStatus::Superseded;
                executions[index].updated = now;
                moved = true;
            }
        }
        // What was good comes back before what is new is tried.
        waiting.sort_by_key(|index| executions[*index].rollback.is_none());
        for index in waiting {
            let execution = &executions[index];
            let disabled = execution.rollback.is_none()
                && pipeline.disabled.contains_key(&execution.stages[at].name);
            if !execution.is_open() || disabled {
                continue;
            }
            let holds = |other: &Execution| {
                other.is_open()
                    && !other.waiting
                    && other.at == at
                    && other.mode != ExecutionMode::Parallel
            };
            if execution.mode != ExecutionMode::Parallel && executions.iter().any(holds) {
                continue;
            }
            *entries += 1;
            let execution = &mut executions[index];
            execution.waiting = false;
            execution.stages[at].status = Some(StageExecutionStatus::InProgress);
            execution.stages[at].entered = *entries;
            execution.updated = now;
            moved = true;
        }
    }
    moved
}

#[cfg(test)]
mod tests;
