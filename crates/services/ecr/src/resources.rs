//! ECR's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-ecr-repository.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Repository)] }
}

struct Repository;

fn arn(request: &Request, name: &str) -> String {
    format!("arn:aws:ecr:{}:{}:repository/{name}", request.region(), request.account())
}

/// A policy that a template may give as JSON or as text.
fn document(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Repository {
    /// Gives the policies of `new` where they differ from those of `old`.
    async fn policies(
        request: &Request,
        id: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["RepositoryPolicyText"]) {
            match new.get("RepositoryPolicyText") {
                Some(policy) => {
                    let ask = json!({"repositoryName": id, "policyText": document(policy)});
                    request.call("ecr", "SetRepositoryPolicy", ask).await?;
                }
                None => {
                    request
                        .remove("ecr", "DeleteRepositoryPolicy", json!({"repositoryName": id}))
                        .await?
                }
            }
        }
        if new.differ(old, &["LifecyclePolicy"]) {
            let text =
                new.get("LifecyclePolicy").and_then(|policy| policy.get("LifecyclePolicyText"));
            match text {
                Some(text) => {
                    let ask = json!({"repositoryName": id, "lifecyclePolicyText": document(text)});
                    request.call("ecr", "PutLifecyclePolicy", ask).await?;
                }
                None => {
                    request
                        .remove("ecr", "DeleteLifecyclePolicy", json!({"repositoryName": id}))
                        .await?
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for Repository {
    fn name(&self) -> &'static str {
        "AWS::ECR::Repository"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        // Repositories have names in lower case.
        properties.set_default("RepositoryName", || json!(request.name(256).to_lowercase()));
        let name = properties.text("RepositoryName").unwrap_or_default();
        let policies = properties.only(&["RepositoryPolicyText", "LifecyclePolicy"]);
        for taken in ["RepositoryPolicyText", "LifecyclePolicy", "EmptyOnDelete"] {
            properties.take(taken);
        }
        request.make("ecr", "CreateRepository", properties.request()).await?;
        Self::policies(request, &name, &Properties::default(), &policies).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"repositoryNames": [id]});
        Ok(match request.find("ecr", "DescribeRepositories", ask).await? {
            Some(answer) => {
                let found = &answer["repositories"][0];
                let all =
                    json!({"Arn": found["repositoryArn"], "RepositoryUri": found["repositoryUri"]});
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
        new: Properties,
    ) -> Result<(), Failure> {
        let others = ["ImageScanningConfiguration", "ImageTagMutabilityExclusionFilters"];
        if let Some(name) = others.iter().find(|name| new.differ(old, &[name])) {
            return Err(Failure::not_updatable(name));
        }
        if new.differ(old, &["ImageTagMutability"]) {
            let mutability = new.text("ImageTagMutability").unwrap_or_else(|| "MUTABLE".to_owned());
            let ask = json!({"repositoryName": id, "imageTagMutability": mutability});
            request.call("ecr", "PutImageTagMutability", ask).await?;
        }
        Self::policies(request, id, old, &new).await?;
        request.retag("ecr", ("resourceArn", &arn(request, id)), old, &new).await
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let ask = json!({"repositoryName": id, "force": properties.on("EmptyOnDelete")});
        request.remove("ecr", "DeleteRepository", ask).await
    }
}
