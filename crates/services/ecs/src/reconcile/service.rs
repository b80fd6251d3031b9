//! Keeps services as they are wanted. One driver looks at every service whenever a service or a task changed, and when
//! a plan asked for it; what a plan says is done in one transaction, with the records that it was made from, so no two
//! rounds can both start what is missing.

mod plan;
pub(super) mod targets;

use super::chain;
use crate::{
    Ecs,
    api::{PropagateTags, TaskStopCode},
    model::{Service, ServiceStatus, Tags, Task, TaskDefinition},
};
use plan::{Plan, Start, plan};
use std::{sync::Arc, time::Duration};
use store::{DiskFault, Record, Tx};
use world::{Timestamp, World};

/// How long the driver rests after the disk refused a write.
const REST: Duration = Duration::from_secs(1);

/// Drives all services.
pub(super) async fn drive(ecs: Arc<Ecs>) {
    let mut services = ecs.store.watch::<Service>();
    let mut tasks = ecs.store.watch::<Task>();
    let mut health = ecs.elb.watch_health();
    loop {
        let wake_at = match round(&ecs).await {
            Ok(wake_at) => wake_at,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "services could not be kept; the next round tries again");
                Some(ecs.world.now() + REST)
            }
        };
        let now = ecs.world.now();
        let rest = wake_at.map(|at| if at > now { at.since(now) } else { Duration::ZERO });
        tokio::select! {
            () = services.changed() => {}
            () = tasks.changed() => {}
            changed = health.changed() => changed.expect("the load balancers' service lives as long"),
            () = ecs.world.sleep(rest.unwrap_or_default()), if rest.is_some() => {}
        }
    }
}

/// Does for each service what its plan says. Answers when to look again though nothing changes.
async fn round(ecs: &Arc<Ecs>) -> Result<Option<Timestamp>, DiskFault> {
    targets::keep(ecs).await?;
    let mut wake_at = None;
    let snapshot = ecs.store.read();
    let active = |service: &Arc<Service>| service.status != ServiceStatus::Inactive;
    for service in snapshot.scan::<Service>().filter(active) {
        let now = ecs.world.now();
        let prefix = prefix_of(&service);
        let tasks = of_group(&service, snapshot.scan_prefix::<Task>(&prefix));
        let planned = plan(&service, &tasks, now);
        wake_at = [wake_at, planned.wake_at].into_iter().flatten().min();
        if planned.is_nothing(&service) {
            continue;
        }
        let (key, ecs_of_write) = (service.key(), ecs.clone());
        ecs.store
            .write(move |tx| {
                let ecs = ecs_of_write;
                // Looked at in here: whoever closes stops all tasks after having said so.
                let service = tx.get::<Service>(&key).filter(|_| !ecs.is_closing());
                let Some(service) = service else { return Ok(()) };
                let tasks = of_group(&service, tx.scan_prefix::<Task>(&prefix));
                let plan = plan(&service, &tasks, now);
                apply(tx, plan, &ecs.world, now);
                Ok::<_, DiskFault>(())
            })
            .await?;
    }
    Ok(wake_at)
}

fn prefix_of(service: &Service) -> String {
    format!("{}/{}/", service.realm, service.cluster)
}

fn of_group(service: &Service, tasks: impl Iterator<Item = Arc<Task>>) -> Vec<Arc<Task>> {
    let group = service.group();
    tasks.filter(|task| task.group == group).collect()
}

fn apply(tx: &mut Tx, plan: Plan, world: &World, now: Timestamp) {
    let Plan { mut service, mut events, start, stop, reckon, wake_at: _ } = plan;
    let prefix = prefix_of(&service);
    for (id, reckoned) in reckon {
        tx.update::<Task>(&format!("{prefix}{id}"), |task| task.reckoned = reckoned);
    }
    for (id, reason) in stop {
        let code = TaskStopCode::ServiceSchedulerInitiated;
        tx.update::<Task>(&format!("{prefix}{id}"), |task| task.stop(code, &reason, now));
        if let Some(task) = tx.get::<Task>(&format!("{prefix}{id}")) {
            events.extend(targets::drain(tx, &task, now));
        }
    }
    let mut started = Vec::new();
    for wanted in start {
        // A definition stays as long as a service has it.
        let Some(mut task) = task(tx, &service, wanted, now) else { continue };
        task.number(world);
        started.push(format!("(task {})", task.id));
        tx.put(task);
    }
    if !started.is_empty() {
        let what = format!("has started {} tasks: {}.", started.len(), started.join(" "));
        events.insert(0, what);
    }
    for message in events {
        service.tell(world.uuid(), now, &message);
    }
    tx.put(service);
}

/// The task that a service wants.
fn task(tx: &Tx, service: &Service, wanted: Start, now: Timestamp) -> Option<Task> {
    let deployment = service.deployments.iter().find(|d| d.id == wanted.deployment)?;
    let revision = &deployment.revision;
    let key = TaskDefinition::key_of(&service.realm, &revision.family, revision.revision);
    let definition = tx.get::<TaskDefinition>(&key)?;
    let mut network = revision.network.clone();
    if let Some(awsvpc) = &mut network.awsvpc_configuration {
        awsvpc.subnets = vec![wanted.subnet];
    }
    let cluster = (service.realm.as_str(), service.cluster.as_str());
    let mut task = Task::new(cluster, &definition, wanted.launch, network, now);
    task.group = service.group();
    task.started_by = Some(deployment.id.clone());
    task.platform_version.clone_from(&revision.platform_version);
    task.execute_command = service.execute_command;
    task.targets = targets::of(revision);
    task.tags = match service.propagate_tags {
        PropagateTags::Service => service.tags.clone(),
        PropagateTags::TaskDefinition => definition.tags.clone(),
        PropagateTags::None => Tags::new(),
    };
    if service.managed_tags {
        let names = [("clusterName", &service.cluster), ("serviceName", &service.name)];
        let tags = names.map(|(key, value)| (format!("aws:ecs:{key}"), value.clone()));
        task.tags.extend(tags);
    }
    Some(task)
}
