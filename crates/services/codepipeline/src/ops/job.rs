//! Functions say what came of their jobs. Whoever knows a job's id and may say so, says so: AWS has no resource for it.

use crate::{
    CodePipeline,
    api::*,
    model::{ActionRun, Execution, Job, JobResult},
};
use std::{result::Result, sync::Arc};
use store::Record;
use wire::{Context, Fault};

/// The most bytes of all output variables. <https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html>
const MOST_OUTPUT_BYTES: usize = 122_880;

/// The execution and the action that a job is for, under way or not.
fn find(
    service: &CodePipeline,
    ctx: &Context,
    id: &str,
) -> Result<(Arc<Execution>, ActionRun), Fault> {
    let prefix = format!("{}/", ctx.realm());
    for execution in service.store.read().scan_prefix::<Execution>(&prefix) {
        let mut actions = execution.stages.iter().flat_map(|stage| &stage.actions);
        let found = actions.find(|run| run.job().is_some_and(|job| job.id == id)).cloned();
        if let Some(found) = found {
            return Ok((execution, found));
        }
    }
    Err(Fault::new("JobNotFoundException", format!("The job {id} was not found.")))
}

/// Writes into a job that nothing has come of so far.
async fn change(
    service: &CodePipeline,
    (execution, run): (Arc<Execution>, ActionRun),
    id: &str,
    change: impl FnOnce(Job) -> Job,
) -> Result<(), Fault> {
    let key = execution.key();
    service
        .store
        .write(|tx| {
            let over = || {
                let message = format!("The job {id} is not under way any more.");
                Fault::new("InvalidJobStateException", message)
            };
            let found = tx.get::<Execution>(&key).ok_or_else(over)?;
            let mut changed = Execution::clone(&found);
            let actions = changed.stages.iter_mut().flat_map(|stage| &mut stage.actions);
            let same = |one: &&mut ActionRun| one.id == run.id && one.is_under_way();
            let action = actions.into_iter().find(same).ok_or_else(over)?;
            let job = action.job().filter(|job| job.id == id && job.result.is_none());
            action.progress = change(job.ok_or_else(over)?).into();
            tx.put(changed);
            Ok::<_, Fault>(())
        })
        .await
}

pub(crate) async fn put_job_success_result(
    service: &CodePipeline,
    ctx: &Context,
    input: PutJobSuccessResultInput,
) -> Result<(), Fault> {
    ctx.authorise("codepipeline:PutJobSuccessResult", "*")?;
    let found = find(service, ctx, &input.job_id)?;
    let outputs = input.output_variables.unwrap_or_default();
    let bytes: usize = outputs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MOST_OUTPUT_BYTES {
        return Err(Fault::new(
            "OutputVariablesSizeExceededException",
            format!("The output variables have {bytes} bytes; {MOST_OUTPUT_BYTES} are possible."),
        ));
    }
    if input.continuation_token.is_some() && !outputs.is_empty() {
        return Err(Fault::new(
            "ValidationException",
            "A job that goes on has no output variables yet.",
        ));
    }
    let next = service.world.uuid();
    let details = input.execution_details.unwrap_or_default();
    change(service, found, &input.job_id, |job| match input.continuation_token {
        // The function is asked again, with another job.
        Some(_) => Job {
            continuation: input.continuation_token,
            percent: details.percent_complete,
            ..Job::new(next)
        },
        None => {
            let (summary, external) = (details.summary, details.external_execution_id);
            let result = JobResult::Succeeded { summary, external, outputs };
            Job { result: Some(result), ..job }
        }
    })
    .await
}

pub(crate) async fn put_job_failure_result(
    service: &CodePipeline,
    ctx: &Context,
    input: PutJobFailureResultInput,
) -> Result<(), Fault> {
    ctx.authorise("codepipeline:PutJobFailureResult", "*")?;
    let found = find(service, ctx, &input.job_id)?;
    let details = input.failure_details;
    let result = JobResult::Failed {
        code: details.r#type.as_str().to_owned(),
        message: details.message,
        external: details.external_execution_id,
    };
    change(service, found, &input.job_id, |job| Job { result: Some(result), ..job }).await
}
