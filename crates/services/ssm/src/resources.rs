//! Parameter Store's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-ssm-parameter.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Parameter)] }
}

struct Parameter;

fn tag_list(tags: Vec<(String, String)>) -> Json {
    tags.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

#[async_trait]
impl ResourceType for Parameter {
    fn name(&self) -> &'static str {
        "AWS::SSM::Parameter"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        // As on AWS, where such values come from dynamic references and nowhere else.
        if properties.text("Type").as_deref() == Some("SecureString") {
            return Err(Failure::invalid(
                "AWS::SSM::Parameter does not support the Type SecureString",
            ));
        }
        properties.set_default("Name", || json!(format!("CFN-{}", request.name(200))));
        let name = properties.text("Name").unwrap_or_default();
        let tags = properties.tags();
        properties.take("Tags");
        if !tags.is_empty() {
            properties.set("Tags", tag_list(tags));
        }
        request.make("ssm", "PutParameter", properties.request()).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find("ssm", "GetParameter", json!({"Name": id})).await? {
            Some(answer) => {
                let parameter = &answer["Parameter"];
                let all = json!({"Type": parameter["Type"], "Value": parameter["Value"]});
                State::ready(all)
            }
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
        let (set, gone) = new.tag_changes(old);
        let named = |mut ask: Json| {
            ask["ResourceType"] = json!("Parameter");
            ask["ResourceId"] = json!(id);
            ask
        };
        if !gone.is_empty() {
            request.call("ssm", "RemoveTagsFromResource", named(json!({"TagKeys": gone}))).await?;
        }
        if !set.is_empty() {
            request.call("ssm", "AddTagsToResource", named(json!({"Tags": tag_list(set)}))).await?;
        }
        new.take("Tags");
        new.set("Name", id);
        new.set("Overwrite", true);
        // What the new template no longer says is cleared.
        if old.get("Description").is_some() {
            new.set_default("Description", || json!(""));
        }
        request.call("ssm", "PutParameter", new.request()).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("ssm", "DeleteParameter", json!({"Name": id})).await
    }
}
