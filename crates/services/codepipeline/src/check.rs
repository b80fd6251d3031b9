//! Whether a declaration can be a pipeline.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/reference-pipeline-structure.html>

use crate::{
    actions::{
        Provider,
        source::{CLONE, FORMAT},
    },
    api::{
        ActionCategory, ActionDeclaration, ExecutionMode, FailureConditions, PipelineDeclaration,
        PipelineType, StageDeclaration,
    },
    faults, triggers,
};
use std::collections::BTreeSet;
use wire::Fault;

/// The most stages of a pipeline, and actions of a stage.
const MOST_STAGES: usize = 50;
const MOST_ACTIONS: usize = 50;

/// What is wrong with a declaration for `region`, if anything.
pub(crate) fn check(declaration: &PipelineDeclaration, region: &str) -> Result<(), Fault> {
    if declaration.artifact_store.is_none() {
        return Err(faults::structure("Pipeline has no artifactStore."));
    }
    let kind = declaration.pipeline_type.unwrap_or(PipelineType::V1);
    if kind == PipelineType::V1 {
        if !matches!(declaration.execution_mode, None | Some(ExecutionMode::Superseded)) {
            return Err(faults::structure("V1 pipelines have the execution mode SUPERSEDED."));
        }
        if declaration.variables.iter().flatten().next().is_some() {
            return Err(faults::structure("Variables are for pipelines of the type V2."));
        }
    }
    let stages = &declaration.stages;
    if !(2..=MOST_STAGES).contains(&stages.len()) {
        return Err(faults::structure(format!("Pipeline should have 2 to {MOST_STAGES} stages")));
    }
    let mut names = BTreeSet::new();
    for stage in stages {
        if !names.insert(&stage.name) {
            return Err(faults::stage(format!(
                "Stage names must be unique: {} is there twice",
                stage.name
            )));
        }
        if !(1..=MOST_ACTIONS).contains(&stage.actions.len()) {
            return Err(faults::stage(format!(
                "Stage {} should have 1 to {MOST_ACTIONS} actions",
                stage.name
            )));
        }
        if let Some(on_failure) = &stage.on_failure {
            check_on_failure(&stage.name, kind, on_failure)?;
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = stage.actions.iter().find(|action| !names.insert(&action.name)) {
            return Err(faults::action(format!(
                "Action names must be unique within a stage: {} is there twice",
                twice.name
            )));
        }
    }
    let is_source =
        |action: &ActionDeclaration| action.action_type_id.category == ActionCategory::Source;
    if !stages[0].actions.iter().all(is_source) {
        return Err(faults::structure(
            "Pipeline should start with a stage that only contains source actions",
        ));
    }
    if stages[1..].iter().flat_map(|stage| &stage.actions).any(is_source) {
        return Err(faults::structure("Only the first stage can have source actions"));
    }
    check_actions(stages, region)?;
    triggers::check(declaration)
}

/// Checks actions in the order in which they run, with what those before them make.
fn check_actions(stages: &[StageDeclaration], region: &str) -> Result<(), Fault> {
    let (mut made, mut spaces) = (BTreeSet::new(), BTreeSet::new());
    let all = || stages.iter().flat_map(|stage| &stage.actions);
    let clones = all().filter(|action| {
        let configuration = action.configuration.as_ref();
        configuration.and_then(|all| all.get(FORMAT)).is_some_and(|format| format == CLONE)
    });
    let clones: BTreeSet<&String> = clones
        .flat_map(|action| action.output_artifacts.iter().flatten())
        .map(|output| &output.name)
        .collect();
    for action in all().filter(|action| action.action_type_id.provider != "CodeBuild") {
        let mut inputs = action.input_artifacts.iter().flatten();
        if let Some(input) = inputs.find(|input| clones.contains(&input.name)) {
            return Err(faults::action(format!(
                "Action {}: the artifact {} is a reference to clone, which CodeBuild alone can use.",
                action.name, input.name
            )));
        }
    }
    for stage in stages {
        let mut orders: Vec<i32> = stage.actions.iter().map(order).collect();
        orders.sort_unstable();
        orders.dedup();
        for turn in orders {
            let turn = || stage.actions.iter().filter(|action| order(action) == turn);
            for action in turn() {
                check_action(action, region)?;
                inputs(action, &made)?;
            }
            for action in turn() {
                for output in action.output_artifacts.iter().flatten() {
                    if !made.insert(&output.name) {
                        return Err(faults::structure(format!(
                            "Output Artifact Bundle name must be unique within the pipeline. {} has been used more \
                             than once.",
                            output.name
                        )));
                    }
                }
                if let Some(twice) = action.namespace.iter().find(|space| !spaces.insert(*space)) {
                    return Err(faults::action(format!(
                        "The namespace {twice} is there more than once."
                    )));
                }
            }
        }
    }
    Ok(())
}

fn check_on_failure(
    name: &str,
    kind: PipelineType,
    on_failure: &FailureConditions,
) -> Result<(), Fault> {
    use crate::api::Result as Outcome;
    let wrong = match (kind, on_failure.result) {
        (PipelineType::V1, _) => "onFailure is for pipelines of the type V2",
        (_, None | Some(Outcome::Skip)) => "the result of onFailure is ROLLBACK, RETRY or FAIL",
        (_, Some(Outcome::Rollback | Outcome::Fail))
            if on_failure.retry_configuration.is_some() =>
        {
            "a retryConfiguration is for the result RETRY"
        }
        _ => return Ok(()),
    };
    Err(faults::stage(format!("Stage {name}: {wrong}")))
}

fn order(action: &ActionDeclaration) -> i32 {
    action.run_order.unwrap_or(1)
}

fn inputs(action: &ActionDeclaration, made: &BTreeSet<&String>) -> Result<(), Fault> {
    let mut inputs = action.input_artifacts.iter().flatten();
    match inputs.find(|input| !made.contains(&input.name)) {
        None => Ok(()),
        Some(missing) => Err(faults::structure(format!(
            "Input Artifact Bundle {} in action {} is not declared as Output Artifact Bundle in any of the preceding \
             actions",
            missing.name, action.name
        ))),
    }
}

fn check_action(action: &ActionDeclaration, region: &str) -> Result<(), Fault> {
    let name = &action.name;
    let provider = Provider::of(action).map_err(faults::action)?;
    if action.region.as_deref().is_some_and(|other| other != region) {
        return Err(faults::action(format!(
            "Action {name} is in another region; actions run in the pipeline's own here."
        )));
    }
    if action.action_type_id.version != "1" {
        return Err(faults::action(format!("Action {name}: the only version of its type is 1.")));
    }
    if provider != Provider::Manual && action.timeout_in_minutes.is_some() {
        return Err(faults::action(format!(
            "Action {name} has a timeoutInMinutes, which is for manual approvals only."
        )));
    }
    let empty = Default::default();
    let configuration = action.configuration.as_ref().unwrap_or(&empty);
    let (needed, possible) = provider.keys();
    if let Some(missing) = needed.iter().find(|key| !configuration.contains_key(**key)) {
        return Err(faults::action(format!(
            "Action configuration for action '{name}' is missing required configuration '{missing}'"
        )));
    }
    let known = |key: &&String| needed.contains(&key.as_str()) || possible.contains(&key.as_str());
    if let Some(unknown) = configuration.keys().find(|key| !known(key)) {
        return Err(faults::action(format!(
            "Action configuration for action '{name}' contains unknown configuration '{unknown}'"
        )));
    }
    if configuration.get(FORMAT).is_some_and(|format| format != "CODE_ZIP" && format != CLONE) {
        return Err(faults::action(format!("Action {name}: {FORMAT} is CODE_ZIP or {CLONE}.")));
    }
    let (inputs, outputs) = provider.artifacts();
    let count =
        |artifacts: usize, possible: &std::ops::RangeInclusive<usize>, what: &str| match possible
            .contains(&artifacts)
        {
            true => Ok(()),
            false => Err(faults::action(format!(
                "Action {name} has {artifacts} {what} artifacts; it can have {} to {}.",
                possible.start(),
                possible.end()
            ))),
        };
    count(action.input_artifacts.as_ref().map_or(0, Vec::len), &inputs, "input")?;
    count(action.output_artifacts.as_ref().map_or(0, Vec::len), &outputs, "output")
}
