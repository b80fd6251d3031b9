//! Keeps services as they are wanted. One driver looks at every service whenever a service or a task changed, and when
//! a plan asked for it; what a plan says is done in one transaction, with the records that it was made from, so no two
//! rounds can both start what is missing.

mod plan;
pub(super) mod registries;
pub(super) mod targets;

use super::chain;
use crate::{
    Ecs,
    api::{
        DeploymentAlarms, DeploymentRolloutState, PropagateTags, ServiceDeploymentStatus,
        TaskStopCode,
    },
    model::{
        Service, ServiceDeployment, ServiceRevision, ServiceStatus, Tags, Task, TaskDefinition,
    },
    ops::volumes,
    surroundings::AlarmsSeen,
    tell::{change_task, put_service, put_task},
};
use elbv2::ElbV2;
use plan::{Plan, Seen, Start, Traffic, plan};
use servicediscovery::ServiceDiscovery;
use std::{sync::Arc, time::Duration};
use store::{DiskFault, Record, Tx};
use world::{Timestamp, World};

/// How long the driver rests after the disk refused a write.
const REST: Duration = Duration::from_secs(1);

/// How often a deployment's alarms are looked at. They are in the same process: asking costs little.
const LOOK: Duration = Duration::from_secs(1);

/// Drives all services.
pub(super) async fn drive(ecs: Arc<Ecs>) {
    let mut services = ecs.store.watch::<Service>();
    let mut deployments = ecs.store.watch::<ServiceDeployment>();
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
            () = deployments.changed() => {}
            () = tasks.changed() => {}
            changed = health.changed() => changed.expect("the load balancers' service lives as long"),
            () = ecs.world.sleep(rest.unwrap_or_default()), if rest.is_some() => {}
        }
    }
}

/// Does for each service what its plan says. Answers when to look again though nothing changes.
async fn round(ecs: &Arc<Ecs>) -> Result<Option<Timestamp>, DiskFault> {
    targets::keep(ecs).await?;
    registries::keep(ecs).await?;
    let mut wake_at = None;
    let snapshot = ecs.store.read();
    let active = |service: &Arc<Service>| service.status != ServiceStatus::Inactive;
    for service in snapshot.scan::<Service>().filter(active) {
        let now = ecs.world.now();
        let tasks = of_group(&service, snapshot.scan_prefix::<Task>(&prefix_of(&service)));
        let ongoing = ongoing_key(&service).and_then(|key| snapshot.get::<ServiceDeployment>(&key));
        let alarms = alarms(ecs, ongoing.as_deref());
        if ongoing
            .as_ref()
            .is_some_and(|ongoing| ongoing.is_ongoing() && ongoing.alarms().is_some())
        {
            wake_at = [wake_at, Some(now + LOOK)].into_iter().flatten().min();
        }
        let seen = Seen {
            service: &service,
            ongoing: ongoing.as_deref(),
            tasks: &tasks,
            alarms: &alarms,
            now,
            scaled: &|wait| ecs.world.scaled(wait),
        };
        let planned = plan(&seen);
        wake_at = [wake_at, planned.wake_at].into_iter().flatten().min();
        if planned.is_nothing(&seen) {
            continue;
        }
        let (key, ecs_of_write) = (service.key(), ecs.clone());
        let written = ecs.store.write(move |tx| advance(tx, &ecs_of_write, &key, now)).await;
        match written {
            Ok(()) => {}
            Err(Undone::Disk(fault)) => return Err(fault),
            Err(Undone::Traffic(reason)) => give_up(ecs, service.key(), reason).await?,
        }
    }
    Ok(wake_at)
}

/// How the alarms are that a service deployment heeds.
fn alarms(ecs: &Ecs, ongoing: Option<&ServiceDeployment>) -> AlarmsSeen {
    let watched = ongoing.and_then(|ongoing| Some((ongoing, ongoing.alarms()?)));
    let look = |(ongoing, alarms): (&ServiceDeployment, &DeploymentAlarms)| {
        ecs.surroundings().alarms.look(&ongoing.realm, &alarms.alarm_names)
    };
    watched.map(look).unwrap_or_default()
}

/// Why a plan was not carried out, none of it.
enum Undone {
    Disk(DiskFault),
    /// Traffic cannot be shifted as it is to be, for this reason.
    Traffic(String),
}

impl From<DiskFault> for Undone {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

fn ongoing_key(service: &Service) -> Option<String> {
    let id = service.ongoing.as_ref()?;
    Some(ServiceDeployment::key_of(&service.realm, &service.cluster, &service.name, id))
}

/// Plans again from what is there now, and does what the plan says.
fn advance(tx: &mut Tx, ecs: &Ecs, key: &str, now: Timestamp) -> Result<(), Undone> {
    // Looked at in here: whoever closes stops all tasks after having said so.
    let service = tx.get::<Service>(key).filter(|_| !ecs.is_closing());
    let Some(service) = service else { return Ok(()) };
    let tasks = of_group(&service, tx.scan_prefix::<Task>(&prefix_of(&service)));
    let ongoing = ongoing_key(&service).and_then(|key| tx.get::<ServiceDeployment>(&key));
    let plan = plan(&Seen {
        service: &service,
        ongoing: ongoing.as_deref(),
        tasks: &tasks,
        alarms: &alarms(ecs, ongoing.as_deref()),
        now,
        scaled: &|wait| ecs.world.scaled(wait),
    });
    for Traffic { rule, shares } in &plan.traffic {
        ElbV2::split(tx, &service.realm, rule, shares).map_err(|fault| {
            Undone::Traffic(format!("unable to shift traffic with {rule}: {}", fault.message))
        })?;
    }
    if let Some(ongoing) = &plan.ongoing {
        keep_digests(tx, ongoing, &tasks);
    }
    apply(tx, plan, &ecs.world, now);
    Ok(())
}

/// A deployment whose traffic cannot be shifted goes back; one that cannot even do that stays as it is.
async fn give_up(ecs: &Arc<Ecs>, key: String, reason: String) -> Result<(), DiskFault> {
    let (now, world) = (ecs.world.now(), ecs.world.clone());
    let write = ecs.store.write(move |tx| {
        let Some(service) = tx.get::<Service>(&key) else { return Ok(()) };
        let ongoing = ongoing_key(&service).and_then(|key| tx.get::<ServiceDeployment>(&key));
        let Some(ongoing) = ongoing else { return Ok(()) };
        let (mut service, mut ongoing) =
            (Arc::unwrap_or_clone(service), Arc::unwrap_or_clone(ongoing));
        service.tell(
            world.uuid(),
            now,
            &format!("(deployment {}) {reason}", ongoing.target.deployment),
        );
        if ongoing.is_going_back() {
            ongoing.status = ServiceDeploymentStatus::RollbackFailed;
            ongoing.finished_at = Some(now);
            service.ongoing = None;
            if let Some(primary) = service.deployments.first_mut() {
                primary.rollout = DeploymentRolloutState::Failed;
            }
        } else {
            ongoing.status = ServiceDeploymentStatus::RollbackRequested;
        }
        (ongoing.reason, ongoing.updated_at) = (Some(reason), now);
        tx.put(ongoing);
        put_service(tx, &world, service);
        Ok::<_, DiskFault>(())
    });
    write.await
}

/// Keeps what images the target's containers are from.
fn keep_digests(tx: &mut Tx, ongoing: &ServiceDeployment, tasks: &[Arc<Task>]) {
    let key = ServiceRevision::key_of(
        &ongoing.realm,
        &ongoing.cluster,
        &ongoing.service,
        &ongoing.target.deployment,
    );
    let Some(revision) = tx.get::<ServiceRevision>(&key) else { return };
    let own = || tasks.iter().filter(|t| t.started_by.as_ref() == Some(&ongoing.target.deployment));
    let mut known = ServiceRevision::clone(&revision);
    for (name, _, digest) in known.images.iter_mut().filter(|(_, _, digest)| digest.is_none()) {
        let mut containers = own().flat_map(|task| &task.containers).filter(|c| c.name == *name);
        *digest = containers.find_map(|container| container.image_digest.clone());
    }
    if known != *revision {
        tx.put(known);
    }
}

fn prefix_of(service: &Service) -> String {
    format!("{}/{}/", service.realm, service.cluster)
}

fn of_group(service: &Service, tasks: impl Iterator<Item = Arc<Task>>) -> Vec<Arc<Task>> {
    let group = service.group();
    tasks.filter(|task| task.group == group).collect()
}

fn apply(tx: &mut Tx, plan: Plan, world: &World, now: Timestamp) {
    let Plan { mut service, ongoing, mut events, start, stop, reckon, traffic: _, wake_at: _ } =
        plan;
    let prefix = prefix_of(&service);
    for (id, reckoned) in reckon {
        tx.update::<Task>(&format!("{prefix}{id}"), |task| task.reckoned = reckoned);
    }
    let mut drained = Vec::new();
    for (id, reason) in stop {
        let code = TaskStopCode::ServiceSchedulerInitiated;
        change_task(tx, world, &format!("{prefix}{id}"), |task| task.stop(code, &reason, now));
        if let Some(task) = tx.get::<Task>(&format!("{prefix}{id}")) {
            drained.extend(targets::drain(tx, &task, now));
            registries::drain(tx, &task);
        }
    }
    // Told before the stops and what they lead to, as they come about.
    events.splice(0..0, drained);
    let mut started = Vec::new();
    for wanted in start {
        // A definition stays as long as a service has it.
        let Some(mut task) = task(tx, &service, wanted, now) else { continue };
        task.number(world);
        started.push(format!("(task {})", task.id));
        put_task(tx, world, task);
    }
    if !started.is_empty() {
        let what = format!("has started {} tasks: {}.", started.len(), started.join(" "));
        events.insert(0, what);
    }
    for message in events {
        service.tell(world.uuid(), now, &message);
    }
    if let Some(ongoing) = ongoing {
        tx.put(ongoing);
    }
    if service.status == ServiceStatus::Inactive {
        forget_history(tx, &service);
    }
    put_service(tx, world, service);
}

/// A service's history goes with it, and so does what it was called in Service Connect.
fn forget_history(tx: &mut Tx, service: &Service) {
    let prefix = format!("{}/", service.key());
    let revisions: Vec<_> = tx.scan_prefix::<ServiceRevision>(&prefix).collect();
    let connects = revisions.iter().filter_map(|revision| revision.revision.connect.as_ref());
    for endpoint in connects.flat_map(|connect| &connect.endpoints) {
        ServiceDiscovery::remove_service(tx, &service.realm, &endpoint.service);
    }
    let deployments: Vec<_> =
        tx.scan_prefix::<ServiceDeployment>(&prefix).map(|d| d.key()).collect();
    for key in deployments {
        tx.delete::<ServiceDeployment>(&key);
    }
    let revisions: Vec<_> = revisions.iter().map(|revision| revision.key()).collect();
    for key in revisions {
        tx.delete::<ServiceRevision>(&key);
    }
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
    task.targets = targets::of(deployment);
    task.registries = registries::of(revision);
    task.connect = revision.connect.as_ref().map(|connect| connect.namespace.clone());
    let volumes = volumes::of_service(&revision.volumes);
    task.volumes = volumes::made(volumes, &definition, Some(&service.tags));
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
