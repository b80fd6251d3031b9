//! Tasks of services in Cloud Map: registered when they run, told of in their health, deregistered when they stop.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-discovery.html>

use crate::{
    Ecs,
    api::ServiceRegistry,
    model::{Health, LastStatus, Revision, Service, Task, TaskRegistry},
};
use servicediscovery::{ServiceDiscovery, api::CustomHealthStatus, model::Instance};
use std::{collections::BTreeMap, sync::Arc};
use store::{DiskFault, Record, Tx};

/// Where a task of a revision is to be registered.
pub(super) fn of(revision: &Revision) -> Vec<TaskRegistry> {
    let registry = |registry: &ServiceRegistry| {
        let port = registry.container_port.or(registry.port);
        Some(TaskRegistry {
            service: registry.registry_arn.as_ref()?.rsplit('/').next()?.to_owned(),
            port: port.and_then(|port| u16::try_from(port).ok()),
            told: None,
            connect: false,
        })
    };
    let endpoints = revision.connect.iter().flat_map(|connect| &connect.endpoints);
    let connected = endpoints.map(|endpoint| TaskRegistry {
        service: endpoint.service.clone(),
        port: Some(endpoint.port),
        told: None,
        connect: true,
    });
    revision.registries.iter().filter_map(registry).chain(connected).collect()
}

/// A task without health checks is well as long as it runs.
fn is_well(task: &Task) -> bool {
    matches!(task.health(), None | Some(Health::Healthy))
}

/// Registers tasks that run, and tells how they are when that is another than was told.
pub(super) async fn keep(ecs: &Arc<Ecs>) -> Result<(), DiskFault> {
    let snapshot = ecs.store.read();
    let runs = |task: &Task| task.last_status == LastStatus::Running && !task.stopping;
    let news = |task: &Task| {
        task.interface.private_ip.is_some()
            && task.registries.iter().any(|registry| registry.told != Some(is_well(task)))
    };
    for task in snapshot.scan::<Task>().filter(|task| runs(task) && news(task)) {
        let key = task.key();
        let write = ecs.store.write(move |tx| {
            if let Some(task) = tx.get::<Task>(&key).filter(|task| runs(task)) {
                register(tx, Arc::unwrap_or_clone(task));
            }
            Ok::<_, DiskFault>(())
        });
        write.await?;
    }
    Ok(())
}

fn register(tx: &mut Tx, mut task: Task) {
    let well = is_well(&task);
    let external_id = external_id(tx, &task);
    let health = match well {
        true => CustomHealthStatus::Healthy,
        false => CustomHealthStatus::Unhealthy,
    };
    let mut common = attributes(&task);
    common.extend(external_id.map(|id| ("ECS_TASK_SET_EXTERNAL_ID".to_owned(), id)));
    for registry in &mut task.registries {
        let mut attributes = common.clone();
        if let Some(port) = registry.port {
            attributes.insert("AWS_INSTANCE_PORT".to_owned(), port.to_string());
        }
        // A service that is gone leaves the task unregistered; there is nothing to wait for.
        ServiceDiscovery::register(
            tx,
            &task.realm,
            &registry.service,
            &task.id,
            attributes,
            health,
        );
        registry.told = Some(well);
    }
    tx.put(task);
}

/// What somebody else calls the task set that a task is of.
fn external_id(tx: &Tx, task: &Task) -> Option<String> {
    let name = task.group.strip_prefix("service:")?;
    let service = tx.get::<Service>(&Service::key_of(&task.realm, &task.cluster, name))?;
    let own = service.deployments.iter().find(|d| Some(&d.id) == task.started_by.as_ref())?;
    own.set.as_ref()?.external_id.clone()
}

/// What Cloud Map is told of a task, under the names that ECS uses on AWS.
fn attributes(task: &Task) -> BTreeMap<String, String> {
    let region = task.realm.split_once('/').map(|(_, region)| region.to_owned());
    let service = task.group.strip_prefix("service:").map(str::to_owned);
    let all = [
        ("AWS_INSTANCE_IPV4", task.interface.private_ip.clone()),
        ("AVAILABILITY_ZONE", task.availability_zone.clone()),
        ("REGION", region),
        ("ECS_CLUSTER_NAME", Some(task.cluster.clone())),
        ("ECS_SERVICE_NAME", service),
        ("ECS_TASK_DEFINITION_FAMILY", Some(task.family.clone())),
    ];
    let known = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.collect()
}

/// Takes a task that stops, whoever stopped it, out of Cloud Map.
pub(in crate::reconcile) async fn leave(ecs: &Ecs, task: &Task) -> Result<(), DiskFault> {
    let snapshot = ecs.store.read();
    let is_there = |registry: &TaskRegistry| {
        let key = Instance::key_of(&task.realm, &registry.service, &task.id);
        snapshot.get::<Instance>(&key).is_some()
    };
    if !task.registries.iter().any(is_there) {
        return Ok(());
    }
    ecs.store
        .write(|tx| {
            drain(tx, task);
            Ok(())
        })
        .await
}

/// The same, in a transaction.
pub(super) fn drain(tx: &mut Tx, task: &Task) {
    for registry in &task.registries {
        ServiceDiscovery::deregister(tx, &task.realm, &registry.service, &task.id);
    }
}
