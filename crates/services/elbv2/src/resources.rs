//! Elastic Load Balancing's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ElasticLoadBalancingV2.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![
            Arc::new(Listener),
            Arc::new(ListenerCertificate),
            Arc::new(ListenerRule),
            Arc::new(LoadBalancer),
            Arc::new(TargetGroup),
        ],
    }
}

const ELB: &str = "elasticloadbalancing";

/// What comes after a word in an ARN: `loadbalancer/` gives `app/name/id`.
fn after(arn: &str, word: &str) -> String {
    arn.split_once(word).map_or_else(String::new, |(_, rest)| rest.to_owned())
}

/// Sets the attributes that the properties give (`LoadBalancerAttributes` and the like, a list of `Key` and `Value`).
async fn attribute(
    request: &Request,
    operation: &str,
    named: (&str, &str),
    list: Option<&Json>,
) -> Result<(), Failure> {
    let all: Vec<Json> = list
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .map(|one| json!({"Key": one["Key"], "Value": text(&one["Value"])}))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    request.call(ELB, operation, json!({named.0: named.1, "Attributes": all})).await.map(|_| ())
}

async fn retag(
    request: &Request,
    arn: &str,
    old: &Properties,
    new: &Properties,
) -> Result<(), Failure> {
    let (set, gone) = new.tag_changes(old);
    if !gone.is_empty() {
        request.call(ELB, "RemoveTags", json!({"ResourceArns": [arn], "TagKeys": gone})).await?;
    }
    if !set.is_empty() {
        let tags: Vec<Json> =
            set.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        request.call(ELB, "AddTags", json!({"ResourceArns": [arn], "Tags": tags})).await?;
    }
    Ok(())
}

/// Names of load balancers and target groups have 32 characters at most.
const LONGEST_NAME: usize = 32;

struct LoadBalancer;

#[async_trait]
impl ResourceType for LoadBalancer {
    fn name(&self) -> &'static str {
        "AWS::ElasticLoadBalancingV2::LoadBalancer"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Name", || json!(request.name(LONGEST_NAME)));
        let attributes = properties.take("LoadBalancerAttributes");
        let answer = request.call(ELB, "CreateLoadBalancer", properties.request()).await?;
        let arn = text(&answer["LoadBalancers"][0]["LoadBalancerArn"]);
        attribute(
            request,
            "ModifyLoadBalancerAttributes",
            ("LoadBalancerArn", &arn),
            attributes.as_ref(),
        )
        .await?;
        Ok(arn)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer =
            request.find(ELB, "DescribeLoadBalancers", json!({"LoadBalancerArns": [id]})).await?;
        let Some(answer) = answer else { return Ok(State::Missing) };
        let found = &answer["LoadBalancers"][0];
        match found["State"]["Code"].as_str() {
            Some("provisioning") => return Ok(State::Pending),
            Some("failed") => {
                let reason = text(&found["State"]["Reason"]);
                return Ok(State::Failed(Failure::new("NotStabilized", reason)));
            }
            _ => {}
        }
        Ok(State::ready(json!({
            "LoadBalancerArn": id,
            "LoadBalancerName": found["LoadBalancerName"],
            "LoadBalancerFullName": after(id, ":loadbalancer/"),
            "CanonicalHostedZoneID": found["CanonicalHostedZoneId"],
            "DNSName": found["DNSName"],
            "SecurityGroups": found["SecurityGroups"],
        })))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await?;
        new.take("Tags");
        if new.differ(old, &["SecurityGroups"]) {
            let ask = json!({"LoadBalancerArn": id, "SecurityGroups": new.get("SecurityGroups")});
            request.call(ELB, "SetSecurityGroups", ask).await?;
        }
        if new.differ(old, &["LoadBalancerAttributes"]) {
            let list = new.get("LoadBalancerAttributes");
            attribute(request, "ModifyLoadBalancerAttributes", ("LoadBalancerArn", id), list)
                .await?;
        }
        let others = ["Subnets", "SubnetMappings", "IpAddressType"];
        match others.iter().find(|name| new.differ(old, &[name])) {
            Some(name) => Err(Failure::not_updatable(name)),
            None => Ok(()),
        }
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(ELB, "DeleteLoadBalancer", json!({"LoadBalancerArn": id})).await
    }
}

struct TargetGroup;

/// What ModifyTargetGroup changes.
const HEALTH: [&str; 9] = [
    "HealthCheckEnabled",
    "HealthCheckIntervalSeconds",
    "HealthCheckPath",
    "HealthCheckPort",
    "HealthCheckProtocol",
    "HealthCheckTimeoutSeconds",
    "HealthyThresholdCount",
    "UnhealthyThresholdCount",
    "Matcher",
];

impl TargetGroup {
    /// Registers and deregisters the targets that the template lists itself.
    async fn targets(
        request: &Request,
        arn: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let list = |properties: &Properties| {
            properties.get("Targets").and_then(Json::as_array).cloned().unwrap_or_default()
        };
        let (before, now) = (list(old), list(new));
        let gone: Vec<&Json> = before.iter().filter(|target| !now.contains(target)).collect();
        let come: Vec<&Json> = now.iter().filter(|target| !before.contains(target)).collect();
        for (operation, targets) in [("DeregisterTargets", gone), ("RegisterTargets", come)] {
            if !targets.is_empty() {
                request
                    .call(ELB, operation, json!({"TargetGroupArn": arn, "Targets": targets}))
                    .await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for TargetGroup {
    fn name(&self) -> &'static str {
        "AWS::ElasticLoadBalancingV2::TargetGroup"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("Name", || json!(request.name(LONGEST_NAME)));
        let attributes = properties.take("TargetGroupAttributes");
        let targets = properties.only(&["Targets"]);
        properties.take("Targets");
        let answer = request.call(ELB, "CreateTargetGroup", properties.request()).await?;
        let arn = text(&answer["TargetGroups"][0]["TargetGroupArn"]);
        attribute(
            request,
            "ModifyTargetGroupAttributes",
            ("TargetGroupArn", &arn),
            attributes.as_ref(),
        )
        .await?;
        Self::targets(request, &arn, &Properties::default(), &targets).await?;
        Ok(arn)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer =
            request.find(ELB, "DescribeTargetGroups", json!({"TargetGroupArns": [id]})).await?;
        let Some(answer) = answer else { return Ok(State::Missing) };
        let found = &answer["TargetGroups"][0];
        Ok(State::ready(json!({
            "TargetGroupArn": id,
            "TargetGroupName": found["TargetGroupName"],
            "TargetGroupFullName": format!("targetgroup/{}", after(id, ":targetgroup/")),
            "LoadBalancerArns": found["LoadBalancerArns"],
        })))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, old, &new).await?;
        if new.differ(old, &HEALTH) {
            let mut ask = new.only(&HEALTH);
            ask.set("TargetGroupArn", id);
            request.call(ELB, "ModifyTargetGroup", ask.request()).await?;
        }
        if new.differ(old, &["TargetGroupAttributes"]) {
            let list = new.get("TargetGroupAttributes");
            attribute(request, "ModifyTargetGroupAttributes", ("TargetGroupArn", id), list).await?;
        }
        Self::targets(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(ELB, "DeleteTargetGroup", json!({"TargetGroupArn": id})).await
    }
}

struct Listener;

#[async_trait]
impl ResourceType for Listener {
    fn name(&self) -> &'static str {
        "AWS::ElasticLoadBalancingV2::Listener"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let attributes = properties.take("ListenerAttributes");
        if attributes.is_some() {
            return Err(Failure::unsupported("ListenerAttributes"));
        }
        let answer = request.call(ELB, "CreateListener", properties.request()).await?;
        Ok(text(&answer["Listeners"][0]["ListenerArn"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer = request.find(ELB, "DescribeListeners", json!({"ListenerArns": [id]})).await?;
        Ok(answer.map_or(State::Missing, |_| State::ready(json!({"ListenerArn": id}))))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["ListenerAttributes"]) {
            return Err(Failure::not_updatable("ListenerAttributes"));
        }
        new.take("LoadBalancerArn");
        new.set("ListenerArn", id);
        request.call(ELB, "ModifyListener", new.request()).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(ELB, "DeleteListener", json!({"ListenerArn": id})).await
    }
}

struct ListenerCertificate;

#[async_trait]
impl ResourceType for ListenerCertificate {
    fn name(&self) -> &'static str {
        "AWS::ElasticLoadBalancingV2::ListenerCertificate"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        request.call(ELB, "AddListenerCertificates", properties.request()).await?;
        Ok(request.name(255))
    }

    async fn read(&self, _: &Request, _: &str, _: &Properties) -> Result<State, Failure> {
        Ok(State::ready(json!({})))
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        request.call(ELB, "AddListenerCertificates", new.clone().request()).await?;
        let now = new.get("Certificates").and_then(Json::as_array).cloned().unwrap_or_default();
        let before = old.get("Certificates").and_then(Json::as_array).cloned().unwrap_or_default();
        let gone: Vec<Json> = before.into_iter().filter(|one| !now.contains(one)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut ask = old.clone();
        ask.set("Certificates", gone);
        request.remove(ELB, "RemoveListenerCertificates", ask.request()).await
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        request.remove(ELB, "RemoveListenerCertificates", properties.clone().request()).await?;
        Err(Failure::new("NotFound", "The listener does not have the certificates any more"))
    }
}

struct ListenerRule;

#[async_trait]
impl ResourceType for ListenerRule {
    fn name(&self) -> &'static str {
        "AWS::ElasticLoadBalancingV2::ListenerRule"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let answer = request.call(ELB, "CreateRule", properties.request()).await?;
        Ok(text(&answer["Rules"][0]["RuleArn"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer = request.find(ELB, "DescribeRules", json!({"RuleArns": [id]})).await?;
        Ok(answer.map_or(State::Missing, |answer| {
            State::ready(json!({"RuleArn": id, "IsDefault": answer["Rules"][0]["IsDefault"]}))
        }))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["Priority"]) {
            let ask = json!({"RulePriorities": [{"RuleArn": id, "Priority": new.get("Priority")}]});
            request.call(ELB, "SetRulePriorities", ask).await?;
        }
        new.take("ListenerArn");
        new.take("Priority");
        if !new.differ(old, &["Actions", "Conditions", "Transforms"]) {
            return Ok(());
        }
        new.set("RuleArn", id);
        request.call(ELB, "ModifyRule", new.request()).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(ELB, "DeleteRule", json!({"RuleArn": id})).await
    }
}
