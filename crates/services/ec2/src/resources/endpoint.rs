//! VPC endpoints.

use super::{EC2, one, retag, tag_specifications};
use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, text};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

pub(super) struct VpcEndpoint;

/// A policy as the operations take it.
fn policy(properties: &mut Properties) {
    if let Some(policy) = properties.take("PolicyDocument") {
        let text = policy.as_str().map(str::to_owned);
        properties.set("PolicyDocument", text.unwrap_or_else(|| policy.to_string()));
    }
}

/// What lists have in `new` and not in `old`.
fn more(old: &Properties, new: &Properties, list: &str) -> Vec<String> {
    let all = |properties: &Properties| -> BTreeSet<String> {
        let list = properties.get(list).and_then(Json::as_array);
        list.into_iter().flatten().map(text).collect()
    };
    all(new).difference(&all(old)).cloned().collect()
}

#[async_trait]
impl ResourceType for VpcEndpoint {
    fn name(&self) -> &'static str {
        "AWS::EC2::VPCEndpoint"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        policy(&mut properties);
        if properties.text("VpcEndpointType").as_deref() == Some("Interface") {
            // The operation's own default is that it is on.
            properties.set_default("PrivateDnsEnabled", || json!(false));
        }
        properties.set("ClientToken", request.token.clone());
        tag_specifications(&mut properties, "vpc-endpoint");
        let answer = request.call(EC2, "CreateVpcEndpoint", properties.request()).await?;
        Ok(text(&answer["VpcEndpoint"]["VpcEndpointId"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"VpcEndpointIds": [id]});
        let found = one(request, "DescribeVpcEndpoints", ask, "VpcEndpoints").await?;
        let Some(found) = found else { return Ok(State::Missing) };
        Ok(State::ready(json!({
            "Id": id,
            "CreationTimestamp": found["CreationTimestamp"],
            "NetworkInterfaceIds": found["NetworkInterfaceIds"],
            "DnsEntries": [],
        })))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        for name in ["DnsOptions", "IpAddressType"] {
            if new.differ(old, &[name]) {
                return Err(Failure::not_updatable(name));
            }
        }
        retag(request, id, old, &new).await?;
        policy(&mut new);
        let mut ask = json!({
            "VpcEndpointId": id,
            "AddRouteTableIds": more(old, &new, "RouteTableIds"),
            "RemoveRouteTableIds": more(&new, old, "RouteTableIds"),
            "AddSubnetIds": more(old, &new, "SubnetIds"),
            "RemoveSubnetIds": more(&new, old, "SubnetIds"),
            "AddSecurityGroupIds": more(old, &new, "SecurityGroupIds"),
            "RemoveSecurityGroupIds": more(&new, old, "SecurityGroupIds"),
            "PrivateDnsEnabled": new.on("PrivateDnsEnabled"),
        });
        match new.get("PolicyDocument") {
            Some(policy) => ask["PolicyDocument"] = policy.clone(),
            None => ask["ResetPolicy"] = json!(true),
        }
        request.call(EC2, "ModifyVpcEndpoint", ask).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let answer =
            request.call(EC2, "DeleteVpcEndpoints", json!({"VpcEndpointIds": [id]})).await?;
        let Some(failed) = answer["Unsuccessful"].get(0) else { return Ok(()) };
        match text(&failed["Error"]["Code"]).as_str() {
            "InvalidVpcEndpointId.NotFound" => Ok(()),
            _ => Err(Failure::new("GeneralServiceException", text(&failed["Error"]["Message"]))),
        }
    }
}
