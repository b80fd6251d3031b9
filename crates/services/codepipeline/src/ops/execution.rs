//! Executions.

use super::{execution as the_execution, executions, find, state::error_details};
use crate::{
    CodePipeline,
    actions::Provider,
    api::*,
    drive::entries,
    faults,
    model::{ActionRun, Execution, Pipeline, Stop},
    recover,
    start::{Begin, begin},
    tell,
};
use std::{collections::BTreeMap, result::Result, sync::Arc};
use store::Record;
use wire::{Context, Fault, Page};

/// So many are on a page unless asked otherwise.
const PAGE: usize = 100;

fn size(asked: Option<i32>) -> usize {
    asked.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).max(1)
}

fn trigger(execution: &Execution) -> Option<ExecutionTrigger> {
    Some(ExecutionTrigger {
        trigger_type: Some(execution.trigger),
        trigger_detail: Some(execution.trigger_detail.clone()),
    })
}

/// Whether an execution goes through the pipeline or takes a stage back.
pub(super) fn kind(execution: &Execution) -> ExecutionType {
    match execution.rollback {
        Some(_) => ExecutionType::Rollback,
        None => ExecutionType::Standard,
    }
}

fn rollback(execution: &Execution) -> Option<PipelineRollbackMetadata> {
    let target = execution.rollback.clone()?;
    Some(PipelineRollbackMetadata { rollback_target_pipeline_execution_id: Some(target) })
}

/// Whether a source of the pipeline can be told to give this revision.
fn gives(pipeline: &Pipeline, wanted: &SourceRevisionOverride) -> bool {
    let givers = match wanted.revision_type {
        SourceRevisionType::CommitId => [Provider::CodeCommit, Provider::Connection].as_slice(),
        SourceRevisionType::ImageDigest => &[Provider::Ecr],
        SourceRevisionType::S3ObjectVersionId => &[Provider::S3],
        _ => return false,
    };
    let mut actions = pipeline.declaration.stages.iter().flat_map(|stage| &stage.actions);
    let gives = |one| Provider::of(one).is_ok_and(|provider| givers.contains(&provider));
    actions.any(|one| one.name == wanted.action_name && gives(one))
}

pub(crate) async fn start_pipeline_execution(
    service: &CodePipeline,
    ctx: &Context,
    input: StartPipelineExecutionInput,
) -> Result<StartPipelineExecutionOutput, Fault> {
    let pipeline = find(service, ctx, &input.name, "codepipeline:StartPipelineExecution")?;
    let known = |name: &String| {
        let mut declared = pipeline.declaration.variables.iter().flatten();
        declared.any(|one| one.name == *name)
    };
    let given = input.variables.unwrap_or_default();
    if let Some(unknown) = given.iter().find(|variable| !known(&variable.name)) {
        return Err(faults::validation(format!(
            "The pipeline has no variable '{}'.",
            unknown.name
        )));
    }
    let variables: BTreeMap<String, String> =
        given.into_iter().map(|variable| (variable.name, variable.value)).collect();
    let without = pipeline.declaration.variables.iter().flatten();
    let without = without.filter(|one| one.default_value.is_none());
    if let Some(missing) = without.into_iter().find(|one| !variables.contains_key(&one.name)) {
        return Err(faults::validation(format!("The variable '{}' needs a value.", missing.name)));
    }
    let overrides = input.source_revisions.unwrap_or_default();
    if let Some(wrong) = overrides.iter().find(|one| !gives(&pipeline, one)) {
        return Err(faults::validation(format!(
            "The pipeline has no source action '{}' that a revision of the type {} is of.",
            wrong.action_name,
            wrong.revision_type.as_str()
        )));
    }
    let from_rule = ctx.user_agent == events::SERVICE;
    let wanted = Begin {
        trigger: match from_rule {
            true => TriggerType::CloudWatchEvent,
            false => TriggerType::StartPipelineExecution,
        },
        detail: ctx.principal.arn.clone(),
        token: input.client_request_token,
        variables,
        overrides,
        branch: None,
        back: None,
    };
    let (key, world, now) = (pipeline.key(), service.world.clone(), ctx.now);
    let id = service.store.write(move |tx| begin(tx, &world, &key, now, wanted)).await?;
    Ok(StartPipelineExecutionOutput { pipeline_execution_id: Some(id) })
}

pub(crate) async fn stop_pipeline_execution(
    service: &CodePipeline,
    ctx: &Context,
    input: StopPipelineExecutionInput,
) -> Result<StopPipelineExecutionOutput, Fault> {
    find(service, ctx, &input.pipeline_name, "codepipeline:StopPipelineExecution")?;
    let (realm, now, world) = (ctx.realm(), ctx.now, service.world.clone());
    let id = input.pipeline_execution_id.clone();
    service
        .store
        .write(move |tx| {
            let id = &input.pipeline_execution_id;
            let missing = |_| {
                Fault::new(
                    "PipelineExecutionNotStoppableException",
                    format!("The pipeline execution '{id}' is not there to be stopped."),
                )
            };
            let found = the_execution(tx, &realm, &input.pipeline_name, id);
            let mut execution = found.map_err(missing)?;
            if !execution.is_open() {
                return Err(Fault::new(
                    "PipelineExecutionNotStoppableException",
                    format!("The pipeline execution '{id}' is over."),
                ));
            }
            let abandon = input.abandon.unwrap_or_default();
            if execution.stop.as_ref().is_some_and(|stop| stop.abandon || !abandon) {
                return Err(Fault::new(
                    "DuplicatedStopRequestException",
                    format!("The pipeline execution '{id}' is being stopped already."),
                ));
            }
            execution.stop = Some(Stop { abandon, reason: input.reason });
            execution.status = PipelineExecutionStatus::Stopping;
            execution.updated = now;
            let at = execution.at;
            if let Some(stage) = execution.stages.get_mut(at).filter(|_| !execution.waiting) {
                stage.status = Some(StageExecutionStatus::Stopping);
            }
            tell::put(tx, &world, execution);
            Ok(())
        })
        .await?;
    Ok(StopPipelineExecutionOutput { pipeline_execution_id: Some(id) })
}

pub(crate) async fn get_pipeline_execution(
    service: &CodePipeline,
    ctx: &Context,
    input: GetPipelineExecutionInput,
) -> Result<GetPipelineExecutionOutput, Fault> {
    let name = &input.pipeline_name;
    let pipeline = find(service, ctx, name, "codepipeline:GetPipelineExecution")?;
    let id = &input.pipeline_execution_id;
    let found = executions(service, &pipeline).into_iter().find(|one| one.id == *id);
    let execution = found.ok_or_else(|| faults::no_execution(id))?;
    let revisions = execution.revisions.iter().map(|revision| ArtifactRevision {
        name: Some(revision.artifact.clone()),
        revision_id: Some(revision.id.clone()),
        revision_change_identifier: None,
        revision_summary: Some(revision.summary.clone()),
        created: Some(revision.created),
        revision_url: None,
    });
    let variables = execution.variables.iter().map(|(name, value)| ResolvedPipelineVariable {
        name: Some(name.clone()),
        resolved_value: Some(value.clone()),
    });
    Ok(GetPipelineExecutionOutput {
        pipeline_execution: Some(PipelineExecution {
            pipeline_name: Some(pipeline.name().to_owned()),
            pipeline_version: Some(execution.version),
            pipeline_execution_id: Some(execution.id.clone()),
            status: Some(execution.status),
            status_summary: summary(&execution),
            artifact_revisions: Some(revisions.collect()),
            variables: Some(variables.collect()),
            trigger: trigger(&execution),
            execution_mode: Some(execution.mode),
            execution_type: Some(kind(&execution)),
            rollback_metadata: rollback(&execution),
        }),
    })
}

/// What stopped an execution, or which action failed and why.
fn summary(execution: &Execution) -> Option<String> {
    if let Some(reason) = execution.stop.as_ref().and_then(|stop| stop.reason.clone()) {
        return Some(reason);
    }
    let stages = execution.stages.iter();
    let mut failed =
        stages.flat_map(|stage| stage.actions.iter().map(move |action| (stage, action)));
    failed.find_map(|(stage, action)| {
        let (_, message) = action.error.as_ref()?;
        Some(format!(
            "The action {} in the stage {} failed: {message}",
            action.declaration.name, stage.name
        ))
    })
}

pub(crate) async fn list_pipeline_executions(
    service: &CodePipeline,
    ctx: &Context,
    input: ListPipelineExecutionsInput,
) -> Result<ListPipelineExecutionsOutput, Fault> {
    let name = &input.pipeline_name;
    let pipeline = find(service, ctx, name, "codepipeline:ListPipelineExecutions")?;
    let within = input.filter.and_then(|filter| filter.succeeded_in_stage);
    let within = within.and_then(|filter| filter.stage_name);
    let shown = |execution: &Arc<Execution>| {
        within.as_ref().is_none_or(|stage| {
            let succeeded = Some(StageExecutionStatus::Succeeded);
            execution.stages.iter().any(|run| run.name == *stage && run.status == succeeded)
        })
    };
    let all = executions(service, &pipeline).into_iter().rev().filter(shown).map(|execution| {
        let sources = execution.revisions.iter().map(|revision| SourceRevision {
            action_name: Some(revision.action.clone()),
            revision_id: Some(revision.id.clone()),
            revision_summary: Some(revision.summary.clone()),
            revision_url: None,
        });
        let stop = execution.stop.as_ref();
        let summary = PipelineExecutionSummary {
            pipeline_execution_id: Some(execution.id.clone()),
            status: Some(execution.status),
            status_summary: summary(&execution),
            start_time: Some(execution.started),
            last_update_time: Some(execution.updated),
            source_revisions: Some(sources.collect()),
            trigger: trigger(&execution),
            stop_trigger: stop.map(|stop| StopExecutionTrigger { reason: stop.reason.clone() }),
            execution_mode: Some(execution.mode),
            execution_type: Some(kind(&execution)),
            rollback_metadata: rollback(&execution),
        };
        // The newest first, and pages go up.
        (format!("{:020}", u64::MAX - execution.number), summary)
    });
    let listing = format!("ListPipelineExecutions {name} {within:?}");
    let page = Page::take(&listing, input.next_token.as_deref(), size(input.max_results), all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListPipelineExecutionsOutput {
        pipeline_execution_summaries: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn list_action_executions(
    service: &CodePipeline,
    ctx: &Context,
    input: ListActionExecutionsInput,
) -> Result<ListActionExecutionsOutput, Fault> {
    let name = &input.pipeline_name;
    let pipeline = find(service, ctx, name, "codepipeline:ListActionExecutions")?;
    let id = input.filter.and_then(|filter| filter.pipeline_execution_id);
    let all = executions(service, &pipeline);
    if let Some(id) = id.as_ref().filter(|id| !all.iter().any(|execution| execution.id == **id)) {
        return Err(faults::no_execution(id));
    }
    let shown = all.iter().rev().filter(|one| id.as_ref().is_none_or(|id| one.id == *id));
    let mut details = Vec::new();
    for execution in shown {
        let mut own: Vec<_> = Vec::new();
        for stage in &execution.stages {
            let runs = stage.before.iter().chain(&stage.actions);
            own.extend(
                runs.filter_map(|run| Some((run.started, detail(execution, &stage.name, run)?))),
            );
        }
        own.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
        details.extend(own.into_iter().map(|(_, detail)| detail));
    }
    let all = details.into_iter().enumerate().map(|(at, detail)| (format!("{at:010}"), detail));
    let listing = format!("ListActionExecutions {name} {id:?}");
    let page = Page::take(&listing, input.next_token.as_deref(), size(input.max_results), all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListActionExecutionsOutput {
        action_execution_details: Some(page.items),
        next_token: page.next_token,
    })
}

fn detail(execution: &Execution, stage: &str, run: &ActionRun) -> Option<ActionExecutionDetail> {
    let status = run.status?;
    let artifacts = |names: Vec<&String>| -> Option<Vec<ArtifactDetail>> {
        let places = names.into_iter().map(|name| {
            let place = execution.artifacts.get(name);
            ArtifactDetail {
                name: Some(name.clone()),
                s3location: place.map(|place| S3Location {
                    bucket: Some(place.bucket.clone()),
                    key: Some(place.key.clone()),
                }),
            }
        });
        Some(places.collect())
    };
    let declaration = &run.declaration;
    let inputs = declaration.input_artifacts.iter().flatten().map(|one| &one.name).collect();
    let outputs = declaration.output_artifacts.iter().flatten().map(|one| &one.name).collect();
    let over = status != ActionExecutionStatus::InProgress;
    Some(ActionExecutionDetail {
        pipeline_execution_id: Some(execution.id.clone()),
        action_execution_id: Some(run.id.clone()),
        pipeline_version: Some(execution.version),
        stage_name: Some(stage.to_owned()),
        action_name: Some(declaration.name.clone()),
        start_time: Some(run.started),
        last_update_time: Some(run.changed),
        updated_by: run.by.clone(),
        status: Some(status),
        input: Some(ActionExecutionInput {
            action_type_id: Some(declaration.action_type_id.clone()),
            configuration: declaration.configuration.clone(),
            resolved_configuration: Some(run.resolved.clone()),
            role_arn: declaration.role_arn.clone(),
            region: execution.realm.split_once('/').map(|(_, region)| region.to_owned()),
            input_artifacts: artifacts(inputs),
            namespace: declaration.namespace.clone(),
        }),
        output: over.then(|| ActionExecutionOutput {
            output_artifacts: artifacts(outputs),
            execution_result: Some(ActionExecutionResult {
                external_execution_id: run.external.clone(),
                external_execution_summary: run.summary.clone(),
                external_execution_url: None,
                error_details: error_details(run),
                log_stream_arn: None,
            }),
            output_variables: Some(run.outputs.clone()),
        }),
    })
}

pub(crate) async fn retry_stage_execution(
    service: &CodePipeline,
    ctx: &Context,
    input: RetryStageExecutionInput,
) -> Result<RetryStageExecutionOutput, Fault> {
    let (name, stage) = (&input.pipeline_name, &input.stage_name);
    ctx.authorise(
        "codepipeline:RetryStageExecution",
        &ctx.arn("codepipeline", format!("{name}/{stage}")),
    )?;
    let key = Pipeline::key_of(&ctx.realm(), name);
    let missing = faults::no_pipeline(ctx, name);
    let (now, world) = (ctx.now, service.world.clone());
    let id = input.pipeline_execution_id.clone();
    service
        .store
        .write(move |tx| {
            let pipeline = tx.get::<Pipeline>(&key).ok_or(missing)?;
            let (realm, name) = (&pipeline.realm, pipeline.name());
            let mut execution = the_execution(tx, realm, name, &input.pipeline_execution_id)?;
            let all: Vec<Arc<Execution>> =
                tx.scan_prefix::<Execution>(&Execution::prefix_of(realm, name)).collect();
            let at = execution.stages.iter().position(|run| run.name == input.stage_name);
            let at = at.ok_or_else(|| faults::no_stage(&input.stage_name))?;
            let entered = |execution: &Execution| {
                let stage = execution.stages.iter().find(|run| run.name == input.stage_name);
                stage.map_or(0, |run| run.entered)
            };
            let newest = all.iter().map(|one| entered(one)).max().unwrap_or(0);
            if entered(&execution) != newest {
                return Err(Fault::new(
                    "NotLatestPipelineExecutionException",
                    "Another execution has entered the stage since.",
                ));
            }
            let failed = Some(StageExecutionStatus::Failed);
            if execution.is_open() || execution.at != at || execution.stages[at].status != failed {
                return Err(Fault::new(
                    "StageNotRetryableException",
                    format!("The stage '{}' has not failed.", input.stage_name),
                ));
            }
            let run = &mut execution.stages[at];
            run.retry(input.retry_mode == StageRetryMode::AllActions, entries(&all) + 1);
            run.retries.manual += 1;
            run.retries.last_automatic = false;
            (execution.status, execution.updated) = (PipelineExecutionStatus::InProgress, now);
            tell::put(tx, &world, execution);
            Ok(())
        })
        .await?;
    Ok(RetryStageExecutionOutput { pipeline_execution_id: Some(id) })
}

pub(crate) async fn rollback_stage(
    service: &CodePipeline,
    ctx: &Context,
    input: RollbackStageInput,
) -> Result<RollbackStageOutput, Fault> {
    let (name, stage) = (input.pipeline_name, input.stage_name);
    ctx.authorise(
        "codepipeline:RollbackStage",
        &ctx.arn("codepipeline", format!("{name}/{stage}")),
    )?;
    let key = Pipeline::key_of(&ctx.realm(), &name);
    let missing = faults::no_pipeline(ctx, &name);
    let (now, world, by) = (ctx.now, service.world.clone(), ctx.principal.arn.clone());
    let id = service.store.write(move |tx| {
        let pipeline = tx.get::<Pipeline>(&key).ok_or(missing)?;
        let target =
            the_execution(tx, &pipeline.realm, &name, &input.target_pipeline_execution_id)?;
        let stages = &pipeline.declaration.stages;
        let at = stages.iter().position(|one| one.name == stage);
        let at = at.ok_or_else(|| faults::no_stage(&stage))?;
        let prefix = Execution::prefix_of(&pipeline.realm, &name);
        let busy = tx
            .scan_prefix::<Execution>(&prefix)
            .find(|one| one.is_open() && !one.waiting && one.at == at);
        if let Some(busy) = busy {
            return Err(unable(format!("The stage is running, in the execution {}.", busy.id)));
        }
        recover::can_go_back(&pipeline, &target, at).map_err(unable)?;
        let wanted = Begin {
            trigger: TriggerType::ManualRollback,
            detail: by,
            back: Some((Arc::new(target), at)),
            ..Begin::default()
        };
        begin(tx, &world, &key, now, wanted)
    });
    Ok(RollbackStageOutput { pipeline_execution_id: Some(id.await?) })
}

fn unable(why: String) -> Fault {
    Fault::new("UnableToRollbackStageException", why)
}
