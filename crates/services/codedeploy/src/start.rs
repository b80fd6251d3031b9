//! Deployments begin and end, within a transaction.

use crate::{
    api::{
        AutoRollbackEvent, DeploymentCreator, DeploymentStatus, ErrorCode, LastDeploymentInfo,
        LifecycleEventStatus,
    },
    model::{Deployment, Event, Group, Phase, Plan},
};
use events::Event as Told;
use serde_json::json;
use store::{Record, Tx};
use world::{Timestamp, World};

/// What deployments to ECS go through.
/// <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html>
pub(crate) const EVENTS: [&str; 8] = [
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "AllowTestTraffic",
    "AfterAllowTestTraffic",
    "BeforeAllowTraffic",
    "AllowTraffic",
    "AfterAllowTraffic",
];
const ID_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

pub(crate) fn new_id(world: &World) -> String {
    format!("d-{}", world.text(9, ID_LETTERS))
}

/// The lifecycle events of a deployment that has not begun.
pub(crate) fn pending() -> Vec<Event> {
    let event = |name: &&str| Event {
        name: (*name).to_owned(),
        status: LifecycleEventStatus::Pending,
        start: None,
        end: None,
        diagnostics: None,
    };
    EVENTS.iter().map(event).collect()
}

/// Writes a deployment, tells its state when that is another than before, and lets its group know.
pub(crate) fn put(tx: &mut Tx, world: &World, deployment: Deployment) {
    let before = tx.get::<Deployment>(&deployment.key()).map(|before| before.status);
    let state = match deployment.status {
        DeploymentStatus::Ready => Some("READY"),
        DeploymentStatus::Succeeded => Some("SUCCESS"),
        DeploymentStatus::Failed => Some("FAILURE"),
        DeploymentStatus::Stopped => Some("STOP"),
        _ if before.is_none() => Some("START"),
        _ => None,
    };
    if let Some(state) = state.filter(|_| before != Some(deployment.status)) {
        tell(tx, world, &deployment, state);
    }
    let group = &deployment.group;
    let last = LastDeploymentInfo {
        deployment_id: Some(deployment.id.clone()),
        status: Some(deployment.status),
        end_time: deployment.completed,
        create_time: Some(deployment.created),
    };
    let (succeeded, revision) =
        (deployment.status == DeploymentStatus::Succeeded, deployment.revision.clone());
    tx.update::<Group>(&Group::key_of(&group.realm, &group.application, &group.name), |group| {
        if succeeded {
            (group.succeeded, group.revision) = (Some(last.clone()), Some(revision));
        }
        let newest = group.attempted.as_ref().and_then(|info| info.create_time);
        if newest.is_none_or(|newest| newest <= last.create_time.unwrap_or(newest)) {
            group.attempted = Some(last);
        }
    });
    tx.put(deployment);
}

/// <https://docs.aws.amazon.com/codedeploy/latest/userguide/monitoring-cloudwatch-events.html>
fn tell(tx: &mut Tx, world: &World, deployment: &Deployment, state: &str) {
    let (account, region) = deployment.realm.split_once('/').unwrap_or_default();
    let Group { application, name, .. } = &deployment.group;
    let arn = |rest: String| format!("arn:aws:codedeploy:{region}:{account}:{rest}");
    let event = Told {
        id: world.uuid(),
        realm: deployment.realm.clone(),
        source: "aws.codedeploy".to_owned(),
        detail_type: "CodeDeploy Deployment State-change Notification".to_owned(),
        time: world.now(),
        resources: vec![
            arn(format!("application:{application}")),
            arn(format!("deploymentgroup:{application}/{name}")),
        ],
        detail: json!({
            "region": region, "deploymentId": deployment.id, "application": application, "deploymentGroup": name,
            "instanceGroupId": deployment.group.id, "state": state,
        }),
    };
    events::tell(tx, world, &event);
}

/// Ends a deployment that did not get where it was to get, and begins the one that rolls it back, if it is to be.
pub(crate) fn give_up(
    tx: &mut Tx,
    world: &World,
    mut deployment: Deployment,
    status: DeploymentStatus,
    error: (ErrorCode, String),
    asked: bool,
    now: Timestamp,
) {
    let reason = match status {
        _ if error.0 == ErrorCode::AlarmActive => AutoRollbackEvent::DeploymentStopOnAlarm,
        DeploymentStatus::Stopped => AutoRollbackEvent::DeploymentStopOnRequest,
        _ => AutoRollbackEvent::DeploymentFailure,
    };
    let automatic = deployment.rollback.as_ref().is_some_and(|rollback| {
        rollback.enabled == Some(true)
            && rollback.events.iter().flatten().any(|event| *event == reason)
    });
    for event in deployment.events.iter_mut().filter(|event| event.end.is_none()) {
        event.status = match event.status {
            LifecycleEventStatus::InProgress => LifecycleEventStatus::Failed,
            _ => LifecycleEventStatus::Skipped,
        };
        event.end = Some(now);
    }
    deployment.status = status;
    deployment.error = Some(error);
    deployment.completed = Some(now);
    // Before the service was looked at there is nothing to bring back.
    let touched = !deployment.plan.blue.is_empty() && deployment.rolls_back.is_none();
    if touched && (automatic || asked) {
        let id = new_id(world);
        deployment.rolled_back_by = Some(id.clone());
        let back = Deployment {
            id,
            revision: deployment
                .group
                .revision
                .clone()
                .unwrap_or_else(|| deployment.revision.clone()),
            description: None,
            creator: DeploymentCreator::CodeDeployRollback,
            created: now,
            completed: None,
            status: DeploymentStatus::InProgress,
            error: None,
            rolled_back_by: None,
            rolls_back: Some(deployment.id.clone()),
            phase: Phase::Restore,
            since: now,
            let_on: false,
            stop: None,
            events: pending(),
            hooks: Vec::new(),
            ..deployment.clone()
        };
        put(tx, world, deployment);
        put(tx, world, back);
        return;
    }
    put(tx, world, deployment);
}

/// A deployment of `group`, not begun.
pub(crate) fn fresh(
    world: &World,
    group: &Group,
    now: Timestamp,
    config: (String, crate::api::TrafficRoutingConfig),
    revision: crate::api::RevisionLocation,
) -> Deployment {
    Deployment {
        realm: group.realm.clone(),
        id: new_id(world),
        group: group.clone(),
        config: config.0,
        routing: config.1,
        revision,
        description: None,
        creator: DeploymentCreator::User,
        created: now,
        completed: None,
        status: DeploymentStatus::Created,
        error: None,
        rollback: group.rollback.clone(),
        own_alarms: None,
        rolled_back_by: None,
        rolls_back: None,
        phase: Phase::Prepare,
        since: now,
        plan: Plan::default(),
        green: None,
        weight: 0,
        let_on: false,
        stop: None,
        events: pending(),
        hooks: Vec::new(),
    }
}
