//! Statements of a topic's policy, one by one.

use super::{still, topic, topic::standard_policy};
use crate::{Sns, api::*, faults, model};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// Changes the statements of a topic's policy.
async fn change(
    sns: &Arc<Sns>,
    found: &model::Topic,
    change: impl FnOnce(&mut Vec<Json>) -> Result<(), Fault> + Send + 'static,
) -> Result<(), Fault> {
    let (service, key) = (sns.clone(), found.key());
    let write = sns.store.write(move |tx| {
        let mut changed = model::Topic::clone(&*still(tx, &key)?);
        let known = changed.policy.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let mut policy: Json = known.unwrap_or_else(|| standard_policy(&changed));
        let mut statements = match policy["Statement"].take() {
            Json::Array(all) => all,
            Json::Null => Vec::new(),
            one => vec![one],
        };
        change(&mut statements)?;
        policy["Statement"] = Json::Array(statements);
        let text = policy.to_string();
        service.iam.check_resource_policy(&text).map_err(faults::invalid)?;
        changed.policy = Some(text);
        tx.put(changed);
        Ok(())
    });
    write.await
}

pub(crate) async fn add_permission(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: AddPermissionInput,
) -> Result<(), Fault> {
    let found = topic(sns, ctx, "AddPermission", &input.topic_arn)?;
    let whom = input.aws_account_id.iter().map(|account| format!("arn:aws:iam::{account}:root"));
    let what = input.action_name.iter().map(|action| format!("SNS:{action}"));
    let label = input.label;
    let statement = json!({
        "Sid": label, "Effect": "Allow", "Principal": {"AWS": whom.collect::<Vec<_>>()},
        "Action": what.collect::<Vec<_>>(), "Resource": found.arn(),
    });
    change(sns, &found, move |statements| {
        if statements.iter().any(|known| known["Sid"] == json!(label)) {
            return Err(faults::invalid("Statement already exists"));
        }
        statements.push(statement);
        Ok(())
    })
    .await
}

pub(crate) async fn remove_permission(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: RemovePermissionInput,
) -> Result<(), Fault> {
    let found = topic(sns, ctx, "RemovePermission", &input.topic_arn)?;
    change(sns, &found, move |statements| {
        statements.retain(|known| known["Sid"] != json!(input.label));
        Ok(())
    })
    .await
}
