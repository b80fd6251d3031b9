//! ECS's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ECS.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![
            Arc::new(Cluster),
            Arc::new(CapacityProviders),
            Arc::new(Service),
            Arc::new(TaskDefinition),
        ],
    }
}

struct Cluster;

impl Cluster {
    async fn find(request: &Request, name: &str) -> Result<Option<Json>, Failure> {
        let answer = request.call("ecs", "DescribeClusters", json!({"clusters": [name]})).await?;
        let found = answer["clusters"].get(0).filter(|cluster| cluster["status"] != "INACTIVE");
        Ok(found.cloned())
    }
}

#[async_trait]
impl ResourceType for Cluster {
    fn name(&self) -> &'static str {
        "AWS::ECS::Cluster"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("ClusterName", || json!(request.name(255)));
        let name = properties.text("ClusterName").unwrap_or_default();
        // The operation would give the one that is there.
        if !request.repeated && Self::find(request, &name).await?.is_some() {
            let message = format!(
                "Resource of type 'AWS::ECS::Cluster' with identifier '{name}' already exists."
            );
            return Err(Failure::new("AlreadyExists", message));
        }
        properties.rename("ClusterSettings", "settings");
        request.call("ecs", "CreateCluster", properties.request()).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match Self::find(request, id).await? {
            None => State::Missing,
            Some(cluster) if cluster["status"] == "ACTIVE" => {
                State::ready(json!({"Arn": cluster["clusterArn"]}))
            }
            Some(_) => State::Pending,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let arn = format!("arn:aws:ecs:{}:{}:cluster/{id}", request.region(), request.account());
        request.retag("ecs", ("resourceArn", &arn), old, &new).await?;
        if new.differ(old, &["CapacityProviders", "DefaultCapacityProviderStrategy"]) {
            CapacityProviders::put(request, id, &new).await?;
        }
        let changed = ["ClusterSettings", "Configuration", "ServiceConnectDefaults"];
        if new.differ(old, &changed) {
            let mut ask = new.only(&changed);
            ask.rename("ClusterSettings", "settings");
            ask.set("cluster", id);
            request.call("ecs", "UpdateCluster", ask.request()).await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("ecs", "DeleteCluster", json!({"cluster": id})).await
    }
}

struct CapacityProviders;

impl CapacityProviders {
    async fn put(request: &Request, cluster: &str, properties: &Properties) -> Result<(), Failure> {
        let mut ask = properties.only(&["CapacityProviders", "DefaultCapacityProviderStrategy"]);
        ask.set_default("CapacityProviders", || json!([]));
        ask.set_default("DefaultCapacityProviderStrategy", || json!([]));
        ask.set("cluster", cluster);
        request.call("ecs", "PutClusterCapacityProviders", ask.request()).await.map(|_| ())
    }
}

#[async_trait]
impl ResourceType for CapacityProviders {
    fn name(&self) -> &'static str {
        "AWS::ECS::ClusterCapacityProviderAssociations"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let cluster = properties.text("Cluster").unwrap_or_default();
        Self::put(request, &cluster, &properties).await?;
        Ok(cluster)
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let Some(cluster) = Cluster::find(request, id).await? else { return Ok(State::Missing) };
        let none = cluster["capacityProviders"].as_array().is_none_or(Vec::is_empty);
        let wanted = properties.get("CapacityProviders").and_then(Json::as_array);
        match none && wanted.is_some_and(|wanted| !wanted.is_empty()) {
            true => Ok(State::Missing),
            false => Ok(State::ready(json!({}))),
        }
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        Self::put(request, id, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        Self::put(request, id, &Properties::default()).await?;
        // Without providers there is nothing left to read.
        Err(Failure::new("NotFound", "The cluster has no capacity providers any more"))
    }
}

struct TaskDefinition;

#[async_trait]
impl ResourceType for TaskDefinition {
    fn name(&self) -> &'static str {
        "AWS::ECS::TaskDefinition"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Family", || json!(request.name(255)));
        let answer = request.call("ecs", "RegisterTaskDefinition", properties.request()).await?;
        Ok(text(&answer["taskDefinition"]["taskDefinitionArn"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer =
            request.call("ecs", "DescribeTaskDefinition", json!({"taskDefinition": id})).await;
        Ok(match answer {
            Ok(answer) if answer["taskDefinition"]["status"] == "ACTIVE" => {
                State::ready(json!({"TaskDefinitionArn": id}))
            }
            Ok(_) => State::Missing,
            Err(failure) if failure.fault == "ClientException" => State::Missing,
            Err(failure) => return Err(failure),
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        request.retag("ecs", ("resourceArn", id), old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let ask = json!({"taskDefinition": id});
        match request.remove("ecs", "DeregisterTaskDefinition", ask).await {
            // One that was deregistered by hand.
            Err(failure) if failure.fault == "ClientException" => Ok(()),
            result => result,
        }
    }
}

struct Service;

/// What the properties are called in the operations.
fn named_for_operations(properties: &mut Properties) {
    properties.rename("PlacementStrategies", "placementStrategy");
}

/// The cluster of a service's ARN.
fn cluster_of(arn: &str) -> String {
    let mut parts = arn.rsplit('/');
    parts.nth(1).unwrap_or("default").to_owned()
}

#[async_trait]
impl ResourceType for Service {
    fn name(&self) -> &'static str {
        "AWS::ECS::Service"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("ServiceName", || json!(request.name(255)));
        let daemon = properties.text("SchedulingStrategy").as_deref() == Some("DAEMON");
        if !daemon {
            properties.set_default("DesiredCount", || json!(1));
        }
        properties.take("ForceNewDeployment");
        named_for_operations(&mut properties);
        properties.set("clientToken", request.token.replace('-', ""));
        let answer = request.call("ecs", "CreateService", properties.request()).await?;
        Ok(text(&answer["service"]["serviceArn"]))
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let ask = json!({"cluster": cluster_of(id), "services": [id]});
        let Some(answer) = request.find("ecs", "DescribeServices", ask).await? else {
            return Ok(State::Missing);
        };
        let Some(service) = answer["services"].get(0) else { return Ok(State::Missing) };
        match service["status"].as_str() {
            Some("ACTIVE") => {}
            Some("DRAINING") => return Ok(State::Pending),
            _ => return Ok(State::Missing),
        }
        let ready = State::ready(
            json!({"Name": service["serviceName"], "ServiceArn": service["serviceArn"]}),
        );
        match service["deploymentController"]["type"].as_str() {
            Some("EXTERNAL") => return Ok(ready),
            // Whoever deploys makes its task sets; the service is well when as many run as should.
            Some("CODE_DEPLOY") => {
                let even = service["runningCount"] == service["desiredCount"];
                return Ok(if even { ready } else { State::Pending });
            }
            _ => {}
        }
        let deployments = service["deployments"].as_array().map(Vec::as_slice).unwrap_or_default();
        let primary =
            deployments.iter().find(|one| one["status"] == "PRIMARY").unwrap_or(&Json::Null);
        let wanted = properties.text("TaskDefinition").unwrap_or_default();
        let runs = text(&primary["taskDefinition"]);
        let broken = || {
            let message =
                "Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'.";
            State::Failed(Failure::new("GeneralServiceException", message))
        };
        // A family stands for its newest revision; an ARN or a revision must be the one that runs.
        let exact = wanted.contains(':');
        let other = exact && !(runs == wanted || runs.ends_with(&format!("/{wanted}")));
        Ok(match primary["rolloutState"].as_str() {
            Some("FAILED") => broken(),
            Some("COMPLETED") if other => broken(),
            Some("COMPLETED") => ready,
            _ => State::Pending,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        request.retag("ecs", ("resourceArn", id), old, &new).await?;
        new.take("Tags");
        let force = new.take("ForceNewDeployment");
        let mut ask = Properties::default();
        for (name, value) in &new.0 {
            if old.get(name) != Some(value) {
                ask.set(name, value.clone());
            }
        }
        for (name, before) in old.0.iter().filter(|(name, _)| !new.0.contains_key(*name)) {
            match (name.as_str(), before) {
                ("Tags" | "ForceNewDeployment" | "DesiredCount", _) => {}
                ("ServiceConnectConfiguration", _) => ask.set(name, json!({"enabled": false})),
                (_, Json::Array(_)) => ask.set(name, json!([])),
                _ => return Err(Failure::not_updatable(name)),
            }
        }
        if force.as_ref() != old.get("ForceNewDeployment")
            && force.is_some_and(|force| force["EnableForceNewDeployment"] == json!(true))
        {
            ask.set("forceNewDeployment", true);
        }
        if ask.0.is_empty() {
            return Ok(());
        }
        named_for_operations(&mut ask);
        ask.set("cluster", cluster_of(id));
        ask.set("service", id);
        request.call("ecs", "UpdateService", ask.request()).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let ask = json!({"cluster": cluster_of(id), "service": id, "force": true});
        match request.remove("ecs", "DeleteService", ask).await {
            Err(failure) if failure.fault == "ServiceNotActiveException" => Ok(()),
            result => result,
        }
    }
}
