//! Task scale-in protection. It concerns tasks of services; a task of no service cannot be protected, as on AWS.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html>

use super::named::{active_cluster, cluster_name, task};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{LastStatus, Task},
};
use std::{sync::Arc, time::Duration};
use store::Record;
use wire::{Context, Fault};
use world::Timestamp;

/// How long protection lasts unless told otherwise.
const MINUTES: i32 = 120;
/// The longest protection, in minutes: 48 hours.
const MOST_MINUTES: i32 = 2880;

fn failure(arn: String, reason: &str, detail: &str) -> Failure {
    Failure { arn: Some(arn), reason: Some(reason.to_owned()), detail: Some(detail.to_owned()) }
}

fn protected(task: &Task, now: Timestamp) -> ProtectedTask {
    let until = task.protected_until.filter(|until| *until > now);
    ProtectedTask {
        task_arn: Some(task.arn()),
        protection_enabled: Some(until.is_some()),
        expiration_date: until,
    }
}

/// The tasks named, and failures for those that cannot be protected.
fn find(
    ecs: &Ecs,
    ctx: &Context,
    cluster: &str,
    named: &[String],
) -> (Vec<Arc<Task>>, Vec<Failure>) {
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for given in named {
        let arn = match given.starts_with("arn:") {
            true => given.clone(),
            false => ctx.arn("ecs", format!("task/{cluster}/{given}")),
        };
        match task(ecs, ctx, cluster, given) {
            None => failures.push(failure(arn, "TASK_NOT_VALID", "The task was not found.")),
            Some(task) if task.stopping || task.last_status == LastStatus::Stopped => {
                failures.push(failure(arn, "TASK_NOT_VALID", "The task is stopping or stopped."));
            }
            Some(task) if !task.group.starts_with("service:") => {
                let detail = "Task protection is for tasks of a service.";
                failures.push(failure(arn, "TASK_NOT_VALID", detail));
            }
            Some(task) => tasks.push(task),
        }
    }
    (tasks, failures)
}

pub(crate) async fn get_task_protection(
    ecs: &Ecs,
    ctx: &Context,
    input: GetTaskProtectionRequest,
) -> Result<GetTaskProtectionResponse, Fault> {
    let cluster = cluster_name(ctx, Some(&input.cluster))?;
    let arn = ctx.arn("ecs", format!("task/{cluster}/*"));
    ctx.authorise("ecs:GetTaskProtection", &arn)?;
    active_cluster(ecs, ctx, &cluster)?;
    let (tasks, failures) = find(ecs, ctx, &cluster, &input.tasks.unwrap_or_default());
    let tasks = tasks.iter().map(|task| protected(task, ctx.now)).collect();
    Ok(GetTaskProtectionResponse { protected_tasks: Some(tasks), failures: Some(failures) })
}

pub(crate) async fn update_task_protection(
    ecs: &Ecs,
    ctx: &Context,
    input: UpdateTaskProtectionRequest,
) -> Result<UpdateTaskProtectionResponse, Fault> {
    let cluster = cluster_name(ctx, Some(&input.cluster))?;
    let arn = ctx.arn("ecs", format!("task/{cluster}/*"));
    ctx.authorise("ecs:UpdateTaskProtection", &arn)?;
    active_cluster(ecs, ctx, &cluster)?;
    let minutes = input.expires_in_minutes.unwrap_or(MINUTES);
    if !(1..=MOST_MINUTES).contains(&minutes) {
        return Err(faults::invalid("expiresInMinutes must be between 1 and 2880."));
    }
    let life = Duration::from_secs(60 * minutes.unsigned_abs() as u64);
    let until = input.protection_enabled.then(|| ctx.now + life);
    let (tasks, failures) = find(ecs, ctx, &cluster, &input.tasks);
    let keys: Vec<String> = tasks.iter().map(|task| task.key()).collect();
    let changed = ecs.store.write(move |tx| {
        for key in &keys {
            tx.update::<Task>(key, |task| task.protected_until = until);
        }
        Ok::<_, Fault>(keys.iter().filter_map(|key| tx.get::<Task>(key)).collect::<Vec<_>>())
    });
    let tasks = changed.await?.iter().map(|task| protected(task, ctx.now)).collect();
    Ok(UpdateTaskProtectionResponse { protected_tasks: Some(tasks), failures: Some(failures) })
}
