//! EventBridge's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-events-rule.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Rule)] }
}

struct Rule;

fn targets(properties: &Properties) -> Vec<Json> {
    let targets = properties.get("Targets").and_then(Json::as_array);
    targets.cloned().unwrap_or_default()
}

fn ids(targets: &[Json]) -> Vec<String> {
    targets.iter().filter_map(|target| target["Id"].as_str()).map(str::to_owned).collect()
}

/// Puts the rule and its targets, as the template has them.
async fn put(request: &Request, name: &str, mut properties: Properties) -> Result<(), Failure> {
    let targets = targets(&properties);
    properties.take("Targets");
    properties.set("Name", name);
    if let Some(pattern) = properties.get("EventPattern").filter(|pattern| pattern.is_object()) {
        let text = pattern.to_string();
        properties.set("EventPattern", text);
    }
    request.call("events", "PutRule", properties.request()).await?;
    if !targets.is_empty() {
        let put = json!({"Rule": name, "Targets": targets});
        request.call("events", "PutTargets", put).await?;
    }
    Ok(())
}

#[async_trait]
impl ResourceType for Rule {
    fn name(&self) -> &'static str {
        "AWS::Events::Rule"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = properties.text("Name").unwrap_or_else(|| request.name(64));
        put(request, &name, properties).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find("events", "DescribeRule", json!({"Name": id})).await? {
            Some(rule) => State::ready(json!({"Arn": rule["Arn"]})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        let kept = ids(&targets(&new));
        let gone: Vec<String> =
            ids(&targets(old)).into_iter().filter(|id| !kept.contains(id)).collect();
        let arn = format!("arn:aws:events:{}:{}:rule/{id}", request.region(), request.account());
        request.retag("events", ("ResourceARN", &arn), old, &new).await?;
        new.take("Tags");
        put(request, id, new).await?;
        if !gone.is_empty() {
            request.call("events", "RemoveTargets", json!({"Rule": id, "Ids": gone})).await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let listed = request.find("events", "ListTargetsByRule", json!({"Rule": id})).await?;
        let Some(listed) = listed else { return Ok(()) };
        let targets = listed["Targets"].as_array().cloned().unwrap_or_default();
        if !targets.is_empty() {
            let gone = json!({"Rule": id, "Ids": ids(&targets)});
            request.remove("events", "RemoveTargets", gone).await?;
        }
        request.remove("events", "DeleteRule", json!({"Name": id})).await
    }
}
