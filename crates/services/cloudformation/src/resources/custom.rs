//! Resources that functions make: each is asked to create, update or delete one, and answers at an address that it is
//! told.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-custom-resources.html>

use crate::{
    CloudFormation,
    model::{Asked, Custom, Mailbox},
};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use resource::{Attributes, Failure, Properties, Request, ResourceType, State, text};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use store::DiskFault;

/// How long a function may take, unless it is said, and at most.
const SECONDS: u64 = 3600;

pub(super) struct CustomResource(pub(super) Arc<CloudFormation>);

/// What a function answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    status: String,
    reason: Option<String>,
    physical_resource_id: Option<String>,
    data: Option<Map<String, Json>>,
}

/// What is asked.
struct Question<'a> {
    kind: &'static str,
    /// The resource's id, once it has one.
    id: Option<&'a str>,
    properties: &'a Properties,
    old: Option<&'a Properties>,
}

impl Question<'_> {
    /// Names it, so that it is known after a crash whether it was asked.
    fn name(&self) -> String {
        let properties = Json::Object(self.properties.0.clone()).to_string();
        let sum = wire::sigv4::sha256_hex(properties.as_bytes());
        format!("{} {} {sum}", self.kind, self.id.unwrap_or_default())
    }
}

pub(super) fn disk(_: DiskFault) -> Failure {
    Failure::new("InternalFailure", "the disk refused a write")
}

/// All values but lists and maps are texts to functions.
fn texts(json: &Json) -> Json {
    match json {
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), texts(v))).collect(),
        Json::Array(items) => items.iter().map(texts).collect(),
        Json::Null => Json::Null,
        scalar => Json::String(text(scalar)),
    }
}

fn told(properties: &Properties) -> Json {
    texts(&Json::Object(properties.0.clone()))
}

impl CustomResource {
    fn record(&self, request: &Request) -> Option<Arc<Custom>> {
        self.0.store.read().get::<Custom>(&request.token)
    }

    /// The stack's UUID, with which its secrets are sealed.
    pub(super) fn stack(request: &Request) -> &str {
        request.stack_id.rsplit('/').next().unwrap_or_default()
    }

    /// The id of a resource whose function gives it none.
    fn default_id(request: &Request) -> String {
        format!("{}-{}-{}", request.stack_name, request.logical_id, request.suffix)
    }

    async fn note(
        &self,
        request: &Request,
        change: impl FnOnce(&mut Custom) + Send + 'static,
    ) -> Result<(), Failure> {
        let (token, stack) = (request.token.clone(), Self::stack(request).to_owned());
        let write = self.0.store.write(move |tx| {
            let known = tx.get::<Custom>(&token).map(Arc::unwrap_or_clone);
            let mut record =
                known.unwrap_or(Custom { token, stack, asked: None, id: None, data: None });
            change(&mut record);
            tx.put(record);
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(disk)
    }

    /// Asks, unless it was asked before a crash, and waits for the answer.
    async fn ask(&self, request: &Request, question: Question<'_>) -> Result<Answer, Failure> {
        let name = question.name();
        let known = self.record(request).and_then(|record| record.asked.clone());
        let asked = match known.filter(|asked| asked.what == name && !asked.told) {
            Some(asked) => asked,
            None => {
                let (mailbox, at) = (self.0.world.hex(64), self.0.world.now());
                let request_id = self.0.world.uuid();
                let asked =
                    Asked { what: name, mailbox, request_id, at, invoked: false, told: false };
                let (new, stack) = (asked.clone(), Self::stack(request).to_owned());
                let secret = asked.mailbox.clone();
                let write = self.0.store.write(move |tx| {
                    tx.put(Mailbox { secret, stack, letters: Vec::new() });
                    Ok::<_, DiskFault>(())
                });
                write.await.map_err(disk)?;
                self.note(request, |record| record.asked = Some(new)).await?;
                asked
            }
        };
        if !asked.invoked {
            self.invoke(request, &question, &asked).await?;
            self.note(request, |record| {
                if let Some(asked) = &mut record.asked {
                    asked.invoked = true;
                }
            })
            .await?;
        }
        let answer = self.wait(request, &question, &asked).await;
        // Whoever asks again wants to know anew.
        let (token, secret) = (request.token.clone(), asked.mailbox.clone());
        let write = self.0.store.write(move |tx| {
            tx.delete::<Mailbox>(&secret);
            tx.update::<Custom>(&token, |record| {
                if let Some(asked) = &mut record.asked {
                    asked.told = true;
                }
            });
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(disk)?;
        let answer = answer?;
        if answer.status == "SUCCESS" {
            return Ok(answer);
        }
        let (reason, id) = (answer.reason.unwrap_or_default(), &asked.request_id);
        Err(Failure::new(
            "GeneralServiceException",
            format!(
                "Received response status [FAILED] from custom resource. Message returned: {reason} (RequestId: {id})"
            ),
        ))
    }

    async fn invoke(
        &self,
        request: &Request,
        question: &Question<'_>,
        asked: &Asked,
    ) -> Result<(), Failure> {
        let service = question.properties.text("ServiceToken").unwrap_or_default();
        if !service.contains(":function:") {
            let message =
                "ServiceToken must be the ARN of a Lambda function: SNS topics are not built";
            return Err(Failure::invalid(message));
        }
        let mut event = json!({
            "RequestType": question.kind,
            "ServiceToken": service,
            "ResponseURL": self.0.address(&asked.mailbox),
            "StackId": request.stack_id,
            "RequestId": asked.request_id,
            "LogicalResourceId": request.logical_id,
            "ResourceType": self.kind_of(request),
            "ResourceProperties": told(question.properties),
        });
        if let Some(id) = question.id {
            event["PhysicalResourceId"] = json!(id);
        }
        if let Some(old) = question.old {
            event["OldResourceProperties"] = told(old);
        }
        let ask = json!({
            "FunctionName": service, "InvocationType": "Event", "Payload": BASE64.encode(event.to_string()),
        });
        request.call("lambda", "Invoke", ask).await.map(drop)
    }

    /// What the template calls it: `Custom::` and a name, or CloudFormation's own name for all of them.
    fn kind_of(&self, request: &Request) -> String {
        let key = crate::model::Resource::key_of(Self::stack(request), &request.logical_id);
        let record = self.0.store.read().get::<crate::model::Resource>(&key);
        record.map_or_else(|| NAME.to_owned(), |record| record.kind.clone())
    }

    async fn wait(
        &self,
        request: &Request,
        question: &Question<'_>,
        asked: &Asked,
    ) -> Result<Answer, Failure> {
        let seconds = question.properties.text("ServiceTimeout").and_then(|text| text.parse().ok());
        let patience = Duration::from_secs(seconds.unwrap_or(SECONDS).min(SECONDS));
        let over = asked.at + self.0.world.scaled(patience);
        let mut watch = self.0.store.watch::<Mailbox>();
        loop {
            let mailbox = self.0.store.read().get::<Mailbox>(&asked.mailbox);
            if let Some(letter) = mailbox.as_ref().and_then(|mailbox| mailbox.letters.first()) {
                let letter: String = self
                    .0
                    .unseal(Self::stack(request), letter)
                    .map_err(|fault| Failure::new("InternalFailure", fault.message))?;
                return serde_json::from_str(&letter).map_err(|error| {
                    Failure::invalid(format!("Invalid response from custom resource: {error}"))
                });
            }
            let now = self.0.world.now();
            if now >= over {
                let id = &asked.request_id;
                return Err(Failure::new(
                    "NotStabilized",
                    format!(
                        "CloudFormation did not receive a response from your Custom Resource. Please check your logs \
                         for requestId [{id}]."
                    ),
                ));
            }
            self.0.world.timeout(over.since(now), watch.changed()).await;
        }
    }

    /// Keeps what a function answered of a resource that is there now.
    async fn keep(&self, request: &Request, answer: Answer, id: &str) -> Result<(), Failure> {
        let data = self.0.seal(Self::stack(request), &answer.data.unwrap_or_default());
        let id = id.to_owned();
        self.note(request, |record| (record.id, record.data) = (Some(id), Some(data))).await
    }
}

const NAME: &str = "AWS::CloudFormation::CustomResource";

#[async_trait]
impl ResourceType for CustomResource {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_attribute(&self, _: &str) -> bool {
        true
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let question = Question { kind: "Create", id: None, properties: &properties, old: None };
        let answer = self.ask(request, question).await?;
        let id = answer.physical_resource_id.clone().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| Self::default_id(request));
        self.keep(request, answer, &id).await?;
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(record) = self.record(request).filter(|record| record.id.as_deref() == Some(id))
        else {
            return Ok(State::Missing);
        };
        let data: Option<Attributes> = match &record.data {
            None => None,
            Some(data) => {
                let opened = self.0.unseal(Self::stack(request), data);
                Some(opened.map_err(|fault| Failure::new("InternalFailure", fault.message))?)
            }
        };
        Ok(State::Ready(data.unwrap_or_default()))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let question = Question { kind: "Update", id: Some(id), properties: &new, old: Some(old) };
        let answer = self.ask(request, question).await?;
        let now = answer.physical_resource_id.clone().filter(|now| !now.is_empty());
        let now = now.unwrap_or_else(|| id.to_owned());
        self.keep(request, answer, &now).await
    }

    async fn changed_id(&self, request: &Request, id: &str) -> Option<String> {
        self.record(request)?.id.clone().filter(|now| now != id)
    }

    async fn left(&self, request: &Request) -> Option<Option<String>> {
        let record = self.record(request);
        // Who was asked may have made something, whatever it said.
        Some(record.map(|record| record.id.clone().unwrap_or_else(|| Self::default_id(request))))
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let question = Question { kind: "Delete", id: Some(id), properties, old: None };
        self.ask(request, question).await?;
        // One that an update replaced goes before the one that replaced it.
        let (token, id) = (request.token.clone(), id.to_owned());
        let write = self.0.store.write(move |tx| {
            let known = tx.get::<Custom>(&token);
            if known.is_some_and(|known| known.id.as_ref().is_none_or(|now| *now == id)) {
                tx.delete::<Custom>(&token);
            }
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(disk)
    }
}
