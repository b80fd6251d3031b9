//! What a service's tasks are to it: well, ill, protected, failed.

use crate::model::{Deployment, Health, LastStatus, Launch, Reckoned, TargetState, Task};
use std::time::Duration;
use world::Timestamp;

/// The pause after a task that did not start, doubled with each, and the longest.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The same after a task that started and soon ended by itself. AWS starts the next one at once, which takes it half a
/// minute; here it would be a busy loop.
pub(super) const AFTER_CRASH: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(60));
/// A task that ran for so long did not crash.
const SOON: Duration = Duration::from_secs(60);
/// Whether it runs, and its health checks and those of its target groups pass, if it has any.
pub(super) fn is_healthy(task: &Task) -> bool {
    task.last_status == LastStatus::Running
        && !task.stopping
        && matches!(task.health(), None | Some(Health::Healthy))
        && task.targets.iter().all(|target| target.state == TargetState::Healthy)
}

/// What is wrong with a task that runs, in AWS's words.
pub(super) struct Illness {
    pub(super) event: String,
    pub(super) reason: String,
}

pub(super) fn illness(task: &Task) -> Option<Illness> {
    if task.last_status != LastStatus::Running {
        return None;
    }
    if task.health() == Some(Health::Unhealthy) {
        return Some(Illness {
            event: "failed container health checks.".to_owned(),
            reason: "Task failed container health checks".to_owned(),
        });
    }
    task.targets.iter().find_map(|target| match &target.state {
        TargetState::Unhealthy(why) => Some(Illness {
            event: format!(
                "(port {}) is unhealthy in (target-group {}) due to (reason {why}).",
                target.port, target.group_arn
            ),
            reason: format!("Task failed ELB health checks in (target-group {})", target.group_arn),
        }),
        _ => None,
    })
}

pub(super) fn is_protected(task: &Task, now: Timestamp) -> bool {
    task.protected_until.is_some_and(|until| until > now)
}

/// Where it is: the subnet that it was given.
pub(super) fn zone(task: &Task) -> Option<&String> {
    task.network.awsvpc_configuration.as_ref().and_then(|awsvpc| awsvpc.subnets.first())
}

pub(super) fn place(task: &Task) -> (String, Option<String>) {
    let provider = match &task.launch {
        Launch::Fargate => None,
        Launch::CapacityProvider(name) => Some(name.clone()),
    };
    (zone(task).cloned().unwrap_or_default(), provider)
}

/// What became of a task.
pub(super) enum Outcome {
    /// It runs well.
    Ran,
    /// It did not start.
    Failed,
    /// It ended by itself soon after it ran.
    Crashed,
    /// It ended by itself after a while.
    Ended,
    /// Somebody stopped it.
    Stopped,
}

pub(super) fn outcome(task: &Task) -> Outcome {
    use crate::api::TaskStopCode::{EssentialContainerExited, TaskFailedToStart};
    let by_itself = matches!(task.stop_code, Some(EssentialContainerExited | TaskFailedToStart));
    match (task.stopping, by_itself, task.started_at) {
        (false, ..) => Outcome::Ran,
        (true, false, _) => Outcome::Stopped,
        (true, true, None) => Outcome::Failed,
        (true, true, Some(ran)) => {
            let ended = task.stopping_at.unwrap_or(ran);
            if ended.since(ran) < SOON { Outcome::Crashed } else { Outcome::Ended }
        }
    }
}

/// What is to be noted about a task now, if anything is.
pub(super) fn reckoning(task: &Task) -> Option<Reckoned> {
    match (task.stopping, task.reckoned) {
        (_, Reckoned::Over) | (false, Reckoned::Ran) => None,
        (true, _) => Some(Reckoned::Over),
        (false, Reckoned::Not) => is_healthy(task).then_some(Reckoned::Ran),
    }
}

pub(super) fn fail(deployment: &mut Deployment, now: Timestamp) {
    deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    deployment.next_start_at = Some(now + pause(AFTER_FAILURE, deployment.failed_tasks));
}

pub(super) fn pause((first, longest): (Duration, Duration), times: i32) -> Duration {
    let doublings = u32::try_from(times - 1).unwrap_or(0).min(16);
    (first * 2u32.pow(doublings)).min(longest)
}
