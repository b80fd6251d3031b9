//! CodeCommit's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-codecommit-repository.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    let schemas = include_str!("api/resource_types.json");
    Types { schemas, types: vec![Arc::new(Repository)] }
}

struct Repository;

fn tag_map(tags: Vec<(String, String)>) -> Json {
    tags.into_iter()
        .map(|(key, value)| (key, json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Finds the repository with this id, which is what stacks know it by, whatever its name.
async fn named(request: &Request, id: &str) -> Result<Option<Json>, Failure> {
    let mut token = Json::Null;
    loop {
        let asked = match &token {
            Json::Null => json!({}),
            token => json!({"nextToken": token}),
        };
        let page = request.call("codecommit", "ListRepositories", asked).await?;
        let listed = page["repositories"].as_array().into_iter().flatten();
        if let Some(found) = listed.into_iter().find(|found| found["repositoryId"] == id) {
            return Ok(Some(found["repositoryName"].clone()));
        }
        token = page["nextToken"].clone();
        if token.is_null() {
            return Ok(None);
        }
    }
}

async fn put_triggers(request: &Request, name: &str, triggers: Json) -> Result<(), Failure> {
    let mut asked = Properties::default();
    asked.set("RepositoryName", json!(name));
    asked.set("Triggers", triggers);
    request.call("codecommit", "PutRepositoryTriggers", asked.request()).await.map(|_| ())
}

#[async_trait]
impl ResourceType for Repository {
    fn name(&self) -> &'static str {
        "AWS::CodeCommit::Repository"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let tags = properties.tags();
        properties.take("Tags");
        if !tags.is_empty() {
            properties.set("Tags", tag_map(tags));
        }
        let triggers = properties.take("Triggers");
        let named = json!({"repositoryName": properties.text("RepositoryName")});
        let made = request.make("codecommit", "CreateRepository", properties.request()).await?;
        let made = match made {
            Some(made) => made,
            None => request.call("codecommit", "GetRepository", named).await?,
        };
        let id = made["repositoryMetadata"]["repositoryId"].as_str();
        if let Some(triggers) = triggers {
            let name = &made["repositoryMetadata"]["repositoryName"];
            put_triggers(request, name.as_str().unwrap_or_default(), triggers).await?;
        }
        Ok(id.unwrap_or_default().to_owned())
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(name) = named(request, id).await? else { return Ok(State::Missing) };
        let asked = json!({"repositoryName": name});
        Ok(match request.find("codecommit", "GetRepository", asked).await? {
            Some(answer) => {
                let repository = &answer["repositoryMetadata"];
                State::ready(json!({
                    "Arn": repository["Arn"],
                    "Name": repository["repositoryName"],
                    "CloneUrlHttp": repository["cloneUrlHttp"],
                }))
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
        // What making it refuses is not brought in later.
        for property in ["Code", "KmsKeyId"] {
            if old.get(property) != new.get(property) {
                return Err(Failure::not_updatable(property));
            }
        }
        let Some(name) = named(request, id).await? else {
            return Err(Failure::invalid(format!("the repository {id} does not exist")));
        };
        let mut name = name.as_str().unwrap_or_default().to_owned();
        if let Some(wanted) = new.text("RepositoryName").filter(|wanted| *wanted != name) {
            let renamed = json!({"oldName": name, "newName": wanted});
            request.call("codecommit", "UpdateRepositoryName", renamed).await?;
            name = wanted;
        }
        if old.text("RepositoryDescription") != new.text("RepositoryDescription") {
            let description = new.text("RepositoryDescription").unwrap_or_default();
            let asked = json!({"repositoryName": name, "repositoryDescription": description});
            request.call("codecommit", "UpdateRepositoryDescription", asked).await?;
        }
        if old.get("Triggers") != new.get("Triggers") {
            let triggers = new.get("Triggers").cloned().unwrap_or_else(|| json!([]));
            put_triggers(request, &name, triggers).await?;
        }
        let (set, gone) = new.tag_changes(old);
        let (account, region) = (request.account(), request.region());
        let arn = format!("arn:aws:codecommit:{region}:{account}:{name}");
        if !gone.is_empty() {
            let asked = json!({"resourceArn": arn, "tagKeys": gone});
            request.call("codecommit", "UntagResource", asked).await?;
        }
        if !set.is_empty() {
            let asked = json!({"resourceArn": arn, "tags": tag_map(set)});
            request.call("codecommit", "TagResource", asked).await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        match named(request, id).await? {
            Some(name) => {
                request
                    .remove("codecommit", "DeleteRepository", json!({"repositoryName": name}))
                    .await
            }
            None => Ok(()),
        }
    }
}
