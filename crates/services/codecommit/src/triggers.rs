//! Triggers: functions that are told of pushes.
//! <https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-notify.html>

use crate::{
    CodeCommit,
    api::{RepositoryTrigger, RepositoryTriggerEventEnum},
    model::Repository,
    names::{BRANCH, TAG},
    settle::Tips,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use store::Tx;
use world::Timestamp;

/// A reference that changed, and how.
struct Changed<'a> {
    reference: &'a str,
    how: RepositoryTriggerEventEnum,
    commit: &'a str,
}

fn changed<'a>(before: &'a Tips, now: &'a Tips) -> Vec<Changed<'a>> {
    use RepositoryTriggerEventEnum::{CreateReference, DeleteReference, UpdateReference};
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let change = |reference: &'a String| {
        let (how, commit) = match (before.get(reference), now.get(reference)) {
            (old, new) if old == new => return None,
            (None, Some(new)) => (CreateReference, new),
            (Some(_), Some(new)) => (UpdateReference, new),
            (Some(old), None) => (DeleteReference, old),
            (None, None) => return None,
        };
        let told = reference.starts_with(BRANCH) || reference.starts_with(TAG);
        told.then_some(Changed { reference, how, commit })
    };
    names.into_iter().filter_map(change).collect()
}

/// Whether a trigger is for a change. Branches restrict it to those; tags are of no branch.
fn concerns(trigger: &RepositoryTrigger, changed: &Changed) -> bool {
    let events = &trigger.events;
    let kind = events.contains(&RepositoryTriggerEventEnum::All) || events.contains(&changed.how);
    let branches = trigger.branches.as_ref().filter(|branches| !branches.is_empty());
    let branch = changed.reference.strip_prefix(BRANCH);
    kind && branches.is_none_or(|all| branch.is_some_and(|branch| all.iter().any(|b| b == branch)))
}

fn event(
    repository: &Repository,
    trigger: &RepositoryTrigger,
    (name, references): (&str, &[Changed]),
    caller: Option<&str>,
    (id, now): (String, Timestamp),
) -> String {
    use RepositoryTriggerEventEnum::{CreateReference, DeleteReference};
    let reference = |changed: &Changed| {
        let mut told = json!({"commit": changed.commit, "ref": changed.reference});
        match changed.how {
            CreateReference => told["created"] = json!(true),
            DeleteReference => told["deleted"] = json!(true),
            _ => {}
        }
        told
    };
    let references: Vec<Json> = references.iter().map(reference).collect();
    let mut codecommit = json!({"references": references});
    if let Some(data) = &trigger.custom_data {
        codecommit["customData"] = json!(data);
    }
    let record = json!({
        "awsRegion": repository.region(), "codecommit": codecommit, "customData": trigger.custom_data,
        "eventId": id, "eventName": name, "eventPartNumber": 1, "eventSource": "aws:codecommit",
        "eventSourceARN": repository.arn(),
        "eventTime": now.datetime().format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string(), "eventTotalParts": 1,
        "eventTriggerConfigId": repository.triggers.configuration, "eventTriggerName": trigger.name,
        "eventVersion": "1.0", "userIdentityARN": caller,
    });
    json!({"Records": [record]}).to_string()
}

/// What a notification is about.
fn subject(repository: &Repository) -> String {
    format!("UPDATE: AWS CodeCommit {} push: {}", repository.region(), repository.name)
}

/// Tells the functions and topics that are to be told of what changed, in the transaction that says that it did.
pub(crate) fn tell(
    codecommit: &CodeCommit,
    tx: &mut Tx,
    repository: &Repository,
    (before, now): (&Tips, &Tips),
    caller: Option<&str>,
    at: Timestamp,
) {
    let Some(known) = codecommit.told.get() else { return };
    for trigger in &repository.triggers.list {
        let own: Vec<Changed> =
            changed(before, now).into_iter().filter(|one| concerns(trigger, one)).collect();
        if own.is_empty() {
            continue;
        }
        let told = ("ReferenceChanges", &own[..]);
        let event = event(repository, trigger, told, caller, (codecommit.world.uuid(), at));
        let (realm, destination) = (&repository.realm, &trigger.destination_arn);
        let told = match destination.contains(":sns:") {
            true => known.sns.tell(tx, realm, destination, &subject(repository), event),
            false => known
                .lambda
                .function(realm, destination)
                .map(|function| known.lambda.ask(tx, function, &event)),
        };
        if let Err(why) = told {
            let (repository, trigger) = (&repository.name, &trigger.name);
            tracing::warn!(repository, trigger, why, "whom a trigger names cannot be told");
        }
    }
}

/// Asks a trigger's function with what the repository has; why it could not be, otherwise.
pub(crate) async fn test(
    codecommit: &CodeCommit,
    repository: &Repository,
    trigger: &RepositoryTrigger,
    now: &Tips,
    caller: &str,
) -> Result<(), String> {
    let known = codecommit.told.get().ok_or("nobody can be told yet")?;
    let nothing = Tips::new();
    let mut own = changed(&nothing, now);
    own.retain(|one| repository.default_branch.as_deref() == one.reference.strip_prefix(BRANCH));
    let told = ("TriggerEventTest", &own[..]);
    let at = (codecommit.world.uuid(), codecommit.world.now());
    let event = event(repository, trigger, told, Some(caller), at);
    let (realm, destination) = (repository.realm.clone(), trigger.destination_arn.clone());
    if destination.contains(":sns:") {
        let (sns, subject) = (known.sns.clone(), subject(repository));
        let write = codecommit.store.write(move |tx| {
            Ok::<_, wire::Fault>(sns.tell(tx, &realm, &destination, &subject, event))
        });
        return write.await.map_err(|fault| fault.message)?;
    }
    let function = known.lambda.function(&realm, &destination)?;
    known.lambda.run(&function, event).await
}
