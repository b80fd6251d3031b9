//! Secrets Manager's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-secretsmanager-secret.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Secret)] }
}

struct Secret;

/// What GenerateSecretString asks for: a password, or a JSON document with one in it.
async fn generated(request: &Request, wanted: Json) -> Result<String, Failure> {
    let mut wanted = Properties::from(wanted);
    let (template, key) = (wanted.take("SecretStringTemplate"), wanted.take("GenerateStringKey"));
    let answer = request.call("secretsmanager", "GetRandomPassword", wanted.request()).await?;
    let password = text(&answer["RandomPassword"]);
    match (template, key) {
        (None, None) => Ok(password),
        (Some(template), Some(key)) => {
            let document: Json = serde_json::from_str(&text(&template)).unwrap_or_default();
            let Json::Object(mut document) = document else {
                return Err(Failure::invalid("Could not parse SecretStringTemplate JSON"));
            };
            document.insert(text(&key), json!(password));
            Ok(Json::Object(document).to_string())
        }
        _ => Err(Failure::invalid(
            "You must specify both SecretStringTemplate and GenerateStringKey, or neither",
        )),
    }
}

/// The value that the properties give, if they give one.
async fn value(request: &Request, properties: &mut Properties) -> Result<Option<String>, Failure> {
    match (properties.take("SecretString"), properties.take("GenerateSecretString")) {
        (Some(value), None) => Ok(Some(text(&value))),
        (None, Some(wanted)) => generated(request, wanted).await.map(Some),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Failure::invalid(
            "You can specify either SecretString or GenerateSecretString, not both",
        )),
    }
}

#[async_trait]
impl ResourceType for Secret {
    fn name(&self) -> &'static str {
        "AWS::SecretsManager::Secret"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties
            .set_default("Name", || json!(format!("{}-{}", request.logical_id, request.suffix)));
        let name = properties.text("Name").unwrap_or_default();
        if let Some(value) = value(request, &mut properties).await? {
            properties.set("SecretString", value);
        }
        properties.rename("ReplicaRegions", "AddReplicaRegions");
        properties.set("ClientRequestToken", request.token.clone());
        match request.make("secretsmanager", "CreateSecret", properties.request()).await? {
            Some(answer) => Ok(text(&answer["ARN"])),
            None => {
                let found = request
                    .call("secretsmanager", "DescribeSecret", json!({"SecretId": name}))
                    .await?;
                Ok(text(&found["ARN"]))
            }
        }
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(
            match request.find("secretsmanager", "DescribeSecret", json!({"SecretId": id})).await? {
                Some(secret) if secret.get("DeletedDate").is_none() => {
                    State::ready(json!({"Id": id}))
                }
                _ => State::Missing,
            },
        )
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        if let Some(name) =
            ["KmsKeyId", "ReplicaRegions"].iter().find(|name| new.differ(old, &[name]))
        {
            return Err(Failure::not_updatable(name));
        }
        request.retag("secretsmanager", ("SecretId", id), old, &new).await?;
        if !new.differ(old, &["Description", "SecretString", "GenerateSecretString"]) {
            return Ok(());
        }
        let mut ask =
            json!({"SecretId": id, "Description": new.text("Description").unwrap_or_default()});
        if new.differ(old, &["SecretString", "GenerateSecretString"])
            && let Some(value) = value(request, &mut new).await?
        {
            ask["SecretString"] = json!(value);
        }
        request.call("secretsmanager", "UpdateSecret", ask).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let ask = json!({"SecretId": id, "ForceDeleteWithoutRecovery": true});
        request.remove("secretsmanager", "DeleteSecret", ask).await
    }
}
