//! Tags on log groups.

use super::group;
use crate::{Logs, api::*, faults, model::LogGroup as Record};
use std::collections::BTreeMap;
use wire::{Context, Fault};

/// The most tags on one group.
const MOST_TAGS: usize = 50;

fn name(ctx: &Context, arn: &str) -> Result<String, Fault> {
    let name = arn.strip_prefix(&ctx.arn("logs", "log-group:"));
    name.map(|name| name.trim_end_matches(":*").to_owned()).ok_or_else(faults::no_resource)
}

async fn retag(
    logs: &Logs,
    ctx: &Context,
    arn: &str,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let key = Record::key_of(&ctx.realm(), &name(ctx, arn)?);
    logs.store
        .write(move |tx| {
            let group = tx.get::<Record>(&key).ok_or_else(faults::no_resource)?;
            let mut tags = group.tags.clone();
            change(&mut tags);
            if tags.len() > MOST_TAGS {
                let message = "The resource has too many tags.";
                return Err(Fault::new("TooManyTagsException", message));
            }
            tx.update::<Record>(&key, |group| group.tags = tags);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    logs: &Logs,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:TagResource", &input.resource_arn)?;
    retag(logs, ctx, &input.resource_arn, |tags| tags.extend(input.tags)).await
}

pub(crate) async fn untag_resource(
    logs: &Logs,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:UntagResource", &input.resource_arn)?;
    retag(logs, ctx, &input.resource_arn, move |tags| {
        tags.retain(|key, _| !input.tag_keys.contains(key));
    })
    .await
}

pub(crate) async fn list_tags_for_resource(
    logs: &Logs,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    ctx.authorise("logs:ListTagsForResource", &input.resource_arn)?;
    let group = group(logs, ctx, &name(ctx, &input.resource_arn)?);
    let group = group.map_err(|_| faults::no_resource())?;
    Ok(ListTagsForResourceResponse { tags: Some(group.tags.clone()) })
}
