//! Deployments by CloudFormation.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CloudFormation.html>

use super::{Done, Failed, Work, artifacts};
use crate::model::Artifact;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use wire::Fault;

/// Longer templates go by way of the artifacts' bucket.
const LONGEST_BODY: usize = 51_200;
/// What a stack or change set with nothing to do says of itself.
const NOTHING_TO_DO: [&str; 2] =
    ["No updates are to be performed", "The submitted information didn't contain changes"];

fn is_nothing_to_do(text: &str) -> bool {
    NOTHING_TO_DO.iter().any(|known| text.contains(known))
}

pub(super) async fn deploy(work: &Work<'_>) -> Result<Done, Failed> {
    let stack = work.need("StackName")?;
    match work.need("ActionMode")? {
        "CREATE_UPDATE" => create_or_update(work, stack, false).await,
        "REPLACE_ON_FAILURE" => create_or_update(work, stack, true).await,
        "DELETE_ONLY" => delete(work, stack).await,
        "CHANGE_SET_REPLACE" => change_set(work, stack, work.need("ChangeSetName")?).await,
        "CHANGE_SET_EXECUTE" => execute(work, stack, work.need("ChangeSetName")?).await,
        other => Err(Failed::configuration(format!("There is no ActionMode {other}."))),
    }
}

impl Work<'_> {
    /// The stack, if there is one that is not deleted.
    async fn stack(&self, name: &str) -> Result<Option<Json>, Failed> {
        let found = self.call("cloudformation", "DescribeStacks", json!({"StackName": name})).await;
        match found {
            Ok(answer) => Ok(Some(answer["Stacks"][0].clone())),
            Err(fault) if fault.message.contains("does not exist") => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Calls an operation that is not called twice: after a crash, that it was begun already is what is wanted.
    async fn once(&self, operation: &str, request: Json) -> Result<(), Fault> {
        let begun = self.run.progress["begun"] == json!(true);
        let failed = self.progress(json!({"begun": true}), None).await;
        if let Err(failed) = failed {
            tracing::warn!(why = failed.message, "an action's progress could not be written down");
        }
        match self.call("cloudformation", operation, request).await {
            Err(fault)
                if begun
                    && (fault.message.contains("IN_PROGRESS")
                        || fault.code.contains("AlreadyExists")) =>
            {
                Ok(())
            }
            answer => answer.map(|_| ()),
        }
    }

    /// Waits until the stack is at rest. Done when its status is one of `good`.
    async fn rest(&self, name: &str, good: &[&str]) -> Result<Done, Failed> {
        loop {
            let Some(stack) = self.stack(name).await? else {
                return match good.contains(&"DELETE_COMPLETE") {
                    true => Ok(Done::default()),
                    false => Err(Failed::job(format!("The stack {name} is gone."))),
                };
            };
            let status = stack["StackStatus"].as_str().unwrap_or_default();
            if good.contains(&status) {
                return self.done(&stack).await;
            }
            if !status.ends_with("_IN_PROGRESS") {
                let reason = self.reason(name, &stack).await;
                return Err(Failed::job(format!("The stack {name} is {status}: {reason}")));
            }
            if !self.again().await {
                return Err(Failed::job("The action was abandoned."));
            }
        }
    }

    /// Why a stack is not as it was to be: the first failure of its last operation.
    async fn reason(&self, name: &str, stack: &Json) -> String {
        let events =
            self.call("cloudformation", "DescribeStackEvents", json!({"StackName": name})).await;
        let events = events.map(|answer| answer["StackEvents"].clone()).unwrap_or_default();
        let text =
            |event: &Json, member: &str| event[member].as_str().unwrap_or_default().to_owned();
        // The newest is first: back to where the operation began.
        let begins = ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"];
        let mut found = None;
        for event in events.as_array().into_iter().flatten() {
            let status = text(event, "ResourceStatus");
            if event["PhysicalResourceId"] == event["StackId"] && begins.contains(&&*status) {
                break;
            }
            if status.ends_with("_FAILED") {
                let (logical, reason) =
                    (text(event, "LogicalResourceId"), text(event, "ResourceStatusReason"));
                found = Some(format!("{logical}: {reason}"));
            }
        }
        found.unwrap_or_else(|| text(stack, "StackStatusReason"))
    }

    /// The stack's outputs, as variables and as the output artifact.
    async fn done(&self, stack: &Json) -> Result<Done, Failed> {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let outputs = stack["Outputs"].as_array().into_iter().flatten();
        let outputs: BTreeMap<String, String> = outputs
            .map(|output| (text(&output["OutputKey"]), text(&output["OutputValue"])))
            .collect();
        let artifacts = match self.get("OutputFileName") {
            Some(file) => self.put(artifacts::pack(file, &json!(outputs).to_string())?).await?,
            None => Vec::new(),
        };
        let external = Some(text(&stack["StackId"]));
        Ok(Done { external, outputs, artifacts, ..Done::default() })
    }
}

/// `Artifact::path` as its two parts.
fn place(text: &str) -> Result<(&str, &str), Failed> {
    text.split_once("::").ok_or_else(|| {
        Failed::configuration(format!("{text} is not of the form InputArtifact::FileName."))
    })
}

async fn create_or_update(work: &Work<'_>, name: &str, replace: bool) -> Result<Done, Failed> {
    let begun = work.run.progress["begun"] == json!(true);
    let mut stack = work.stack(name).await?;
    let status = |stack: &Option<Json>| {
        let status = stack.as_ref().and_then(|stack| stack["StackStatus"].as_str());
        status.unwrap_or("REVIEW_IN_PROGRESS").to_owned()
    };
    let broken = matches!(
        &*status(&stack),
        "ROLLBACK_COMPLETE"
            | "ROLLBACK_FAILED"
            | "CREATE_FAILED"
            | "DELETE_FAILED"
            | "UPDATE_ROLLBACK_FAILED"
    );
    if broken && replace && !begun {
        delete(work, name).await?;
        stack = None;
    }
    if !(begun && status(&stack).ends_with("_IN_PROGRESS") && stack.is_some()) {
        let request = request(work, name).await?;
        let operation =
            if status(&stack) == "REVIEW_IN_PROGRESS" { "CreateStack" } else { "UpdateStack" };
        match work.once(operation, request).await {
            Err(fault) if is_nothing_to_do(&fault.message) => {
                return work.done(&stack.unwrap_or_default()).await;
            }
            answer => answer?,
        }
    }
    work.rest(name, &["CREATE_COMPLETE", "UPDATE_COMPLETE"]).await
}

async fn delete(work: &Work<'_>, name: &str) -> Result<Done, Failed> {
    if work.stack(name).await?.is_none() {
        return Ok(Done::default());
    }
    let mut request = json!({"StackName": name});
    if let Some(role) = work.get("RoleArn") {
        request["RoleARN"] = json!(role);
    }
    work.call("cloudformation", "DeleteStack", request).await?;
    work.rest(name, &["DELETE_COMPLETE"]).await
}

async fn change_set(work: &Work<'_>, name: &str, set: &str) -> Result<Done, Failed> {
    let named = json!({"StackName": name, "ChangeSetName": set});
    let stack = work.stack(name).await?;
    if work.run.progress["begun"] != json!(true) {
        let gone = work.call("cloudformation", "DeleteChangeSet", named.clone()).await;
        match gone {
            Err(fault) if !fault.message.contains("does not exist") => return Err(fault.into()),
            _ => {}
        }
    }
    let new = stack.is_none_or(|stack| stack["StackStatus"] == "REVIEW_IN_PROGRESS");
    let mut request = request(work, name).await?;
    request["ChangeSetName"] = json!(set);
    request["ChangeSetType"] = json!(if new { "CREATE" } else { "UPDATE" });
    work.once("CreateChangeSet", request).await?;
    loop {
        let found = work.call("cloudformation", "DescribeChangeSet", named.clone()).await?;
        let reason = found["StatusReason"].as_str().unwrap_or_default();
        match found["Status"].as_str() {
            Some("CREATE_COMPLETE") => break,
            Some("FAILED") if is_nothing_to_do(reason) => break,
            Some("FAILED") => {
                return Err(Failed::job(format!("The change set {set} failed: {reason}")));
            }
            _ => {}
        }
        if !work.again().await {
            return Err(Failed::job("The action was abandoned."));
        }
    }
    Ok(Done { summary: Some(format!("Change set {set} was created.")), ..Done::default() })
}

async fn execute(work: &Work<'_>, name: &str, set: &str) -> Result<Done, Failed> {
    let named = json!({"StackName": name, "ChangeSetName": set});
    let found = work.call("cloudformation", "DescribeChangeSet", named.clone()).await;
    let begun = work.run.progress["begun"] == json!(true);
    match found {
        // Executed, it is gone.
        Err(_) if begun => {}
        Err(fault) => return Err(fault.into()),
        Ok(found) => {
            let reason = found["StatusReason"].as_str().unwrap_or_default();
            if found["Status"] == "FAILED" && is_nothing_to_do(reason) {
                let stack = work.stack(name).await?;
                return work.done(&stack.unwrap_or_default()).await;
            }
            if !(begun && found["ExecutionStatus"] != "AVAILABLE") {
                work.once("ExecuteChangeSet", named).await?;
            }
        }
    }
    work.rest(name, &["CREATE_COMPLETE", "UPDATE_COMPLETE"]).await
}

/// What CreateStack, UpdateStack and CreateChangeSet have in common.
async fn request(work: &Work<'_>, name: &str) -> Result<Json, Failed> {
    let (artifact, path) = place(work.need("TemplatePath")?)?;
    let template = work.file(artifact, path).await?;
    let mut request = json!({"StackName": name});
    if template.len() <= LONGEST_BODY {
        request["TemplateBody"] = json!(template);
    } else {
        request["TemplateURL"] = json!(upload(work, template).await?);
    }
    let mut configuration = match work.get("TemplateConfiguration") {
        Some(place_of) => {
            let (artifact, path) = place(place_of)?;
            object(&work.file(artifact, path).await?, place_of)?
        }
        None => Map::new(),
    };
    let mut parameters: Map<String, Json> = match configuration.remove("Parameters") {
        Some(Json::Object(parameters)) => parameters,
        _ => Map::new(),
    };
    if let Some(overrides) = work.get("ParameterOverrides") {
        parameters.extend(object(overrides, "ParameterOverrides")?);
    }
    let mut list = Vec::new();
    for (key, value) in parameters {
        let value = parameter(work, value).await?;
        list.push(json!({"ParameterKey": key, "ParameterValue": value}));
    }
    request["Parameters"] = json!(list);
    if let Some(Json::Object(tags)) = configuration.remove("Tags") {
        let tags = tags.into_iter().map(|(key, value)| json!({"Key": key, "Value": value}));
        request["Tags"] = tags.collect();
    }
    if let Some(capabilities) = work.get("Capabilities") {
        let each: Vec<&str> = capabilities.split(',').map(str::trim).collect();
        request["Capabilities"] = json!(each);
    }
    if let Some(role) = work.get("RoleArn") {
        request["RoleARN"] = json!(role);
    }
    Ok(request)
}

fn object(text: &str, what: &str) -> Result<Map<String, Json>, Failed> {
    serde_json::from_str(text)
        .map_err(|error| Failed::configuration(format!("{what} is not a JSON object: {error}")))
}

/// A parameter's value: text, or what it names in an artifact.
async fn parameter(work: &Work<'_>, value: Json) -> Result<String, Failed> {
    let malformed = || {
        Failed::configuration(
            "A parameter is text, {\"Fn::GetParam\": [artifact, file, key]} or {\"Fn::GetArtifactAtt\": [artifact, \
             attribute]}.",
        )
    };
    let map = match value {
        Json::String(text) => return Ok(text),
        Json::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(Json::as_str).collect();
            return items.map(|items| items.join(",")).ok_or_else(malformed);
        }
        Json::Object(map) => map,
        Json::Null => return Err(malformed()),
        scalar => return Ok(scalar.to_string()),
    };
    let (function, arguments) = map.into_iter().next().ok_or_else(malformed)?;
    let arguments = arguments.as_array().cloned().unwrap_or_default();
    let arguments: Vec<&str> = arguments.iter().filter_map(Json::as_str).collect();
    match (function.as_str(), &arguments[..]) {
        ("Fn::GetParam", [artifact, file, key]) => {
            let found = object(&work.file(artifact, file).await?, file)?;
            match found.get(*key) {
                Some(Json::String(text)) => Ok(text.clone()),
                Some(value) => Ok(value.to_string()),
                None => Err(Failed::configuration(format!(
                    "The file {file} in the artifact {artifact} has no {key}."
                ))),
            }
        }
        ("Fn::GetArtifactAtt", [artifact, attribute]) => {
            let Artifact { bucket, key } = work.input(artifact)?;
            match *attribute {
                "BucketName" => Ok(bucket.clone()),
                "ObjectKey" => Ok(key.clone()),
                "URL" => Ok(url(work, bucket, key)),
                other => {
                    Err(Failed::configuration(format!("Artifacts have no attribute {other}.")))
                }
            }
        }
        _ => Err(malformed()),
    }
}

fn url(work: &Work<'_>, bucket: &str, key: &str) -> String {
    format!("https://{bucket}.s3.{}.amazonaws.com/{key}", work.region())
}

/// Puts a template beside the artifacts; its URL.
async fn upload(work: &Work<'_>, template: String) -> Result<String, Failed> {
    let bucket = work.version.declaration.artifact_store.as_ref();
    let bucket = bucket.map(|store| store.location.clone()).unwrap_or_default();
    let key = format!("{}/Templates/{}", work.execution.pipeline, work.run.id);
    let artifact = Artifact { bucket, key };
    artifacts::put(&work.service.s3, &work.context(), &artifact, template.into_bytes()).await?;
    Ok(url(work, &artifact.bucket, &artifact.key))
}
