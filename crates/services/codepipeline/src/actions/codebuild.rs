//! Builds by CodeBuild: its inputs are the build's sources, its outputs what the build keeps.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodeBuild.html>

use super::{Done, Failed, Work};
use crate::model::Artifact;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

pub(super) async fn run(work: &Work<'_>) -> Result<Done, Failed> {
    let id = match work.run.progress["build"].as_str() {
        Some(begun) => begun.to_owned(),
        None => begin(work).await?,
    };
    loop {
        let answer = work.call("codebuild", "BatchGetBuilds", json!({"ids": [id]})).await?;
        let found = &answer["builds"][0];
        match found["buildStatus"].as_str() {
            Some("IN_PROGRESS") => {}
            Some("SUCCEEDED") => return Ok(done(work, id, found)),
            Some(status) => return Err(Failed::job(why(status, found))),
            None => return Err(Failed::job(format!("The build {id} was deleted."))),
        }
        if !work.again().await {
            return Err(Failed::job("The action was abandoned."));
        }
    }
}

fn done(work: &Work<'_>, id: String, found: &Json) -> Done {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let exported = found["exportedEnvironmentVariables"].as_array().into_iter().flatten();
    let outputs: BTreeMap<String, String> =
        exported.map(|one| (text(&one["name"]), text(&one["value"]))).collect();
    Done { external: Some(id), outputs, artifacts: work.outputs(), ..Done::default() }
}

/// Which phase failed, and why.
fn why(status: &str, found: &Json) -> String {
    let phases = found["phases"].as_array().into_iter().flatten();
    let failed = phases
        .into_iter()
        .find(|phase| !matches!(phase["phaseStatus"].as_str(), None | Some("SUCCEEDED")));
    let mut message = format!("Build terminated with state: {status}.");
    if let Some(phase) = failed {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let context = &phase["contexts"][0];
        message += &format!(
            " Phase: {}, Code: {}, Message: {}",
            text(&phase["phaseType"]),
            text(&context["statusCode"]),
            text(&context["message"]),
        );
    }
    message
}

/// Where an output is put.
fn output(artifact: &Artifact) -> Json {
    let Artifact { bucket, key } = artifact;
    json!({"type": "CODEPIPELINE", "location": bucket, "name": key, "packaging": "ZIP"})
}

/// Begins the build; its id.
async fn begin(work: &Work<'_>) -> Result<String, Failed> {
    let project = work.need("ProjectName")?;
    let inputs: Vec<&str> =
        work.run.declaration.input_artifacts.iter().flatten().map(|one| &*one.name).collect();
    let primary = match (work.get("PrimarySource"), &inputs[..]) {
        (Some(named), _) => named,
        (None, [only]) => only,
        (None, _) => {
            return Err(Failed::configuration(
                "The action has several input artifacts; PrimarySource must say which is the build's source.",
            ));
        }
    };
    let location = |name: &str| -> Result<String, Failed> {
        let Artifact { bucket, key } = work.input(name)?;
        Ok(format!("{bucket}/{key}"))
    };
    let mut others = Vec::new();
    for name in inputs.iter().filter(|name| **name != primary) {
        others.push(json!({
            "type": "CODEPIPELINE", "location": location(name)?, "sourceIdentifier": name,
        }));
    }
    let outputs = work.outputs();
    // Of several outputs each is one of the buildspec's secondary artifacts, by its name.
    let (main, secondary) = match &outputs[..] {
        [(_, only)] => (output(only), Vec::new()),
        several => {
            let named = several.iter().map(|(name, artifact)| {
                let mut output = output(artifact);
                output["artifactIdentifier"] = json!(name);
                output
            });
            (json!({"type": "CODEPIPELINE"}), named.collect::<Vec<_>>())
        }
    };
    let mut asked = json!({
        "projectName": project,
        "sourceTypeOverride": "CODEPIPELINE",
        "sourceLocationOverride": location(primary)?,
        "secondarySourcesOverride": others,
        "artifactsOverride": main,
        "secondaryArtifactsOverride": secondary,
        // By this CodeBuild knows the pipeline, and a build that a crash cut off from its id.
        "idempotencyToken": format!("codepipeline/{}/{}", work.execution.pipeline, work.run.id),
    });
    let revisions = &work.execution.revisions;
    if let Some(revision) = revisions.iter().find(|revision| revision.artifact == primary) {
        asked["sourceVersion"] = json!(revision.id);
    }
    if let Some(text) = work.get("EnvironmentVariables") {
        let variables: Json = serde_json::from_str(text).map_err(|error| {
            Failed::configuration(format!("EnvironmentVariables is not JSON: {error}"))
        })?;
        asked["environmentVariablesOverride"] = variables;
    }
    let made = work.call("codebuild", "StartBuild", asked).await?;
    let id = made["build"]["id"].as_str().unwrap_or_default().to_owned();
    work.progress(json!({"build": id}), Some(id.clone())).await?;
    Ok(id)
}
