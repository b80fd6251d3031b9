//! Executions begin.

use crate::{
    api::{ExecutionMode, PipelineExecutionStatus, SourceRevisionOverride, TriggerType},
    faults,
    model::{Execution, Pipeline, StageRun},
    tell,
};
use std::{collections::BTreeMap, sync::Arc};
use store::{Record, Tx};
use wire::Fault;
use world::{Timestamp, World};

/// The most open executions of a pipeline whose mode is QUEUED or PARALLEL.
/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html>
const MOST_OPEN: usize = 50;
/// So many executions are kept.
const MOST_KEPT: usize = 1000;

/// With what an execution begins.
pub(crate) struct Begin {
    pub trigger: TriggerType,
    pub detail: String,
    pub token: Option<String>,
    pub variables: BTreeMap<String, String>,
    pub overrides: Vec<SourceRevisionOverride>,
    /// The branch that the overrides are of, when that is another than the source's.
    pub branch: Option<String>,
    /// The execution that a stage, by its number, is to be taken back to.
    pub back: Option<(Arc<Execution>, usize)>,
}

impl Default for Begin {
    fn default() -> Self {
        Self {
            trigger: TriggerType::StartPipelineExecution,
            detail: String::new(),
            token: None,
            variables: BTreeMap::new(),
            overrides: Vec::new(),
            branch: None,
            back: None,
        }
    }
}

/// Begins an execution of the pipeline under `key`; its id. One that was begun with the same token is the same.
pub(crate) fn begin(
    tx: &mut Tx,
    world: &World,
    key: &str,
    now: Timestamp,
    wanted: Begin,
) -> Result<String, Fault> {
    let Some(pipeline) = tx.get::<Pipeline>(key) else {
        return Err(Fault::new("PipelineNotFoundException", "The pipeline is gone."));
    };
    let prefix = Execution::prefix_of(&pipeline.realm, pipeline.name());
    let all: Vec<Arc<Execution>> = tx.scan_prefix::<Execution>(&prefix).collect();
    if let Some(token) = &wanted.token {
        let same = all.iter().find(|execution| execution.token.as_ref() == Some(token));
        if let Some(same) = same {
            return Ok(same.id.clone());
        }
    }
    let mode = pipeline.mode();
    let open = all.iter().filter(|execution| execution.is_open()).count();
    if mode != ExecutionMode::Superseded && open >= MOST_OPEN {
        return Err(faults::too_many(MOST_OPEN));
    }
    let over = all.iter().filter(|execution| !execution.is_open());
    for old in over.take(all.len().saturating_sub(MOST_KEPT - 1)) {
        tx.delete::<Execution>(&old.key());
    }
    let declared = pipeline.declaration.variables.iter().flatten();
    let mut variables: BTreeMap<String, String> = declared
        .map(|one| (one.name.clone(), one.default_value.clone().unwrap_or_default()))
        .collect();
    variables.extend(wanted.variables);
    let mut execution = Execution {
        realm: pipeline.realm.clone(),
        pipeline: pipeline.name().to_owned(),
        version: pipeline.version(),
        number: pipeline.begun + 1,
        id: world.uuid(),
        mode,
        status: PipelineExecutionStatus::InProgress,
        trigger: wanted.trigger,
        trigger_detail: wanted.detail,
        token: wanted.token,
        started: now,
        updated: now,
        stop: None,
        variables,
        outputs: BTreeMap::new(),
        artifacts: BTreeMap::new(),
        revisions: Vec::new(),
        overrides: wanted.overrides,
        branch: wanted.branch,
        at: 0,
        waiting: true,
        stages: pipeline.declaration.stages.iter().map(StageRun::new).collect(),
        rollback: None,
    };
    if let Some((target, at)) = wanted.back {
        execution.at = at;
        execution.rollback = Some(target.id.clone());
        execution.variables = target.variables.clone();
        execution.outputs = target.outputs.clone();
        execution.artifacts = target.artifacts.clone();
        execution.revisions = target.revisions.clone();
    }
    tx.update::<Pipeline>(key, |pipeline| pipeline.begun += 1);
    let id = execution.id.clone();
    tell::put(tx, world, execution);
    Ok(id)
}
