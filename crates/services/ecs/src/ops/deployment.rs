//! How a service is to be deployed, and the beginning of a deployment.

use crate::{
    Ecs,
    api::*,
    faults,
    model::{
        AlarmsWatched, Breaker, Deployment, Revision, RevisionInPlay, Service as Record,
        ServiceDeployment, ServiceRevision, Shift, TaskDefinition, shifts,
    },
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};
use world::{Timestamp, World};

/// The most target groups of one service.
const MOST_TARGET_GROUPS: usize = 5;
/// The most hooks of one service, and the longest one waits, in minutes.
const MOST_HOOKS: usize = 20;
const MOST_HOOK_MINUTES: i32 = 20_160;
/// The longest waits, in minutes.
const MOST_BAKE_MINUTES: i32 = 1440;
/// What is waited, in minutes, and shifted, in percent, unless the configuration says otherwise.
const BAKE_MINUTES: i32 = 15;
const LINEAR: (f64, i32) = (10.0, 6);
const CANARY: (f64, i32) = (5.0, 10);
/// Digits of a deployment's id.
pub(super) const ID_DIGITS: usize = 19;
/// Characters of a service deployment's id, and what they are.
const SERVICE_DEPLOYMENT_ID: (usize, &[u8]) =
    (21, b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_");

fn check_minutes(name: &str, minutes: i32) -> Result<i32, Fault> {
    match (0..=MOST_BAKE_MINUTES).contains(&minutes) {
        true => Ok(minutes),
        false => {
            let message = format!("{name} must be between 0 and {MOST_BAKE_MINUTES}.");
            Err(faults::invalid(message))
        }
    }
}

fn check_percent(name: &str, percent: f64, least: f64) -> Result<f64, Fault> {
    let tenths = percent * 10.0;
    let fits = percent >= least && percent <= 100.0 && (tenths - tenths.round()).abs() < 1e-6;
    match fits {
        true => Ok(percent),
        false => Err(faults::invalid(format!(
            "{name} must be a multiple of 0.1 between {least:.1} and 100.0."
        ))),
    }
}

/// `given` over `base`, with AWS's defaults.
pub(super) fn configuration(
    base: DeploymentConfiguration,
    given: Option<DeploymentConfiguration>,
) -> Result<DeploymentConfiguration, Fault> {
    let given = given.unwrap_or_default();
    let off = DeploymentCircuitBreaker { enable: false, rollback: false };
    let breaker =
        given.deployment_circuit_breaker.clone().or(base.deployment_circuit_breaker.clone());
    let most = given.maximum_percent.or(base.maximum_percent).unwrap_or(200);
    let fewest = given.minimum_healthy_percent.or(base.minimum_healthy_percent).unwrap_or(100);
    if most < 100 {
        return Err(faults::invalid("maximumPercent must be greater than or equal to 100."));
    }
    if !(0..=100).contains(&fewest) {
        return Err(faults::invalid("minimumHealthyPercent must be between 0 and 100."));
    }
    if most == 100 && fewest == 100 {
        let message = "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.";
        return Err(faults::invalid(message));
    }
    if given.alarms.iter().any(|alarms| alarms.enable && alarms.alarm_names.is_empty()) {
        return Err(faults::invalid("Deployment alarms are enabled, but alarmNames is empty."));
    }
    let strategy = given.strategy.or(base.strategy).unwrap_or(DeploymentStrategy::Rolling);
    // What belongs to another strategy than the last one's is not taken over from it.
    let base = if base.strategy == Some(strategy) { base } else { Default::default() };
    let mut configuration = DeploymentConfiguration {
        deployment_circuit_breaker: Some(breaker.unwrap_or(off)),
        alarms: given.alarms.clone().or(base.alarms.clone()),
        maximum_percent: Some(most),
        minimum_healthy_percent: Some(fewest),
        strategy: Some(strategy),
        ..DeploymentConfiguration::default()
    };
    shifting(&mut configuration, base, given)?;
    Ok(configuration)
}

/// The part of a configuration that is for strategies that shift traffic.
fn shifting(
    configuration: &mut DeploymentConfiguration,
    base: DeploymentConfiguration,
    given: DeploymentConfiguration,
) -> Result<(), Fault> {
    let strategy = configuration.strategy.unwrap_or(DeploymentStrategy::Rolling);
    let is = |wanted| strategy == wanted;
    let rolling = is(DeploymentStrategy::Rolling);
    let misplaced = [
        ("bakeTimeInMinutes", rolling && given.bake_time_in_minutes.is_some()),
        ("lifecycleHooks", rolling && given.lifecycle_hooks.iter().flatten().next().is_some()),
        (
            "linearConfiguration",
            !is(DeploymentStrategy::Linear) && given.linear_configuration.is_some(),
        ),
        (
            "canaryConfiguration",
            !is(DeploymentStrategy::Canary) && given.canary_configuration.is_some(),
        ),
    ];
    if let Some((name, _)) = misplaced.iter().find(|(_, misplaced)| *misplaced) {
        let strategy = strategy.as_str();
        let message = format!("{name} is not valid with the deployment strategy {strategy}.");
        return Err(faults::invalid(message));
    }
    if rolling {
        return Ok(());
    }
    let bake = given.bake_time_in_minutes.or(base.bake_time_in_minutes).unwrap_or(BAKE_MINUTES);
    configuration.bake_time_in_minutes = Some(check_minutes("bakeTimeInMinutes", bake)?);
    configuration.lifecycle_hooks =
        given.lifecycle_hooks.or(base.lifecycle_hooks).map(hooks).transpose()?;
    if is(DeploymentStrategy::Linear) {
        let linear = given.linear_configuration.or(base.linear_configuration).unwrap_or_default();
        let step = linear.step_percent.unwrap_or(LINEAR.0);
        let bake = linear.step_bake_time_in_minutes.unwrap_or(LINEAR.1);
        configuration.linear_configuration = Some(LinearConfiguration {
            step_percent: Some(check_percent("stepPercent", step, 3.0)?),
            step_bake_time_in_minutes: Some(check_minutes("stepBakeTimeInMinutes", bake)?),
        });
    }
    if is(DeploymentStrategy::Canary) {
        let canary = given.canary_configuration.or(base.canary_configuration).unwrap_or_default();
        let percent = canary.canary_percent.unwrap_or(CANARY.0);
        let bake = canary.canary_bake_time_in_minutes.unwrap_or(CANARY.1);
        configuration.canary_configuration = Some(CanaryConfiguration {
            canary_percent: Some(check_percent("canaryPercent", percent, 0.1)?),
            canary_bake_time_in_minutes: Some(check_minutes("canaryBakeTimeInMinutes", bake)?),
        });
    }
    Ok(())
}

fn hooks(hooks: Vec<DeploymentLifecycleHook>) -> Result<Vec<DeploymentLifecycleHook>, Fault> {
    if hooks.len() > MOST_HOOKS {
        let message = format!("lifecycleHooks can have at most {MOST_HOOKS} items.");
        return Err(faults::invalid(message));
    }
    for hook in &hooks {
        let pauses = hook.target_type == Some(DeploymentLifecycleHookTargetType::Pause);
        let names = hook.hook_target_arn.is_some() || hook.role_arn.is_some();
        if pauses && names {
            let message =
                "A lifecycle hook of the target type PAUSE has no hookTargetArn and no roleArn.";
            return Err(faults::invalid(message));
        }
        let function = hook.hook_target_arn.as_deref().unwrap_or_default();
        if !pauses && !function.contains(":function:") {
            let message =
                "hookTargetArn must be the ARN of a Lambda function for a lifecycle hook.";
            return Err(faults::invalid(message));
        }
        if !pauses && hook.role_arn.is_none() {
            return Err(faults::invalid("roleArn must be specified for a lifecycle hook."));
        }
        if hook.lifecycle_stages.iter().flatten().next().is_none() {
            return Err(faults::invalid("lifecycleStages must be specified for a lifecycle hook."));
        }
        let timeout = hook.timeout_configuration.as_ref().and_then(|t| t.timeout_in_minutes);
        if timeout.is_some_and(|minutes| !(1..=MOST_HOOK_MINUTES).contains(&minutes)) {
            let message = format!("timeoutInMinutes must be between 1 and {MOST_HOOK_MINUTES}.");
            return Err(faults::invalid(message));
        }
    }
    Ok(hooks)
}

/// The target groups of a service, as far as they and the container ports that they are for exist.
pub(super) fn load_balancers(
    ecs: &Ecs,
    ctx: &Context,
    definition: &TaskDefinition,
    given: Vec<LoadBalancer>,
) -> Result<Vec<LoadBalancer>, Fault> {
    if given.len() > MOST_TARGET_GROUPS {
        return Err(faults::invalid("load balancers can have at most 5 items."));
    }
    for balancer in &given {
        let Some(arn) = &balancer.target_group_arn else {
            return Err(faults::invalid("targetGroupArn must be specified for a load balancer."));
        };
        check_group(ecs, ctx, arn)?;
        if let Some(advanced) = &balancer.advanced_configuration {
            check_advanced(ecs, ctx, arn, advanced)?;
        }
        let name = balancer.container_name.as_deref().unwrap_or_default();
        check_port(definition, name, balancer.container_port.unwrap_or(0))?;
    }
    Ok(given)
}

fn check_port(definition: &TaskDefinition, name: &str, port: i32) -> Result<(), Fault> {
    let mut containers = definition.document.container_definitions.iter().flatten();
    let container = containers.find(|c| c.name.as_deref() == Some(name)).ok_or_else(|| {
        faults::invalid(format!("The container {name} does not exist in the task definition."))
    })?;
    let mut ports = container.port_mappings.iter().flatten();
    match ports.any(|mapping| mapping.container_port == Some(port)) {
        true => Ok(()),
        false => Err(faults::invalid(format!(
            "The container {name} did not have a container port {port} defined."
        ))),
    }
}

/// The Cloud Map services that a service's tasks are registered with, as far as they and the ports that they are for
/// exist. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceRegistry.html>
pub(super) fn registries(
    ecs: &Ecs,
    ctx: &Context,
    definition: &TaskDefinition,
    given: Vec<ServiceRegistry>,
) -> Result<Vec<ServiceRegistry>, Fault> {
    if given.len() > 1 {
        return Err(faults::invalid("service registries can have at most 1 items."));
    }
    for registry in &given {
        let arn = registry.registry_arn.as_deref();
        let arn = arn.ok_or_else(|| faults::invalid("registryArn must be specified."))?;
        let service = ecs.discovery.service(&ctx.realm(), arn);
        let service = service
            .ok_or_else(|| faults::invalid(format!("Service registry {arn} does not exist.")))?;
        let container = registry.container_name.as_deref();
        let port = match (container, registry.container_port, registry.port) {
            (Some(name), Some(port), None) => {
                check_port(definition, name, port)?;
                Some(port)
            }
            (None, None, port) => port,
            _ => {
                return Err(faults::invalid(
                    "Specify either a containerName and containerPort combination or a port value for a service \
                     registry, but not both.",
                ));
            }
        };
        if port.is_some_and(|port| u16::try_from(port).is_err()) {
            return Err(faults::invalid("port must be between 0 and 65535."));
        }
        if service.has_srv() && port.is_none() {
            return Err(faults::invalid(format!(
                "When specifying 'serviceRegistries' with SRV records, a port must be specified for {arn}."
            )));
        }
    }
    Ok(given)
}

fn check_group(ecs: &Ecs, ctx: &Context, arn: &str) -> Result<(), Fault> {
    let realm = ctx.realm();
    if ecs.elb.target_group(&realm, arn).is_none() {
        let message = format!("The specified target group does not exist. {arn}");
        return Err(faults::invalid(message));
    }
    match ecs.elb.is_used(&realm, arn) {
        true => Ok(()),
        false => Err(faults::invalid(format!(
            "The target group with targetGroupArn {arn} does not have an associated load balancer."
        ))),
    }
}

/// What traffic is shifted with: another target group, the rules that forward to both, and a role to do it as.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/alb-resources-for-blue-green.html>
fn check_advanced(
    ecs: &Ecs,
    ctx: &Context,
    first: &str,
    advanced: &AdvancedConfiguration,
) -> Result<(), Fault> {
    let missing =
        |name: &str| faults::invalid(format!("{name} must be specified in advancedConfiguration."));
    let alternate = advanced.alternate_target_group_arn.as_ref();
    let alternate = alternate.ok_or_else(|| missing("alternateTargetGroupArn"))?;
    let production = advanced.production_listener_rule.as_ref();
    let production = production.ok_or_else(|| missing("productionListenerRule"))?;
    let role = advanced.role_arn.as_ref().ok_or_else(|| missing("roleArn"))?;
    let service = [("iam:PassedToService", "ecs.amazonaws.com")];
    ctx.authorise_with("iam:PassRole", role, &service)?;
    if alternate == first {
        let message = "targetGroupArn and alternateTargetGroupArn must not be the same.";
        return Err(faults::invalid(message));
    }
    check_group(ecs, ctx, alternate)?;
    if advanced.test_listener_rule.as_ref() == Some(production) {
        let message = "productionListenerRule and testListenerRule must not be the same.";
        return Err(faults::invalid(message));
    }
    for rule in [Some(production), advanced.test_listener_rule.as_ref()].into_iter().flatten() {
        let forwarded = ecs.elb.forwarded(&ctx.realm(), rule).map_err(|fault| {
            faults::invalid(format!("The listener rule {rule} cannot be used: {}", fault.message))
        })?;
        if !forwarded.iter().any(|group| group == first || group == alternate) {
            return Err(faults::invalid(format!(
                "The listener rule {rule} does not forward to the target groups of the service."
            )));
        }
    }
    Ok(())
}

/// A strategy that shifts traffic needs somewhere to shift it to.
pub(super) fn check_pairs(
    configuration: &DeploymentConfiguration,
    revision: &Revision,
) -> Result<(), Fault> {
    let alone = revision.load_balancers.iter().any(|b| b.advanced_configuration.is_none());
    if shifts(configuration) && revision.connect.is_some() {
        let message = "Service Connect is built for the ROLLING deployment strategy only.";
        return Err(faults::invalid(message));
    }
    match shifts(configuration) && alone {
        true => Err(faults::invalid(
            "advancedConfiguration must be specified for the load balancers of a service whose deployment strategy \
             is not ROLLING.",
        )),
        false => Ok(()),
    }
}

/// A record by the id of the service deployment that a service has under way.
pub(super) fn ongoing(tx: &Tx, service: &Record) -> Option<Arc<ServiceDeployment>> {
    let id = service.ongoing.as_ref()?;
    tx.get(&ServiceDeployment::key_of(&service.realm, &service.cluster, &service.name, id))
}

/// The id of the deployment whose tasks get the service's requests, when there is one.
fn serving(service: &Record) -> Option<String> {
    let there = |id: &&String| service.deployments.iter().any(|d| d.id == **id);
    let good = |d: &&Deployment| d.rollout == DeploymentRolloutState::Completed;
    let completed = || service.deployments.iter().find(good).map(|d| d.id.clone());
    service.serving.as_ref().filter(there).cloned().or_else(completed)
}

/// The target groups that a new revision's targets go to: where traffic is shifted, those that the revision that gets
/// requests is not in; otherwise those that it is in.
fn groups(
    shifting: bool,
    revision: &Revision,
    serving: Option<&Deployment>,
) -> Result<Vec<String>, Fault> {
    let mut groups = Vec::new();
    for balancer in &revision.load_balancers {
        let first = balancer.target_group_arn.clone().unwrap_or_default();
        let advanced = balancer.advanced_configuration.as_ref();
        let alternate = advanced.and_then(|advanced| advanced.alternate_target_group_arn.clone());
        let is_in = |group: &str| serving.is_some_and(|serving| serving.is_in(group));
        groups.push(match alternate {
            Some(alternate) if is_in(if shifting { &first } else { &alternate }) => alternate,
            Some(_) => first,
            None => {
                check_left(&first, serving)?;
                first
            }
        });
    }
    Ok(groups)
}

/// A service cannot do without its alternate target group while that one has the requests.
fn check_left(first: &str, serving: Option<&Deployment>) -> Result<(), Fault> {
    let mut pairs = serving.into_iter().flat_map(Deployment::balancers);
    let left = pairs.find(|(b, own)| b.target_group_arn.as_deref() == Some(first) && *own != first);
    match left {
        None => Ok(()),
        Some((_, own)) => Err(faults::invalid(format!(
            "The production traffic goes to the alternate target group {own}: keep advancedConfiguration, or specify \
             that target group as targetGroupArn."
        ))),
    }
}

/// Begins to deploy a revision. What is under way ends where it is; its traffic is brought back first.
pub(super) fn begin(
    ecs: &Ecs,
    tx: &mut Tx,
    service: &mut Record,
    revision: Revision,
) -> Result<(), Fault> {
    let before = ongoing(tx, service);
    let new = draft(&ecs.world, service, revision)?;
    if let Some(before) = before {
        end(tx, &before, new.created_at);
    }
    tx.put(kept_revision(tx, &new, &service.deployments[0]));
    tx.put(new);
    Ok(())
}

/// Makes the deployment of a revision a service's newest.
pub(crate) fn draft(
    world: &World,
    service: &mut Record,
    revision: Revision,
) -> Result<ServiceDeployment, Fault> {
    let now = world.now();
    let serving = serving(service);
    let find = |id: &String| service.deployments.iter().find(|d| d.id == *id);
    let shifting = shifts(&service.configuration);
    check_pairs(&service.configuration, &revision)?;
    let groups = groups(shifting, &revision, serving.as_ref().and_then(find))?;
    let id = format!("ecs-svc/{}", world.text(ID_DIGITS, b"0123456789"));
    let play = |id: &String| RevisionInPlay {
        deployment: id.clone(),
        requested: service.desired_count,
        ..RevisionInPlay::default()
    };
    let others: Vec<_> = service.deployments.iter().map(|d| &d.id).collect();
    let others = others.into_iter().filter(|id| Some(*id) != serving.as_ref());
    let sources: Vec<_> = match shifting {
        // The others are gone before it begins in earnest.
        true => serving.iter().map(play).collect(),
        false => serving.iter().chain(others.clone()).map(play).collect(),
    };
    let stage = match others.count() {
        0 => ServiceDeploymentLifecycleStage::PreScaleUp,
        _ => ServiceDeploymentLifecycleStage::ReconcileService,
    };
    let shift = Shift { stage, since: now, test: 0, production: 0, hooks: Vec::new() };
    let new = ServiceDeployment {
        realm: service.realm.clone(),
        cluster: service.cluster.clone(),
        service: service.name.clone(),
        id: world.text(SERVICE_DEPLOYMENT_ID.0, SERVICE_DEPLOYMENT_ID.1),
        target: play(&id),
        sources,
        status: ServiceDeploymentStatus::Pending,
        reason: None,
        configuration: service.configuration.clone(),
        shift: shifting.then_some(shift),
        rollback: None,
        breaker: Breaker { threshold: service.breaker_threshold(), ..Breaker::default() },
        alarms: AlarmsWatched::default(),
        created_at: now,
        started_at: None,
        finished_at: None,
        stopped_at: None,
        updated_at: now,
    };
    let mut deployment = Deployment::new(id, revision, service.desired_count, now);
    deployment.groups = groups;
    service.ongoing = Some(new.id.clone());
    service.deployments.insert(0, deployment);
    Ok(new)
}

/// What was under way when another began.
fn end(tx: &mut Tx, before: &ServiceDeployment, now: Timestamp) {
    tx.update::<ServiceDeployment>(&store::Record::key(before), |before| {
        before.status = ServiceDeploymentStatus::Stopped;
        before.reason = Some("Another service deployment was started.".to_owned());
        (before.stopped_at, before.finished_at) = (Some(now), Some(now));
        before.updated_at = now;
    });
}

fn kept_revision(tx: &Tx, of: &ServiceDeployment, deployment: &Deployment) -> ServiceRevision {
    let revision = &deployment.revision;
    let key = TaskDefinition::key_of(&of.realm, &revision.family, revision.revision);
    let definition = tx.get::<TaskDefinition>(&key);
    let documents = definition.iter().map(|definition| &definition.document);
    let containers = documents.flat_map(|document| document.container_definitions.iter().flatten());
    let image = |container: &ContainerDefinition| {
        let name = container.name.clone().unwrap_or_default();
        (name, container.image.clone().unwrap_or_default(), None)
    };
    ServiceRevision {
        realm: of.realm.clone(),
        cluster: of.cluster.clone(),
        service: of.service.clone(),
        id: deployment.id.trim_start_matches("ecs-svc/").to_owned(),
        revision: revision.clone(),
        groups: deployment.groups.clone(),
        images: containers.map(image).collect(),
        created_at: of.created_at,
    }
}
