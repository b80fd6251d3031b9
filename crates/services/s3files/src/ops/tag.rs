//! Tags of file systems and access points.

use super::{access_point, check_tags, file_system, id, page, tags_out};
use crate::{
    S3Files,
    api::*,
    model::{AccessPoint, FileSystem, Tags},
};
use std::sync::Arc;
use store::View;
use wire::{Context, Fault};

fn is_access_point(given: &str) -> bool {
    id(given).starts_with("fsap-")
}

/// Whether the caller may do something with what has tags; an access point's ARN needs to be looked up.
fn may(service: &S3Files, ctx: &Context, action: &str, given: &str) -> Result<(), Fault> {
    let arn = match is_access_point(given) {
        true => access_point(&service.store.read(), ctx, given).map(|point| point.arn()),
        false => Ok(FileSystem::arn_of(&ctx.realm(), id(given))),
    };
    ctx.authorise(&format!("s3files:{action}"), arn.as_deref().unwrap_or("*"))?;
    arn.map(drop)
}

fn tags_of(view: &impl View, ctx: &Context, given: &str) -> Result<Tags, Fault> {
    match is_access_point(given) {
        true => access_point(view, ctx, given).map(|found| found.tags.clone()),
        false => file_system(view, ctx, given).map(|found| found.tags.clone()),
    }
}

async fn change(
    service: &S3Files,
    ctx: &Context,
    given: String,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let ctx = ctx.clone();
    let write = service.store.write(move |tx| {
        let mut tags = tags_of(tx, &ctx, &given)?;
        change(&mut tags);
        let tags = check_tags(tags)?;
        let key = format!("{}/{}", ctx.realm(), id(&given));
        match is_access_point(&given) {
            true => drop(tx.update::<AccessPoint>(&key, |point| point.tags = tags)),
            false => drop(tx.update::<FileSystem>(&key, |system| system.tags = tags)),
        }
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn list_tags_for_resource(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    may(service, ctx, "ListTagsForResource", &input.resource_id)?;
    let tags = tags_out(&tags_of(&service.store.read(), ctx, &input.resource_id)?);
    let listed = tags.into_iter().map(|tag| (tag.key.clone(), tag));
    let (tags, next_token) = page("tags", input.next_token.as_deref(), input.max_results, listed)?;
    Ok(ListTagsForResourceResponse { tags: Some(tags), next_token })
}

pub(crate) async fn tag_resource(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<(), Fault> {
    may(service, ctx, "TagResource", &input.resource_id)?;
    let new: Vec<_> = input.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    change(service, ctx, input.resource_id, move |tags| tags.extend(new)).await
}

pub(crate) async fn untag_resource(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<(), Fault> {
    may(service, ctx, "UntagResource", &input.resource_id)?;
    let gone = input.tag_keys;
    let retain = move |tags: &mut Tags| tags.retain(|key, _| !gone.contains(key));
    change(service, ctx, input.resource_id, retain).await
}
