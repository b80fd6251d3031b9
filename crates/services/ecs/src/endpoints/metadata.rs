//! Task metadata, version 4 (and 3, which has the same content here).

use super::{Answer, json, text};
use crate::{
    Ecs,
    api::ContainerDefinition,
    model::{self, Task, TaskDefinition},
};
use hyper::StatusCode;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerMetadata {
    docker_id: String,
    name: String,
    docker_name: String,
    image: String,
    #[serde(rename = "ImageID", skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    labels: BTreeMap<String, String>,
    desired_status: String,
    known_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    limits: Limits,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_options: Option<BTreeMap<String, String>>,
    #[serde(rename = "ContainerARN")]
    container_arn: String,
    networks: Vec<NetworkMetadata>,
}

#[derive(Serialize)]
struct Limits {
    #[serde(rename = "CPU")]
    cpu: f64,
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    memory_mib: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkMetadata {
    network_mode: &'static str,
    #[serde(rename = "IPv4Addresses")]
    ipv4_addresses: Vec<String>,
    attachment_index: u8,
    #[serde(rename = "MACAddress")]
    mac_address: String,
    domain_name_servers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskMetadata {
    cluster: String,
    #[serde(rename = "TaskARN")]
    task_arn: String,
    family: String,
    revision: String,
    desired_status: String,
    known_status: String,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability_zone: Option<String>,
    launch_type: &'static str,
    containers: Vec<ContainerMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_tags: Option<BTreeMap<String, String>>,
}

/// Docker's form of statistics, as far as the engine measures.
#[derive(Serialize)]
struct Stats {
    id: String,
    name: String,
    cpu_stats: CpuStats,
    memory_stats: MemoryStats,
    pids_stats: PidsStats,
}

#[derive(Serialize)]
struct CpuStats {
    cpu_usage: CpuUsage,
}

#[derive(Serialize)]
struct CpuUsage {
    total_usage: u64,
}

#[derive(Serialize)]
struct MemoryStats {
    usage: u64,
}

#[derive(Serialize)]
struct PidsStats {
    current: u64,
}

/// Answers `/v4/CONTAINER/…` for a task.
pub(super) async fn answer(ecs: &Ecs, task: &Task, container: &str, rest: &[&str]) -> Answer {
    let Some(own) = task.containers.iter().find(|own| own.id == container) else {
        return text(
            StatusCode::NOT_FOUND,
            "V4 container metadata handler: unable to find the container",
        );
    };
    let Some(definition) = ecs.definition_of(task) else {
        return text(StatusCode::NOT_FOUND, "the task definition is gone");
    };
    match rest {
        [] | [""] => json(&container_metadata(task, own, &definition)),
        ["task"] => json(&task_metadata(task, &definition, false)),
        ["taskWithTags"] => json(&task_metadata(task, &definition, true)),
        ["stats"] => stats(ecs, task, Some(own)).await,
        ["task", "stats"] => stats(ecs, task, None).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn desired(task: &Task) -> String {
    if task.stopping { "STOPPED" } else { "RUNNING" }.to_owned()
}

fn container_metadata(
    task: &Task,
    container: &model::Container,
    definition: &TaskDefinition,
) -> ContainerMetadata {
    let all = definition.document.container_definitions.iter().flatten();
    let own: Option<&ContainerDefinition> =
        all.into_iter().find(|d| d.name.as_ref() == Some(&container.name));
    let mut labels = own.and_then(|own| own.docker_labels.clone()).unwrap_or_default();
    let mut label =
        |name: &str, value: String| labels.insert(format!("com.amazonaws.ecs.{name}"), value);
    label("cluster", task.cluster_arn());
    label("container-name", container.name.clone());
    label("task-arn", task.arn());
    label("task-definition-family", task.family.clone());
    label("task-definition-version", task.revision.to_string());
    let log = own.and_then(|own| own.log_configuration.as_ref());
    let interface = &task.interface;
    ContainerMetadata {
        docker_id: container.runtime_id.clone().unwrap_or_default(),
        name: container.name.clone(),
        docker_name: container.name.clone(),
        image: container.image.clone(),
        image_id: container.image_digest.clone(),
        labels,
        desired_status: desired(task),
        known_status: container.status.as_str().to_owned(),
        exit_code: container.exit_code,
        limits: Limits {
            cpu: f64::from(own.and_then(|own| own.cpu).unwrap_or(0)),
            memory_mib: own.and_then(|own| own.memory).map(i64::from),
        },
        created_at: task.created_at.rfc3339(),
        started_at: task.started_at.map(|time| time.rfc3339()),
        r#type: "NORMAL",
        log_driver: log.map(|log| log.log_driver.as_str().to_owned()),
        log_options: log.and_then(|log| log.options.clone()),
        container_arn: task.container_arn(container),
        networks: vec![NetworkMetadata {
            network_mode: "awsvpc",
            ipv4_addresses: interface.private_ip.iter().cloned().collect(),
            attachment_index: 0,
            mac_address: interface.mac.clone().unwrap_or_default(),
            domain_name_servers: vec![network::NAME_SERVICE.to_string()],
        }],
    }
}

fn task_metadata(task: &Task, definition: &TaskDefinition, tagged: bool) -> TaskMetadata {
    let number = |own: &Option<String>, document: &Option<String>| -> i64 {
        let text = own.as_ref().or(document.as_ref());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let document = &definition.document;
    TaskMetadata {
        cluster: task.cluster_arn(),
        task_arn: task.arn(),
        family: task.family.clone(),
        revision: task.revision.to_string(),
        desired_status: desired(task),
        known_status: task.last_status.as_str().to_owned(),
        limits: Limits {
            cpu: number(&task.overrides.cpu, &document.cpu) as f64 / 1024.0,
            memory_mib: Some(number(&task.overrides.memory, &document.memory)),
        },
        pull_started_at: task.pull_started_at.map(|time| time.rfc3339()),
        pull_stopped_at: task.pull_stopped_at.map(|time| time.rfc3339()),
        availability_zone: task.availability_zone.clone(),
        launch_type: "FARGATE",
        containers: task
            .containers
            .iter()
            .map(|c| container_metadata(task, c, definition))
            .collect(),
        task_tags: tagged.then(|| task.tags.clone()),
    }
}

async fn stats(ecs: &Ecs, task: &Task, only: Option<&model::Container>) -> Answer {
    let Some(running) = ecs.engine.task(&task.id) else {
        return text(StatusCode::NOT_FOUND, "the task has ended");
    };
    let measured = match running.stats().await {
        Ok(measured) => measured,
        Err(error) => {
            tracing::debug!(
                task = task.id,
                error = &error as &dyn std::error::Error,
                "no statistics"
            );
            return text(StatusCode::SERVICE_UNAVAILABLE, "the task could not be measured");
        }
    };
    let mut all = BTreeMap::new();
    for container in &task.containers {
        if only.is_some_and(|only| only.id != container.id) {
            continue;
        }
        let Some(own) = measured.containers.get(&container.name) else { continue };
        let id = container.runtime_id.clone().unwrap_or_default();
        all.insert(
            id.clone(),
            Stats {
                id,
                name: container.name.clone(),
                cpu_stats: CpuStats {
                    cpu_usage: CpuUsage { total_usage: own.cpu_ns.unwrap_or(0) },
                },
                memory_stats: MemoryStats { usage: own.memory_bytes.unwrap_or(0) },
                pids_stats: PidsStats { current: own.pids.unwrap_or(0) },
            },
        );
    }
    match (only, all.into_values().collect::<Vec<_>>()) {
        (Some(_), mut one) if one.len() == 1 => json(&one.remove(0)),
        (_, all) => {
            let all: BTreeMap<String, Stats> =
                all.into_iter().map(|stats| (stats.id.clone(), stats)).collect();
            json(&all)
        }
    }
}
