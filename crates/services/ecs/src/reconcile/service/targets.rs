//! Tasks of services in target groups: registered when they run, followed in their health, and drained before
//! they stop.

use crate::{
    Ecs,
    model::{Deployment, LastStatus, Service, TargetState, Task, TaskTarget},
};
use elbv2::{ElbV2, TargetHealth};
use std::{net::Ipv4Addr, sync::Arc};
use store::{DiskFault, Record, Tx};
use world::Timestamp;

/// What a task of a deployment is to be registered with.
pub(super) fn of(deployment: &Deployment) -> Vec<TaskTarget> {
    let target = |(balancer, group): (&crate::api::LoadBalancer, &str)| {
        Some(TaskTarget {
            group_arn: group.to_owned(),
            port: u16::try_from(balancer.container_port?).ok()?,
            state: TargetState::Awaited,
        })
    };
    deployment.balancers().filter_map(target).collect()
}

/// The id in a target group's ARN.
fn group_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// The targets that a task is: group, address, port.
pub(in crate::reconcile) fn addresses(task: &Task) -> Vec<(String, Ipv4Addr, u16)> {
    let ip = task.interface.private_ip.as_ref().and_then(|ip| ip.parse().ok());
    let Some(ip) = ip else { return Vec::new() };
    let registered = task.targets.iter().filter(|target| target.state != TargetState::Awaited);
    registered.map(|target| (group_id(&target.group_arn).to_owned(), ip, target.port)).collect()
}

/// Registers tasks that run, and takes note of what target groups say of those that are registered.
pub(super) async fn keep(ecs: &Arc<Ecs>) -> Result<(), DiskFault> {
    let snapshot = ecs.store.read();
    let runs = |task: &Arc<Task>| task.last_status == LastStatus::Running && !task.stopping;
    for task in snapshot.scan::<Task>().filter(runs) {
        let Some(ip) = task.interface.private_ip.as_ref().and_then(|ip| ip.parse().ok()) else {
            continue;
        };
        let heard: Vec<Option<TargetState>> =
            task.targets.iter().map(|t| heard(ecs, t, ip)).collect();
        let news = |(target, heard): (&TaskTarget, &Option<TargetState>)| match &target.state {
            TargetState::Awaited => true,
            state => heard.as_ref().is_some_and(|heard| heard != state),
        };
        if !task.targets.iter().zip(&heard).any(news) {
            continue;
        }
        let (key, now) = (task.key(), ecs.world.now());
        let world = ecs.world.clone();
        let write = ecs.store.write(move |tx| {
            let task = tx.get::<Task>(&key).filter(|task| !task.stopping);
            if let Some(task) = task {
                note(tx, Arc::unwrap_or_clone(task), ip, heard, now, &world);
            }
            Ok::<_, DiskFault>(())
        });
        write.await?;
    }
    Ok(())
}

/// What the target group says of the task now; none when that is nothing new for sure.
fn heard(ecs: &Ecs, target: &TaskTarget, ip: Ipv4Addr) -> Option<TargetState> {
    if target.state == TargetState::Awaited {
        return None;
    }
    let TargetHealth { state, description, .. } =
        ecs.elb.health(group_id(&target.group_arn), ip, target.port)?;
    Some(match state {
        "healthy" => TargetState::Healthy,
        "unhealthy" => TargetState::Unhealthy(description.unwrap_or_default()),
        _ => TargetState::Initial,
    })
}

fn note(
    tx: &mut Tx,
    mut task: Task,
    ip: Ipv4Addr,
    heard: Vec<Option<TargetState>>,
    now: Timestamp,
    world: &world::World,
) {
    let mut events = Vec::new();
    for (target, heard) in task.targets.iter_mut().zip(heard) {
        if target.state != TargetState::Awaited {
            if let Some(heard) = heard {
                target.state = heard;
            }
            continue;
        }
        let (group, port) = (group_id(&target.group_arn), target.port);
        // A group that is gone leaves the task waiting: it is never well, and that is told.
        if ElbV2::register_target(tx, &task.realm, group, ip, port, now) {
            target.state = TargetState::Initial;
            events.push(format!("registered 1 targets in (target-group {})", target.group_arn));
        }
    }
    let service = task.group.strip_prefix("service:").unwrap_or_default();
    let key = Service::key_of(&task.realm, &task.cluster, service);
    tx.put(task);
    if !events.is_empty() {
        tx.update::<Service>(&key, |service| {
            events.iter().for_each(|event| service.tell(world.uuid(), now, event));
        });
    }
}

/// Takes a task that stops out of its target groups; answers what to tell of it.
pub(super) fn drain(tx: &mut Tx, task: &Task, now: Timestamp) -> Vec<String> {
    let mut events = Vec::new();
    for (target, (group, ip, port)) in task.targets.iter().zip(addresses(task)) {
        if ElbV2::deregister_target(tx, &task.realm, &group, ip, port, now) {
            events.push(format!("deregistered 1 targets in (target-group {})", target.group_arn));
        }
    }
    if !events.is_empty() {
        events.push("has begun draining connections on 1 tasks.".to_owned());
    }
    events
}
