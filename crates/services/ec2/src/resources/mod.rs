//! EC2's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_EC2.html>

mod endpoint;
mod network;
mod security;

use resource::{Failure, Properties, Request, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("../api/resource_types.json"),
        types: vec![
            Arc::new(network::Eip),
            Arc::new(network::Gateway),
            Arc::new(network::Nat),
            Arc::new(network::Route),
            Arc::new(network::RouteTable),
            Arc::new(network::Subnet),
            Arc::new(network::Association),
            Arc::new(network::Vpc),
            Arc::new(endpoint::VpcEndpoint),
            Arc::new(network::Attachment),
            Arc::new(security::SecurityGroup),
            Arc::new(security::Rule { egress: true }),
            Arc::new(security::Rule { egress: false }),
        ],
    }
}

const EC2: &str = "ec2";

/// The only one of what an answer lists, if there is one.
async fn one(
    request: &Request,
    operation: &str,
    ask: Json,
    list: &str,
) -> Result<Option<Json>, Failure> {
    let answer = request.find(EC2, operation, ask).await?;
    Ok(answer.and_then(|answer| answer[list].get(0).cloned()))
}

/// The tags of a template as operations take them that make something.
fn tag_specifications(properties: &mut Properties, kind: &str) {
    if let Some(tags) = properties.take("Tags") {
        properties.set("TagSpecifications", json!([{"ResourceType": kind, "Tags": tags}]));
    }
}

async fn retag(
    request: &Request,
    id: &str,
    old: &Properties,
    new: &Properties,
) -> Result<(), Failure> {
    let (set, gone) = new.tag_changes(old);
    if !gone.is_empty() {
        let tags: Vec<Json> = gone.iter().map(|key| json!({"Key": key})).collect();
        request.call(EC2, "DeleteTags", json!({"Resources": [id], "Tags": tags})).await?;
    }
    if !set.is_empty() {
        let tags: Vec<Json> =
            set.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        request.call(EC2, "CreateTags", json!({"Resources": [id], "Tags": tags})).await?;
    }
    Ok(())
}
