//! What EventBridge is told of executions, their stages and their actions, within the transaction that changes them.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/detect-state-changes-cloudwatch-events.html>

use crate::{
    api::{ActionExecutionStatus, PipelineExecutionStatus, StageExecutionStatus},
    model::{ActionRun, Execution},
};
use events::Event;
use serde_json::{Value as Json, json};
use store::{Record, Tx};
use world::World;

/// Writes an execution, and tells what is other than before.
pub(crate) fn put(tx: &mut Tx, world: &World, execution: Execution) {
    if events::is_heeded(tx, &execution.realm) {
        let before = tx.get::<Execution>(&execution.key());
        for (detail_type, detail) in changes(before.as_deref(), &execution) {
            let (account, region) = execution.realm.split_once('/').unwrap_or_default();
            let event = Event {
                id: world.uuid(),
                realm: execution.realm.clone(),
                source: "aws.codepipeline".to_owned(),
                detail_type: detail_type.to_owned(),
                time: world.now(),
                resources: vec![format!(
                    "arn:aws:codepipeline:{region}:{account}:{}",
                    execution.pipeline
                )],
                detail,
            };
            events::tell(tx, world, &event);
        }
    }
    tx.put(execution);
}

fn changes(before: Option<&Execution>, now: &Execution) -> Vec<(&'static str, Json)> {
    let mut told = Vec::new();
    let detail = |state: &str| {
        json!({
            "pipeline": now.pipeline, "execution-id": now.id, "version": f64::from(now.version), "state": state,
            "start-time": now.started.rfc3339(),
        })
    };
    if before.map(|before| before.status) != Some(now.status) {
        let mut detail = detail(pipeline_state(before, now.status));
        if before.is_none() {
            detail["execution-trigger"] = json!({
                "trigger-type": now.trigger.as_str(), "trigger-detail": now.trigger_detail,
            });
        }
        told.push(("CodePipeline Pipeline Execution State Change", detail));
    }
    for (index, stage) in now.stages.iter().enumerate() {
        let old = before.and_then(|before| before.stages.get(index));
        if let Some(status) = stage.status.filter(|status| {
            old.is_none_or(|old| old.status != Some(*status) || old.entered != stage.entered)
        }) {
            let mut detail = detail(stage_state(status));
            detail["stage"] = json!(stage.name);
            told.push(("CodePipeline Stage Execution State Change", detail));
        }
        for (index, action) in stage.actions.iter().enumerate() {
            let old = old.and_then(|old| old.actions.get(index));
            let Some(status) = action.status else { continue };
            if old.is_some_and(|old| old.status == Some(status) && old.id == action.id) {
                continue;
            }
            let mut detail = detail(action_state(status));
            detail["stage"] = json!(stage.name);
            describe(&mut detail, action, &now.realm);
            told.push(("CodePipeline Action Execution State Change", detail));
        }
    }
    told
}

fn describe(detail: &mut Json, action: &ActionRun, realm: &str) {
    let kind = &action.declaration.action_type_id;
    detail["action"] = json!(action.declaration.name);
    detail["action-execution-id"] = json!(action.id);
    detail["region"] = json!(realm.split_once('/').map(|(_, region)| region));
    detail["type"] = json!({
        "owner": kind.owner.as_str(), "category": kind.category.as_str(), "provider": kind.provider,
        "version": kind.version,
    });
    let mut result = json!({});
    let known = [
        ("external-execution-summary", action.summary.as_ref()),
        ("external-execution-id", action.external.as_ref()),
        ("error-code", action.error.as_ref().map(|(code, _)| code)),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            result[name] = json!(value);
        }
    }
    if result.as_object().is_some_and(|result| !result.is_empty()) {
        detail["execution-result"] = result;
    }
}

fn pipeline_state(before: Option<&Execution>, status: PipelineExecutionStatus) -> &'static str {
    match status {
        PipelineExecutionStatus::InProgress if before.is_some() => "RESUMED",
        PipelineExecutionStatus::InProgress => "STARTED",
        PipelineExecutionStatus::Succeeded => "SUCCEEDED",
        PipelineExecutionStatus::Failed => "FAILED",
        PipelineExecutionStatus::Superseded => "SUPERSEDED",
        PipelineExecutionStatus::Stopping => "STOPPING",
        PipelineExecutionStatus::Stopped => "STOPPED",
        PipelineExecutionStatus::Cancelled => "CANCELED",
    }
}

fn stage_state(status: StageExecutionStatus) -> &'static str {
    match status {
        StageExecutionStatus::InProgress => "STARTED",
        StageExecutionStatus::Succeeded => "SUCCEEDED",
        StageExecutionStatus::Failed => "FAILED",
        StageExecutionStatus::Stopping => "STOPPING",
        StageExecutionStatus::Stopped => "STOPPED",
        StageExecutionStatus::Cancelled => "CANCELED",
        StageExecutionStatus::Skipped => "SKIPPED",
    }
}

fn action_state(status: ActionExecutionStatus) -> &'static str {
    match status {
        ActionExecutionStatus::InProgress => "STARTED",
        ActionExecutionStatus::Succeeded => "SUCCEEDED",
        ActionExecutionStatus::Failed => "FAILED",
        ActionExecutionStatus::Abandoned => "ABANDONED",
    }
}
