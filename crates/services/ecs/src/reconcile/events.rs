//! What a shim's journal means for a task's record. Pure, total, and the only place that says so.

use crate::{
    api::TaskStopCode,
    model::{Container, ContainerStatus, Health, LastStatus, Task},
};
use runtime::{Event, EventKind, Exit, StartFailure, StopReason};
use world::Timestamp;

/// Why a task is over whose shim is gone without a trace.
pub(crate) const RESTARTED: &str = "The machine that ran the task was restarted.";
/// Why a task is over whose shim was killed.
pub(crate) const OWNER_DIED: &str =
    "The process that owned the task's containers was killed; they were ended with it";

/// Puts one event into the record. `essential` says whether a container is. Events that are in it already
/// change nothing.
pub(super) fn apply(task: &mut Task, event: &Event, essential: impl Fn(&str) -> bool) {
    if event.seq <= task.journal_seq {
        return;
    }
    task.journal_seq = event.seq;
    let now = Timestamp::from_millis(event.time_ms);
    match &event.kind {
        EventKind::SandboxReady => task.connectivity_at = Some(now),
        EventKind::ContainerCreated { .. } => {}
        EventKind::ContainerStarted { container, .. } => {
            change(task, container, |container| container.status = ContainerStatus::Running);
            let started = |c: &Container| c.status != ContainerStatus::Pending;
            if task.containers.iter().filter(|c| essential(&c.name)).all(started) && !task.stopping
            {
                task.advance(LastStatus::Running, now);
            }
        }
        EventKind::ContainerHealth { container, health } => {
            let health = match health {
                runtime::Health::Unknown => Health::Unknown,
                runtime::Health::Healthy => Health::Healthy,
                runtime::Health::Unhealthy => Health::Unhealthy,
            };
            change(task, container, |container| container.health = Some(health));
        }
        EventKind::ContainerExited { container, exit, restarting } => {
            if !restarting {
                change(task, container, |container| {
                    container.status = ContainerStatus::Stopped;
                    container.exit_code = Some(exit.code);
                    container.reason = exit_reason(exit);
                });
            }
        }
        EventKind::ContainerFailed { container, failure } => {
            change(task, container, |container| {
                container.status = ContainerStatus::Stopped;
                container.reason = Some(failure_reason(failure));
            });
        }
        // Lost lines are no part of a task's state; the shipper of output tells of them.
        EventKind::OutputDropped { .. } => {}
        EventKind::TaskStopping { reason } => {
            stop(task, reason, now);
            task.advance(LastStatus::Stopping, now);
        }
        EventKind::TaskStopped { reason } => {
            stop(task, reason, now);
            for container in &mut task.containers {
                container.status = ContainerStatus::Stopped;
            }
            task.execution_stopped_at = Some(now);
            task.advance(LastStatus::Deprovisioning, now);
        }
    }
    task.version += 1;
}

fn change(task: &mut Task, name: &str, change: impl FnOnce(&mut Container)) {
    if let Some(container) = task.containers.iter_mut().find(|container| container.name == name) {
        change(container);
    }
}

/// AWS's words for a container that the kernel killed.
fn exit_reason(exit: &Exit) -> Option<String> {
    exit.oom.then(|| "OutOfMemoryError: Container killed due to memory usage".to_owned())
}

fn failure_reason(failure: &StartFailure) -> String {
    match failure {
        StartFailure::Dependency { .. } | StartFailure::Stopped => failure.to_string(),
        StartFailure::TimedOut => {
            "ContainerRuntimeTimeoutError: Could not transition to started; timed out".to_owned()
        }
        _ => format!(
            "CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: \
             failed to create shim task: OCI runtime create failed: {failure}"
        ),
    }
}

fn stop(task: &mut Task, reason: &StopReason, now: Timestamp) {
    let of = |task: &Task, name: &str| {
        let container = task.containers.iter().find(|container| container.name == name);
        container.and_then(|container| container.reason.clone())
    };
    match reason {
        // Whoever asked has written code and words into the record already.
        StopReason::Requested { reason } => task.stop(TaskStopCode::UserInitiated, reason, now),
        StopReason::EssentialContainerExited { .. } | StopReason::AllContainersExited => {
            let reason = "Essential container in task exited";
            task.stop(TaskStopCode::EssentialContainerExited, reason, now);
        }
        StopReason::ContainerFailedToStart { container } => {
            let reason = of(task, container).unwrap_or_else(|| "Task failed to start".to_owned());
            task.stop(TaskStopCode::TaskFailedToStart, &reason, now);
        }
        StopReason::ShimDied => {
            task.stop(TaskStopCode::EssentialContainerExited, OWNER_DIED, now);
        }
    }
}
