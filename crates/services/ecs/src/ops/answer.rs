//! From records to answers.

mod deployment;

pub(super) use deployment::{service_deployment, service_deployment_brief};

use super::cluster::Shown;
use crate::{
    Ecs,
    api::*,
    model::{self, ContainerStatus, Health, LastStatus, Launch, ServiceStatus, tags_out},
};
use servicediscovery::ServiceDiscovery;

/// A failure of a Describe operation: the thing is not there.
pub(super) fn missing(arn: String) -> Failure {
    Failure { arn: Some(arn), reason: Some("MISSING".to_owned()), detail: None }
}

fn count(number: usize) -> Option<i32> {
    Some(i32::try_from(number).unwrap_or(i32::MAX))
}

pub(super) fn cluster(ecs: &Ecs, cluster: &model::Cluster, shown: &Shown) -> Cluster {
    let snapshot = ecs.store.read();
    let tasks =
        snapshot.scan_prefix::<model::Task>(&format!("{}/{}/", cluster.realm, cluster.name));
    let (mut running, mut pending) = (0, 0);
    for task in tasks {
        match task.last_status {
            LastStatus::Running => running += 1,
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => pending += 1,
            _ => {}
        }
    }
    let services = snapshot
        .scan_prefix::<model::Service>(&format!("{}/{}/", cluster.realm, cluster.name))
        .filter(|service| service.status == ServiceStatus::Active);
    let statistic = |name: &str, value: usize| KeyValuePair {
        name: Some(name.to_owned()),
        value: Some(value.to_string()),
    };
    let statistics = match shown.statistics {
        false => Vec::new(),
        true => vec![
            statistic("runningFargateTasksCount", running),
            statistic("pendingFargateTasksCount", pending),
        ],
    };
    Cluster {
        cluster_arn: Some(cluster.arn.clone()),
        cluster_name: Some(cluster.name.clone()),
        status: Some(if cluster.active { "ACTIVE" } else { "INACTIVE" }.to_owned()),
        registered_container_instances_count: Some(0),
        running_tasks_count: count(running),
        pending_tasks_count: count(pending),
        active_services_count: count(services.count()),
        statistics: Some(statistics),
        tags: Some(if shown.tags { tags_out(&cluster.tags) } else { Vec::new() }),
        settings: Some(if shown.settings { cluster.settings.clone() } else { Vec::new() }),
        capacity_providers: Some(cluster.capacity_providers.clone()),
        default_capacity_provider_strategy: Some(cluster.default_strategy.clone()),
        service_connect_defaults: cluster
            .connect_namespace
            .clone()
            .map(|namespace| ClusterServiceConnectDefaults { namespace: Some(namespace) }),
        ..Cluster::default()
    }
}

pub(super) fn task(ecs: &Ecs, task: &model::Task, with_tags: bool) -> Task {
    let definition = ecs.store.read().get::<model::TaskDefinition>(&task.definition_key());
    task_of(definition.as_deref(), task, with_tags)
}

/// [`task`] where its definition is at hand.
pub(crate) fn task_of(
    definition: Option<&model::TaskDefinition>,
    task: &model::Task,
    with_tags: bool,
) -> Task {
    let document = definition.map(|definition| &definition.document);
    let (cpu, memory) =
        (document.and_then(|d| d.cpu.clone()), document.and_then(|d| d.memory.clone()));
    let overrides = &task.overrides;
    let (launch_type, provider) = match &task.launch {
        Launch::Fargate => (Some(LaunchType::Fargate), None),
        Launch::CapacityProvider(name) => (Some(LaunchType::Fargate), Some(name.clone())),
    };
    let size = task.storage_gib(document);
    Task {
        attachments: Some(
            std::iter::once(attachment(task))
                .chain(task.volumes.iter().map(|v| disk(task, v)))
                .collect(),
        ),
        attributes: Some(vec![Attribute {
            name: Some("ecs.cpu-architecture".to_owned()),
            value: Some(if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }.to_owned()),
            target_type: None,
            target_id: None,
        }]),
        availability_zone: task.availability_zone.clone(),
        capacity_provider_name: provider,
        cluster_arn: Some(task.cluster_arn()),
        connectivity: task.connectivity_at.map(|_| Connectivity::Connected),
        connectivity_at: task.connectivity_at,
        containers: Some(task.containers.iter().map(|c| container(task, c, document)).collect()),
        cpu: overrides.cpu.clone().or(cpu),
        created_at: Some(task.created_at),
        desired_status: Some(desired_status(task).to_owned()),
        enable_execute_command: Some(task.execute_command),
        execution_stopped_at: task.execution_stopped_at,
        group: Some(task.group.clone()),
        health_status: Some(health(task)),
        last_status: Some(task.last_status.as_str().to_owned()),
        launch_type,
        memory: overrides.memory.clone().or(memory),
        overrides: Some(overrides_out(task)),
        platform_version: Some(task.platform_version.clone()),
        platform_family: Some("Linux".to_owned()),
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        started_at: task.started_at,
        started_by: task.started_by.clone(),
        stop_code: task.stop_code,
        stopped_at: task.stopped_at,
        stopped_reason: task.stopped_reason.clone(),
        stopping_at: task.stopping_at,
        tags: Some(if with_tags { tags_out(&task.tags) } else { Vec::new() }),
        task_arn: Some(task.arn()),
        task_definition_arn: Some(task.definition_arn()),
        version: Some(task.version),
        ephemeral_storage: Some(EphemeralStorage { size_in_gi_b: size }),
        fargate_ephemeral_storage: Some(TaskEphemeralStorage {
            size_in_gi_b: Some(size),
            kms_key_id: None,
        }),
        ..Task::default()
    }
}

/// AWS shows an override of every container, an empty one where nothing was overridden.
fn overrides_out(task: &model::Task) -> TaskOverride {
    let mut overrides = task.overrides.clone();
    let given = overrides.container_overrides.unwrap_or_default();
    let each = task.containers.iter().map(|container| {
        let own = given.iter().find(|o| o.name.as_ref() == Some(&container.name));
        own.cloned().unwrap_or_else(|| ContainerOverride {
            name: Some(container.name.clone()),
            ..ContainerOverride::default()
        })
    });
    overrides.container_overrides = Some(each.collect());
    overrides.inference_accelerator_overrides = Some(Vec::new());
    overrides
}

pub(super) fn desired_status(task: &model::Task) -> &'static str {
    if task.stopping || task.last_status == LastStatus::Stopped { "STOPPED" } else { "RUNNING" }
}

fn health(task: &model::Task) -> HealthStatus {
    match task.health() {
        Some(Health::Unhealthy) => HealthStatus::Unhealthy,
        Some(Health::Healthy) => HealthStatus::Healthy,
        Some(Health::Unknown) | None => HealthStatus::Unknown,
    }
}

fn attachment(task: &model::Task) -> Attachment {
    let interface = &task.interface;
    let status = match (task.last_status, interface.deleted, &interface.eni) {
        (_, true, _) => "DELETED",
        (LastStatus::Stopped, ..) => "DELETED",
        (_, _, Some(_)) => "ATTACHED",
        (..) => "PRECREATED",
    };
    let detail = |name: &str, value: &Option<String>| {
        let value = value.clone()?;
        Some(KeyValuePair { name: Some(name.to_owned()), value: Some(value) })
    };
    let name = interface.private_ip.as_ref().map(|ip| private_name(ip, &task.realm));
    let details = [
        detail("subnetId", &interface.subnet),
        detail("networkInterfaceId", &interface.eni),
        detail("macAddress", &interface.mac),
        detail("privateDnsName", &name),
        detail("privateIPv4Address", &interface.private_ip),
    ];
    Attachment {
        id: Some(interface.attachment_id.clone()),
        r#type: Some("ElasticNetworkInterface".to_owned()),
        status: Some(status.to_owned()),
        details: Some(details.into_iter().flatten().collect()),
    }
}

/// An EBS volume of a task.
fn disk(task: &model::Task, volume: &model::TaskVolume) -> Attachment {
    let detail = |name: &str, value: String| KeyValuePair {
        name: Some(name.to_owned()),
        value: Some(value),
    };
    let status = match task.last_status {
        model::LastStatus::Provisioning => "PRECREATED",
        model::LastStatus::Pending => "ATTACHING",
        model::LastStatus::Deprovisioning => "DETACHING",
        model::LastStatus::Stopped if volume.ends() => "DELETED",
        model::LastStatus::Stopped => "DETACHED",
        _ => "ATTACHED",
    };
    Attachment {
        id: Some(volume.attachment_id.clone()),
        r#type: Some("AmazonElasticBlockStorage".to_owned()),
        status: Some(status.to_owned()),
        details: Some(vec![
            detail("roleArn", volume.configuration.role_arn.clone()),
            detail("volumeName", volume.name.clone()),
            detail("deleteOnTermination", volume.ends().to_string()),
            detail("volumeId", volume.id.clone()),
        ]),
    }
}

/// The name that AWS gives an address: `ip-10-0-0-1.ec2.internal` in us-east-1, with the region elsewhere.
fn private_name(ip: &str, realm: &str) -> String {
    let dashed = ip.replace('.', "-");
    match realm.split_once('/').map(|(_, region)| region) {
        Some("us-east-1") | None => format!("ip-{dashed}.ec2.internal"),
        Some(region) => format!("ip-{dashed}.{region}.compute.internal"),
    }
}

fn container(
    task: &model::Task,
    container: &model::Container,
    document: Option<&TaskDefinition>,
) -> Container {
    let definitions = document.and_then(|document| document.container_definitions.as_ref());
    let definition =
        definitions.and_then(|all| all.iter().find(|d| d.name.as_ref() == Some(&container.name)));
    let checked = definition.is_some_and(|definition| definition.health_check.is_some());
    let health = match container.health {
        Some(Health::Healthy) => HealthStatus::Healthy,
        Some(Health::Unhealthy) => HealthStatus::Unhealthy,
        Some(Health::Unknown) | None => HealthStatus::Unknown,
    };
    let interfaces = task.interface.private_ip.as_ref().map(|ip| NetworkInterface {
        attachment_id: Some(task.interface.attachment_id.clone()),
        private_ipv4_address: Some(ip.clone()),
        ipv6_address: None,
    });
    let gone =
        task.last_status == LastStatus::Stopped && container.status == ContainerStatus::Stopped;
    Container {
        container_arn: Some(task.container_arn(container)),
        task_arn: Some(task.arn()),
        name: Some(container.name.clone()),
        image: Some(container.image.clone()),
        image_digest: container.image_digest.clone(),
        runtime_id: container.runtime_id.clone(),
        last_status: Some(container.status.as_str().to_owned()),
        exit_code: container.exit_code,
        reason: container.reason.clone(),
        network_bindings: Some(Vec::new()),
        network_interfaces: Some(
            interfaces.filter(|_| !gone || container.exit_code.is_some()).into_iter().collect(),
        ),
        health_status: Some(if checked { health } else { HealthStatus::Unknown }),
        managed_agents: None,
        cpu: Some(definition.and_then(|d| d.cpu).unwrap_or(0).to_string()),
        memory: definition.and_then(|d| d.memory).map(|mib| mib.to_string()),
        memory_reservation: definition
            .and_then(|d| d.memory_reservation)
            .map(|mib| mib.to_string()),
        gpu_ids: None,
    }
}

/// How many tasks of a service, or of one of its deployments, run, and how many are about to.
fn task_counts(
    snapshot: &store::Snapshot,
    service: &model::Service,
    of: Option<&str>,
) -> (i32, i32) {
    let prefix = format!("{}/{}/", service.realm, service.cluster);
    let group = service.group();
    let own = |task: &std::sync::Arc<model::Task>| {
        task.group == group && (of.is_none() || task.started_by.as_deref() == of)
    };
    let (mut running, mut pending) = (0, 0);
    for task in snapshot.scan_prefix::<model::Task>(&prefix).filter(own) {
        match task.last_status {
            LastStatus::Running => running += 1,
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating
                if !task.stopping =>
            {
                pending += 1;
            }
            _ => {}
        }
    }
    (running, pending)
}

pub(super) fn service(ecs: &Ecs, service: &model::Service, with_tags: bool) -> Service {
    let snapshot = ecs.store.read();
    let counts = |of: Option<&str>| {
        let (running, pending) = task_counts(&snapshot, service, of);
        (Some(running), Some(pending))
    };
    let deployment = |(place, deployment): (usize, &model::Deployment)| {
        let (running, pending) = counts(Some(&deployment.id));
        let status = if place == 0 { "PRIMARY" } else { "ACTIVE" };
        let definition = service.definition_arn(&deployment.revision);
        let connects = resources(service, deployment);
        let out = deployment_out(deployment, definition, status, running, pending);
        Deployment { service_connect_resources: connects, ..out }
    };
    let events = service.events.iter().map(|event| ServiceEvent {
        id: Some(event.id.clone()),
        created_at: Some(event.at),
        message: Some(event.message.clone()),
    });
    let (running_count, pending_count) = counts(None);
    let ecs_deploys = service.controller == model::Controller::Ecs;
    let of_ecs = service.deployments.iter().filter(|_| ecs_deploys);
    let sets = service.deployments.iter().filter_map(|d| task_set(ecs, service, d, false));
    // A task set that is first and not primary is nothing that the service is.
    let is_primary = |d: &&model::Deployment| {
        d.set.as_ref().is_none_or(|set| set.status == model::TaskSetStatus::Primary)
    };
    let primary = service.deployments.first().filter(is_primary).map(|d| &d.revision);
    Service {
        service_arn: Some(service.arn()),
        service_name: Some(service.name.clone()),
        cluster_arn: Some(service.cluster_arn()),
        load_balancers: Some(primary.map(|r| r.load_balancers.clone()).unwrap_or_default()),
        service_registries: Some(primary.map(|r| r.registries.clone()).unwrap_or_default()),
        status: Some(service.status.as_str().to_owned()),
        desired_count: Some(service.desired_count),
        running_count,
        pending_count,
        launch_type: primary.and_then(|revision| revision.launch_type),
        capacity_provider_strategy: primary.map(|r| r.strategy.clone()).filter(|s| !s.is_empty()),
        platform_version: primary.map(|revision| revision.platform_version.clone()),
        platform_family: Some("Linux".to_owned()),
        task_definition: primary.map(|revision| service.definition_arn(revision)),
        deployment_configuration: Some(service.configuration.clone()),
        deployments: Some(of_ecs.enumerate().map(deployment).collect()),
        task_sets: (!ecs_deploys).then(|| sets.collect()),
        events: Some(events.collect()),
        created_at: Some(service.created_at),
        placement_constraints: Some(Vec::new()),
        placement_strategy: Some(Vec::new()),
        network_configuration: primary.map(|revision| revision.network.clone()),
        health_check_grace_period_seconds: service.grace_seconds,
        scheduling_strategy: Some(SchedulingStrategy::Replica),
        deployment_controller: Some(DeploymentController {
            r#type: match service.controller {
                model::Controller::Ecs => DeploymentControllerType::Ecs,
                model::Controller::CodeDeploy => DeploymentControllerType::CodeDeploy,
                model::Controller::External => DeploymentControllerType::External,
            },
        }),
        tags: with_tags.then(|| tags_out(&service.tags)),
        created_by: Some(service.created_by.clone()),
        enable_ecs_managed_tags: Some(service.managed_tags),
        propagate_tags: Some(service.propagate_tags),
        enable_execute_command: Some(service.execute_command),
        availability_zone_rebalancing: Some(service.rebalancing),
        ..Service::default()
    }
}

/// A task set; none when the deployment is ECS's own.
pub(super) fn task_set(
    ecs: &Ecs,
    service: &model::Service,
    deployment: &model::Deployment,
    with_tags: bool,
) -> Option<TaskSet> {
    let set = deployment.set.as_ref()?;
    let revision = &deployment.revision;
    let (running, pending) = task_counts(&ecs.store.read(), service, Some(&deployment.id));
    Some(TaskSet {
        id: Some(deployment.id.clone()),
        task_set_arn: Some(service.task_set_arn(&deployment.id)),
        service_arn: Some(service.arn()),
        cluster_arn: Some(service.cluster_arn()),
        started_by: set.started_by.clone(),
        external_id: set.external_id.clone(),
        status: Some(set.status.as_str().to_owned()),
        task_definition: Some(service.definition_arn(revision)),
        computed_desired_count: Some(set.count(service.desired_count)),
        pending_count: Some(pending),
        running_count: Some(running),
        created_at: Some(deployment.created_at),
        updated_at: Some(deployment.updated_at),
        launch_type: revision.launch_type,
        capacity_provider_strategy: Some(revision.strategy.clone()),
        platform_version: Some(revision.platform_version.clone()),
        platform_family: Some("Linux".to_owned()),
        network_configuration: Some(revision.network.clone()),
        load_balancers: Some(revision.load_balancers.clone()),
        service_registries: Some(revision.registries.clone()),
        scale: Some(Scale { value: Some(set.percent), unit: Some(ScaleUnit::Percent) }),
        stability_status: Some(match set.steady {
            true => StabilityStatus::SteadyState,
            false => StabilityStatus::Stabilizing,
        }),
        stability_status_at: Some(set.stability_at),
        tags: Some(if with_tags { tags_out(&set.tags) } else { Vec::new() }),
        fargate_ephemeral_storage: None,
    })
}

/// What a deployment is called in Service Connect.
fn resources(
    service: &model::Service,
    deployment: &model::Deployment,
) -> Option<Vec<ServiceConnectServiceResource>> {
    let resource = |endpoint: &model::Endpoint| ServiceConnectServiceResource {
        discovery_name: Some(endpoint.discovery_name.clone()),
        discovery_arn: Some(ServiceDiscovery::service_arn(&service.realm, &endpoint.service)),
    };
    let part = deployment.revision.connect.as_ref();
    part.map(|part| part.endpoints.iter().map(resource).collect())
}

fn deployment_out(
    deployment: &model::Deployment,
    definition: String,
    status: &str,
    running_count: Option<i32>,
    pending_count: Option<i32>,
) -> Deployment {
    let revision = &deployment.revision;
    Deployment {
        id: Some(deployment.id.clone()),
        status: Some(status.to_owned()),
        task_definition: Some(definition),
        desired_count: Some(deployment.desired_count),
        pending_count,
        running_count,
        failed_tasks: Some(deployment.failed_tasks),
        created_at: Some(deployment.created_at),
        updated_at: Some(deployment.updated_at),
        capacity_provider_strategy: Some(revision.strategy.clone()).filter(|s| !s.is_empty()),
        launch_type: revision.launch_type,
        platform_version: Some(revision.platform_version.clone()),
        platform_family: Some("Linux".to_owned()),
        network_configuration: Some(revision.network.clone()),
        service_connect_configuration: revision.connect.as_ref().map(|part| part.asked.clone()),
        volume_configurations: Some(revision.volumes.clone()).filter(|v| !v.is_empty()),
        rollout_state: Some(deployment.rollout),
        rollout_state_reason: Some(deployment.reason.clone()),
        ..Deployment::default()
    }
}

pub(super) fn service_revision(revision: &model::ServiceRevision) -> ServiceRevision {
    let made_from = &revision.revision;
    let balancers = || made_from.load_balancers.iter().zip(&revision.groups);
    let resolved = balancers().map(|(balancer, group)| {
        let advanced = balancer.advanced_configuration.as_ref();
        ServiceRevisionLoadBalancer {
            target_group_arn: Some(group.clone()),
            production_listener_rule: advanced.and_then(|a| a.production_listener_rule.clone()),
        }
    });
    let image = |(name, image, digest): &(String, String, Option<String>)| ContainerImage {
        container_name: Some(name.clone()),
        image: Some(image.clone()),
        image_digest: digest.clone(),
    };
    ServiceRevision {
        service_revision_arn: Some(revision.arn()),
        task_definition: Some(made_from.definition_arn(&revision.realm)),
        service_arn: Some(revision.service_arn()),
        cluster_arn: Some(revision.cluster_arn()),
        capacity_provider_strategy: Some(made_from.strategy.clone()).filter(|s| !s.is_empty()),
        launch_type: made_from.launch_type,
        platform_version: Some(made_from.platform_version.clone()),
        platform_family: Some("Linux".to_owned()),
        load_balancers: Some(made_from.load_balancers.clone()),
        service_registries: Some(made_from.registries.clone()),
        service_connect_configuration: made_from.connect.as_ref().map(|part| part.asked.clone()),
        network_configuration: Some(made_from.network.clone()),
        container_images: Some(revision.images.iter().map(image).collect()),
        created_at: Some(revision.created_at),
        resolved_configuration: Some(ResolvedConfiguration {
            load_balancers: Some(resolved.collect()),
        }),
        guard_duty_enabled: Some(false),
        ..ServiceRevision::default()
    }
}
