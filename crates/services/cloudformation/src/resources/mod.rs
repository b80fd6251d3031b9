//! CloudFormation's own types of resources.

mod custom;
pub(crate) mod dynamic;
mod nested;
mod wait;

use crate::CloudFormation;
use async_trait::async_trait;
use resource::{Attributes, Failure, Properties, Request, ResourceType, State, Types};
use std::sync::Arc;

/// All of them.
pub fn types(house: &Arc<CloudFormation>) -> Vec<Types> {
    vec![
        Types {
            schemas: include_str!("../api/resource_types.json"),
            types: vec![Arc::new(nested::Stack(house.clone()))],
        },
        // AWS publishes no schema of it.
        Types {
            schemas: r#"{"AWS::CDK::Metadata": {"type": "object"}}"#,
            types: vec![Arc::new(CdkMetadata)],
        },
        // AWS publishes schemas of them that say less than its documentation.
        Types {
            schemas: r#"{
                "AWS::CloudFormation::CustomResource":
                    {"required": ["ServiceToken"], "createOnly": ["ServiceToken"]},
                "AWS::CloudFormation::WaitCondition":
                    {"properties": {"Handle": {"type": "string"}, "Timeout": {"type": "string"},
                     "Count": {"type": "integer"}}, "closed": true},
                "AWS::CloudFormation::WaitConditionHandle": {}
            }"#,
            types: vec![
                Arc::new(custom::CustomResource(house.clone())),
                Arc::new(wait::WaitCondition(house.clone())),
                Arc::new(wait::WaitConditionHandle(house.clone())),
            ],
        },
    ]
}

/// What CDK tells AWS of itself: it does nothing, as on AWS.
struct CdkMetadata;

#[async_trait]
impl ResourceType for CdkMetadata {
    fn name(&self) -> &'static str {
        "AWS::CDK::Metadata"
    }
    async fn create(&self, request: &Request, _: Properties) -> Result<String, Failure> {
        Ok(request.token.clone())
    }
    async fn read(&self, _: &Request, _: &str, _: &Properties) -> Result<State, Failure> {
        Ok(State::Ready(Attributes::new()))
    }
    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        Ok(())
    }
    async fn delete(&self, _: &Request, _: &str, _: &Properties) -> Result<(), Failure> {
        Err(Failure::new("NotFound", "it is nowhere"))
    }
}
