//! Tags of topics.

use super::{still, topic, topic::check_tags};
use crate::{
    Sns,
    api::*,
    faults,
    model::{self, Tags},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

fn found(sns: &Sns, ctx: &Context, action: &str, arn: &str) -> Result<Arc<model::Topic>, Fault> {
    topic(sns, ctx, action, arn).map_err(|fault| match &*fault.code {
        "NotFound" => faults::no_resource(),
        _ => fault,
    })
}

async fn change(
    sns: &Sns,
    found: &model::Topic,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let key = found.key();
    let write = sns.store.write(move |tx| {
        let mut changed = model::Topic::clone(&*still(tx, &key)?);
        change(&mut changed.tags);
        changed.tags = check_tags(changed.tags)?;
        tx.put(changed);
        Ok(())
    });
    write.await
}

pub(crate) async fn list_tags_for_resource(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let found = found(sns, ctx, "ListTagsForResource", &input.resource_arn)?;
    let tag = |(key, value): (&String, &String)| Tag { key: key.clone(), value: value.clone() };
    Ok(ListTagsForResourceResponse { tags: Some(found.tags.iter().map(tag).collect()) })
}

pub(crate) async fn tag_resource(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    let found = found(sns, ctx, "TagResource", &input.resource_arn)?;
    let new: Vec<_> = input.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    change(sns, &found, move |tags| tags.extend(new)).await?;
    Ok(TagResourceResponse {})
}

pub(crate) async fn untag_resource(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    let found = found(sns, ctx, "UntagResource", &input.resource_arn)?;
    let gone = input.tag_keys;
    change(sns, &found, move |tags| tags.retain(|key, _| !gone.contains(key))).await?;
    Ok(UntagResourceResponse {})
}
