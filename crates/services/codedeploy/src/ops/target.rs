//! The one target of a deployment to ECS: the service.

use super::deployment;
use crate::{CodeDeploy, api::*, faults, model::Deployment, steps};
use std::sync::Arc;
use wire::{Context, Fault};

fn target_id(found: &Deployment) -> String {
    format!("{}:{}", found.group.cluster, found.group.service)
}

async fn target(service: &Arc<CodeDeploy>, found: &Deployment) -> DeploymentTarget {
    let mut infos = Vec::new();
    for set in steps::task_sets(service, found).await {
        let id = set["id"].as_str().unwrap_or_default().to_owned();
        let green = found.green.as_ref() == Some(&id);
        if !green && found.plan.blue != id {
            continue;
        }
        let weight = if green { found.weight } else { 100 - found.weight };
        let group = if green { &found.plan.green_group } else { &found.plan.blue_group };
        // arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID
        let name = group.split('/').nth(1).map(str::to_owned);
        infos.push(ECSTaskSet {
            identifer: Some(id),
            desired_count: set["computedDesiredCount"].as_i64(),
            pending_count: set["pendingCount"].as_i64(),
            running_count: set["runningCount"].as_i64(),
            status: set["status"].as_str().map(str::to_owned),
            traffic_weight: Some(f64::from(weight)),
            target_group: Some(TargetGroupInfo { name }),
            task_set_label: Some(if green { TargetLabel::Green } else { TargetLabel::Blue }),
        });
    }
    let events = found.events.iter().map(|event| LifecycleEvent {
        lifecycle_event_name: Some(event.name.clone()),
        diagnostics: event.diagnostics.as_ref().map(|diagnosis| Diagnostics {
            error_code: Some(diagnosis.code),
            script_name: Some(diagnosis.function.clone()),
            message: Some(diagnosis.message.clone()),
            log_tail: None,
        }),
        start_time: event.start,
        end_time: event.end,
        status: Some(event.status),
    });
    let (account, region) = found.realm.split_once('/').unwrap_or_default();
    let service_path = format!("service/{}/{}", found.group.cluster, found.group.service);
    DeploymentTarget {
        deployment_target_type: Some(DeploymentTargetType::ECSTarget),
        ecs_target: Some(ECSTarget {
            deployment_id: Some(found.id.clone()),
            target_id: Some(target_id(found)),
            target_arn: Some(format!("arn:aws:ecs:{region}:{account}:{service_path}")),
            last_updated_at: Some(found.completed.unwrap_or(found.since)),
            lifecycle_events: Some(events.collect()),
            status: Some(match found.status {
                DeploymentStatus::Created | DeploymentStatus::Queued => TargetStatus::Pending,
                DeploymentStatus::InProgress | DeploymentStatus::Baking => TargetStatus::InProgress,
                DeploymentStatus::Succeeded => TargetStatus::Succeeded,
                DeploymentStatus::Failed => TargetStatus::Failed,
                DeploymentStatus::Stopped => TargetStatus::Skipped,
                DeploymentStatus::Ready => TargetStatus::Ready,
            }),
            task_sets_info: Some(infos),
        }),
        ..DeploymentTarget::default()
    }
}

fn no_target(id: &str) -> Fault {
    Fault::new(
        "DeploymentTargetDoesNotExistException",
        format!("The deployment has no target {id}"),
    )
}

pub(crate) async fn get_deployment_target(
    service: &Arc<CodeDeploy>,
    ctx: &Context,
    input: GetDeploymentTargetInput,
) -> Result<GetDeploymentTargetOutput, Fault> {
    let id = &input.deployment_id;
    let found = deployment(service, ctx, id, "codedeploy:GetDeploymentTarget")?;
    if input.target_id != target_id(&found) {
        return Err(no_target(&input.target_id));
    }
    Ok(GetDeploymentTargetOutput { deployment_target: Some(target(service, &found).await) })
}

pub(crate) async fn batch_get_deployment_targets(
    service: &Arc<CodeDeploy>,
    ctx: &Context,
    input: BatchGetDeploymentTargetsInput,
) -> Result<BatchGetDeploymentTargetsOutput, Fault> {
    let id = &input.deployment_id;
    let found = deployment(service, ctx, id, "codedeploy:BatchGetDeploymentTargets")?;
    if let Some(other) = input.target_ids.iter().find(|id| **id != target_id(&found)) {
        return Err(no_target(other));
    }
    let targets = vec![target(service, &found).await];
    Ok(BatchGetDeploymentTargetsOutput { deployment_targets: Some(targets) })
}

pub(crate) async fn list_deployment_targets(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListDeploymentTargetsInput,
) -> Result<ListDeploymentTargetsOutput, Fault> {
    let id = &input.deployment_id;
    let found = deployment(service, ctx, id, "codedeploy:ListDeploymentTargets")?;
    match input.next_token {
        Some(_) => Err(faults::token()),
        None => Ok(ListDeploymentTargetsOutput {
            target_ids: Some(vec![target_id(&found)]),
            next_token: None,
        }),
    }
}
