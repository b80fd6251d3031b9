//! Tags on connections and hosts.

use super::{check, connection, host, listed, missing, prefix};
use crate::{
    CodeConnections,
    api::*,
    model::{Connection, Host},
};
use std::collections::BTreeMap;
use wire::{Context, Fault};

type Tags = BTreeMap<String, String>;

/// The tags of what a caller names, if they may do `action` to it.
fn of(service: &CodeConnections, ctx: &Context, arn: &str, action: &str) -> Result<Tags, Fault> {
    match arn.starts_with(&prefix(ctx, "host")) {
        true => Ok(host::named(service, ctx, arn, action)?.tags.clone()),
        false => Ok(connection::named(service, ctx, arn, action)?.tags.clone()),
    }
}

async fn retag(
    service: &CodeConnections,
    arn: String,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let changed = service.store.write(move |tx| {
        if let Some(found) = tx.get::<Host>(&arn) {
            let mut found = Host::clone(&found);
            change(&mut found.tags);
            check(&found.tags)?;
            tx.put(found);
        } else if let Some(found) = tx.get::<Connection>(&arn) {
            let mut found = Connection::clone(&found);
            change(&mut found.tags);
            check(&found.tags)?;
            tx.put(found);
        } else {
            return Err(missing(format!("Resource not found: {arn}")));
        }
        Ok(())
    });
    changed.await
}

pub(crate) async fn tag_resource(
    service: &CodeConnections,
    ctx: &Context,
    input: TagResourceInput,
) -> Result<TagResourceOutput, Fault> {
    of(service, ctx, &input.resource_arn, "codeconnections:TagResource")?;
    let new = input.tags.into_iter().map(|tag| (tag.key, tag.value));
    let new: Tags = new.collect();
    retag(service, input.resource_arn, |tags| tags.extend(new)).await?;
    Ok(TagResourceOutput {})
}

pub(crate) async fn untag_resource(
    service: &CodeConnections,
    ctx: &Context,
    input: UntagResourceInput,
) -> Result<UntagResourceOutput, Fault> {
    of(service, ctx, &input.resource_arn, "codeconnections:UntagResource")?;
    let gone = input.tag_keys;
    retag(service, input.resource_arn, move |tags| tags.retain(|key, _| !gone.contains(key)))
        .await?;
    Ok(UntagResourceOutput {})
}

pub(crate) async fn list_tags_for_resource(
    service: &CodeConnections,
    ctx: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    let action = "codeconnections:ListTagsForResource";
    let tags = of(service, ctx, &input.resource_arn, action)?;
    Ok(ListTagsForResourceOutput { tags: Some(listed(&tags)) })
}
