//! How a pipeline stands, and which of its stages may be entered.

use super::{execution::kind, executions, find};
use crate::{
    CodePipeline,
    api::*,
    faults,
    model::{ActionRun, Disabled, Execution, Pipeline, Retries, StageRun},
};
use std::{result::Result, sync::Arc};
use wire::{Context, Fault};

pub(crate) async fn get_pipeline_state(
    service: &CodePipeline,
    ctx: &Context,
    input: GetPipelineStateInput,
) -> Result<GetPipelineStateOutput, Fault> {
    let pipeline = find(service, ctx, &input.name, "codepipeline:GetPipelineState")?;
    let executions = executions(service, &pipeline);
    let stages = pipeline.declaration.stages.iter();
    let stages = stages.map(|stage| stage_state(&pipeline, stage, &executions));
    Ok(GetPipelineStateOutput {
        pipeline_name: Some(pipeline.name().to_owned()),
        pipeline_version: Some(pipeline.version()),
        stage_states: Some(stages.collect()),
        created: Some(pipeline.created),
        updated: Some(pipeline.updated),
    })
}

fn stage_state(
    pipeline: &Pipeline,
    stage: &StageDeclaration,
    executions: &[Arc<Execution>],
) -> StageState {
    let own = |execution: &Execution| -> Option<StageRun> {
        execution.stages.iter().find(|run| run.name == stage.name && run.entered > 0).cloned()
    };
    let entered = executions.iter().filter_map(|execution| Some((execution, own(execution)?)));
    let latest = entered.max_by_key(|(_, run)| run.entered);
    let waits = |execution: &&Arc<Execution>| {
        execution.is_open()
            && execution.waiting
            && execution.stages.get(execution.at).is_some_and(|run| run.name == stage.name)
    };
    let mut waiting: Vec<StageExecution> = executions.iter().filter(waits).map(inbound).collect();
    waiting.reverse();
    let disabled = pipeline.disabled.get(&stage.name);
    let actions = stage.actions.iter().map(|action| {
        let run = latest.as_ref().and_then(|(execution, run)| {
            let run = run.actions.iter().find(|run| run.declaration.name == action.name)?;
            Some((execution, run))
        });
        ActionState {
            action_name: Some(action.name.clone()),
            current_revision: run.as_ref().and_then(|(execution, run)| revision(execution, run)),
            latest_execution: run.and_then(|(_, run)| action_execution(run)),
            entity_url: None,
            revision_url: None,
        }
    });
    let action_states = Some(actions.collect());
    let retries = latest.as_ref().and_then(|(_, run)| retries(run));
    StageState {
        stage_name: Some(stage.name.clone()),
        inbound_execution: waiting.first().cloned(),
        inbound_executions: (!waiting.is_empty()).then_some(waiting),
        inbound_transition_state: Some(TransitionState {
            enabled: Some(disabled.is_none()),
            last_changed_by: disabled.map(|one| one.by.clone()),
            last_changed_at: disabled.map(|one| one.at),
            disabled_reason: disabled.map(|one| one.reason.clone()),
        }),
        action_states,
        latest_execution: latest.and_then(|(execution, run)| {
            Some(StageExecution {
                pipeline_execution_id: Some(execution.id.clone()),
                status: Some(run.status?),
                r#type: Some(kind(execution)),
            })
        }),
        retry_stage_metadata: retries,
        ..StageState::default()
    }
}

/// How often a stage was tried again, if it was.
fn retries(run: &StageRun) -> Option<RetryStageMetadata> {
    let Retries { automatic, manual, last_automatic } = run.retries;
    let count = |count: u32| i32::try_from(count).ok().filter(|count| *count > 0);
    (automatic + manual > 0).then(|| RetryStageMetadata {
        auto_stage_retry_attempt: count(automatic),
        manual_stage_retry_attempt: count(manual),
        latest_retry_trigger: Some(match last_automatic {
            true => RetryTrigger::AutomatedStageRetry,
            false => RetryTrigger::ManualStageRetry,
        }),
    })
}

fn inbound(execution: &Arc<Execution>) -> StageExecution {
    StageExecution {
        pipeline_execution_id: Some(execution.id.clone()),
        status: Some(StageExecutionStatus::InProgress),
        r#type: Some(kind(execution)),
    }
}

fn revision(execution: &Execution, run: &ActionRun) -> Option<ActionRevision> {
    let found = execution.revisions.iter().find(|one| one.action == run.declaration.name)?;
    Some(ActionRevision {
        revision_id: Some(found.id.clone()),
        revision_change_id: Some(found.id.clone()),
        created: Some(found.created),
    })
}

pub(crate) fn error_details(run: &ActionRun) -> Option<ErrorDetails> {
    run.error.as_ref().map(|(code, message)| ErrorDetails {
        code: Some(code.clone()),
        message: Some(message.clone()),
    })
}

fn action_execution(run: &ActionRun) -> Option<ActionExecution> {
    Some(ActionExecution {
        action_execution_id: Some(run.id.clone()),
        status: Some(run.status?),
        summary: run.summary.clone(),
        last_status_change: Some(run.changed),
        token: run.token.clone().filter(|_| run.is_under_way()),
        last_updated_by: run.by.clone(),
        external_execution_id: run.external.clone(),
        external_execution_url: run.resolved.get("ExternalEntityLink").cloned(),
        percent_complete: run.job().and_then(|job| job.percent),
        error_details: error_details(run),
        log_stream_arn: None,
    })
}

/// Changes whether a stage may be entered.
async fn transition(
    service: &CodePipeline,
    ctx: &Context,
    (name, stage): (String, String),
    kind: StageTransitionType,
    disabled: Option<Disabled>,
) -> Result<(), Fault> {
    let action = match disabled {
        Some(_) => "codepipeline:DisableStageTransition",
        None => "codepipeline:EnableStageTransition",
    };
    ctx.authorise(action, &ctx.arn("codepipeline", format!("{name}/{stage}")))?;
    let key = Pipeline::key_of(&ctx.realm(), &name);
    let missing = faults::no_pipeline(ctx, &name);
    service
        .store
        .write(move |tx| {
            let pipeline = tx.get::<Pipeline>(&key).ok_or(missing)?;
            let stages = &pipeline.declaration.stages;
            let at = stages.iter().position(|one| one.name == stage);
            let at = at.ok_or_else(|| faults::no_stage(&stage))?;
            // What may not leave a stage may not enter the next.
            let into = match kind {
                StageTransitionType::Inbound => Some(at),
                StageTransitionType::Outbound => Some(at + 1).filter(|next| *next < stages.len()),
            };
            let Some(into) = into.filter(|into| *into > 0) else {
                return Err(faults::validation(format!(
                    "The stage '{stage}' has no such transition."
                )));
            };
            let into = stages[into].name.clone();
            tx.update::<Pipeline>(&key, |pipeline| {
                match disabled {
                    Some(disabled) => pipeline.disabled.insert(into, disabled),
                    None => pipeline.disabled.remove(&into),
                };
            });
            Ok(())
        })
        .await
}

pub(crate) async fn disable_stage_transition(
    service: &CodePipeline,
    ctx: &Context,
    input: DisableStageTransitionInput,
) -> Result<(), Fault> {
    let by = ctx.principal.arn.clone();
    let disabled = Disabled { reason: input.reason, by, at: ctx.now };
    let place = (input.pipeline_name, input.stage_name);
    transition(service, ctx, place, input.transition_type, Some(disabled)).await
}

pub(crate) async fn enable_stage_transition(
    service: &CodePipeline,
    ctx: &Context,
    input: EnableStageTransitionInput,
) -> Result<(), Fault> {
    let place = (input.pipeline_name, input.stage_name);
    transition(service, ctx, place, input.transition_type, None).await
}
