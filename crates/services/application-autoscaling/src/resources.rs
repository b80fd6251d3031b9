//! Application Auto Scaling's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_ApplicationAutoScaling.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![Arc::new(ScalableTarget), Arc::new(ScalingPolicy)],
    }
}

const SCALING: &str = "application-autoscaling";

/// What names a scalable target. `Ref` gives it as text: `service/cluster/name|dimension|namespace`.
const PLACE: [&str; 3] = ["ResourceId", "ScalableDimension", "ServiceNamespace"];

fn place(id: &str) -> Properties {
    let parts = id.split('|').zip(PLACE).map(|(part, name)| (name.to_owned(), json!(part)));
    Properties(parts.collect())
}

struct ScalableTarget;

impl ScalableTarget {
    async fn schedule(
        request: &Request,
        id: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let list = |properties: &Properties| {
            properties.get("ScheduledActions").and_then(Json::as_array).cloned().unwrap_or_default()
        };
        let (before, now) = (list(old), list(new));
        for action in now.iter().filter(|action| !before.contains(action)) {
            let mut ask = Properties::from(action.clone());
            ask.0.extend(place(id).0);
            request.call(SCALING, "PutScheduledAction", ask.request()).await?;
        }
        let named = |action: &Json| action["ScheduledActionName"].clone();
        for action in
            before.iter().filter(|action| now.iter().all(|kept| named(kept) != named(action)))
        {
            let mut ask = place(id);
            ask.set("ScheduledActionName", named(action));
            request.remove(SCALING, "DeleteScheduledAction", ask.request()).await?;
        }
        Ok(())
    }

    async fn register(request: &Request, mut properties: Properties) -> Result<(), Failure> {
        properties.take("ScheduledActions");
        request.call(SCALING, "RegisterScalableTarget", properties.request()).await.map(|_| ())
    }
}

#[async_trait]
impl ResourceType for ScalableTarget {
    fn name(&self) -> &'static str {
        "AWS::ApplicationAutoScaling::ScalableTarget"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let id = PLACE.map(|name| properties.text(name).unwrap_or_default()).join("|");
        Self::register(request, properties.clone()).await?;
        Self::schedule(request, &id, &Properties::default(), &properties).await?;
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let place = place(id);
        let ask = json!({
            "ServiceNamespace": place.text("ServiceNamespace"),
            "ScalableDimension": place.text("ScalableDimension"),
            "ResourceIds": [place.text("ResourceId")],
        });
        let answer = request.call(SCALING, "DescribeScalableTargets", ask).await?;
        Ok(match answer["ScalableTargets"].get(0) {
            Some(_) => State::ready(json!({"Id": id})),
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
        Self::register(request, new.clone()).await?;
        Self::schedule(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(SCALING, "DeregisterScalableTarget", place(id).request()).await
    }
}

struct ScalingPolicy;

impl ScalingPolicy {
    /// The policy with the place of its target, which a template may give by the target's id.
    fn placed(properties: &mut Properties) {
        if let Some(target) = properties.take("ScalingTargetId") {
            properties.0.extend(place(&text(&target)).0);
        }
    }
}

#[async_trait]
impl ResourceType for ScalingPolicy {
    fn name(&self) -> &'static str {
        "AWS::ApplicationAutoScaling::ScalingPolicy"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        Self::placed(&mut properties);
        let answer = request.call(SCALING, "PutScalingPolicy", properties.request()).await?;
        Ok(text(&answer["PolicyARN"]))
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let mut place = properties.clone();
        Self::placed(&mut place);
        let mut ask = place.only(&PLACE);
        ask.set("PolicyNames", json!([place.text("PolicyName")]));
        let answer = request.call(SCALING, "DescribeScalingPolicies", ask.request()).await?;
        let found = answer["ScalingPolicies"].get(0).filter(|policy| policy["PolicyARN"] == id);
        Ok(match found {
            Some(_) => State::ready(json!({"Arn": id})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        _: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        Self::placed(&mut new);
        request.call(SCALING, "PutScalingPolicy", new.request()).await.map(|_| ())
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let mut ask = properties.clone();
        Self::placed(&mut ask);
        let mut ask = ask.only(&PLACE);
        ask.set("PolicyName", properties.text("PolicyName").unwrap_or_default());
        request.remove(SCALING, "DeleteScalingPolicy", ask.request()).await
    }
}
