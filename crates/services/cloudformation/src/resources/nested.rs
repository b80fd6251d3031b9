//! Stacks that are resources of stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-cloudformation-stack.html>

use crate::{
    CloudFormation,
    api::{Capability, CreateStackInput, Parameter, StackStatus, Tag},
    engine, model, ops,
};
use async_trait::async_trait;
use resource::{Attributes, Failure, Properties, Request, ResourceType, State, text};
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use wire::Fault;

/// How long the pause is between looks at a stack that something else is being done with.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Stack(pub(super) Arc<CloudFormation>);

fn parameters(properties: &Properties) -> Vec<(String, String)> {
    let Some(Json::Object(all)) = properties.get("Parameters") else { return Vec::new() };
    let value = |json: &Json| match json {
        // A list is given as text, as a person would.
        Json::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => text(other),
    };
    all.iter().map(|(name, json)| (name.clone(), value(json))).collect()
}

/// The topics that are told of its events.
fn topics(properties: &Properties) -> Vec<String> {
    let arns = properties.get("NotificationARNs").and_then(Json::as_array);
    arns.into_iter().flatten().map(text).collect()
}

/// An update's name, by which it is known whether it was this one that failed.
fn update_token(properties: &Properties) -> String {
    wire::sigv4::sha256_hex(Json::Object(properties.0.clone()).to_string().as_bytes())
}

fn failed(fault: Fault) -> Failure {
    Failure::new("InvalidRequest", fault.message)
}

impl Stack {
    fn find(&self, request: &Request, id: &str) -> Option<Arc<model::Stack>> {
        let realm = format!("{}/{}", request.account(), request.region());
        engine::find(&self.0.store.read(), &realm, id)
    }

    /// What the caller has acknowledged for the parent holds for its stacks.
    fn capabilities(&self, request: &Request) -> Vec<Capability> {
        let parent = self.find(request, &request.stack_id);
        let names = parent.map(|parent| parent.settings.capabilities.clone()).unwrap_or_default();
        names.iter().filter_map(|name| Capability::parse(name)).collect()
    }

    /// Waits until nothing is being done with a stack; an update that is under way is cancelled.
    async fn idle(&self, request: &Request, id: &str) -> Result<(), Failure> {
        while let Some(stack) = self.find(request, id).filter(|stack| stack.is_busy()) {
            if stack.status == StackStatus::UpdateInProgress {
                match request
                    .call("cloudformation", "CancelUpdateStack", json!({"StackName": id}))
                    .await
                {
                    // It came to its end in between.
                    Err(failure) if failure.message.contains("current stack status") => {}
                    result => {
                        result?;
                    }
                }
            }
            self.0.world.sleep(PAUSE).await;
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for Stack {
    fn name(&self) -> &'static str {
        "AWS::CloudFormation::Stack"
    }

    fn has_attribute(&self, name: &str) -> bool {
        name.starts_with("Outputs.")
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let name = request.name(128);
        if let Some(there) = self.find(request, &name).filter(|_| request.repeated) {
            return Ok(there.arn());
        }
        let parameters = parameters(&properties).into_iter().map(|(name, value)| Parameter {
            parameter_key: Some(name),
            parameter_value: Some(value),
            ..Parameter::default()
        });
        let tags = properties.tags().into_iter().map(|(key, value)| Tag { key, value });
        let minutes = properties.text("TimeoutInMinutes").and_then(|minutes| minutes.parse().ok());
        let input = CreateStackInput {
            stack_name: name,
            template_url: properties.text("TemplateURL"),
            template_body: properties.text("TemplateBody"),
            parameters: Some(parameters.collect()),
            tags: Some(tags.collect()),
            timeout_in_minutes: minutes,
            capabilities: Some(self.capabilities(request)),
            notification_arns: Some(topics(&properties)),
            client_request_token: Some(update_token(&properties)),
            ..CreateStackInput::default()
        };
        let parent = Some(request.stack_id.clone());
        let made =
            ops::stack::create(&self.0, &request.context, input, parent).await.map_err(failed)?;
        Ok(made.stack_id.unwrap_or_default())
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let Some(stack) = self.find(request, id).filter(|stack| stack.is_live()) else {
            return Ok(State::Missing);
        };
        if stack.is_busy() {
            return Ok(State::Pending);
        }
        let this_failed = stack.operation.token.as_ref() == Some(&update_token(properties));
        let told = |what: &str| {
            let (arn, status) = (stack.arn(), stack.status.as_str());
            let reason = stack.reason.clone().unwrap_or_default();
            let message =
                format!("Embedded stack {arn} was not successfully {what}: {status} {reason}");
            Ok(State::Failed(Failure::new("NotStabilized", message)))
        };
        match stack.status {
            StackStatus::CreateComplete | StackStatus::UpdateComplete => {}
            StackStatus::UpdateRollbackComplete if !this_failed => {}
            StackStatus::UpdateRollbackComplete
            | StackStatus::UpdateRollbackFailed
            | StackStatus::UpdateFailed => return told("updated"),
            StackStatus::DeleteFailed => return told("deleted"),
            _ => return told("created"),
        }
        let outputs: Map<String, Json> =
            stack.outputs.iter().map(|output| (output.key.clone(), json!(output.value))).collect();
        Ok(State::Ready(Attributes::from_iter([("Outputs".to_owned(), outputs.into())])))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        self.idle(request, id).await?;
        let parameters: Vec<Json> = parameters(&new)
            .into_iter()
            .map(|(name, value)| json!({"ParameterKey": name, "ParameterValue": value}))
            .collect();
        let tags: Vec<Json> = new
            .tags()
            .into_iter()
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        let capabilities: Vec<&str> =
            self.capabilities(request).iter().map(|one| one.as_str()).collect();
        let mut ask = json!({
            "StackName": id,
            "Parameters": parameters,
            "Tags": tags,
            "Capabilities": capabilities,
            "NotificationARNs": topics(&new),
            "ClientRequestToken": update_token(&new),
        });
        for source in ["TemplateURL", "TemplateBody"] {
            if let Some(template) = new.text(source) {
                ask[source] = json!(template);
            }
        }
        match request.call("cloudformation", "UpdateStack", ask).await {
            Err(failure) if failure.message.starts_with("No updates are to be performed.") => {
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        self.idle(request, id).await?;
        request.remove("cloudformation", "DeleteStack", json!({"StackName": id})).await
    }
}
