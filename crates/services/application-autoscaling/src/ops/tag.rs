//! Tags of scalable targets.

use super::scalable_target::MOST_TAGS;
use crate::{AutoScaling, api::*, faults, model::Target};
use std::{collections::BTreeMap, sync::Arc};
use store::Record;
use wire::{Context, Fault};

fn find(
    scaling: &AutoScaling,
    ctx: &Context,
    action: &str,
    arn: &str,
) -> Result<Arc<Target>, Fault> {
    ctx.authorise(&format!("application-autoscaling:{action}"), arn)?;
    let snapshot = scaling.store.read();
    let mut own = snapshot.scan_prefix::<Target>(&format!("{}/", ctx.realm()));
    own.find(|target| target.arn() == arn).ok_or_else(|| faults::no_resource(arn))
}

async fn change(
    scaling: &AutoScaling,
    target: &Target,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let (key, arn) = (target.key(), target.arn());
    let write = scaling.store.write(move |tx| {
        let known = tx.get::<Target>(&key).ok_or_else(|| faults::no_resource(&arn))?;
        let mut tags = known.tags.clone();
        change(&mut tags);
        if tags.len() > MOST_TAGS {
            return Err(faults::too_many_tags(&arn));
        }
        tx.update::<Target>(&key, |target| target.tags = tags);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn list_tags_for_resource(
    scaling: &AutoScaling,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let target = find(scaling, ctx, "ListTagsForResource", &input.resource_arn)?;
    Ok(ListTagsForResourceResponse { tags: Some(target.tags.clone()) })
}

pub(crate) async fn tag_resource(
    scaling: &AutoScaling,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    let target = find(scaling, ctx, "TagResource", &input.resource_arn)?;
    change(scaling, &target, move |tags| tags.extend(input.tags)).await?;
    Ok(TagResourceResponse::default())
}

pub(crate) async fn untag_resource(
    scaling: &AutoScaling,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    let target = find(scaling, ctx, "UntagResource", &input.resource_arn)?;
    change(scaling, &target, move |tags| tags.retain(|key, _| !input.tag_keys.contains(key)))
        .await?;
    Ok(UntagResourceResponse::default())
}
