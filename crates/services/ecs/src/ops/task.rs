//! Tasks.

use super::{
    answer,
    listing::page,
    named::{active_cluster, cluster_name, task, task_definition, task_definition_arn},
    tag::checked,
    task_definition::role_arn,
    volumes,
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{
        Cluster as ClusterRecord, LastStatus, Launch, PLATFORM, Tags, Task as Record,
        TaskDefinition,
    },
    tell::put_task,
    validate,
};
use std::sync::Arc;
use store::Record as _;
use wire::{Context, Fault};

/// The most tasks of one RunTask.
const MOST_COUNT: i32 = 10;
/// The most tasks of one DescribeTasks.
const MOST_DESCRIBED: usize = 100;

pub(crate) async fn run_task(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    mut input: RunTaskRequest,
) -> Result<RunTaskResponse, Fault> {
    if let Some(overrides) = &mut input.overrides {
        let roles = [&mut overrides.task_role_arn, &mut overrides.execution_role_arn];
        roles.into_iter().flatten().for_each(|role| *role = role_arn(ctx, role));
    }
    let cluster_name = cluster_name(ctx, input.cluster.as_deref())?;
    let definition = task_definition(ecs, ctx, &input.task_definition);
    let resource = match &definition {
        Some(definition) => definition.arn().to_owned(),
        None => task_definition_arn(ctx, &input.task_definition),
    };
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster_name}"));
    ctx.authorise_with("ecs:RunTask", &resource, &[("ecs:cluster", &cluster_arn)])?;
    let cluster = active_cluster(ecs, ctx, &cluster_name)?;
    let definition = definition.ok_or_else(faults::not_runnable)?;
    if definition.status() != TaskDefinitionStatus::Active {
        return Err(faults::inactive_task_definition());
    }
    let count = input.count.unwrap_or(1);
    if !(1..=MOST_COUNT).contains(&count) {
        return Err(faults::invalid(format!("count should be between 1 and {MOST_COUNT}.")));
    }
    pass_roles(ctx, &definition, input.overrides.as_ref())?;
    let given = volumes::of_task(input.volume_configurations.take());
    volumes::check(ctx, &definition, &given)?;
    check_network(ecs, ctx, input.network_configuration.as_ref()).await?;
    let mut template = template(ecs, ctx, &cluster, &definition, input)?;
    template.volumes = volumes::made(given, &definition, None);
    let mut tasks = vec![template; usize::try_from(count).unwrap_or(1)];
    tasks.iter_mut().for_each(|task| task.number(&ecs.world));
    let world = ecs.world.clone();
    let written = ecs.store.write(move |tx| {
        if let Some(token) = &tasks[0].client_token {
            let prefix = format!("{}/{}/", tasks[0].realm, tasks[0].cluster);
            let before = tx.scan_prefix::<Record>(&prefix);
            let before: Vec<Arc<Record>> =
                before.filter(|task| task.client_token.as_ref() == Some(token)).collect();
            if let Some(first) = before.first() {
                let same = first.family == tasks[0].family
                    && first.revision == tasks[0].revision
                    && before.len() == tasks.len();
                return match same {
                    true => Ok(before.iter().map(|task| Record::clone(task)).collect()),
                    false => Err(faults::token_reused(before.iter().map(|t| t.arn()).collect())),
                };
            }
        }
        tasks.iter().for_each(|task| put_task(tx, &world, task.clone()));
        Ok::<Vec<Record>, Fault>(tasks)
    });
    let tasks = written.await?;
    let tasks = tasks.iter().map(|task| answer::task(ecs, task, true)).collect();
    Ok(RunTaskResponse { tasks: Some(tasks), failures: Some(Vec::new()) })
}

/// Subnets and groups must exist. Nobody has seen an id of the default VPC before it was described, so it may have to
/// be made only for a caller who guesses; making it does no harm.
pub(super) async fn check_network(
    ecs: &Ecs,
    ctx: &Context,
    given: Option<&NetworkConfiguration>,
) -> Result<(), Fault> {
    let Some(awsvpc) = given.and_then(|network| network.awsvpc_configuration.as_ref()) else {
        return Ok(()); // `network` words that
    };
    let groups = awsvpc.security_groups.clone().unwrap_or_default();
    let checked = ecs.ec2.check_network(&ctx.realm(), &awsvpc.subnets, &groups);
    checked.map_err(|error| match error {
        ec2::InterfaceError::NoSubnet(id) => faults::invalid(format!(
            "Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not exist \
             (ErrorCode: InvalidSubnetID.NotFound)"
        )),
        ec2::InterfaceError::NoGroup(id) => faults::invalid(format!(
            "Error retrieving security group information for [{id}]: The security group '{id}' does not exist \
             (ErrorCode: InvalidGroup.NotFound)"
        )),
        other => faults::invalid(other.to_string()),
    })
}

/// Whoever runs a task hands its roles on, so they must be allowed to.
pub(super) fn pass_roles(
    ctx: &Context,
    definition: &TaskDefinition,
    overrides: Option<&TaskOverride>,
) -> Result<(), Fault> {
    let document = &definition.document;
    let task_role =
        overrides.and_then(|o| o.task_role_arn.as_ref()).or(document.task_role_arn.as_ref());
    let execution_role = overrides
        .and_then(|o| o.execution_role_arn.as_ref())
        .or(document.execution_role_arn.as_ref());
    for role in [task_role, execution_role].into_iter().flatten() {
        let service = [("iam:PassedToService", "ecs-tasks.amazonaws.com")];
        ctx.authorise_with("iam:PassRole", role, &service)?;
    }
    Ok(())
}

/// What all tasks of one RunTask have in common.
fn template(
    ecs: &Ecs,
    ctx: &Context,
    cluster: &ClusterRecord,
    definition: &TaskDefinition,
    input: RunTaskRequest,
) -> Result<Record, Fault> {
    let (_, strategy) = capacity(cluster, input.launch_type, input.capacity_provider_strategy)?;
    let launch = launch(&strategy);
    let network = network(input.network_configuration)?;
    let overrides = input.overrides.unwrap_or_default();
    check_overrides(definition, &overrides)?;
    let platform_version = platform(input.platform_version.as_deref())?;
    let mut tags = Tags::new();
    if input.propagate_tags == Some(PropagateTags::TaskDefinition) {
        tags = definition.tags.clone();
    }
    let mut tags = checked(tags, input.tags)?;
    if input.enable_ecs_managed_tags == Some(true) {
        tags.insert("aws:ecs:clusterName".to_owned(), cluster.name.clone());
    }
    let mut task =
        Record::new((&ctx.realm(), &cluster.name), definition, launch, network, ecs.world.now());
    task.group = input.group.unwrap_or(task.group);
    task.overrides = overrides;
    task.started_by = input.started_by;
    task.platform_version = platform_version;
    task.execute_command = input.enable_execute_command.unwrap_or(false);
    task.tags = tags;
    task.client_token = input.client_token;
    Ok(task)
}

/// The platform version that is meant.
pub(super) fn platform(given: Option<&str>) -> Result<String, Fault> {
    match given {
        None | Some("LATEST" | PLATFORM) => Ok(PLATFORM.to_owned()),
        Some(_) => Err(faults::no_platform()),
    }
}

/// The launch type, or the capacity providers, that tasks go to.
pub(super) fn capacity(
    cluster: &ClusterRecord,
    launch_type: Option<LaunchType>,
    strategy: Option<Vec<CapacityProviderStrategyItem>>,
) -> Result<(Option<LaunchType>, Vec<CapacityProviderStrategyItem>), Fault> {
    let strategy = strategy.unwrap_or_default();
    // AWS would look for EC2 instances; there are none on this engine.
    let no_instances = || faults::invalid("No Container Instances were found in your cluster.");
    let strategy = match (launch_type, strategy.is_empty()) {
        (Some(_), false) => {
            let message = "Specifying both a launch type and capacity provider strategy is not supported. \
                           Remove one and try again.";
            return Err(faults::invalid(message));
        }
        (Some(LaunchType::Fargate), true) => return Ok((launch_type, Vec::new())),
        (Some(_), true) => return Err(no_instances()),
        (None, false) => strategy,
        (None, true) if !cluster.default_strategy.is_empty() => cluster.default_strategy.clone(),
        (None, true) => return Err(no_instances()),
    };
    if strategy.iter().any(|item| !cluster.capacity_providers.contains(&item.capacity_provider)) {
        return Err(faults::invalid(
            "The specified capacity provider strategy cannot contain a capacity provider that is not \
             associated with the cluster. Associate the capacity provider with the cluster and try again.",
        ));
    }
    Ok((None, strategy))
}

/// Where one RunTask's tasks go: to the provider with a base first, then the heaviest. (Services spread by base and
/// weight; a RunTask of up to ten tasks goes to one provider.)
fn launch(strategy: &[CapacityProviderStrategyItem]) -> Launch {
    let weight =
        |item: &CapacityProviderStrategyItem| (item.base.unwrap_or(0), item.weight.unwrap_or(0));
    let best = strategy.iter().max_by_key(|item| weight(item));
    best.map_or(Launch::Fargate, |best| Launch::CapacityProvider(best.capacity_provider.clone()))
}

/// The network configuration, which Fargate cannot do without.
pub(super) fn network(given: Option<NetworkConfiguration>) -> Result<NetworkConfiguration, Fault> {
    let missing = || {
        faults::invalid(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        )
    };
    let network = given.ok_or_else(missing)?;
    let awsvpc = network.awsvpc_configuration.as_ref().ok_or_else(missing)?;
    if awsvpc.subnets.is_empty() {
        return Err(faults::invalid("subnets can not be empty."));
    }
    if awsvpc.subnets.len() > 16 {
        return Err(faults::invalid("subnets can have at most 16 items."));
    }
    if awsvpc.security_groups.as_ref().is_some_and(|groups| groups.len() > 5) {
        return Err(faults::invalid("securityGroups can have at most 5 items."));
    }
    Ok(network)
}

fn check_overrides(definition: &TaskDefinition, overrides: &TaskOverride) -> Result<(), Fault> {
    let containers = definition.document.container_definitions.iter().flatten();
    let names: Vec<&str> = containers.filter_map(|container| container.name.as_deref()).collect();
    for given in overrides.container_overrides.iter().flatten() {
        let name = given.name.as_deref().unwrap_or_default();
        if !names.contains(&name) {
            return Err(faults::invalid(
                "Override for container named ".to_owned()
                    + name
                    + " is not a container in the TaskDefinition.",
            ));
        }
    }
    let document = &definition.document;
    validate::check_storage(overrides.ephemeral_storage.as_ref())?;
    let cpu = overrides.cpu.as_deref().or(document.cpu.as_deref());
    let memory = overrides.memory.as_deref().or(document.memory.as_deref());
    validate::size(cpu, memory).map(drop)
}

pub(crate) async fn stop_task(
    ecs: &Ecs,
    ctx: &Context,
    input: StopTaskRequest,
) -> Result<StopTaskResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    let found = task(ecs, ctx, &cluster, &input.task);
    let arn = match &found {
        Some(task) => task.arn(),
        None => ctx.arn("ecs", format!("task/{cluster}/*")),
    };
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with("ecs:StopTask", &arn, &[("ecs:cluster", &cluster_arn)])?;
    active_cluster(ecs, ctx, &cluster)?;
    let key = found.ok_or_else(faults::no_task)?.key();
    let reason = input.reason.unwrap_or_else(|| "Task stopped by user".to_owned());
    let (now, world) = (ctx.now, ecs.world.clone());
    let stopped = ecs.store.write(move |tx| {
        let task = tx.get::<Record>(&key).ok_or_else(faults::no_task)?;
        let mut task = Arc::unwrap_or_clone(task);
        if task.last_status != LastStatus::Stopped {
            task.stop(TaskStopCode::UserInitiated, &reason, now);
            put_task(tx, &world, task.clone());
        }
        Ok::<_, Fault>(task)
    });
    let task = stopped.await?;
    Ok(StopTaskResponse { task: Some(answer::task(ecs, &task, true)) })
}

pub(crate) async fn describe_tasks(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeTasksRequest,
) -> Result<DescribeTasksResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    if input.tasks.is_empty() {
        ctx.authorise("ecs:DescribeTasks", &ctx.arn("ecs", format!("task/{cluster}/*")))?;
        return Err(faults::invalid("Tasks cannot be empty."));
    }
    let with_tags = input.include.is_some_and(|include| include.contains(&TaskField::Tags));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for given in input.tasks.iter().take(MOST_DESCRIBED) {
        let arn = match given.starts_with("arn:") {
            true => given.clone(),
            false => ctx.arn("ecs", format!("task/{cluster}/{given}")),
        };
        ctx.authorise_with("ecs:DescribeTasks", &arn, &[("ecs:cluster", &cluster_arn)])?;
        match task(ecs, ctx, &cluster, given) {
            Some(task) => tasks.push(answer::task(ecs, &task, with_tags)),
            None => failures.push(answer::missing(arn)),
        }
    }
    active_cluster(ecs, ctx, &cluster)?;
    if input.tasks.len() > MOST_DESCRIBED {
        return Err(faults::invalid("Tasks cannot have more than 100 elements."));
    }
    Ok(DescribeTasksResponse { tasks: Some(tasks), failures: Some(failures) })
}

pub(crate) async fn list_tasks(
    ecs: &Ecs,
    ctx: &Context,
    input: ListTasksRequest,
) -> Result<ListTasksResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with("ecs:ListTasks", "*", &[("ecs:cluster", &cluster_arn)])?;
    active_cluster(ecs, ctx, &cluster)?;
    let status = input.desired_status.unwrap_or(DesiredStatus::Running);
    let service = input.service_name.map(|service| format!("service:{service}"));
    let wanted = |task: &Record| {
        answer::desired_status(task) == status.as_str()
            && input.family.as_ref().is_none_or(|family| task.family == *family)
            && input.started_by.as_ref().is_none_or(|by| task.started_by.as_ref() == Some(by))
            && service.as_ref().is_none_or(|service| task.group == *service)
            && input.launch_type.is_none_or(|launch| launch == LaunchType::Fargate)
            // There are no container instances, so no task is on one.
            && input.container_instance.is_none()
    };
    let snapshot = ecs.store.read();
    let tasks = snapshot.scan_prefix::<Record>(&format!("{}/{cluster}/", ctx.realm()));
    let arns = tasks.filter(|task| wanted(task)).map(|task| (task.id.clone(), task.arn()));
    let (arns, next_token) =
        page("ListTasks", input.next_token.as_deref(), input.max_results, arns)?;
    Ok(ListTasksResponse { task_arns: Some(arns), next_token })
}
