//! CodeConnections' type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-codeconnections-connection.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    let schemas = include_str!("api/resource_types.json");
    let connection = |name| Arc::new(Connection { name }) as Arc<dyn ResourceType>;
    let types = vec![
        connection("AWS::CodeConnections::Connection"),
        // As it was called before.
        connection("AWS::CodeStarConnections::Connection"),
    ];
    Types { schemas, types }
}

const SERVICE: &str = "codeconnections";

struct Connection {
    name: &'static str,
}

/// The connection of this name, which is the only one: names are unique.
async fn named(request: &Request, name: Option<String>) -> Result<Option<String>, Failure> {
    let mut token = Json::Null;
    loop {
        let asked = match &token {
            Json::Null => json!({}),
            token => json!({"NextToken": token}),
        };
        let page = request.call(SERVICE, "ListConnections", asked).await?;
        let mut listed = page["Connections"].as_array().into_iter().flatten();
        if let Some(found) =
            listed.find(|found| found["ConnectionName"].as_str() == name.as_deref())
        {
            return Ok(found["ConnectionArn"].as_str().map(str::to_owned));
        }
        token = page["NextToken"].clone();
        if token.is_null() {
            return Ok(None);
        }
    }
}

#[async_trait]
impl ResourceType for Connection {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        if request.repeated
            && let Some(arn) = named(request, properties.text("ConnectionName")).await?
        {
            return Ok(arn);
        }
        let made = request.call(SERVICE, "CreateConnection", properties.request()).await?;
        Ok(made["ConnectionArn"].as_str().unwrap_or_default().to_owned())
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let asked = json!({"ConnectionArn": id});
        Ok(match request.find(SERVICE, "GetConnection", asked).await? {
            Some(found) => {
                let found = &found["Connection"];
                State::ready(json!({
                    "ConnectionArn": id,
                    "ConnectionStatus": found["ConnectionStatus"],
                    "OwnerAccountId": found["OwnerAccountId"],
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
        request.retag(SERVICE, ("ResourceArn", id), old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(SERVICE, "DeleteConnection", json!({"ConnectionArn": id})).await
    }
}
