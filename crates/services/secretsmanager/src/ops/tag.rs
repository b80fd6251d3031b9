//! Tags on secrets.

use super::{authorised, living};
use crate::{SecretsManager, api::*, faults, model::Secret};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault};

/// The most tags on one secret.
const MOST_TAGS: usize = 50;

/// Tags as they are kept; keys that begin with `aws:` are AWS's own.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    let mut kept = BTreeMap::new();
    for tag in tags {
        let key = tag.key.unwrap_or_default();
        if key.is_empty() || key.to_ascii_lowercase().starts_with("aws:") {
            return Err(faults::parameter(
                "A tag needs a key, and one that doesn't begin with \"aws:\".",
            ));
        }
        if kept.insert(key, tag.value.unwrap_or_default()).is_some() {
            return Err(faults::parameter("A tag key is there twice."));
        }
    }
    if kept.len() > MOST_TAGS { Err(too_many()) } else { Ok(kept) }
}

fn too_many() -> Fault {
    faults::parameter(format!("A secret can have at most {MOST_TAGS} tags."))
}

pub(crate) fn answer(secret: &Secret) -> Option<Vec<Tag>> {
    let tags = secret.tags.iter();
    let tags = tags.map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) });
    (!secret.tags.is_empty()).then(|| tags.collect())
}

async fn retag(
    secrets: &SecretsManager,
    secret: Arc<Secret>,
    change: impl FnOnce(&mut BTreeMap<String, String>),
) -> Result<(), Fault> {
    secrets
        .store
        .write(move |tx| {
            let mut secret = living(tx, &secret)?;
            change(&mut secret.tags);
            if secret.tags.len() > MOST_TAGS {
                return Err(too_many());
            }
            tx.put(secret);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    secrets: &SecretsManager,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<(), Fault> {
    let action = "secretsmanager:TagResource";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    let added = collect(input.tags)?;
    retag(secrets, secret, |tags| tags.extend(added)).await
}

pub(crate) async fn untag_resource(
    secrets: &SecretsManager,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<(), Fault> {
    let action = "secretsmanager:UntagResource";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    retag(secrets, secret, |tags| tags.retain(|key, _| !input.tag_keys.contains(key))).await
}
