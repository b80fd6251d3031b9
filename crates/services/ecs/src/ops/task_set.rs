//! Task sets.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateTaskSet.html>

use super::{
    answer,
    deployment::{ID_DIGITS, load_balancers, registries},
    named::{active_cluster, cluster_name, service_name, task_definition_arn},
    service::definition,
    tag::checked,
    task::{capacity, check_network, network, platform},
    volumes,
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{
        self, Controller, Deployment, Revision, Service as Record, ServiceStatus, Tags,
        TaskSet as Set, TaskSetStatus,
    },
};
use std::sync::Arc;
use wire::{Context, Fault};
use world::{Timestamp, World};

/// The most task sets of one service.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const MOST_SETS: usize = 5;

/// A service that a request names.
struct Named {
    cluster: Arc<model::Cluster>,
    name: String,
    key: String,
}

impl Named {
    /// Finds it, and asks for the permission to do `action` to one of its task sets, or to any.
    fn find(
        ecs: &Ecs,
        ctx: &Context,
        action: &str,
        cluster: &str,
        service: &str,
        more: &[(&str, &str)],
        set: &str,
    ) -> Result<Self, Fault> {
        let cluster = cluster_name(ctx, Some(cluster))?;
        let name = service_name(ctx, &cluster, service)?;
        let id = set.rsplit_once("ecs-svc/").map_or("*", |(_, id)| id);
        let resource = ctx.arn("ecs", format!("task-set/{cluster}/{name}/ecs-svc/{id}"));
        let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
        let service_arn = ctx.arn("ecs", format!("service/{cluster}/{name}"));
        let keys = [("ecs:cluster", &*cluster_arn), ("ecs:service", &*service_arn)];
        ctx.authorise_with(action, &resource, &[&keys, more].concat())?;
        let key = Record::key_of(&ctx.realm(), &cluster, &name);
        Ok(Self { cluster: active_cluster(ecs, ctx, &cluster)?, name, key })
    }

    /// The id in a task set's id or ARN.
    fn set_id<'a>(&self, ctx: &Context, given: &'a str) -> Option<&'a str> {
        match given.starts_with("arn:") {
            false => Some(given),
            true => {
                let own = format!("task-set/{}/{}/", self.cluster.name, self.name);
                given.strip_prefix(&ctx.arn("ecs", own))
            }
        }
    }
}

/// The service, when it is one that has task sets.
fn with_sets(service: Option<Arc<Record>>) -> Result<Record, Fault> {
    let service = Arc::unwrap_or_clone(service.ok_or_else(faults::no_service)?);
    match (service.status, service.controller) {
        (ServiceStatus::Active, Controller::Ecs) => Err(faults::invalid(
            "The service's deployment controller must be CODE_DEPLOY or EXTERNAL for it to have task sets.",
        )),
        (ServiceStatus::Active, _) => Ok(service),
        _ => Err(faults::service_not_active()),
    }
}

fn percent(scale: Option<Scale>) -> Result<f64, Fault> {
    let percent = scale.and_then(|scale| scale.value).unwrap_or(100.0);
    match (0.0..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err(faults::invalid("The scale's value must be between 0 and 100.")),
    }
}

/// A task set of which no task has been started.
pub(super) fn begin(
    world: &World,
    service: &Record,
    revision: Revision,
    set: Set,
    now: Timestamp,
) -> Deployment {
    let id = format!("ecs-svc/{}", world.text(ID_DIGITS, b"0123456789"));
    let count = set.count(service.desired_count);
    Deployment { set: Some(set), ..Deployment::new(id, revision, count, now) }
}

/// A new task set, or the one that the same request made.
pub(crate) async fn create_task_set(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: CreateTaskSetRequest,
) -> Result<CreateTaskSetResponse, Fault> {
    let wanted = task_definition_arn(ctx, &input.task_definition);
    let keys = [("ecs:task-definition", &*wanted)];
    let (action, any) = ("ecs:CreateTaskSet", "*");
    let named = Named::find(ecs, ctx, action, &input.cluster, &input.service, &keys, any)?;
    with_sets(ecs.store.read().get::<Record>(&named.key))?;
    let definition = definition(ecs, ctx, &input.task_definition)?;
    check_network(ecs, ctx, input.network_configuration.as_ref()).await?;
    let (launch_type, strategy) =
        capacity(&named.cluster, input.launch_type, input.capacity_provider_strategy)?;
    // A task set says nothing of volumes.
    volumes::check(ctx, &definition, &[])?;
    let balancers = input.load_balancers.unwrap_or_default();
    let given = input.service_registries.unwrap_or_default();
    let revision = Revision {
        family: definition.family.clone(),
        revision: definition.revision,
        launch_type,
        strategy,
        platform_version: platform(input.platform_version.as_deref())?,
        network: network(input.network_configuration)?,
        load_balancers: load_balancers(ecs, ctx, &definition, balancers)?,
        registries: registries(ecs, ctx, &definition, given)?,
        connect: None,
        volumes: Vec::new(),
    };
    let now = ecs.world.now();
    let set = Set {
        external_id: input.external_id,
        started_by: None,
        client_token: input.client_token,
        percent: percent(input.scale)?,
        status: TaskSetStatus::Active,
        steady: false,
        stability_at: now,
        tags: checked(Tags::new(), input.tags)?,
    };
    let (key, world) = (named.key, ecs.world.clone());
    let written = ecs.store.write(move |tx| {
        let mut service = with_sets(tx.get::<Record>(&key))?;
        let same = |d: &&Deployment| {
            let token = d.set.as_ref().and_then(|set| set.client_token.as_ref());
            token.is_some() && token == set.client_token.as_ref()
        };
        if let Some(known) = service.deployments.iter().find(same).cloned() {
            return match known.revision == revision {
                true => Ok((service, known)),
                false => Err(faults::invalid("Creation of task set was not idempotent.")),
            };
        }
        if service.deployments.len() >= MOST_SETS {
            let message = format!("A service can have at most {MOST_SETS} task sets.");
            return Err(faults::invalid(message));
        }
        let new = begin(&world, &service, revision, set, now);
        service.deployments.push(new.clone());
        service.steady = false;
        tx.put(service.clone());
        Ok::<_, Fault>((service, new))
    });
    let (service, made) = written.await?;
    Ok(CreateTaskSetResponse { task_set: answer::task_set(ecs, &service, &made, true) })
}

/// Changes a task set that is not deleted, in its service.
async fn change(
    ecs: &Arc<Ecs>,
    key: String,
    id: Option<String>,
    change: impl FnOnce(&mut Record, usize) -> Result<(), Fault> + Send + 'static,
) -> Result<Option<TaskSet>, Fault> {
    let now = ecs.world.now();
    let written = ecs.store.write(move |tx| {
        let mut service = with_sets(tx.get::<Record>(&key))?;
        let draining =
            |d: &Deployment| d.set.as_ref().is_none_or(|set| set.status == TaskSetStatus::Draining);
        let own = |d: &Deployment| Some(&d.id) == id.as_ref() && !draining(d);
        let place = service.deployments.iter().position(own).ok_or_else(faults::no_task_set)?;
        let id = service.deployments[place].id.clone();
        change(&mut service, place)?;
        service.steady = false;
        let changed = service.deployments.iter_mut().find(|d| d.id == id);
        let changed = changed.ok_or_else(faults::no_task_set)?;
        changed.updated_at = now;
        let changed = changed.clone();
        tx.put(service.clone());
        Ok::<_, Fault>((service, changed))
    });
    let (service, changed) = written.await?;
    Ok(answer::task_set(ecs, &service, &changed, false))
}

pub(crate) async fn update_task_set(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: UpdateTaskSetRequest,
) -> Result<UpdateTaskSetResponse, Fault> {
    let (action, set) = ("ecs:UpdateTaskSet", &input.task_set);
    let named = Named::find(ecs, ctx, action, &input.cluster, &input.service, &[], set)?;
    let percent = percent(Some(input.scale))?;
    let id = named.set_id(ctx, set).map(str::to_owned);
    let changed = change(ecs, named.key, id, move |service, place| {
        let deployment = &mut service.deployments[place];
        if let Some(set) = &mut deployment.set {
            set.percent = percent;
            deployment.desired_count = set.count(service.desired_count);
        }
        Ok(())
    });
    Ok(UpdateTaskSetResponse { task_set: changed.await? })
}

pub(crate) async fn delete_task_set(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: DeleteTaskSetRequest,
) -> Result<DeleteTaskSetResponse, Fault> {
    let (action, set) = ("ecs:DeleteTaskSet", &input.task_set);
    let named = Named::find(ecs, ctx, action, &input.cluster, &input.service, &[], set)?;
    let id = named.set_id(ctx, set).map(str::to_owned);
    let changed = change(ecs, named.key, id, move |service, place| {
        let deployment = &mut service.deployments[place];
        if let Some(set) = &mut deployment.set {
            if set.percent > 0.0 && input.force != Some(true) {
                return Err(faults::invalid(
                    "The task set cannot be deleted while it is scaled above 0; use force.",
                ));
            }
            set.status = TaskSetStatus::Draining;
            deployment.desired_count = 0;
        }
        Ok(())
    });
    Ok(DeleteTaskSetResponse { task_set: changed.await? })
}

pub(crate) async fn update_service_primary_task_set(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: UpdateServicePrimaryTaskSetRequest,
) -> Result<UpdateServicePrimaryTaskSetResponse, Fault> {
    let (action, set) = ("ecs:UpdateServicePrimaryTaskSet", &input.primary_task_set);
    let cluster = cluster_name(ctx, Some(&input.cluster))?;
    let name = service_name(ctx, &cluster, &input.service)?;
    let service = ctx.arn("ecs", format!("service/{cluster}/{name}"));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with(action, &service, &[("ecs:cluster", &cluster_arn)])?;
    let cluster = active_cluster(ecs, ctx, &cluster)?;
    let key = Record::key_of(&ctx.realm(), &cluster.name, &name);
    let named = Named { cluster, name, key };
    let id = named.set_id(ctx, set).map(str::to_owned);
    let changed = change(ecs, named.key, id, |service, place| {
        let mut before = service.deployments.iter_mut().filter_map(|d| d.set.as_mut());
        if let Some(before) = before.find(|set| set.status == TaskSetStatus::Primary) {
            before.status = TaskSetStatus::Active;
        }
        // The primary one comes first.
        let mut primary = service.deployments.remove(place);
        if let Some(set) = &mut primary.set {
            set.status = TaskSetStatus::Primary;
        }
        service.deployments.insert(0, primary);
        Ok(())
    });
    Ok(UpdateServicePrimaryTaskSetResponse { task_set: changed.await? })
}

pub(crate) async fn describe_task_sets(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeTaskSetsRequest,
) -> Result<DescribeTaskSetsResponse, Fault> {
    let (action, any) = ("ecs:DescribeTaskSets", "*");
    let named = Named::find(ecs, ctx, action, &input.cluster, &input.service, &[], any)?;
    let with_tags = input.include.is_some_and(|include| include.contains(&TaskSetField::Tags));
    let service = with_sets(ecs.store.read().get::<Record>(&named.key))?;
    let told = |d: &Deployment| answer::task_set(ecs, &service, d, with_tags);
    let Some(asked) = input.task_sets.filter(|asked| !asked.is_empty()) else {
        let all = service.deployments.iter().filter_map(told).collect();
        return Ok(DescribeTaskSetsResponse { task_sets: Some(all), failures: Some(Vec::new()) });
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in asked {
        let id = named.set_id(ctx, &given);
        let set = service.deployments.iter().find(|d| Some(d.id.as_str()) == id);
        match set.and_then(told) {
            Some(set) => found.push(set),
            None => failures.push(answer::missing(match given.starts_with("arn:") {
                true => given,
                false => service.task_set_arn(&given),
            })),
        }
    }
    Ok(DescribeTaskSetsResponse { task_sets: Some(found), failures: Some(failures) })
}
