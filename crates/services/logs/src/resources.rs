//! CloudWatch Logs' types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_Logs.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![
            Arc::new(LogGroup),
            Arc::new(LogStream),
            Arc::new(MetricFilter),
            Arc::new(SubscriptionFilter),
        ],
    }
}

struct LogGroup;

impl LogGroup {
    async fn retain(request: &Request, id: &str, properties: &Properties) -> Result<(), Failure> {
        match properties.get("RetentionInDays") {
            Some(days) => {
                let ask = json!({"logGroupName": id, "retentionInDays": days});
                request.call("logs", "PutRetentionPolicy", ask).await.map(|_| ())
            }
            None => {
                request.remove("logs", "DeleteRetentionPolicy", json!({"logGroupName": id})).await
            }
        }
    }
}

fn arn(request: &Request, name: &str) -> String {
    format!("arn:aws:logs:{}:{}:log-group:{name}", request.region(), request.account())
}

#[async_trait]
impl ResourceType for LogGroup {
    fn name(&self) -> &'static str {
        "AWS::Logs::LogGroup"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("LogGroupName", || json!(request.name(512)));
        let name = properties.text("LogGroupName").unwrap_or_default();
        let tags: Map<String, Json> =
            properties.tags().into_iter().map(|(key, value)| (key, json!(value))).collect();
        properties.take("Tags");
        if !tags.is_empty() {
            properties.set("tags", tags);
        }
        let retention = properties.only(&["RetentionInDays"]);
        properties.take("RetentionInDays");
        request.make("logs", "CreateLogGroup", properties.request()).await?;
        if !retention.0.is_empty() {
            Self::retain(request, &name, &retention).await?;
        }
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let answer =
            request.call("logs", "DescribeLogGroups", json!({"logGroupNamePrefix": id})).await?;
        let groups = answer["logGroups"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(match groups.iter().find(|group| group["logGroupName"] == id) {
            Some(group) => State::ready(json!({"Arn": group["arn"]})),
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
        let others = [
            "DataProtectionPolicy",
            "FieldIndexPolicies",
            "KmsKeyId",
            "LogGroupClass",
            "ResourcePolicyDocument",
        ];
        if let Some(name) = others.iter().find(|name| new.differ(old, &[name])) {
            return Err(Failure::not_updatable(name));
        }
        if new.differ(old, &["RetentionInDays"]) {
            Self::retain(request, id, &new).await?;
        }
        let (set, gone) = new.tag_changes(old);
        let arn = arn(request, id);
        if !gone.is_empty() {
            request
                .call("logs", "UntagResource", json!({"resourceArn": arn, "tagKeys": gone}))
                .await?;
        }
        if !set.is_empty() {
            let tags: Map<String, Json> =
                set.into_iter().map(|(key, value)| (key, json!(value))).collect();
            request.call("logs", "TagResource", json!({"resourceArn": arn, "tags": tags})).await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("logs", "DeleteLogGroup", json!({"logGroupName": id})).await
    }
}

struct LogStream;

#[async_trait]
impl ResourceType for LogStream {
    fn name(&self) -> &'static str {
        "AWS::Logs::LogStream"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("LogStreamName", || json!(request.name(512)));
        let name = properties.text("LogStreamName").unwrap_or_default();
        request.make("logs", "CreateLogStream", properties.request()).await?;
        Ok(name)
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let group = properties.text("LogGroupName").unwrap_or_default();
        let ask = json!({"logGroupName": group, "logStreamNamePrefix": id});
        let answer = request.find("logs", "DescribeLogStreams", ask).await?;
        let streams = answer.as_ref().and_then(|answer| answer["logStreams"].as_array());
        Ok(
            match streams
                .is_some_and(|streams| streams.iter().any(|one| one["logStreamName"] == id))
            {
                true => State::Ready(Map::new()),
                false => State::Missing,
            },
        )
    }

    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        Err(Failure::not_updatable("LogStreamName"))
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let group = properties.text("LogGroupName").unwrap_or_default();
        let ask = json!({"logGroupName": group, "logStreamName": id});
        request.remove("logs", "DeleteLogStream", ask).await
    }
}

/// Whether a group has a filter of a kind: what lists those, and in what.
async fn filter(
    request: &Request,
    (operation, list): (&str, &str),
    id: &str,
    properties: &Properties,
) -> Result<State, Failure> {
    let ask = json!({"logGroupName": properties.text("LogGroupName"), "filterNamePrefix": id});
    let found = request.find("logs", operation, ask).await?;
    let found = found.iter().flat_map(|found| found[list].as_array());
    Ok(match found.flatten().any(|filter| filter["filterName"] == id) {
        true => State::ready(json!({})),
        false => State::Missing,
    })
}

async fn remove_filter(
    request: &Request,
    operation: &str,
    id: &str,
    properties: &Properties,
) -> Result<(), Failure> {
    let ask = json!({"logGroupName": properties.text("LogGroupName"), "filterName": id});
    request.remove("logs", operation, ask).await
}

struct MetricFilter;

impl MetricFilter {
    async fn put(request: &Request, name: &str, mut properties: Properties) -> Result<(), Failure> {
        properties.set("FilterName", name);
        let mut ask = properties.request();
        // Templates have dimensions as a list.
        for made in ask["MetricTransformations"].as_array_mut().into_iter().flatten() {
            let listed = made["Dimensions"].as_array().cloned();
            if let Some(listed) = listed {
                let pair = |one: &Json| (text(&one["Key"]), one["Value"].clone());
                made["Dimensions"] = listed.iter().map(pair).collect::<Map<_, _>>().into();
            }
        }
        request.call("logs", "PutMetricFilter", ask).await.map(|_| ())
    }
}

#[async_trait]
impl ResourceType for MetricFilter {
    fn name(&self) -> &'static str {
        "AWS::Logs::MetricFilter"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = properties.text("FilterName").unwrap_or_else(|| request.name(512));
        Self::put(request, &name, properties).await?;
        Ok(name)
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        filter(request, ("DescribeMetricFilters", "metricFilters"), id, properties).await
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        Self::put(request, id, new).await
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        remove_filter(request, "DeleteMetricFilter", id, properties).await
    }
}

struct SubscriptionFilter;

impl SubscriptionFilter {
    async fn put(request: &Request, name: &str, mut properties: Properties) -> Result<(), Failure> {
        properties.set("FilterName", name);
        request.call("logs", "PutSubscriptionFilter", properties.request()).await.map(|_| ())
    }
}

#[async_trait]
impl ResourceType for SubscriptionFilter {
    fn name(&self) -> &'static str {
        "AWS::Logs::SubscriptionFilter"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = properties.text("FilterName").unwrap_or_else(|| request.name(512));
        Self::put(request, &name, properties).await?;
        Ok(name)
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        filter(request, ("DescribeSubscriptionFilters", "subscriptionFilters"), id, properties)
            .await
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        Self::put(request, id, new).await
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        remove_filter(request, "DeleteSubscriptionFilter", id, properties).await
    }
}
