//! What EventBridge is told of tasks and services, within the transaction that changes them.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html>

use crate::{
    api::DeploymentRolloutState,
    model::{Deployment, Service, Task, TaskDefinition},
    ops::answer,
};
use events::Event;
use serde_json::{Value as Json, json};
use store::{Record, Tx};
use world::{Timestamp, World};

/// What a service says of itself that is an event of its own.
const STEADY: &str = "has reached a steady state.";
const IMPAIRED: &str = "is unable to consistently start tasks successfully.";

fn event(world: &World, realm: &str, detail_type: &str, resource: String, detail: Json) -> Event {
    Event {
        id: world.uuid(),
        realm: realm.to_owned(),
        source: "aws.ecs".to_owned(),
        detail_type: detail_type.to_owned(),
        time: world.now(),
        resources: vec![resource],
        detail,
    }
}

/// Writes a task, and tells its state when that is another than before.
pub(crate) fn put_task(tx: &mut Tx, world: &World, task: Task) {
    let before = tx.get::<Task>(&task.key());
    if task.sandbox.is_none()
        && before.is_none_or(|before| before.version != task.version)
        && events::is_heeded(tx, &task.realm)
    {
        let definition = tx.get::<TaskDefinition>(&task.definition_key());
        let detail = task_detail(definition.as_deref(), &task, world.now());
        let event = event(world, &task.realm, "ECS Task State Change", task.arn(), detail);
        events::tell(tx, world, &event);
    }
    tx.put(task);
}

/// [`put_task`] of the task under `key`, changed; nothing when there is none.
pub(crate) fn change_task(tx: &mut Tx, world: &World, key: &str, change: impl FnOnce(&mut Task)) {
    if let Some(task) = tx.get::<Task>(key) {
        let mut task = Task::clone(&task);
        change(&mut task);
        put_task(tx, world, task);
    }
}

/// The task as DescribeTasks answers it, with times as text.
fn task_detail(definition: Option<&TaskDefinition>, task: &Task, now: Timestamp) -> Json {
    let answer = answer::task_of(definition, task, false);
    let mut detail = match serde_json::to_value(&answer) {
        Ok(detail) => detail,
        Err(error) => {
            tracing::error!(%error, "a task could not be told");
            json!({})
        }
    };
    let times = [
        ("connectivityAt", task.connectivity_at),
        ("createdAt", Some(task.created_at)),
        ("executionStoppedAt", task.execution_stopped_at),
        ("pullStartedAt", task.pull_started_at),
        ("pullStoppedAt", task.pull_stopped_at),
        ("startedAt", task.started_at),
        ("stoppedAt", task.stopped_at),
        ("stoppingAt", task.stopping_at),
        ("updatedAt", Some(now)),
    ];
    if let Some(detail) = detail.as_object_mut() {
        detail.remove("tags");
        for (name, time) in times {
            if let Some(time) = time {
                detail.insert(name.to_owned(), json!(time.rfc3339()));
            }
        }
    }
    detail
}

/// Writes a service, and tells what its deployments came to and what it newly says of itself.
pub(crate) fn put_service(tx: &mut Tx, world: &World, service: Service) {
    if events::is_heeded(tx, &service.realm) {
        let before = tx.get::<Service>(&service.key());
        let before = before.as_deref();
        let mut told = Vec::new();
        for deployment in &service.deployments {
            let old = before.and_then(|old| old.deployments.iter().find(|d| d.id == deployment.id));
            if old.is_none_or(|old| old.rollout != deployment.rollout) && deployment.set.is_none() {
                told.extend(deployment_detail(deployment, world.now()));
            }
        }
        let newest = before.and_then(|old| old.events.front()).map(|event| &event.id);
        let new = service.events.iter().take_while(|event| Some(&event.id) != newest);
        for said in new {
            let (kind, name) = match said.message.as_str() {
                message if message.ends_with(STEADY) => ("INFO", "SERVICE_STEADY_STATE"),
                message if message.ends_with(IMPAIRED) => ("WARN", "SERVICE_TASK_START_IMPAIRED"),
                _ => continue,
            };
            let detail = json!({
                "eventType": kind, "eventName": name, "clusterArn": service.cluster_arn(),
                "createdAt": said.at.rfc3339(),
            });
            told.push(("ECS Service Action", detail));
        }
        for (detail_type, detail) in told {
            let event = event(world, &service.realm, detail_type, service.arn(), detail);
            events::tell(tx, world, &event);
        }
    }
    tx.put(service);
}

fn deployment_detail(deployment: &Deployment, now: Timestamp) -> Option<(&'static str, Json)> {
    let id = &deployment.id;
    let (kind, name, reason) = match deployment.rollout {
        DeploymentRolloutState::InProgress => {
            ("INFO", "SERVICE_DEPLOYMENT_IN_PROGRESS", format!("ECS deployment {id} in progress."))
        }
        DeploymentRolloutState::Completed => {
            ("INFO", "SERVICE_DEPLOYMENT_COMPLETED", format!("ECS deployment {id} completed."))
        }
        DeploymentRolloutState::Failed => (
            "ERROR",
            "SERVICE_DEPLOYMENT_FAILED",
            "ECS deployment circuit breaker: task failed to start.".to_owned(),
        ),
    };
    let detail = json!({
        "eventType": kind, "eventName": name, "deploymentId": id, "updatedAt": now.rfc3339(), "reason": reason,
    });
    Some(("ECS Deployment State Change", detail))
}
