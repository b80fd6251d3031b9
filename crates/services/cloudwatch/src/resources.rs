//! CloudWatch's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_CloudWatch.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Alarm)] }
}

const CLOUDWATCH: &str = "monitoring";

struct Alarm;

impl Alarm {
    async fn put(request: &Request, name: &str, mut properties: Properties) -> Result<(), Failure> {
        properties.set("AlarmName", name);
        request.call(CLOUDWATCH, "PutMetricAlarm", properties.request()).await.map(|_| ())
    }

    async fn arn(request: &Request, name: &str) -> Result<Option<Json>, Failure> {
        let ask = json!({"AlarmNames": [name], "AlarmTypes": ["MetricAlarm"]});
        let answer = request.call(CLOUDWATCH, "DescribeAlarms", ask).await?;
        Ok(answer["MetricAlarms"].get(0).map(|alarm| alarm["AlarmArn"].clone()))
    }
}

#[async_trait]
impl ResourceType for Alarm {
    fn name(&self) -> &'static str {
        "AWS::CloudWatch::Alarm"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = properties.text("AlarmName").unwrap_or_else(|| request.name(255));
        Self::put(request, &name, properties).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match Self::arn(request, id).await? {
            Some(arn) => State::ready(json!({"Arn": arn})),
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
        if let Some(arn) = Self::arn(request, id).await?.as_ref().and_then(Json::as_str) {
            request.retag(CLOUDWATCH, ("ResourceARN", arn), old, &new).await?;
        }
        new.take("Tags");
        Self::put(request, id, new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(CLOUDWATCH, "DeleteAlarms", json!({"AlarmNames": [id]})).await
    }
}
