//! Service deployments, from records to answers.

use super::task_counts;
use crate::{Ecs, api::*, model};

pub(in crate::ops) fn service_deployment_brief(
    deployment: &model::ServiceDeployment,
) -> ServiceDeploymentBrief {
    ServiceDeploymentBrief {
        service_deployment_arn: Some(deployment.arn()),
        service_arn: Some(deployment.service_arn()),
        cluster_arn: Some(deployment.cluster_arn()),
        started_at: deployment.started_at,
        created_at: Some(deployment.created_at),
        finished_at: deployment.finished_at,
        target_service_revision_arn: Some(deployment.revision_arn(&deployment.target.deployment)),
        status: Some(deployment.status),
        status_reason: deployment.reason.clone(),
    }
}

pub(in crate::ops) fn service_deployment(
    ecs: &Ecs,
    deployment: &model::ServiceDeployment,
) -> ServiceDeployment {
    let snapshot = ecs.store.read();
    let key = model::Service::key_of(&deployment.realm, &deployment.cluster, &deployment.service);
    let service = snapshot.get::<model::Service>(&key).filter(|_| deployment.is_ongoing());
    let summary = |revision: &model::RevisionInPlay| {
        let id = &revision.deployment;
        // While it is under way the tasks say; afterwards it is kept how they were then.
        let counts = service.as_ref().map_or((revision.running, revision.pending), |service| {
            task_counts(&snapshot, service, Some(id))
        });
        let wanted = service.iter().flat_map(|s| &s.deployments).find(|d| d.id == *id);
        let percent = |share: i32| deployment.shift.as_ref().map(|_| f64::from(share) / 10.0);
        ServiceRevisionSummary {
            arn: Some(deployment.revision_arn(id)),
            requested_task_count: Some(wanted.map_or(revision.requested, |d| d.desired_count)),
            running_task_count: Some(counts.0),
            pending_task_count: Some(counts.1),
            requested_test_traffic_weight: percent(deployment.test(id)),
            requested_production_traffic_weight: percent(deployment.production(id)),
        }
    };
    let hooks = deployment.shift.iter().flat_map(|shift| &shift.hooks);
    ServiceDeployment {
        service_deployment_arn: Some(deployment.arn()),
        service_arn: Some(deployment.service_arn()),
        cluster_arn: Some(deployment.cluster_arn()),
        created_at: Some(deployment.created_at),
        started_at: deployment.started_at,
        finished_at: deployment.finished_at,
        stopped_at: deployment.stopped_at,
        updated_at: Some(deployment.updated_at),
        source_service_revisions: Some(deployment.sources.iter().map(summary).collect()),
        target_service_revision: Some(summary(&deployment.target)),
        status: Some(deployment.status),
        status_reason: deployment.reason.clone(),
        lifecycle_stage: deployment.shift.as_ref().map(|shift| shift.stage),
        lifecycle_hook_details: deployment.shift.as_ref().map(|_| hooks.map(hook).collect()),
        deployment_configuration: Some(deployment.configuration.clone()),
        rollback: deployment.rollback.as_ref().map(|rollback| Rollback {
            reason: Some(rollback.reason.clone()),
            started_at: Some(rollback.started_at),
            service_revision_arn: Some(deployment.revision_arn(&rollback.to)),
        }),
        deployment_circuit_breaker: Some(circuit_breaker(deployment)),
        alarms: Some(alarms(deployment)),
    }
}

fn hook(hook: &model::Hook) -> DeploymentLifecycleHookDetail {
    DeploymentLifecycleHookDetail {
        hook_id: Some(hook.id.clone()),
        target_type: Some(match hook.function {
            Some(_) => DeploymentLifecycleHookTargetType::AwsLambda,
            None => DeploymentLifecycleHookTargetType::Pause,
        }),
        target_arn: hook.function.clone(),
        status: Some(hook.status),
        expires_at: Some(hook.expires_at),
        timeout_action: Some(hook.action),
    }
}

fn circuit_breaker(deployment: &model::ServiceDeployment) -> ServiceDeploymentCircuitBreaker {
    use ServiceDeploymentRollbackMonitorsStatus::*;
    let configured = deployment.configuration.deployment_circuit_breaker.as_ref();
    let status = match configured.is_some_and(|breaker| breaker.enable) {
        false => Disabled,
        true if deployment.breaker.triggered => Triggered,
        true if deployment.is_ongoing() => Monitoring,
        true => MonitoringComplete,
    };
    ServiceDeploymentCircuitBreaker {
        status: Some(status),
        failure_count: Some(deployment.breaker.failures),
        threshold: Some(deployment.breaker.threshold),
    }
}

fn alarms(deployment: &model::ServiceDeployment) -> ServiceDeploymentAlarms {
    use ServiceDeploymentRollbackMonitorsStatus::*;
    let watched = &deployment.alarms;
    let status = match deployment.alarms().is_some() && !watched.passed_over {
        false => Disabled,
        true if !watched.triggered.is_empty() => Triggered,
        true if deployment.is_ongoing() => Monitoring,
        true => MonitoringComplete,
    };
    ServiceDeploymentAlarms {
        status: Some(status),
        alarm_names: deployment.alarms().map(|alarms| alarms.alarm_names.clone()),
        triggered_alarm_names: (!watched.triggered.is_empty()).then(|| watched.triggered.clone()),
    }
}
