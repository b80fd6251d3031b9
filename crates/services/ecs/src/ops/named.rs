//! What requests name by name or ARN.

use crate::{
    Ecs, faults,
    model::{Cluster, Family, Task, TaskDefinition},
};
use std::sync::Arc;
use wire::{Context, Fault};

/// The cluster that is meant when none is named.
const DEFAULT: &str = "default";
/// The longest cluster name.
const MOST_NAME: usize = 255;

/// A cluster's name from a name or an ARN of this account and region.
pub(super) fn cluster_name(ctx: &Context, given: Option<&str>) -> Result<String, Fault> {
    let given = given.filter(|given| !given.is_empty()).unwrap_or(DEFAULT);
    let name = match given.strip_prefix("arn:") {
        None => given,
        Some(_) => {
            let prefix = ctx.arn("ecs", "cluster/");
            given.strip_prefix(&prefix).ok_or_else(faults::no_cluster)?
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name.is_empty() || name.len() > MOST_NAME || !name.chars().all(fits) {
        true => Err(faults::invalid("Identifier is not valid")),
        false => Ok(name.to_owned()),
    }
}

/// The named cluster, when it is active.
pub(super) fn active_cluster(ecs: &Ecs, ctx: &Context, name: &str) -> Result<Arc<Cluster>, Fault> {
    let cluster = ecs.store.read().get::<Cluster>(&Cluster::key_of(&ctx.realm(), name));
    cluster.filter(|cluster| cluster.active).ok_or_else(faults::no_cluster)
}

/// A service's name from a name or an ARN (of this account, region and cluster).
pub(super) fn service_name(ctx: &Context, cluster: &str, given: &str) -> Result<String, Fault> {
    let name = match given.strip_prefix("arn:") {
        None => given,
        Some(_) => {
            let rest = given.strip_prefix(&ctx.arn("ecs", "service/"));
            let rest = rest.ok_or_else(faults::no_service)?;
            // The old form of ARNs had no cluster in it.
            match rest.split_once('/') {
                Some((named, name)) if named == cluster => name,
                Some(_) => return Err(faults::no_service()),
                None => rest,
            }
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name.is_empty() || name.len() > MOST_NAME || !name.chars().all(fits) {
        true => Err(faults::invalid("Invalid service name.")),
        false => Ok(name.to_owned()),
    }
}

/// The id of a task from its id or its ARN (of this account, region and cluster).
pub(super) fn task_id(ctx: &Context, cluster: &str, given: &str) -> Option<String> {
    let id = match given.strip_prefix("arn:") {
        None => given,
        Some(_) => {
            let rest = given.strip_prefix(&ctx.arn("ecs", "task/"))?;
            // The old form of ARNs had no cluster in it.
            match rest.split_once('/') {
                Some((named, id)) if named == cluster => id,
                Some(_) => return None,
                None => rest,
            }
        }
    };
    let fits = !id.is_empty()
        && id.len() <= 64
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    fits.then(|| id.to_owned())
}

/// The named task; what other services run in tasks is nobody's to name.
pub(super) fn task(ecs: &Ecs, ctx: &Context, cluster: &str, given: &str) -> Option<Arc<Task>> {
    let id = task_id(ctx, cluster, given)?;
    let found = ecs.store.read().get::<Task>(&Task::key_of(&ctx.realm(), cluster, &id));
    found.filter(|task| task.sandbox.is_none())
}

/// A task definition by `family`, `family:revision` or ARN; by family alone, the newest active revision.
pub(super) fn task_definition(
    ecs: &Ecs,
    ctx: &Context,
    given: &str,
) -> Option<Arc<TaskDefinition>> {
    let name = match given.strip_prefix("arn:") {
        None => given,
        Some(_) => given.strip_prefix(&ctx.arn("ecs", "task-definition/"))?,
    };
    let snapshot = ecs.store.read();
    match name.split_once(':') {
        Some((family, revision)) => {
            let revision: i32 = revision.parse().ok()?;
            snapshot.get::<TaskDefinition>(&TaskDefinition::key_of(&ctx.realm(), family, revision))
        }
        None => {
            snapshot.get::<Family>(&Family::key_of(&ctx.realm(), name))?;
            let prefix = format!("{}/{name}/", ctx.realm());
            let revisions = snapshot.scan_prefix::<TaskDefinition>(&prefix);
            revisions
                .rev()
                .find(|definition| definition.status() == crate::api::TaskDefinitionStatus::Active)
        }
    }
}

/// The ARN to authorise with for a task definition that may not be there.
pub(super) fn task_definition_arn(ctx: &Context, given: &str) -> String {
    match given.starts_with("arn:") {
        true => given.to_owned(),
        false if given.contains(':') => ctx.arn("ecs", format!("task-definition/{given}")),
        false => ctx.arn("ecs", format!("task-definition/{given}:*")),
    }
}
