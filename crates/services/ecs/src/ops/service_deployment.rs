//! Service deployments and revisions.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>

use super::{
    answer,
    listing::page,
    named::{active_cluster, cluster_name, service_name},
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{
        Service as ServiceRecord, ServiceDeployment as Record, ServiceRevision as RevisionRecord,
    },
};
use store::Record as _;
use wire::{Context, Fault};

/// The most of one Describe.
const MOST_DESCRIBED: usize = 20;

/// The parts of an ARN of `kind` in the caller's account and region: cluster, service, id.
fn parts<'a>(ctx: &Context, kind: &str, arn: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let rest = arn.strip_prefix(&ctx.arn("ecs", format!("{kind}/")))?;
    let (cluster, rest) = rest.split_once('/')?;
    let (service, id) = rest.split_once('/')?;
    Some((cluster, service, id))
}

fn authorise(ctx: &Context, action: &str, arn: &str) -> Result<(), Fault> {
    // An ARN that is none names no cluster that a policy could be about.
    let cluster = arn.split('/').nth(1).unwrap_or_default();
    let cluster = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with(action, arn, &[("ecs:cluster", &cluster)])
}

fn key_of(ctx: &Context, arn: &str) -> Option<String> {
    let (cluster, service, id) = parts(ctx, "service-deployment", arn)?;
    Some(Record::key_of(&ctx.realm(), cluster, service, id))
}

pub(crate) async fn list_service_deployments(
    ecs: &Ecs,
    ctx: &Context,
    input: ListServiceDeploymentsRequest,
) -> Result<ListServiceDeploymentsResponse, Fault> {
    let cluster = cluster_name(ctx, input.cluster.as_deref())?;
    let name = service_name(ctx, &cluster, &input.service)?;
    let arn = ctx.arn("ecs", format!("service/{cluster}/{name}"));
    let cluster_arn = ctx.arn("ecs", format!("cluster/{cluster}"));
    ctx.authorise_with("ecs:ListServiceDeployments", &arn, &[("ecs:cluster", &cluster_arn)])?;
    active_cluster(ecs, ctx, &cluster)?;
    let key = ServiceRecord::key_of(&ctx.realm(), &cluster, &name);
    let snapshot = ecs.store.read();
    snapshot.get::<ServiceRecord>(&key).ok_or_else(faults::no_service)?;
    let created = input.created_at.unwrap_or_default();
    let wanted = |deployment: &Record| {
        let status = input.status.as_ref().filter(|status| !status.is_empty());
        status.is_none_or(|status| status.contains(&deployment.status))
            && created.before.is_none_or(|before| deployment.created_at < before)
            && created.after.is_none_or(|after| deployment.created_at > after)
    };
    let found = snapshot.scan_prefix::<Record>(&format!("{key}/"));
    // Newest first.
    let keyed = |deployment: std::sync::Arc<Record>| {
        let age = i64::MAX - deployment.created_at.millis();
        (format!("{age:020} {}", deployment.id), answer::service_deployment_brief(&deployment))
    };
    let mut found: Vec<_> = found.filter(|d| wanted(d)).map(keyed).collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let size = input.max_results.or(Some(20));
    let (listed, next_token) =
        page("ListServiceDeployments", input.next_token.as_deref(), size, found.into_iter())?;
    Ok(ListServiceDeploymentsResponse { service_deployments: Some(listed), next_token })
}

fn check_number(name: &str, arns: &[String]) -> Result<(), Fault> {
    match arns.len() {
        0 => Err(faults::invalid(format!("{name} cannot be empty."))),
        1..=MOST_DESCRIBED => Ok(()),
        _ => {
            let message = format!("{name} cannot have more than {MOST_DESCRIBED} elements.");
            Err(faults::invalid(message))
        }
    }
}

pub(crate) async fn describe_service_deployments(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeServiceDeploymentsRequest,
) -> Result<DescribeServiceDeploymentsResponse, Fault> {
    let arns = input.service_deployment_arns;
    arns.iter().try_for_each(|arn| authorise(ctx, "ecs:DescribeServiceDeployments", arn))?;
    check_number("serviceDeploymentArns", &arns)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in arns {
        let key = key_of(ctx, &arn);
        match key.and_then(|key| ecs.store.read().get::<Record>(&key)) {
            Some(deployment) => found.push(answer::service_deployment(ecs, &deployment)),
            None => failures.push(answer::missing(arn)),
        }
    }
    Ok(DescribeServiceDeploymentsResponse {
        service_deployments: Some(found),
        failures: Some(failures),
    })
}

pub(crate) async fn describe_service_revisions(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeServiceRevisionsRequest,
) -> Result<DescribeServiceRevisionsResponse, Fault> {
    let arns = input.service_revision_arns;
    arns.iter().try_for_each(|arn| authorise(ctx, "ecs:DescribeServiceRevisions", arn))?;
    check_number("serviceRevisionArns", &arns)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in arns {
        let key = parts(ctx, "service-revision", &arn).map(|(cluster, service, id)| {
            RevisionRecord::key_of(&ctx.realm(), cluster, service, id)
        });
        let revision = key.and_then(|key| ecs.store.read().get::<RevisionRecord>(&key));
        match revision.filter(|revision| revision.arn() == arn) {
            Some(revision) => found.push(answer::service_revision(&revision)),
            None => failures.push(answer::missing(arn)),
        }
    }
    Ok(DescribeServiceRevisionsResponse {
        service_revisions: Some(found),
        failures: Some(failures),
    })
}

/// Whether a deployment can go back, and if not why.
fn check_can_go_back(deployment: &Record) -> Result<(), Fault> {
    let is_past =
        |shift: &crate::model::Shift| shift.stage == ServiceDeploymentLifecycleStage::CleanUp;
    let reason = match deployment {
        d if !d.is_ongoing() => "is not in progress",
        d if d.is_going_back() => "is being rolled back",
        d if d.source().is_none() => "has no service revision to roll back to",
        d if d.shift.as_ref().is_some_and(is_past) => "is cleaning up",
        _ => return Ok(()),
    };
    Err(faults::conflict(format!("The service deployment {} {reason}.", deployment.arn())))
}

pub(crate) async fn stop_service_deployment(
    ecs: &Ecs,
    ctx: &Context,
    input: StopServiceDeploymentRequest,
) -> Result<StopServiceDeploymentResponse, Fault> {
    let arn = input.service_deployment_arn;
    authorise(ctx, "ecs:StopServiceDeployment", &arn)?;
    if input.stop_type == Some(StopServiceDeploymentStopType::Abort) {
        return Err(faults::invalid("stopType must be ROLLBACK."));
    }
    let key = key_of(ctx, &arn).ok_or_else(faults::no_service_deployment)?;
    let now = ecs.world.now();
    let stopped = ecs.store.write(move |tx| {
        let found = tx.get::<Record>(&key).ok_or_else(faults::no_service_deployment)?;
        check_can_go_back(&found)?;
        tx.update::<Record>(&found.key(), |deployment| {
            deployment.status = ServiceDeploymentStatus::RollbackRequested;
            deployment.updated_at = now;
        });
        Ok::<_, Fault>(())
    });
    stopped.await?;
    Ok(StopServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}

pub(crate) async fn continue_service_deployment(
    ecs: &Ecs,
    ctx: &Context,
    input: ContinueServiceDeploymentRequest,
) -> Result<ContinueServiceDeploymentResponse, Fault> {
    let arn = input.service_deployment_arn;
    authorise(ctx, "ecs:ContinueServiceDeployment", &arn)?;
    let key = key_of(ctx, &arn).ok_or_else(faults::no_service_deployment)?;
    let (now, id) = (ecs.world.now(), input.hook_id);
    let goes_back = input.action == Some(DeploymentLifecycleHookAction::Rollback);
    let continued = ecs.store.write(move |tx| {
        let found = tx.get::<Record>(&key).ok_or_else(faults::no_service_deployment)?;
        let waits = |hook: &crate::model::Hook| {
            hook.id == id && hook.status == DeploymentLifecycleHookStatus::AwaitingAction
        };
        let hooks = found.shift.iter().flat_map(|shift| &shift.hooks);
        if found.status != ServiceDeploymentStatus::InProgress || !hooks.clone().any(waits) {
            let message = format!("The lifecycle hook {id} is not awaiting an action.");
            return Err(faults::invalid(message));
        }
        if goes_back {
            check_can_go_back(&found)?;
        }
        tx.update::<Record>(&found.key(), |deployment| {
            deployment.updated_at = now;
            let hooks = deployment.shift.iter_mut().flat_map(|shift| &mut shift.hooks);
            let status = match goes_back {
                true => DeploymentLifecycleHookStatus::Failed,
                false => DeploymentLifecycleHookStatus::Succeeded,
            };
            hooks.filter(|hook| waits(hook)).for_each(|hook| hook.status = status);
            if goes_back {
                deployment.status = ServiceDeploymentStatus::RollbackRequested;
            }
        });
        Ok::<_, Fault>(())
    });
    continued.await?;
    Ok(ContinueServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}
