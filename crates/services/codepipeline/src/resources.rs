//! CodePipeline's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-codepipeline-pipeline.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    let schemas = include_str!("api/resource_types.json");
    Types { schemas, types: vec![Arc::new(Pipeline)] }
}

struct Pipeline;

/// The stages that the template disables, with the reasons.
fn disabled(properties: &Properties) -> Vec<(String, String)> {
    let list = properties.get("DisableInboundStageTransitions").and_then(Json::as_array);
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let each = list.into_iter().flatten();
    each.map(|one| (text(&one["StageName"]), text(&one["Reason"]))).collect()
}

/// What CreatePipeline and UpdatePipeline get.
fn declaration(name: &str, mut properties: Properties) -> Json {
    for own in ["Tags", "DisableInboundStageTransitions", "RestartExecutionOnUpdate"] {
        properties.take(own);
    }
    properties.set("Name", name);
    properties.request()
}

async fn disable(
    request: &Request,
    name: &str,
    stages: Vec<(String, String)>,
) -> Result<(), Failure> {
    for (stage, reason) in stages {
        let asked = json!({
            "pipelineName": name, "stageName": stage, "transitionType": "Inbound", "reason": reason,
        });
        request.call("codepipeline", "DisableStageTransition", asked).await?;
    }
    Ok(())
}

#[async_trait]
impl ResourceType for Pipeline {
    fn name(&self) -> &'static str {
        "AWS::CodePipeline::Pipeline"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = properties.text("Name").unwrap_or_else(|| request.name(100));
        let tag = |(key, value)| json!({"key": key, "value": value});
        let tags: Vec<Json> = properties.tags().into_iter().map(tag).collect();
        let stages = disabled(&properties);
        let asked = json!({"pipeline": declaration(&name, properties), "tags": tags});
        request.make("codepipeline", "CreatePipeline", asked).await?;
        disable(request, &name, stages).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find("codepipeline", "GetPipeline", json!({"name": id})).await? {
            Some(found) => {
                State::ready(json!({"Version": found["pipeline"]["version"].to_string()}))
            }
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let arn = format!("arn:aws:codepipeline:{}:{}:{id}", request.region(), request.account());
        request.retag("codepipeline", ("resourceArn", &arn), old, &new).await?;
        let (before, now) = (disabled(old), disabled(&new));
        let restart = new.text("RestartExecutionOnUpdate").as_deref() == Some("true");
        let changed = declaration(id, new);
        request.call("codepipeline", "UpdatePipeline", json!({"pipeline": changed})).await?;
        for (stage, _) in before {
            if !now.iter().any(|(kept, _)| *kept == stage) {
                let asked = json!({
                    "pipelineName": id, "stageName": stage, "transitionType": "Inbound",
                });
                // The stage may be gone with the update.
                request.find("codepipeline", "EnableStageTransition", asked).await?;
            }
        }
        disable(request, id, now).await?;
        if restart {
            let asked = json!({"name": id});
            request.call("codepipeline", "StartPipelineExecution", asked).await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("codepipeline", "DeletePipeline", json!({"name": id})).await
    }
}
