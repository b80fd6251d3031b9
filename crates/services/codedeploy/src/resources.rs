//! CodeDeploy's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_CodeDeploy.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    let schemas = include_str!("api/resource_types.json");
    Types { schemas, types: vec![Arc::new(Application), Arc::new(Config), Arc::new(Group)] }
}

struct Application;
struct Config;
struct Group;

fn with_tags(mut properties: Properties) -> Json {
    let tag = |(key, value)| json!({"Key": key, "Value": value});
    let tags: Vec<Json> = properties.tags().into_iter().map(tag).collect();
    properties.take("Tags");
    if !tags.is_empty() {
        properties.set("Tags", Json::Array(tags));
    }
    properties.request()
}

#[async_trait]
impl ResourceType for Application {
    fn name(&self) -> &'static str {
        "AWS::CodeDeploy::Application"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("ApplicationName", || json!(request.name(100)));
        let name = properties.text("ApplicationName").unwrap_or_default();
        request.make("codedeploy", "CreateApplication", with_tags(properties)).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let asked = json!({"applicationName": id});
        Ok(match request.find("codedeploy", "GetApplication", asked).await? {
            Some(_) => State::ready(json!({})),
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
        let (account, region) = (request.account(), request.region());
        let arn = format!("arn:aws:codedeploy:{region}:{account}:application:{id}");
        request.retag("codedeploy", ("ResourceArn", &arn), old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let asked = json!({"applicationName": id});
        request.remove("codedeploy", "DeleteApplication", asked).await
    }
}

#[async_trait]
impl ResourceType for Config {
    fn name(&self) -> &'static str {
        "AWS::CodeDeploy::DeploymentConfig"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("DeploymentConfigName", || json!(request.name(100)));
        let name = properties.text("DeploymentConfigName").unwrap_or_default();
        request.make("codedeploy", "CreateDeploymentConfig", properties.request()).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let asked = json!({"deploymentConfigName": id});
        Ok(match request.find("codedeploy", "GetDeploymentConfig", asked).await? {
            Some(_) => State::ready(json!({})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        // Every property replaces it.
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let asked = json!({"deploymentConfigName": id});
        request.remove("codedeploy", "DeleteDeploymentConfig", asked).await
    }
}

/// Templates have the pairs where the API has their list, and services under a name of their own.
fn group_request(mut properties: Properties) -> Result<Properties, Failure> {
    if properties.get("Deployment").is_some() {
        return Err(Failure::unsupported("Deployment"));
    }
    if let Some(mut info) = properties.take("LoadBalancerInfo") {
        if let Some(info) = info.as_object_mut() {
            for (from, to) in [
                ("TargetGroupPairInfoList", "targetGroupPairInfoList"),
                ("TargetGroupInfoList", "targetGroupInfoList"),
                ("ElbInfoList", "elbInfoList"),
            ] {
                if let Some(value) = info.remove(from) {
                    info.insert(to.to_owned(), value);
                }
            }
        }
        properties.set("LoadBalancerInfo", info);
    }
    if let Some(services) = properties.take("ECSServices") {
        properties.set("ecsServices", services);
    }
    Ok(properties)
}

/// A group's id is its name; its application's is a property that replaces it.
fn place(id: &str, properties: &Properties) -> (String, String) {
    (properties.text("ApplicationName").unwrap_or_default(), id.to_owned())
}

#[async_trait]
impl ResourceType for Group {
    fn name(&self) -> &'static str {
        "AWS::CodeDeploy::DeploymentGroup"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("DeploymentGroupName", || json!(request.name(100)));
        let name = properties.text("DeploymentGroupName").unwrap_or_default();
        let asked = with_tags(group_request(properties)?);
        request.make("codedeploy", "CreateDeploymentGroup", asked).await?;
        Ok(name)
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let (application, name) = place(id, properties);
        let asked = json!({"applicationName": application, "deploymentGroupName": name});
        Ok(match request.find("codedeploy", "GetDeploymentGroup", asked).await? {
            Some(found) => {
                State::ready(json!({"Id": found["deploymentGroupInfo"]["deploymentGroupId"]}))
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
        let (application, name) = place(id, &new);
        let (account, region) = (request.account(), request.region());
        let arn =
            format!("arn:aws:codedeploy:{region}:{account}:deploymentgroup:{application}/{name}");
        request.retag("codedeploy", ("ResourceArn", &arn), old, &new).await?;
        new.take("Tags");
        new.take("DeploymentGroupName");
        new.set("currentDeploymentGroupName", name);
        let asked = group_request(new)?.request();
        request.call("codedeploy", "UpdateDeploymentGroup", asked).await.map(|_| ())
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let (application, name) = place(id, properties);
        let asked = json!({"applicationName": application, "deploymentGroupName": name});
        request.remove("codedeploy", "DeleteDeploymentGroup", asked).await
    }
}
