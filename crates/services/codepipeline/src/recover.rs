//! After a stage has failed: it is tried again, or taken back to the last execution that went well in it, as its
//! declaration says.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/stage-rollback-auto.html>,
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/stage-retry-auto.html>

use crate::{
    api::{
        FailureConditions, PipelineExecutionStatus, PipelineType, StageExecutionStatus,
        StageRetryMode, TriggerType,
    },
    model::{Execution, Pipeline, Version},
    start::{Begin, begin},
};
use std::sync::Arc;
use store::{Record, Tx};
use world::World;

/// How often a stage is tried again by itself, as on AWS.
const MOST_RETRIES: u32 = 1;

/// Whether a stage, by its number, can be taken back to an execution; why not, otherwise.
pub(crate) fn can_go_back(
    pipeline: &Pipeline,
    target: &Execution,
    at: usize,
) -> Result<(), String> {
    let id = &target.id;
    if pipeline.declaration.pipeline_type != Some(PipelineType::V2) {
        return Err("Stages of pipelines of the type V2 only can be rolled back.".to_owned());
    }
    if at == 0 {
        return Err("Sources cannot be rolled back.".to_owned());
    }
    if target.rollback.is_some() {
        return Err(format!("{id} is a rollback itself."));
    }
    if target.version != pipeline.version() {
        return Err(format!("The pipeline is another one than when {id} ran."));
    }
    let run = target.stages.get(at);
    match run.is_some_and(|run| run.status == Some(StageExecutionStatus::Succeeded)) {
        true => Ok(()),
        false => Err(format!("{id} has not succeeded in the stage.")),
    }
}

/// Does what the declaration of the stage says in which an execution has just failed, and is written down to have: it
/// goes on, or the one that is given begins.
pub(crate) fn after_failure(
    tx: &mut Tx,
    world: &World,
    pipeline: &Pipeline,
    failed: &mut Execution,
    entries: &mut u64,
) -> Option<Execution> {
    let version = Version::key_of(&failed.realm, &failed.pipeline, failed.version);
    let version = tx.get::<Version>(&version)?;
    let stage = version.declaration.stages.get(failed.at)?;
    match wanted(stage.on_failure.as_ref()?) {
        Wanted::Nothing => None,
        Wanted::Retry { all_actions } => {
            let run = &mut failed.stages[failed.at];
            if run.retries.automatic < MOST_RETRIES {
                *entries += 1;
                run.retry(all_actions, *entries);
                run.retries.automatic += 1;
                run.retries.last_automatic = true;
                failed.status = PipelineExecutionStatus::InProgress;
            }
            None
        }
        // One that cannot go back either is left for people.
        Wanted::Rollback if failed.rollback.is_some() => None,
        Wanted::Rollback => {
            let prefix = Execution::prefix_of(&failed.realm, &failed.pipeline);
            let all = tx.scan_prefix::<Execution>(&prefix);
            let good = all.filter(|one| can_go_back(pipeline, one, failed.at).is_ok());
            let target = good.max_by_key(|one| one.stages[failed.at].entered)?;
            let wanted = Begin {
                trigger: TriggerType::AutomatedRollback,
                detail: format!("{{FailedPipelineExecutionId={}}}", failed.id),
                back: Some((target, failed.at)),
                ..Begin::default()
            };
            match begin(tx, world, &pipeline.key(), failed.updated, wanted) {
                Ok(id) => {
                    let mut all = tx.scan_prefix::<Execution>(&prefix);
                    all.find(|one| one.id == id).map(Arc::unwrap_or_clone)
                }
                Err(fault) => {
                    let (pipeline, why) = (pipeline.name(), fault.message);
                    tracing::warn!(pipeline, why, "a failed stage could not be rolled back");
                    None
                }
            }
        }
    }
}

enum Wanted {
    Nothing,
    Retry { all_actions: bool },
    Rollback,
}

fn wanted(on_failure: &FailureConditions) -> Wanted {
    use crate::api::Result as Outcome;
    match on_failure.result {
        Some(Outcome::Retry) => {
            let mode = on_failure.retry_configuration.as_ref().and_then(|retry| retry.retry_mode);
            Wanted::Retry { all_actions: mode == Some(StageRetryMode::AllActions) }
        }
        Some(Outcome::Rollback) => Wanted::Rollback,
        Some(Outcome::Fail | Outcome::Skip) | None => Wanted::Nothing,
    }
}
