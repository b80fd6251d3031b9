//! Topics.

use super::{page, still, topic};
use crate::{
    Sns,
    api::*,
    faults,
    model::{Subscription, Tags, Topic},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use store::Record;
use wire::{Context, Fault};

/// Topics of an account in a region; AWS has 100,000.
const MOST: usize = 100_000;

/// Sets one of a topic's attributes.
fn set(sns: &Sns, topic: &mut Topic, name: &str, value: &str) -> Result<(), Fault> {
    match name {
        "DisplayName" if value.chars().count() > 100 => {
            return Err(faults::invalid("DisplayName Reason: must be at most 100 characters"));
        }
        "DisplayName" => value.clone_into(&mut topic.display_name),
        "Policy" if value.is_empty() => topic.policy = None,
        "Policy" => {
            let checked = sns.iam.check_resource_policy(value);
            checked.map_err(|error| faults::invalid(format!("Policy Error: {error}")))?;
            topic.policy = Some(value.to_owned());
        }
        // What is as it is anyway may be said.
        "SignatureVersion" if value == "2" => {}
        "TracingConfig" if value == "PassThrough" => {}
        "FifoTopic" | "ContentBasedDeduplication" if value == "false" => {}
        "SignatureVersion" => {
            return Err(faults::invalid("SignatureVersion Reason: Neargate signs with version 2"));
        }
        "TracingConfig"
        | "FifoTopic"
        | "ContentBasedDeduplication"
        | "KmsMasterKeyId"
        | "DeliveryPolicy"
        | "ArchivePolicy"
        | "FifoThroughputScope" => {
            return Err(faults::invalid(format!("{name} Reason: Neargate does not do this yet")));
        }
        name if name.ends_with("FeedbackRoleArn") || name.ends_with("FeedbackSampleRate") => {
            return Err(faults::invalid(format!("{name} Reason: Neargate does not do this yet")));
        }
        _ => return Err(faults::invalid("AttributeName")),
    }
    Ok(())
}

pub(super) fn check_tags(tags: Tags) -> Result<Tags, Fault> {
    match tags.len() > 50 {
        true => Err(Fault::new(
            "TagLimitExceeded",
            "Could not complete request: tag quota of per resource exceeded",
        )),
        false => Ok(tags),
    }
}

/// Who may do what with a topic that has no policy of its own: its account.
pub(super) fn standard_policy(topic: &Topic) -> serde_json::Value {
    let (account, _) = topic.realm.split_once('/').unwrap_or_default();
    json!({
        "Version": "2008-10-17", "Id": "__default_policy_ID",
        "Statement": [{
            "Sid": "__default_statement_ID", "Effect": "Allow", "Principal": {"AWS": "*"},
            "Action": [
                "SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission", "SNS:RemovePermission",
                "SNS:DeleteTopic", "SNS:Subscribe", "SNS:ListSubscriptionsByTopic", "SNS:Publish",
            ],
            "Resource": topic.arn(), "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
        }],
    })
}

pub(crate) async fn create_topic(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: CreateTopicInput,
) -> Result<CreateTopicResponse, Fault> {
    let mut made = Topic {
        realm: ctx.realm(),
        name: input.name,
        display_name: String::new(),
        policy: None,
        tags: check_tags(input.tags.into_iter().flatten().map(|t| (t.key, t.value)).collect())?,
    };
    let arn = made.arn();
    ctx.authorise("sns:CreateTopic", &arn)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if made.name.is_empty() || made.name.len() > 256 || !made.name.chars().all(fits) {
        return Err(faults::invalid("Topic Name"));
    }
    for (name, value) in input.attributes.into_iter().flatten() {
        set(sns, &mut made, &name, &value)?;
    }
    let written = sns.store.write(move |tx| {
        if let Some(known) = tx.get::<Topic>(&made.key()) {
            // Asked for again, it is what it was, unless it was asked for otherwise.
            let words = match (known.tags == made.tags, known.policy == made.policy) {
                (false, _) => "Tags Reason: Topic already exists with different tags",
                (_, false) => "Attributes Reason: Topic already exists with different attributes",
                _ if known.display_name != made.display_name => {
                    "Attributes Reason: Topic already exists with different attributes"
                }
                _ => return Ok(()),
            };
            return Err(faults::invalid(words));
        }
        if tx.scan_prefix::<Topic>(&format!("{}/", made.realm)).count() >= MOST {
            return Err(faults::limit("TopicLimitExceeded", "Topic"));
        }
        tx.put(made);
        Ok(())
    });
    written.await?;
    Ok(CreateTopicResponse { topic_arn: Some(arn) })
}

pub(crate) async fn delete_topic(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: DeleteTopicInput,
) -> Result<(), Fault> {
    match topic(sns, ctx, "DeleteTopic", &input.topic_arn) {
        // To delete what is not there is no fault.
        Err(fault) if fault.code == "NotFound" => return Ok(()),
        found => found?,
    };
    let key = Topic::key_of(&input.topic_arn).unwrap_or_default();
    let write = sns.store.write(move |tx| {
        let gone: Vec<String> =
            tx.scan_prefix::<Subscription>(&format!("{key}/")).map(|one| one.key()).collect();
        for key in gone {
            tx.delete::<Subscription>(&key);
        }
        tx.delete::<Topic>(&key);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn list_topics(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: ListTopicsInput,
) -> Result<ListTopicsResponse, Fault> {
    ctx.authorise("sns:ListTopics", &ctx.arn("sns", "*"))?;
    let snapshot = sns.store.read();
    let all = snapshot.scan_prefix::<Topic>(&format!("{}/", ctx.realm()));
    let all = all.map(|topic| (topic.key(), crate::api::Topic { topic_arn: Some(topic.arn()) }));
    let page = page("topics", input.next_token.as_deref(), all)?;
    Ok(ListTopicsResponse { topics: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn get_topic_attributes(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: GetTopicAttributesInput,
) -> Result<GetTopicAttributesResponse, Fault> {
    let found = topic(sns, ctx, "GetTopicAttributes", &input.topic_arn)?;
    let snapshot = sns.store.read();
    let (mut confirmed, mut pending) = (0, 0);
    for one in snapshot.scan_prefix::<Subscription>(&format!("{}/", found.key())) {
        *(if one.token.is_none() { &mut confirmed } else { &mut pending }) += 1;
    }
    let (owner, _) = found.realm.split_once('/').unwrap_or_default();
    let policy = found.policy.clone().unwrap_or_else(|| standard_policy(&found).to_string());
    let attributes = BTreeMap::from([
        ("TopicArn".to_owned(), found.arn()),
        ("Owner".to_owned(), owner.to_owned()),
        ("DisplayName".to_owned(), found.display_name.clone()),
        ("Policy".to_owned(), policy),
        ("SubscriptionsConfirmed".to_owned(), confirmed.to_string()),
        ("SubscriptionsPending".to_owned(), pending.to_string()),
        ("SubscriptionsDeleted".to_owned(), "0".to_owned()),
        ("SignatureVersion".to_owned(), "2".to_owned()),
    ]);
    Ok(GetTopicAttributesResponse { attributes: Some(attributes) })
}

pub(crate) async fn set_topic_attributes(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: SetTopicAttributesInput,
) -> Result<(), Fault> {
    let found = topic(sns, ctx, "SetTopicAttributes", &input.topic_arn)?;
    let (service, key) = (sns.clone(), found.key());
    let write = sns.store.write(move |tx| {
        let mut changed = Topic::clone(&*still(tx, &key)?);
        let value = input.attribute_value.unwrap_or_default();
        set(&service, &mut changed, &input.attribute_name, &value)?;
        tx.put(changed);
        Ok(())
    });
    write.await
}
