//! SNS's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_SNS.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![Arc::new(Topic), Arc::new(TopicPolicy), Arc::new(Subscription)],
    }
}

const SNS: &str = "sns";

/// Properties that are attributes of a topic.
const OF_TOPIC: [&str; 8] = [
    "DisplayName",
    "KmsMasterKeyId",
    "FifoTopic",
    "ContentBasedDeduplication",
    "SignatureVersion",
    "TracingConfig",
    "ArchivePolicy",
    "FifoThroughputScope",
];
/// Properties that are attributes of a subscription.
const OF_SUBSCRIPTION: [&str; 7] = [
    "RawMessageDelivery",
    "FilterPolicy",
    "FilterPolicyScope",
    "DeliveryPolicy",
    "RedrivePolicy",
    "SubscriptionRoleArn",
    "ReplayPolicy",
];

/// A property as the text that an attribute is.
fn attribute(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn attributes(properties: &Properties, names: &[&str]) -> Json {
    let given = names.iter().filter_map(|name| Some((*name, properties.get(name)?)));
    given
        .map(|(name, value)| (name.to_owned(), json!(attribute(value))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Sets the attributes that differ by `operation` of what `what` names.
async fn settle(
    request: &Request,
    (operation, what, arn): (&str, &str, &str),
    names: &[&str],
    (old, new): (&Properties, &Properties),
) -> Result<(), Failure> {
    for name in names {
        if new.differ(old, &[name]) {
            let value = new.get(name).map(attribute).unwrap_or_default();
            let ask = json!({what: arn, "AttributeName": name, "AttributeValue": value});
            request.call(SNS, operation, ask).await?;
        }
    }
    Ok(())
}

fn refuse(properties: &Properties, names: &[&str]) -> Result<(), Failure> {
    match names.iter().find(|name| properties.get(name).is_some()) {
        Some(name) => Err(Failure::unsupported(name)),
        None => Ok(()),
    }
}

struct Topic;

/// The subscriptions that a topic's own properties have.
fn subscriptions(properties: &Properties) -> Vec<(String, String)> {
    let all = properties.get("Subscription").and_then(Json::as_array);
    let one = |one: &Json| (text(&one["Protocol"]), text(&one["Endpoint"]));
    all.into_iter().flatten().map(one).collect()
}

impl Topic {
    async fn subscribe(
        request: &Request,
        arn: &str,
        wanted: &[(String, String)],
    ) -> Result<(), Failure> {
        for (protocol, endpoint) in wanted {
            let ask = json!({"TopicArn": arn, "Protocol": protocol, "Endpoint": endpoint});
            request.call(SNS, "Subscribe", ask).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for Topic {
    fn name(&self) -> &'static str {
        "AWS::SNS::Topic"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        refuse(&properties, &["DataProtectionPolicy", "DeliveryStatusLogging"])?;
        let name = properties.text("TopicName").unwrap_or_else(|| request.name(256));
        let tags = properties.get("Tags").cloned().unwrap_or_else(|| json!([]));
        let ask =
            json!({"Name": name, "Attributes": attributes(&properties, &OF_TOPIC), "Tags": tags});
        let arn = text(&request.call(SNS, "CreateTopic", ask).await?["TopicArn"]);
        Self::subscribe(request, &arn, &subscriptions(&properties)).await?;
        Ok(arn)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let found = request.find(SNS, "GetTopicAttributes", json!({"TopicArn": id})).await?;
        let name = id.rsplit(':').next().unwrap_or_default();
        Ok(match found {
            Some(_) => State::ready(json!({"TopicArn": id, "TopicName": name})),
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
        refuse(&new, &["DataProtectionPolicy", "DeliveryStatusLogging"])?;
        let what = ("SetTopicAttributes", "TopicArn", id);
        settle(request, what, &OF_TOPIC, (old, &new)).await?;
        request.retag(SNS, ("ResourceArn", id), old, &new).await?;
        let (before, after) = (subscriptions(old), subscriptions(&new));
        Self::subscribe(request, id, &after).await?;
        let gone: Vec<_> = before.into_iter().filter(|one| !after.contains(one)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let all = request.call(SNS, "ListSubscriptionsByTopic", json!({"TopicArn": id})).await?;
        for one in all["Subscriptions"].as_array().into_iter().flatten() {
            let arn = text(&one["SubscriptionArn"]);
            if gone.contains(&(text(&one["Protocol"]), text(&one["Endpoint"])))
                && arn.starts_with("arn:")
            {
                request.call(SNS, "Unsubscribe", json!({"SubscriptionArn": arn})).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(SNS, "DeleteTopic", json!({"TopicArn": id})).await
    }
}

struct TopicPolicy;

impl TopicPolicy {
    async fn set(request: &Request, topics: &[String], policy: &str) -> Result<(), Failure> {
        for topic in topics {
            let ask =
                json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": policy});
            request.call(SNS, "SetTopicAttributes", ask).await?;
        }
        Ok(())
    }

    fn topics(properties: &Properties) -> Vec<String> {
        properties.get("Topics").and_then(Json::as_array).into_iter().flatten().map(text).collect()
    }

    fn policy(properties: &Properties) -> String {
        properties.get("PolicyDocument").map(attribute).unwrap_or_default()
    }
}

#[async_trait]
impl ResourceType for TopicPolicy {
    fn name(&self) -> &'static str {
        "AWS::SNS::TopicPolicy"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        Self::set(request, &Self::topics(&properties), &Self::policy(&properties)).await?;
        Ok(request.name(64))
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        for topic in Self::topics(properties) {
            let found = request.find(SNS, "GetTopicAttributes", json!({"TopicArn": topic})).await?;
            let policy = found.map(|found| text(&found["Attributes"]["Policy"]));
            if policy.is_some_and(|policy| policy == Self::policy(properties)) {
                return Ok(State::ready(json!({"Id": id})));
            }
        }
        Ok(State::Missing)
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let topics = Self::topics(&new);
        Self::set(request, &topics, &Self::policy(&new)).await?;
        let mut gone = Self::topics(old);
        gone.retain(|topic| !topics.contains(topic));
        Self::set(request, &gone, "").await
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        for topic in Self::topics(properties) {
            let ask = json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": ""});
            request.remove(SNS, "SetTopicAttributes", ask).await?;
        }
        Ok(())
    }
}

struct Subscription;

#[async_trait]
impl ResourceType for Subscription {
    fn name(&self) -> &'static str {
        "AWS::SNS::Subscription"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let ask = json!({
            "TopicArn": properties.text("TopicArn"), "Protocol": properties.text("Protocol"),
            "Endpoint": properties.text("Endpoint"), "Attributes": attributes(&properties, &OF_SUBSCRIPTION),
            "ReturnSubscriptionArn": true,
        });
        Ok(text(&request.call(SNS, "Subscribe", ask).await?["SubscriptionArn"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"SubscriptionArn": id});
        Ok(match request.find(SNS, "GetSubscriptionAttributes", ask).await? {
            Some(_) => State::ready(json!({"Arn": id})),
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
        let what = ("SetSubscriptionAttributes", "SubscriptionArn", id);
        settle(request, what, &OF_SUBSCRIPTION, (old, &new)).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(SNS, "Unsubscribe", json!({"SubscriptionArn": id})).await
    }
}
