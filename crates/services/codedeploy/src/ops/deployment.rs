//! Deployments.

use super::{PAGE, deployment, group, group::alarms, group_arn};
use crate::{
    CodeDeploy,
    api::*,
    config, faults,
    model::{Deployment, Phase},
    start::{fresh, put},
};
use store::Record;
use wire::{Context, Fault, Page};

/// The most ids of one BatchGetDeployments.
const MOST_IDS: usize = 25;
/// So many deployments of a group are kept.
const MOST_KEPT: usize = 500;

pub(crate) async fn create_deployment(
    service: &CodeDeploy,
    ctx: &Context,
    input: CreateDeploymentInput,
) -> Result<CreateDeploymentOutput, Fault> {
    let required = || {
        Fault::new(
            "DeploymentGroupNameRequiredException",
            "A deployment group name must be specified.",
        )
    };
    let name = input.deployment_group_name.as_deref().ok_or_else(required)?;
    let place = (input.application_name.as_str(), name);
    let group = group(service, ctx, place, "codedeploy:CreateDeployment")?;
    let revision = input
        .revision
        .or_else(|| group.revision.clone())
        .ok_or_else(|| Fault::new("RevisionRequiredException", "The revision is required."))?;
    let config = input.deployment_config_name.unwrap_or_else(|| group.config.clone());
    let routing = config::routing(&service.store.read(), &group.realm, &config);
    let routing = routing.ok_or_else(|| faults::no_config(&config))?;
    let mut begun = fresh(&service.world, &group, ctx.now, (config, routing), revision);
    begun.description = input.description;
    if input.auto_rollback_configuration.is_some() {
        begun.rollback = input.auto_rollback_configuration;
    }
    begun.own_alarms = input.override_alarm_configuration.map(alarms).transpose()?;
    let (id, world) = (begun.id.clone(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let own = |one: &Deployment| {
                one.group.application == begun.group.application
                    && one.group.name == begun.group.name
            };
            let all = tx.scan_prefix::<Deployment>(&format!("{}/", begun.realm));
            let mut all: Vec<_> = all.filter(|one| own(one)).collect();
            if let Some(other) = all.iter().find(|one| one.is_open()) {
                return Err(Fault::new(
                    "DeploymentLimitExceededException",
                    format!(
                        "The Deployment Group '{}' already has an active Deployment '{}'",
                        begun.group.name, other.id
                    ),
                ));
            }
            all.sort_by_key(|one| one.created);
            for old in all.iter().take(all.len().saturating_sub(MOST_KEPT - 1)) {
                tx.delete::<Deployment>(&old.key());
            }
            put(tx, &world, begun);
            Ok(())
        })
        .await?;
    Ok(CreateDeploymentOutput { deployment_id: Some(id) })
}

fn info(found: &Deployment) -> DeploymentInfo {
    let rollback = match (&found.rolled_back_by, &found.rolls_back) {
        (None, None) => None,
        (by, of) => Some(RollbackInfo {
            rollback_deployment_id: by.clone(),
            rollback_triggering_deployment_id: of.clone(),
            rollback_message: None,
        }),
    };
    let over = !found.is_open();
    let count = |status: bool| Some(i64::from(status));
    DeploymentInfo {
        application_name: Some(found.group.application.clone()),
        deployment_group_name: Some(found.group.name.clone()),
        deployment_config_name: Some(found.config.clone()),
        deployment_id: Some(found.id.clone()),
        previous_revision: found.group.revision.clone(),
        revision: Some(found.revision.clone()),
        status: Some(found.status),
        error_information: found.error.as_ref().map(|(code, message)| ErrorInformation {
            code: Some(*code),
            message: Some(message.clone()),
        }),
        create_time: Some(found.created),
        start_time: Some(found.created),
        complete_time: found.completed,
        deployment_overview: Some(DeploymentOverview {
            pending: count(found.status == DeploymentStatus::Created),
            in_progress: count(!over && found.status == DeploymentStatus::InProgress),
            succeeded: count(found.status == DeploymentStatus::Succeeded),
            failed: count(found.status == DeploymentStatus::Failed),
            skipped: count(found.status == DeploymentStatus::Stopped),
            ready: count(found.status == DeploymentStatus::Ready),
        }),
        description: found.description.clone(),
        creator: Some(found.creator),
        auto_rollback_configuration: found.rollback.clone(),
        override_alarm_configuration: found.own_alarms.clone(),
        rollback_info: rollback,
        deployment_style: Some(found.group.style.clone()),
        instance_termination_wait_time_started: Some(found.phase == Phase::Terminate),
        blue_green_deployment_configuration: Some(found.group.blue_green.clone()),
        load_balancer_info: Some(found.group.load_balancer.clone()),
        compute_platform: Some(ComputePlatform::Ecs),
        ..DeploymentInfo::default()
    }
}

pub(crate) async fn get_deployment(
    service: &CodeDeploy,
    ctx: &Context,
    input: GetDeploymentInput,
) -> Result<GetDeploymentOutput, Fault> {
    let found = deployment(service, ctx, &input.deployment_id, "codedeploy:GetDeployment")?;
    Ok(GetDeploymentOutput { deployment_info: Some(info(&found)) })
}

pub(crate) async fn batch_get_deployments(
    service: &CodeDeploy,
    ctx: &Context,
    input: BatchGetDeploymentsInput,
) -> Result<BatchGetDeploymentsOutput, Fault> {
    if input.deployment_ids.len() > MOST_IDS {
        return Err(Fault::new(
            "BatchLimitExceededException",
            format!("At most {MOST_IDS} deployments can be asked for at once."),
        ));
    }
    let mut infos = Vec::new();
    for id in &input.deployment_ids {
        match deployment(service, ctx, id, "codedeploy:BatchGetDeployments") {
            Ok(found) => infos.push(info(&found)),
            Err(fault) if fault.code == "DeploymentDoesNotExistException" => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(BatchGetDeploymentsOutput { deployments_info: Some(infos) })
}

pub(crate) async fn list_deployments(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListDeploymentsInput,
) -> Result<ListDeploymentsOutput, Fault> {
    let (of, name) = (input.application_name, input.deployment_group_name);
    let arn = group_arn(ctx, of.as_deref().unwrap_or("*"), name.as_deref().unwrap_or("*"));
    ctx.authorise("codedeploy:ListDeployments", &arn)?;
    let (statuses, range) =
        (input.include_only_statuses.unwrap_or_default(), input.create_time_range);
    let within = |one: &Deployment| {
        range.as_ref().is_none_or(|range| {
            range.start.is_none_or(|start| one.created >= start)
                && range.end.is_none_or(|end| one.created <= end)
        })
    };
    let shown = |one: &Deployment| {
        of.as_ref().is_none_or(|of| one.group.application == *of)
            && name.as_ref().is_none_or(|name| one.group.name == *name)
            && (statuses.is_empty() || statuses.contains(&one.status))
            && within(one)
    };
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<Deployment>(&format!("{}/", ctx.realm()));
    // The newest first, and pages go up.
    let newest = |one: &Deployment| format!("{:020} {}", i64::MAX - one.created.millis(), one.id);
    let mut all: Vec<_> =
        all.filter(|one| shown(one)).map(|one| (newest(&one), one.id.clone())).collect();
    all.sort();
    let listing = format!("ListDeployments {of:?} {name:?}");
    let page = Page::take(&listing, input.next_token.as_deref(), PAGE, all.into_iter());
    let page = page.map_err(|_| faults::token())?;
    Ok(ListDeploymentsOutput { deployments: Some(page.items), next_token: page.next_token })
}

fn is_over() -> Fault {
    Fault::new("DeploymentAlreadyCompletedException", "The deployment is already complete.")
}

pub(crate) async fn stop_deployment(
    service: &CodeDeploy,
    ctx: &Context,
    input: StopDeploymentInput,
) -> Result<StopDeploymentOutput, Fault> {
    let id = &input.deployment_id;
    let found = deployment(service, ctx, id, "codedeploy:StopDeployment")?;
    let (key, rollback) = (found.key(), input.auto_rollback_enabled.unwrap_or_default());
    service
        .store
        .write(move |tx| {
            let found =
                tx.get::<Deployment>(&key).filter(|one| one.is_open()).ok_or_else(is_over)?;
            if found.phase == Phase::Restore {
                return Err(Fault::new(
                    "InvalidDeploymentStatusException",
                    "A rollback cannot be stopped.",
                ));
            }
            tx.update::<Deployment>(&key, |one| one.stop = Some(rollback));
            Ok(())
        })
        .await?;
    Ok(StopDeploymentOutput {
        status: Some(StopStatus::Pending),
        status_message: Some("No more steps are begun.".to_owned()),
    })
}

pub(crate) async fn continue_deployment(
    service: &CodeDeploy,
    ctx: &Context,
    input: ContinueDeploymentInput,
) -> Result<(), Fault> {
    let required =
        || Fault::new("DeploymentIdRequiredException", "A deployment ID must be specified.");
    let id = input.deployment_id.ok_or_else(required)?;
    let found = deployment(service, ctx, &id, "codedeploy:ContinueDeployment")?;
    let key = found.key();
    let waits_at = match input.deployment_wait_type {
        None | Some(DeploymentWaitType::ReadyWait) => Phase::Ready,
        Some(DeploymentWaitType::TerminationWait) => Phase::Terminate,
    };
    service
        .store
        .write(move |tx| {
            let found =
                tx.get::<Deployment>(&key).filter(|one| one.is_open()).ok_or_else(is_over)?;
            if found.phase != waits_at {
                return Err(Fault::new(
                    "DeploymentIsNotInReadyStateException",
                    "The deployment does not wait for this.",
                ));
            }
            tx.update::<Deployment>(&key, |one| one.let_on = true);
            Ok(())
        })
        .await
}

pub(crate) async fn put_lifecycle_event_hook_execution_status(
    service: &CodeDeploy,
    ctx: &Context,
    input: PutLifecycleEventHookExecutionStatusInput,
) -> Result<PutLifecycleEventHookExecutionStatusOutput, Fault> {
    let required =
        || Fault::new("DeploymentIdRequiredException", "A deployment ID must be specified.");
    let id = input.deployment_id.ok_or_else(required)?;
    let action = "codedeploy:PutLifecycleEventHookExecutionStatus";
    let found = deployment(service, ctx, &id, action)?;
    let well = match input.status {
        Some(LifecycleEventStatus::Succeeded) => true,
        Some(LifecycleEventStatus::Failed) => false,
        _ => {
            return Err(Fault::new(
                "InvalidLifecycleEventHookExecutionStatusException",
                "The status of a lifecycle event hook execution is Succeeded or Failed.",
            ));
        }
    };
    let unknown = || {
        Fault::new(
            "InvalidLifecycleEventHookExecutionIdException",
            "The deployment has no such lifecycle event hook execution.",
        )
    };
    let hook = input.lifecycle_event_hook_execution_id.ok_or_else(unknown)?;
    let (key, said) = (found.key(), hook.clone());
    service
        .store
        .write(move |tx| {
            let found = tx.get::<Deployment>(&key).ok_or_else(|| faults::no_deployment(&id))?;
            let run = found.hooks.iter().find(|run| run.id == said).ok_or_else(unknown)?;
            if run.result.is_some() || !found.is_open() || found.phase != Phase::Hook(run.event) {
                return Err(Fault::new(
                    "LifecycleEventAlreadyCompletedException",
                    "The lifecycle event is over already.",
                ));
            }
            tx.update::<Deployment>(&key, |one| {
                let asked = one.hooks.iter_mut().filter(|run| run.id == said);
                asked.for_each(|run| run.result = Some(well));
            });
            Ok(())
        })
        .await?;
    Ok(PutLifecycleEventHookExecutionStatusOutput { lifecycle_event_hook_execution_id: Some(hook) })
}
