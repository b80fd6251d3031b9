//! Services.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_services.html>

use super::{
    answer, connect,
    deployment::{begin, check_pairs, configuration, load_balancers, ongoing, registries},
    listing::page,
    named::{active_cluster, cluster_name, service_name, task_definition, task_definition_arn},
    tag::checked,
    task::{capacity, check_network, network, pass_roles, platform},
    task_set, volumes,
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{
        self, Connect, Controller, Revision, Service as Record, ServiceStatus, Tags,
        TaskDefinition, TaskSet, TaskSetStatus,
    },
    tell::put_service,
};
use std::{collections::VecDeque, sync::Arc};
use store::{Record as _, Tx};
use wire::{Context, Fault};

/// The most services of one DescribeServices.
const MOST_DESCRIBED: usize = 10;
/// The most tasks of one service.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const MOST_TASKS: i32 = 5000;

/// The task definition of a service, which the caller may hand its roles to.
pub(super) fn definition(
    ecs: &Ecs,
    ctx: &Context,
    given: &str,
) -> Result<Arc<TaskDefinition>, Fault> {
    let definition = task_definition(ecs, ctx, given).ok_or_else(faults::not_runnable)?;
    if definition.status() != TaskDefinitionStatus::Active {
        return Err(faults::inactive_task_definition());
    }
    pass_roles(ctx, &definition, None)?;
    Ok(definition)
}

fn check_count(desired: i32) -> Result<i32, Fault> {
    match (0..=MOST_TASKS).contains(&desired) {
        true => Ok(desired),
        false => {
            Err(faults::invalid(format!("desiredCount should be between 0 and {MOST_TASKS}.")))
        }
    }
}

/// A grace period is for the health checks of target groups.
fn check_grace(service: &Record, revision: &Revision) -> Result<(), Fault> {
    let balanced = !revision.load_balancers.is_empty();
    match service.grace_seconds.is_some_and(|seconds| seconds > 0) && !balanced {
        true => Err(faults::invalid(
            "Health check grace period is only valid for services configured to use load balancers",
        )),
        false => Ok(()),
    }
}

pub(crate) async fn create_service(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: CreateServiceRequest,
) -> Result<CreateServiceResponse, Fault> {
    let cluster_name = cluster_name(ctx, input.cluster.as_deref())?;
    let name = service_name(ctx, &cluster_name, &input.service_name)?;
    let arn = ctx.arn("ecs", format!("service/{cluster_name}/{name}"));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster_name}"));
    let given = input.task_definition.clone().unwrap_or_default();
    let wanted = task_definition_arn(ctx, &given);
    let conditions = [("ecs:cluster", &*cluster_arn), ("ecs:task-definition", &wanted)];
    ctx.authorise_with("ecs:CreateService", &arn, &conditions)?;
    let cluster = active_cluster(ecs, ctx, &cluster_name)?;
    let controller = controller(&input)?;
    if controller == Controller::External {
        return create_external(ecs, ctx, &cluster, name, input).await;
    }
    if given.is_empty() {
        return Err(faults::invalid("TaskDefinition can not be blank."));
    }
    let definition = definition(ecs, ctx, &given)?;
    check_network(ecs, ctx, input.network_configuration.as_ref()).await?;
    let mut revision = revision(ecs, ctx, &cluster, &definition, &input)?;
    let asked = input.service_connect_configuration.clone();
    let part = connect::draft(ecs, ctx, &cluster, &definition, asked)?;
    let mut service = record(ecs, ctx, &cluster, name, controller, input)?;
    check_grace(&service, &revision)?;
    if controller == Controller::CodeDeploy {
        check_code_deploy(&service, &revision, part.is_some())?;
    }
    let ecs_of_write = ecs.clone();
    let written = ecs.store.write(move |tx| {
        let before = tx.get::<Record>(&service.key());
        let before = before.filter(|before| before.status != ServiceStatus::Inactive);
        let realm = service.realm.clone();
        revision.connect = connect::settle(&ecs_of_write, tx, &realm, before.as_deref(), part)?;
        if let Some(before) = before {
            match before.status {
                ServiceStatus::Active if is_same(&before, &service, &revision) => {
                    return Ok(Arc::unwrap_or_clone(before));
                }
                ServiceStatus::Active => {
                    return Err(faults::invalid("Creation of service was not idempotent."));
                }
                ServiceStatus::Draining => {
                    let message = "Unable to Start a service that is still Draining.";
                    return Err(faults::invalid(message));
                }
                ServiceStatus::Inactive => {}
            }
        }
        match controller {
            Controller::Ecs => begin(&ecs_of_write, tx, &mut service, revision)?,
            _ => first_set(&ecs_of_write, &mut service, revision),
        }
        put_service(tx, &ecs_of_write.world, service.clone());
        Ok::<_, Fault>(service)
    });
    let service = answer::service(ecs, &written.await?, true);
    Ok(CreateServiceResponse { service: Some(service) })
}

fn controller(input: &CreateServiceRequest) -> Result<Controller, Fault> {
    let controller = input.deployment_controller.as_ref().map(|controller| controller.r#type);
    let controller = match controller {
        None | Some(DeploymentControllerType::Ecs) => return Ok(Controller::Ecs),
        Some(DeploymentControllerType::CodeDeploy) => Controller::CodeDeploy,
        Some(DeploymentControllerType::External) => Controller::External,
    };
    check_controlled(controller, input.deployment_configuration.as_ref())?;
    Ok(controller)
}

/// What is ECS's own way of deploying is not for services that somebody else deploys.
fn check_controlled(
    controller: Controller,
    given: Option<&DeploymentConfiguration>,
) -> Result<(), Fault> {
    let breaker = given.and_then(|given| given.deployment_circuit_breaker.as_ref());
    let breaks = breaker.is_some_and(|breaker| breaker.enable);
    let alarms = given.and_then(|given| given.alarms.as_ref());
    let breaks = breaks || alarms.is_some_and(|alarms| alarms.enable);
    let strategy = given.and_then(|given| given.strategy);
    match breaks || strategy.is_some_and(|strategy| strategy != DeploymentStrategy::Rolling) {
        true => Err(faults::invalid(format!(
            "The deployment circuit breaker, deployment alarms and deployment strategies are not for services with the \
             {} deployment controller.",
            controller.as_str()
        ))),
        false => Ok(()),
    }
}

/// A service whose task sets somebody else makes: of itself it has nothing that tasks are made from.
async fn create_external(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    cluster: &model::Cluster,
    name: String,
    mut input: CreateServiceRequest,
) -> Result<CreateServiceResponse, Fault> {
    let misplaced = [
        ("taskDefinition", input.task_definition.is_some()),
        ("networkConfiguration", input.network_configuration.is_some()),
        ("loadBalancers", input.load_balancers.iter().flatten().next().is_some()),
        ("serviceRegistries", input.service_registries.iter().flatten().next().is_some()),
        ("serviceConnectConfiguration", input.service_connect_configuration.is_some()),
        ("launchType", input.launch_type.is_some()),
        ("platformVersion", input.platform_version.is_some()),
        ("capacityProviderStrategy", input.capacity_provider_strategy.is_some()),
    ];
    if let Some((name, _)) = misplaced.iter().find(|(_, misplaced)| *misplaced) {
        return Err(faults::invalid(format!(
            "{name} cannot be specified for a service with the EXTERNAL deployment controller: specify it in \
             CreateTaskSet."
        )));
    }
    input.desired_count = input.desired_count.or(Some(0));
    let service = record(ecs, ctx, cluster, name, Controller::External, input)?;
    let written = ecs.store.write(move |tx| {
        let before = tx.get::<Record>(&service.key());
        match before.as_ref().map(|before| before.status) {
            None | Some(ServiceStatus::Inactive) => {}
            Some(_) => return Err(faults::invalid("Creation of service was not idempotent.")),
        }
        tx.put(service.clone());
        Ok::<_, Fault>(service)
    });
    let service = answer::service(ecs, &written.await?, true);
    Ok(CreateServiceResponse { service: Some(service) })
}

/// CodeDeploy shifts traffic between target groups of a load balancer.
fn check_code_deploy(service: &Record, revision: &Revision, connect: bool) -> Result<(), Fault> {
    let name = service.controller.as_str();
    if connect {
        return Err(faults::invalid(format!(
            "Service Connect is not supported for services with the {name} deployment controller."
        )));
    }
    match revision.load_balancers.is_empty() {
        true => Err(faults::invalid(format!(
            "A load balancer is required for services with the {name} deployment controller."
        ))),
        false => Ok(()),
    }
}

/// Where CodeDeploy begins from: all the tasks, and all the traffic.
fn first_set(ecs: &Ecs, service: &mut Record, revision: Revision) {
    let now = ecs.world.now();
    let set = TaskSet {
        external_id: None,
        started_by: None,
        client_token: None,
        percent: 100.0,
        status: TaskSetStatus::Primary,
        steady: false,
        stability_at: now,
        tags: Tags::new(),
    };
    let first = task_set::begin(&ecs.world, service, revision, set, now);
    service.deployments.push(first);
}

/// Whether a request for `new` may have made `old`: the same wish twice is one service.
fn is_same(old: &Record, new: &Record, revision: &Revision) -> bool {
    old.desired_count == new.desired_count
        && old.controller == new.controller
        && old.configuration == new.configuration
        && old.deployments.first().is_some_and(|d| d.revision == *revision)
}

/// What a request makes a service's tasks from.
fn revision(
    ecs: &Ecs,
    ctx: &Context,
    cluster: &model::Cluster,
    definition: &TaskDefinition,
    input: &CreateServiceRequest,
) -> Result<Revision, Fault> {
    let (launch_type, strategy) =
        capacity(cluster, input.launch_type, input.capacity_provider_strategy.clone())?;
    let balancers = input.load_balancers.clone().unwrap_or_default();
    let given = input.service_registries.clone().unwrap_or_default();
    Ok(Revision {
        family: definition.family.clone(),
        revision: definition.revision,
        launch_type,
        strategy,
        platform_version: platform(input.platform_version.as_deref())?,
        network: network(input.network_configuration.clone())?,
        load_balancers: load_balancers(ecs, ctx, definition, balancers)?,
        registries: registries(ecs, ctx, definition, given)?,
        connect: None,
        volumes: volumes_in(ctx, definition, input.volume_configurations.clone())?,
    })
}

/// What a service says of its tasks' volumes, where that fits the task definition.
fn volumes_in(
    ctx: &Context,
    definition: &TaskDefinition,
    given: Option<Vec<ServiceVolumeConfiguration>>,
) -> Result<Vec<ServiceVolumeConfiguration>, Fault> {
    let given = given.unwrap_or_default();
    volumes::check(ctx, definition, &volumes::of_service(&given))?;
    Ok(given)
}

/// The record that a request asks for; nothing is deployed of it yet.
fn record(
    ecs: &Ecs,
    ctx: &Context,
    cluster: &model::Cluster,
    name: String,
    controller: Controller,
    input: CreateServiceRequest,
) -> Result<Record, Fault> {
    if input.scheduling_strategy == Some(SchedulingStrategy::Daemon) {
        return Err(faults::invalid("The daemon scheduling strategy is not supported on Fargate."));
    }
    let desired = input.desired_count.ok_or_else(|| {
        faults::invalid("desiredCount is required when schedulingStrategy is REPLICA.")
    })?;
    let desired_count = check_count(desired)?;
    let configuration = configuration(Default::default(), input.deployment_configuration)?;
    Ok(Record {
        realm: ctx.realm(),
        controller,
        cluster: cluster.name.clone(),
        name,
        status: ServiceStatus::Active,
        desired_count,
        deployments: Vec::new(),
        ongoing: None,
        serving: None,
        configuration,
        grace_seconds: input.health_check_grace_period_seconds,
        rebalancing: input
            .availability_zone_rebalancing
            .unwrap_or(AvailabilityZoneRebalancing::Enabled),
        propagate_tags: input.propagate_tags.unwrap_or(PropagateTags::None),
        managed_tags: input.enable_ecs_managed_tags.unwrap_or(false),
        execute_command: input.enable_execute_command.unwrap_or(false),
        tags: checked(Tags::new(), input.tags)?,
        steady: false,
        events: VecDeque::new(),
        created_by: ctx.principal.arn.clone(),
        created_at: ecs.world.now(),
        inactive_at: None,
    })
}

pub(crate) async fn update_service(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: UpdateServiceRequest,
) -> Result<UpdateServiceResponse, Fault> {
    let cluster_name = cluster_name(ctx, input.cluster.as_deref())?;
    let name = service_name(ctx, &cluster_name, &input.service)?;
    let arn = ctx.arn("ecs", format!("service/{cluster_name}/{name}"));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster_name}"));
    ctx.authorise_with("ecs:UpdateService", &arn, &[("ecs:cluster", &cluster_arn)])?;
    let cluster = active_cluster(ecs, ctx, &cluster_name)?;
    let definition =
        input.task_definition.as_deref().map(|given| definition(ecs, ctx, given)).transpose()?;
    if input.network_configuration.is_some() {
        check_network(ecs, ctx, input.network_configuration.as_ref()).await?;
    }
    input.desired_count.map(check_count).transpose()?;
    let key = Record::key_of(&ctx.realm(), &cluster_name, &name);
    let mut part = None;
    // Another task definition may have another port under the same name.
    let kept = || definition.as_ref().and(current_connect(ecs, &key));
    let connect = input.service_connect_configuration.clone().or_else(kept);
    let asks_connect = connect.is_some();
    let asks = [input.load_balancers.is_some(), input.service_registries.is_some(), asks_connect];
    if asks.contains(&true) {
        let definition = match &definition {
            Some(definition) => Some(definition.clone()),
            None => current_definition(ecs, &key),
        };
        let definition = definition.ok_or_else(faults::no_service)?;
        part = connect::draft(ecs, ctx, &cluster, &definition, connect)?;
        let balancers = input.load_balancers.clone().unwrap_or_default();
        load_balancers(ecs, ctx, &definition, balancers)?;
        let given = input.service_registries.clone().unwrap_or_default();
        registries(ecs, ctx, &definition, given)?;
    }
    if (definition.is_some() || input.volume_configurations.is_some())
        && let Some(definition) = definition.clone().or_else(|| current_definition(ecs, &key))
    {
        let given = input.volume_configurations.clone();
        let given = given.unwrap_or_else(|| current_volumes(ecs, &key));
        volumes_in(ctx, &definition, Some(given))?;
    }
    let ecs_of_write = ecs.clone();
    let written = ecs.store.write(move |tx| {
        let service = tx.get::<Record>(&key).ok_or_else(faults::no_service)?;
        if service.status != ServiceStatus::Active {
            return Err(faults::service_not_active());
        }
        let mut service = Arc::unwrap_or_clone(service);
        let realm = service.realm.clone();
        let part = connect::settle(&ecs_of_write, tx, &realm, Some(&service), part)?;
        let part = asks_connect.then_some(part);
        if service.controller != Controller::Ecs {
            rescale(&mut service, input)?;
            tx.put(service.clone());
            return Ok(service);
        }
        update(&ecs_of_write, tx, part, &mut service, &cluster, definition.as_deref(), input)?;
        put_service(tx, &ecs_of_write.world, service.clone());
        Ok(service)
    });
    let service = answer::service(ecs, &written.await?, true);
    Ok(UpdateServiceResponse { service: Some(service) })
}

/// Changes a service that somebody else deploys: what task sets are made from is theirs to say.
fn rescale(service: &mut Record, input: UpdateServiceRequest) -> Result<(), Fault> {
    let theirs = [
        ("update task definition", input.task_definition.is_some()),
        ("update network parameters", input.network_configuration.is_some()),
        ("update load balancers", input.load_balancers.is_some()),
        ("update service registries", input.service_registries.is_some()),
        ("update Service Connect", input.service_connect_configuration.is_some()),
        ("update volumes", input.volume_configurations.is_some()),
        ("update platform version", input.platform_version.is_some()),
        ("update capacity provider strategy", input.capacity_provider_strategy.is_some()),
        ("force a new deployment", input.force_new_deployment == Some(true)),
    ];
    let name = service.controller.as_str();
    if let Some((what, _)) = theirs.iter().find(|(_, asked)| *asked) {
        let instead = match service.controller {
            Controller::CodeDeploy => "Use AWS CodeDeploy to trigger a new deployment.",
            _ => "Use CreateTaskSet to create a new task set.",
        };
        return Err(faults::invalid(format!(
            "Unable to {what} on services with a {name} deployment controller. {instead}"
        )));
    }
    check_controlled(service.controller, input.deployment_configuration.as_ref())?;
    settings(service, &input);
    let before = std::mem::take(&mut service.configuration);
    service.configuration = configuration(before, input.deployment_configuration)?;
    Ok(())
}

/// What no deployment is needed for.
fn settings(service: &mut Record, input: &UpdateServiceRequest) {
    service.desired_count = input.desired_count.unwrap_or(service.desired_count);
    service.grace_seconds = input.health_check_grace_period_seconds.or(service.grace_seconds);
    service.rebalancing = input.availability_zone_rebalancing.unwrap_or(service.rebalancing);
    service.propagate_tags = input.propagate_tags.unwrap_or(service.propagate_tags);
    service.managed_tags = input.enable_ecs_managed_tags.unwrap_or(service.managed_tags);
    service.execute_command = input.enable_execute_command.unwrap_or(service.execute_command);
    service.steady = false;
}

/// What a service asks of Service Connect now.
fn current_connect(ecs: &Ecs, key: &str) -> Option<ServiceConnectConfiguration> {
    let service = ecs.store.read().get::<Record>(key)?;
    let part = service.deployments.first()?.revision.connect.as_ref()?;
    Some(part.asked.clone())
}

/// What a service says of its tasks' volumes now.
fn current_volumes(ecs: &Ecs, key: &str) -> Vec<ServiceVolumeConfiguration> {
    let service = ecs.store.read().get::<Record>(key);
    let primary = service.as_ref().and_then(|service| service.deployments.first());
    primary.map(|deployment| deployment.revision.volumes.clone()).unwrap_or_default()
}

/// The task definition that a service has now.
fn current_definition(ecs: &Ecs, key: &str) -> Option<Arc<TaskDefinition>> {
    let snapshot = ecs.store.read();
    let service = snapshot.get::<Record>(key)?;
    let revision = &service.deployments.first()?.revision;
    let key = TaskDefinition::key_of(&service.realm, &revision.family, revision.revision);
    snapshot.get::<TaskDefinition>(&key)
}

/// Changes a service. What its tasks are made from makes another deployment when it changes, or when that is asked for.
fn update(
    ecs: &Ecs,
    tx: &mut Tx,
    connect: Option<Option<Connect>>,
    service: &mut Record,
    cluster: &model::Cluster,
    definition: Option<&TaskDefinition>,
    input: UpdateServiceRequest,
) -> Result<(), Fault> {
    let primary = service.deployments.first().ok_or_else(faults::service_not_active)?;
    let mut revision = primary.revision.clone();
    settings(service, &input);
    if let Some(definition) = definition.filter(|definition| !revision.is_of(definition)) {
        (revision.family, revision.revision) = (definition.family.clone(), definition.revision);
    }
    if let Some(strategy) = input.capacity_provider_strategy {
        (revision.launch_type, revision.strategy) = capacity(cluster, None, Some(strategy))?;
    }
    if input.platform_version.is_some() {
        revision.platform_version = platform(input.platform_version.as_deref())?;
    }
    if input.network_configuration.is_some() {
        revision.network = network(input.network_configuration)?;
    }
    if let Some(given) = input.load_balancers {
        revision.load_balancers = given;
    }
    if let Some(given) = input.service_registries {
        revision.registries = given;
    }
    if let Some(given) = input.volume_configurations {
        revision.volumes = given;
    }
    if let Some(part) = connect {
        revision.connect = part;
    }
    let before = std::mem::take(&mut service.configuration);
    let strategy = before.strategy;
    service.configuration = configuration(before, input.deployment_configuration)?;
    if service.configuration.strategy != strategy && ongoing(tx, service).is_some() {
        let message =
            "The deployment strategy cannot be changed while a service deployment is in progress.";
        return Err(faults::invalid(message));
    }
    check_pairs(&service.configuration, &revision)?;
    check_grace(service, &revision)?;
    let changed = revision != service.deployments[0].revision;
    match changed || input.force_new_deployment == Some(true) {
        true => begin(ecs, tx, service, revision),
        false => Ok(()),
    }
}

pub(crate) async fn delete_service(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: DeleteServiceRequest,
) -> Result<DeleteServiceResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    let name = service_name(ctx, &cluster, &input.service)?;
    let arn = ctx.arn("ecs", format!("service/{cluster}/{name}"));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with("ecs:DeleteService", &arn, &[("ecs:cluster", &cluster_arn)])?;
    active_cluster(ecs, ctx, &cluster)?;
    let key = Record::key_of(&ctx.realm(), &cluster, &name);
    let written = ecs.store.write(move |tx| {
        let service = tx.get::<Record>(&key).ok_or_else(faults::no_service)?;
        let mut service = Arc::unwrap_or_clone(service);
        match service.status {
            ServiceStatus::Inactive => return Err(faults::no_service()),
            ServiceStatus::Draining => return Ok(service),
            ServiceStatus::Active => {}
        }
        if service.desired_count > 0 && input.force != Some(true) {
            let message = "The service cannot be stopped while it is scaled above 0.";
            return Err(faults::invalid(message));
        }
        service.status = ServiceStatus::Draining;
        service.desired_count = 0;
        service.steady = false;
        tx.put(service.clone());
        Ok::<_, Fault>(service)
    });
    let service = answer::service(ecs, &written.await?, true);
    Ok(DeleteServiceResponse { service: Some(service) })
}

pub(crate) async fn describe_services(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeServicesRequest,
) -> Result<DescribeServicesResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    if input.services.is_empty() {
        ctx.authorise("ecs:DescribeServices", &ctx.arn("ecs", format!("service/{cluster}/*")))?;
        return Err(faults::invalid("Services cannot be empty."));
    }
    let with_tags = input.include.is_some_and(|include| include.contains(&ServiceField::Tags));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for given in input.services.iter().take(MOST_DESCRIBED) {
        let name = service_name(ctx, &cluster, given).ok();
        let arn = match (&name, given.starts_with("arn:")) {
            (Some(name), _) => ctx.arn("ecs", format!("service/{cluster}/{name}")),
            (None, true) => given.clone(),
            (None, false) => ctx.arn("ecs", format!("service/{cluster}/{given}")),
        };
        ctx.authorise_with("ecs:DescribeServices", &arn, &[("ecs:cluster", &cluster_arn)])?;
        let key = name.map(|name| Record::key_of(&ctx.realm(), &cluster, &name));
        match key.and_then(|key| ecs.store.read().get::<Record>(&key)) {
            Some(service) => services.push(answer::service(ecs, &service, with_tags)),
            None => failures.push(answer::missing(arn)),
        }
    }
    active_cluster(ecs, ctx, &cluster)?;
    if input.services.len() > MOST_DESCRIBED {
        return Err(faults::invalid("Services cannot have more than 10 elements."));
    }
    Ok(DescribeServicesResponse { services: Some(services), failures: Some(failures) })
}

pub(crate) async fn list_services(
    ecs: &Ecs,
    ctx: &Context,
    input: ListServicesRequest,
) -> Result<ListServicesResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with("ecs:ListServices", "*", &[("ecs:cluster", &cluster_arn)])?;
    active_cluster(ecs, ctx, &cluster)?;
    let wanted = |service: &Record| {
        let launch_type = service.deployments.first().and_then(|d| d.revision.launch_type);
        service.status != ServiceStatus::Inactive
            && input.launch_type.is_none_or(|wanted| launch_type == Some(wanted))
            && input.scheduling_strategy.is_none_or(|s| s == SchedulingStrategy::Replica)
            && input.resource_management_type.is_none_or(|t| t == ResourceManagementType::Customer)
    };
    let snapshot = ecs.store.read();
    let services = snapshot.scan_prefix::<Record>(&format!("{}/{cluster}/", ctx.realm()));
    let arns = services.filter(|service| wanted(service)).map(|s| (s.name.clone(), s.arn()));
    // Ten at a time unless told otherwise, unlike the other lists.
    let size = input.max_results.or(Some(10));
    let (arns, next_token) = page("ListServices", input.next_token.as_deref(), size, arns)?;
    Ok(ListServicesResponse { service_arns: Some(arns), next_token })
}
