//! Functions: each gets a job, and says with PutJobSuccessResult or PutJobFailureResult what came of it.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-Lambda.html>

use super::{Done, Failed, SERVICE, SESSION, Work};
use crate::model::{Artifact, Job, JobResult};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use iam::SessionKind;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long an action may take.
/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html>
const MINUTES: u32 = 60;

pub(super) async fn run(work: &Work<'_>) -> Result<Done, Failed> {
    let world = &work.service.world;
    let limit = world.scaled(Duration::from_secs(60) * MINUTES);
    while let Some(run) = work.current() {
        let Some(job) = run.job() else {
            let job = Job::new(world.uuid());
            work.progress(job.into(), None).await?;
            continue;
        };
        match job.result {
            Some(JobResult::Succeeded { summary, external, outputs }) => {
                return Ok(Done {
                    summary,
                    external,
                    outputs,
                    artifacts: work.outputs(),
                    ..Done::default()
                });
            }
            Some(JobResult::Failed { code, message, external }) => {
                work.note(|run| run.external = external).await?;
                return Err(Failed { code: code.into(), message });
            }
            None if !job.invoked => {
                work.call("lambda", "Invoke", invocation(work, &job)?).await?;
                // It may have said already what came of it.
                work.note(|run| {
                    let asked = run.job().filter(|now| now.id == job.id);
                    if let Some(now) = asked {
                        run.progress = Job { invoked: true, ..now }.into();
                    }
                })
                .await?;
            }
            None if world.now().since(run.started) >= limit => {
                return Err(Failed::job(format!(
                    "The function did not say within {MINUTES} minutes what came of its job."
                )));
            }
            None => world.sleep(super::ASK).await,
        }
    }
    Err(Failed::job("The action was abandoned."))
}

fn invocation(work: &Work<'_>, job: &Job) -> Result<Json, Failed> {
    let event = json!({"CodePipeline.job": {
        "id": job.id,
        "accountId": work.execution.realm.split_once('/').map(|(account, _)| account),
        "data": data(work, job)?,
    }});
    Ok(json!({
        "FunctionName": work.need("FunctionName")?, "InvocationType": "Event",
        "Payload": BASE64.encode(event.to_string()),
    }))
}

fn data(work: &Work<'_>, job: &Job) -> Result<Json, Failed> {
    let mut inputs = Vec::new();
    for input in work.run.declaration.input_artifacts.iter().flatten() {
        inputs.push((input.name.clone(), work.input(&input.name)?.clone()));
    }
    let outputs = work.outputs();
    let shown = |all: &[(String, Artifact)]| -> Vec<Json> {
        let one = |(name, place): &(String, Artifact)| {
            let s3 = json!({"bucketName": place.bucket, "objectKey": place.key});
            json!({"name": name, "revision": null, "location": {"type": "S3", "s3Location": s3}})
        };
        all.iter().map(one).collect()
    };
    let mut data = json!({
        "actionConfiguration": {"configuration": work.configuration},
        "inputArtifacts": shown(&inputs),
        "outputArtifacts": shown(&outputs),
        "artifactCredentials": credentials(work, &inputs, &outputs)?,
    });
    if let Some(token) = &job.continuation {
        data["continuationToken"] = json!(token);
    }
    Ok(data)
}

/// The pipeline's role, with nothing but the action's own artifacts.
fn credentials(
    work: &Work<'_>,
    inputs: &[(String, Artifact)],
    outputs: &[(String, Artifact)],
) -> Result<Json, Failed> {
    let arns = |all: &[(String, Artifact)]| -> Vec<String> {
        let arn = |(_, place): &(String, Artifact)| {
            format!("arn:aws:s3:::{}/{}", place.bucket, place.key)
        };
        all.iter().map(arn).collect()
    };
    let mut statements = Vec::new();
    if !inputs.is_empty() {
        let actions = ["s3:GetObject", "s3:GetObjectVersion"];
        statements.push(json!({"Effect": "Allow", "Action": actions, "Resource": arns(inputs)}));
    }
    if !outputs.is_empty() {
        let action = "s3:PutObject";
        statements.push(json!({"Effect": "Allow", "Action": action, "Resource": arns(outputs)}));
    }
    if statements.is_empty() {
        // A policy says something: here, that there is nothing to be had.
        statements.push(json!({"Effect": "Deny", "Action": "*", "Resource": "*"}));
    }
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let (arn, iam) = (&work.version.declaration.role_arn, &work.service.iam);
    let trusted = iam.assume_for_service(arn, SERVICE, &work.execution.id, SESSION);
    trusted.map_err(|error| Failed::permission(error.to_string()))?;
    let role = iam.role_by_arn(arn);
    let role = role.ok_or_else(|| Failed::permission(format!("The role {arn} is gone.")))?;
    let kind = SessionKind::Role { name: role.name.clone(), session: work.execution.id.clone() };
    let session = iam.session(&role.account, kind, vec![policy], SESSION);
    Ok(json!({
        "accessKeyId": session.access_key_id, "secretAccessKey": session.secret,
        "sessionToken": session.token,
    }))
}
