//! Tags of file systems and access points.

use super::{access_point, check_tags, file_system, id, page, tags_out};
use crate::{
    Efs,
    api::*,
    model::{AccessPoint, FileSystem, Tags},
};
use std::sync::Arc;
use store::View;
use wire::{Context, Fault};

fn is_access_point(given: &str) -> bool {
    id(given).starts_with("fsap-")
}

fn arn(ctx: &Context, given: &str) -> String {
    match is_access_point(given) {
        true => AccessPoint::arn_of(&ctx.realm(), id(given)),
        false => FileSystem::arn_of(&ctx.realm(), id(given)),
    }
}

fn tags_of(view: &impl View, ctx: &Context, given: &str) -> Result<Tags, Fault> {
    match is_access_point(given) {
        true => access_point(view, ctx, given).map(|found| found.tags.clone()),
        false => file_system(view, ctx, given).map(|found| found.tags.clone()),
    }
}

async fn change(
    efs: &Efs,
    ctx: &Context,
    given: String,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let ctx = ctx.clone();
    let write = efs.store.write(move |tx| {
        let mut tags = tags_of(tx, &ctx, &given)?;
        change(&mut tags);
        let tags = check_tags(tags)?;
        let key = format!("{}/{}", ctx.realm(), id(&given));
        match is_access_point(&given) {
            true => drop(tx.update::<AccessPoint>(&key, |point| point.tags = tags)),
            false => drop(tx.update::<FileSystem>(&key, |file_system| file_system.tags = tags)),
        }
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn list_tags_for_resource(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let arn = arn(ctx, &input.resource_id);
    ctx.authorise("elasticfilesystem:ListTagsForResource", &arn)?;
    let tags = tags_out(&tags_of(&efs.store.read(), ctx, &input.resource_id)?);
    let listed = tags.into_iter().flatten().map(|tag| (tag.key.clone(), tag));
    let (tags, next_token) = page("tags", input.next_token.as_deref(), input.max_results, listed)?;
    Ok(ListTagsForResourceResponse { tags, next_token })
}

pub(crate) async fn tag_resource(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<(), Fault> {
    ctx.authorise("elasticfilesystem:TagResource", &arn(ctx, &input.resource_id))?;
    let new: Vec<_> = input.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    change(efs, ctx, input.resource_id, move |tags| tags.extend(new)).await
}

pub(crate) async fn untag_resource(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<(), Fault> {
    ctx.authorise("elasticfilesystem:UntagResource", &arn(ctx, &input.resource_id))?;
    let gone = input.tag_keys;
    change(efs, ctx, input.resource_id, move |tags| tags.retain(|key, _| !gone.contains(key))).await
}
