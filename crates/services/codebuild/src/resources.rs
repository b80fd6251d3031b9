//! CodeBuild's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_CodeBuild.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    let schemas = include_str!("api/resource_types.json");
    Types { schemas, types: vec![Arc::new(Project), Arc::new(ReportGroup)] }
}

struct Project;

/// What an update goes back to when a property is there no more.
fn defaults() -> Json {
    json!({
        "Description": "", "SourceVersion": "", "SecondarySources": [], "SecondarySourceVersions": [],
        "SecondaryArtifacts": [], "Cache": {"Type": "NO_CACHE"}, "TimeoutInMinutes": 60,
        "QueuedTimeoutInMinutes": 480, "Tags": [], "VpcConfig": {}, "LogsConfig": {}, "BadgeEnabled": false,
    })
}

fn prepared(mut properties: Properties) -> Result<Properties, Failure> {
    // A webhook of a git host, which is an operation of its own.
    if properties.take("Triggers").is_some() {
        return Err(Failure::unsupported("Triggers"));
    }
    match properties.take("Visibility") {
        Some(visibility) if visibility != json!("PRIVATE") => {
            return Err(Failure::unsupported("Visibility"));
        }
        _ => {}
    }
    let tag = |(key, value)| json!({"Key": key, "Value": value});
    let tags: Vec<Json> = properties.tags().into_iter().map(tag).collect();
    properties.take("Tags");
    if !tags.is_empty() {
        properties.set("Tags", Json::Array(tags));
    }
    Ok(properties)
}

/// What is there of the one that a batch operation is asked for, which answers it in `list`.
async fn look(
    request: &Request,
    operation: &str,
    asked: Json,
    list: &str,
) -> Result<State, Failure> {
    let found = request.find("codebuild", operation, asked).await?;
    let arn = found.as_ref().map(|found| &found[list][0]["arn"]);
    Ok(match arn.and_then(Json::as_str) {
        Some(arn) => State::ready(json!({"Arn": arn})),
        None => State::Missing,
    })
}

#[async_trait]
impl ResourceType for Project {
    fn name(&self) -> &'static str {
        "AWS::CodeBuild::Project"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Name", || json!(request.name(150)));
        let name = properties.text("Name").unwrap_or_default();
        let asked = prepared(properties)?.request();
        request.make("codebuild", "CreateProject", asked).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        look(request, "BatchGetProjects", json!({"names": [id]}), "projects").await
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let mut asked = prepared(new)?;
        asked.set("Name", json!(id));
        for (name, value) in defaults().as_object().into_iter().flatten() {
            asked.set_default(name, || value.clone());
        }
        request.call("codebuild", "UpdateProject", asked.request()).await?;
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("codebuild", "DeleteProject", json!({"name": id})).await
    }
}

struct ReportGroup;

#[async_trait]
impl ResourceType for ReportGroup {
    fn name(&self) -> &'static str {
        "AWS::CodeBuild::ReportGroup"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Name", || json!(request.name(128)));
        properties.take("DeleteReports");
        let name = properties.text("Name").unwrap_or_default();
        let asked = prepared(properties)?.request();
        request.make("codebuild", "CreateReportGroup", asked).await?;
        let (region, account) = (request.region(), request.account());
        Ok(format!("arn:aws:codebuild:{region}:{account}:report-group/{name}"))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        look(request, "BatchGetReportGroups", json!({"reportGroupArns": [id]}), "reportGroups")
            .await
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let mut asked = prepared(new)?;
        for own in ["Name", "Type", "DeleteReports"] {
            asked.take(own);
        }
        asked.set_default("Tags", || json!([]));
        asked.set("Arn", json!(id));
        request.call("codebuild", "UpdateReportGroup", asked.request()).await?;
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, old: &Properties) -> Result<(), Failure> {
        let asked = json!({"arn": id, "deleteReports": old.on("DeleteReports")});
        request.remove("codebuild", "DeleteReportGroup", asked).await
    }
}
