//! Cloud Map's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ServiceDiscovery.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![
            Arc::new(Namespace { private: false }),
            Arc::new(Namespace { private: true }),
            Arc::new(Service),
        ],
    }
}

const DISCOVERY: &str = "servicediscovery";

fn arn(request: &Request, resource: &str) -> String {
    format!("arn:aws:servicediscovery:{}:{}:{resource}", request.region(), request.account())
}

struct Namespace {
    private: bool,
}

impl Namespace {
    fn kind(&self) -> &'static str {
        if self.private { "PrivateDnsNamespace" } else { "HttpNamespace" }
    }
}

/// The id that an operation of Cloud Map has made or works on.
async fn target(request: &Request, answer: &Json) -> Result<String, Failure> {
    let ask = json!({"OperationId": answer["OperationId"]});
    let operation = request.call(DISCOVERY, "GetOperation", ask).await?;
    let operation = &operation["Operation"];
    match operation["Status"].as_str() {
        Some("FAIL") => Err(Failure::invalid(text(&operation["ErrorMessage"]))),
        _ => Ok(text(&operation["Targets"]["NAMESPACE"])),
    }
}

#[async_trait]
impl ResourceType for Namespace {
    fn name(&self) -> &'static str {
        match self.private {
            true => "AWS::ServiceDiscovery::PrivateDnsNamespace",
            false => "AWS::ServiceDiscovery::HttpNamespace",
        }
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set("CreatorRequestId", request.token.clone());
        let operation = format!("Create{}", self.kind());
        let answer = request.call(DISCOVERY, &operation, properties.request()).await?;
        target(request, &answer).await
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(found) = request.find(DISCOVERY, "GetNamespace", json!({"Id": id})).await? else {
            return Ok(State::Missing);
        };
        let found = &found["Namespace"];
        let zone = &found["Properties"]["DnsProperties"]["HostedZoneId"];
        let all = json!({"Id": id, "Arn": found["Arn"], "HostedZoneId": zone});
        Ok(State::ready(all))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        request
            .retag(DISCOVERY, ("ResourceARN", &arn(request, &format!("namespace/{id}"))), old, &new)
            .await?;
        if !new.differ(old, &["Description", "Properties"]) {
            return Ok(());
        }
        let mut change = new.only(&["Properties"]);
        change.set("Description", new.text("Description").unwrap_or_default());
        let ask = json!({"Id": id, "Namespace": change.request()});
        request.call(DISCOVERY, &format!("Update{}", self.kind()), ask).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(DISCOVERY, "DeleteNamespace", json!({"Id": id})).await
    }
}

struct Service;

#[async_trait]
impl ResourceType for Service {
    fn name(&self) -> &'static str {
        "AWS::ServiceDiscovery::Service"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Name", || json!(request.name(63).to_lowercase()));
        properties.set("CreatorRequestId", request.token.clone());
        if properties.take("ServiceAttributes").is_some() {
            return Err(Failure::unsupported("ServiceAttributes"));
        }
        let answer = request.call(DISCOVERY, "CreateService", properties.request()).await?;
        Ok(text(&answer["Service"]["Id"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find(DISCOVERY, "GetService", json!({"Id": id})).await? {
            Some(found) => {
                let found = &found["Service"];
                let all = json!({"Id": id, "Arn": found["Arn"], "Name": found["Name"]});
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
        request
            .retag(DISCOVERY, ("ResourceARN", &arn(request, &format!("service/{id}"))), old, &new)
            .await?;
        if !new.differ(old, &["Description", "DnsConfig", "HealthCheckConfig"]) {
            return Ok(());
        }
        let mut change = new.only(&["HealthCheckConfig"]);
        change.set("Description", new.text("Description").unwrap_or_default());
        if let Some(records) = new.get("DnsConfig").and_then(|dns| dns.get("DnsRecords")) {
            change.set("DnsConfig", json!({"DnsRecords": records}));
        }
        let ask = json!({"Id": id, "Service": change.request()});
        request.call(DISCOVERY, "UpdateService", ask).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(DISCOVERY, "DeleteService", json!({"Id": id})).await
    }
}
