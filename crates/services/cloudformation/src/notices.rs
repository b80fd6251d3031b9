//! Topics that are told of stacks' events, as who asked for the stack.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-console-add-stack-options.html>

use crate::{
    CloudFormation, faults,
    model::{Event, Notice, Stack},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use store::{DiskFault, Record, Tx};
use wire::Fault;

/// Topics of one stack, as on AWS.
const MOST: usize = 5;
/// How often a topic is told that cannot be told at the moment, and how long we wait in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(20);

/// Whether these can be a stack's topics.
pub(crate) fn check(topics: &[String]) -> Result<(), Fault> {
    if topics.len() > MOST {
        return Err(faults::validation("A stack has at most 5 notification ARNs."));
    }
    let is_topic = |arn: &String| arn.starts_with("arn:aws:sns:") && arn.split(':').count() == 6;
    match topics.iter().find(|arn| !is_topic(arn)) {
        Some(arn) => Err(faults::validation(format!("{arn} is not the ARN of a topic."))),
        None => Ok(()),
    }
}

/// Writes down that an event is to be told, in the transaction in which it happens.
pub(crate) fn note(tx: &mut Tx, stack: &Stack, event: &Event) {
    if stack.settings.notify.is_empty() {
        return;
    }
    let (account, region) = stack.realm.split_once('/').unwrap_or_default();
    let said = [
        ("StackId", stack.arn()),
        ("Timestamp", event.at.rfc3339()),
        ("EventId", event.id.clone()),
        ("LogicalResourceId", event.logical.clone()),
        ("Namespace", account.to_owned()),
        ("PhysicalResourceId", event.physical.clone().unwrap_or_default()),
        ("ResourceProperties", event.properties.clone().unwrap_or_else(|| "null".to_owned())),
        ("ResourceStatus", event.status.clone()),
        ("ResourceStatusReason", event.reason.clone().unwrap_or_default()),
        ("ResourceType", event.kind.clone()),
        ("StackName", stack.name.clone()),
        ("ClientRequestToken", event.token.clone().unwrap_or_else(|| "null".to_owned())),
    ];
    tx.put(Notice {
        event: event.key(),
        region: region.to_owned(),
        topics: stack.settings.notify.clone(),
        message: said.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect(),
        principal: stack.settings.principal.clone(),
        attempts: 0,
        due: event.at,
    });
}

/// Tells, in the order in which it happened.
pub(crate) async fn drive(house: Arc<CloudFormation>) {
    let carry = |notice: Arc<Notice>| {
        let house = house.clone();
        async move { carry(&house, &notice).await }
    };
    store::carry_due(&house.store, &house.world, "a stack's notice", 1, carry).await;
}

async fn carry(house: &CloudFormation, notice: &Notice) {
    let front = &house.surroundings().front;
    let mut left = Vec::new();
    for topic in &notice.topics {
        let context = front.context(notice.principal.restored(), &notice.region);
        let subject = "AWS CloudFormation Notification";
        let ask = json!({"TopicArn": topic, "Subject": subject, "Message": notice.message});
        if let Err(fault) = front.call(context, "sns", "Publish", ask).await {
            tracing::warn!(topic, why = fault.message, "a topic was not told of a stack's event");
            if !fault.is_sender() && notice.attempts < ATTEMPTS {
                left.push(topic.clone());
            }
        }
    }
    let (key, due) = (notice.key(), house.world.now() + PAUSE);
    let written = house.store.write(move |tx| {
        match left.is_empty() {
            true => drop(tx.delete::<Notice>(&key)),
            false => drop(tx.update::<Notice>(&key, |notice| {
                (notice.topics, notice.due) = (left, due);
                notice.attempts += 1;
            })),
        }
        Ok::<_, DiskFault>(())
    });
    if let Err(error) = written.await {
        // It stays due, and is told again: twice is better than never.
        tracing::warn!(%error, "that a topic was told could not be written down");
        house.world.sleep(Duration::from_secs(1)).await;
    }
}
