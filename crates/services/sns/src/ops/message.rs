//! What is published.

use super::{still, topic};
use crate::{
    Sns,
    api::*,
    faults, filter,
    model::{self, Attribute, Kind, Letter},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Record, Tx};
use wire::{Context, Fault};
use world::World;

/// The longest message with its attributes, in bytes.
const LONGEST: usize = 256 << 10;
/// The longest subject, in characters.
const LONGEST_SUBJECT: usize = 100;
/// Messages of one batch.
const MOST: usize = 10;

/// A message that can be published.
struct Message {
    id: String,
    subject: Option<String>,
    message: String,
    /// By protocol, where each is told something else.
    by_protocol: Option<BTreeMap<String, String>>,
    attributes: BTreeMap<String, Attribute>,
}

impl Message {
    fn read(
        world: &World,
        message: String,
        subject: Option<String>,
        structure: Option<&str>,
        attributes: Option<BTreeMap<String, MessageAttributeValue>>,
    ) -> Result<Self, Fault> {
        if message.is_empty() {
            return Err(faults::invalid("Empty message"));
        }
        if let Some(subject) = &subject {
            let plain = subject.chars().all(|c| !c.is_control());
            let begins = subject.chars().next().is_some_and(|c| !c.is_whitespace());
            if !plain || !begins || subject.chars().count() > LONGEST_SUBJECT {
                return Err(faults::invalid("Subject"));
            }
        }
        let mut read = BTreeMap::new();
        for (name, given) in attributes.into_iter().flatten() {
            let value = match (given.string_value, given.binary_value) {
                (Some(text), None) => text,
                (None, Some(bytes)) => STANDARD.encode(bytes),
                _ => {
                    return Err(faults::invalid(format!(
                        "The message attribute '{name}' must contain one non-empty message attribute value"
                    )));
                }
            };
            let attribute = Attribute { kind: given.data_type, value };
            filter::check_attribute(&name, &attribute)
                .map_err(|reason| Fault::new("ParameterValueInvalid", reason))?;
            read.insert(name, attribute);
        }
        let sizes = read.iter().map(|(name, one)| name.len() + one.kind.len() + one.value.len());
        if message.len() + sizes.sum::<usize>() > LONGEST {
            return Err(faults::invalid("Message too long"));
        }
        let by_protocol = match structure {
            None => None,
            Some("json") => {
                let all: Option<BTreeMap<String, String>> = serde_json::from_str(&message).ok();
                let all = all.ok_or_else(|| {
                    faults::invalid("Message Structure - JSON message body failed to parse")
                })?;
                if !all.contains_key("default") {
                    let words = "Message Structure - No default entry in JSON message body";
                    return Err(faults::invalid(words));
                }
                Some(all)
            }
            Some(_) => return Err(faults::invalid("MessageStructure")),
        };
        let id = world.uuid();
        Ok(Self { id, subject, message, by_protocol, attributes: read })
    }

    fn size(&self) -> usize {
        self.message.len()
    }

    /// Puts a letter for everybody who is told of it.
    fn post(&self, tx: &mut Tx, world: &World, topic: &str) -> Result<(), Fault> {
        still(tx, topic)?;
        let now = world.now();
        let told: Vec<_> = tx.scan_prefix::<model::Subscription>(&format!("{topic}/")).collect();
        for one in told.iter().filter(|one| one.token.is_none()) {
            let protocol = one.protocol.name();
            let text = self
                .by_protocol
                .as_ref()
                .and_then(|all| all.get(protocol).or_else(|| all.get("default")));
            let text = text.unwrap_or(&self.message);
            if !filter::lets(one, text, &self.attributes) {
                continue;
            }
            tx.put(Letter {
                id: world.uuid(),
                subscription: one.key(),
                kind: Kind::Notification,
                message_id: self.id.clone(),
                subject: self.subject.clone(),
                message: text.clone(),
                attributes: self.attributes.clone(),
                since: now,
                attempts: 0,
                due: now,
            });
        }
        Ok(())
    }
}

impl Sns {
    /// Publishes a message to a topic of `realm` when the transaction is written, for another part of the house. Why it
    /// cannot be, otherwise.
    pub fn tell(
        &self,
        tx: &mut Tx,
        realm: &str,
        topic: &str,
        subject: &str,
        message: String,
    ) -> Result<(), String> {
        let key = model::Topic::key_of(topic).filter(|key| key.starts_with(&format!("{realm}/")));
        let key =
            key.ok_or_else(|| format!("{topic} is not a topic of this account and region"))?;
        let subject = Some(subject.chars().take(LONGEST_SUBJECT).collect());
        let message = Message::read(&self.world, message, subject, None, None);
        let posted = message.and_then(|message| message.post(tx, &self.world, &key));
        posted.map_err(|fault| fault.message)
    }
}

pub(crate) async fn publish(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: PublishInput,
) -> Result<PublishResponse, Fault> {
    let arn = match (input.topic_arn, input.target_arn) {
        (Some(arn), None) | (None, Some(arn)) => arn,
        _ => {
            ctx.authorise("sns:Publish", "*")?;
            return Err(faults::invalid(
                "TopicArn or TargetArn Reason: exactly one of them must be specified",
            ));
        }
    };
    let found = topic(sns, ctx, "Publish", &arn)?;
    let structure = input.message_structure.as_deref();
    let message = Message::read(
        &sns.world,
        input.message,
        input.subject,
        structure,
        input.message_attributes,
    )?;
    let (world, id) = (sns.world.clone(), message.id.clone());
    sns.store.write(move |tx| message.post(tx, &world, &found.key())).await?;
    Ok(PublishResponse { message_id: Some(id), sequence_number: None })
}

pub(crate) async fn publish_batch(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: PublishBatchInput,
) -> Result<PublishBatchResponse, Fault> {
    let found = topic(sns, ctx, "Publish", &input.topic_arn)?;
    let entries = input.publish_batch_request_entries;
    let refused = |code: &'static str, words: &str| Err(Fault::new(code, words));
    if entries.is_empty() {
        return refused("EmptyBatchRequest", "The batch request doesn't contain any entries.");
    }
    if entries.len() > MOST {
        return refused(
            "TooManyEntriesInBatchRequest",
            "The batch request contains more entries than permissible.",
        );
    }
    let ids: BTreeSet<&String> = entries.iter().map(|entry| &entry.id).collect();
    if ids.len() < entries.len() {
        let words = "Two or more batch entries in the request have the same Id.";
        return refused("BatchEntryIdsNotDistinct", words);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !ids.iter().all(|id| (1..=80).contains(&id.len()) && id.chars().all(fits)) {
        let words =
            "The Id of a batch entry in a batch request doesn't abide by the specification.";
        return refused("InvalidBatchEntryId", words);
    }
    let (mut messages, mut successful, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let structure = entry.message_structure.as_deref();
        let read = Message::read(
            &sns.world,
            entry.message,
            entry.subject,
            structure,
            entry.message_attributes,
        );
        match read {
            Ok(message) => {
                successful.push(PublishBatchResultEntry {
                    id: Some(entry.id),
                    message_id: Some(message.id.clone()),
                    sequence_number: None,
                });
                messages.push(message);
            }
            Err(fault) => failed.push(BatchResultErrorEntry {
                id: Some(entry.id),
                code: Some(fault.code.into_owned()),
                message: Some(fault.message),
                sender_fault: Some(true),
            }),
        }
    }
    if messages.iter().map(Message::size).sum::<usize>() > LONGEST {
        let words = "The length of all the batch messages put together is more than the limit.";
        return refused("BatchRequestTooLong", words);
    }
    let world = sns.world.clone();
    let written = sns.store.write(move |tx| {
        messages.iter().try_for_each(|message| message.post(tx, &world, &found.key()))
    });
    written.await?;
    Ok(PublishBatchResponse { successful: Some(successful), failed: Some(failed) })
}
