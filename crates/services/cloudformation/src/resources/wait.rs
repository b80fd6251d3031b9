//! Waiting until somebody says that something is done: an address that is given away, and a condition that counts what
//! is put there.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-waitcondition.html>

use super::custom::{CustomResource, disk};
use crate::{CloudFormation, model::Mailbox};
use async_trait::async_trait;
use resource::{Attributes, Failure, Properties, Request, ResourceType, State};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use store::DiskFault;

/// An address that is given away, and what is put there.
pub(super) struct WaitConditionHandle(pub(super) Arc<CloudFormation>);

#[async_trait]
impl ResourceType for WaitConditionHandle {
    fn name(&self) -> &'static str {
        "AWS::CloudFormation::WaitConditionHandle"
    }

    async fn create(&self, request: &Request, _: Properties) -> Result<String, Failure> {
        // One that a crash left is forgotten with the stack.
        let secret = self.0.world.hex(64);
        let (key, stack) = (secret.clone(), CustomResource::stack(request).to_owned());
        let write = self.0.store.write(move |tx| {
            tx.put(Mailbox { secret: key, stack, letters: Vec::new() });
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(disk)?;
        Ok(self.0.address(&secret))
    }

    async fn read(&self, _: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let secret = CloudFormation::secret(id).unwrap_or_default();
        Ok(match self.0.store.read().get::<Mailbox>(secret) {
            Some(_) => State::Ready(Attributes::new()),
            None => State::Missing,
        })
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

    async fn delete(&self, _: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        let secret = CloudFormation::secret(id).unwrap_or_default().to_owned();
        let write = self.0.store.write(move |tx| {
            tx.delete::<Mailbox>(&secret);
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(disk)
    }
}

/// Waits until so many have said at a handle's address that they are well.
pub(super) struct WaitCondition(pub(super) Arc<CloudFormation>);

/// What is said at a handle's address.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Signal {
    status: String,
    reason: Option<String>,
    unique_id: Option<String>,
    data: Option<Json>,
}

/// A condition's physical id holds when it was made: `ARN/TIME-SUFFIX`.
fn made_at(id: &str) -> Option<f64> {
    id.rsplit('/').next()?.split('-').next()?.parse().ok()
}

#[async_trait]
impl ResourceType for WaitCondition {
    fn name(&self) -> &'static str {
        "AWS::CloudFormation::WaitCondition"
    }

    fn has_attribute(&self, name: &str) -> bool {
        name == "Data"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let handle = properties.text("Handle").unwrap_or_default();
        if CloudFormation::secret(&handle).is_none() {
            return Err(Failure::invalid(
                "Handle must be a WaitConditionHandle: there are no creation policies yet",
            ));
        }
        let whole = |name: &str| match properties.text(name) {
            None => Ok(()),
            Some(text) => text
                .parse::<u64>()
                .map(drop)
                .map_err(|_| Failure::invalid(format!("{name} must be a number, not '{text}'"))),
        };
        whole("Timeout")?;
        whole("Count")?;
        if properties.get("Timeout").is_none() {
            return Err(Failure::invalid("Timeout is required"));
        }
        let at = self.0.world.now().seconds_f64();
        Ok(format!("{}/{at}-{}", request.stack_id, request.suffix))
    }

    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure> {
        let handle = properties.text("Handle").unwrap_or_default();
        let secret = CloudFormation::secret(&handle).unwrap_or_default();
        let Some(mailbox) = self.0.store.read().get::<Mailbox>(secret) else {
            return Ok(State::Missing);
        };
        let number = |name: &str, otherwise: u64| {
            properties.text(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
        };
        let count = usize::try_from(number("Count", 1)).unwrap_or(usize::MAX);
        let mut data = Map::new();
        for letter in &mailbox.letters {
            let letter: Result<String, _> = self.0.unseal(CustomResource::stack(request), letter);
            // What is no signal is none.
            let Some(signal) = letter.ok().and_then(|l| serde_json::from_str::<Signal>(&l).ok())
            else {
                continue;
            };
            let unique = signal.unique_id.unwrap_or_default();
            if signal.status != "SUCCESS" {
                let reason = signal.reason.unwrap_or_default();
                let message = format!(
                    "WaitCondition received failed message: '{reason}' for uniqueId: {unique}"
                );
                return Ok(State::Failed(Failure::new("NotStabilized", message)));
            }
            data.insert(unique, signal.data.unwrap_or_default());
        }
        if data.len() >= count {
            let data = Json::Object(data).to_string();
            return Ok(State::ready(json!({"Data": data})));
        }
        let patience = self.0.world.scaled(Duration::from_secs(number("Timeout", 0)));
        let passed = self.0.world.now().seconds_f64() - made_at(id).unwrap_or_default();
        if passed < patience.as_secs_f64() {
            return Ok(State::Pending);
        }
        let message = format!(
            "WaitCondition timed out. Received {} conditions when expecting {count}",
            data.len()
        );
        Ok(State::Failed(Failure::new("NotStabilized", message)))
    }

    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        // As on AWS: it has waited, and does so once.
        Err(Failure::invalid("Update to non-updatable resource: a wait condition is made once"))
    }

    async fn delete(&self, _: &Request, _: &str, _: &Properties) -> Result<(), Failure> {
        Err(Failure::new("NotFound", "it is nowhere"))
    }
}
