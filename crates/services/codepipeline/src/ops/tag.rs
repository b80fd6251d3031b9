//! Tags on pipelines.

use super::find;
use crate::{CodePipeline, api::*, faults, model::Pipeline};
use std::{collections::BTreeMap, result::Result};
use wire::{Context, Fault, Page};

/// The most tags on one pipeline.
const MOST_TAGS: usize = 50;

fn check(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
    if tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(Fault::new(
            "InvalidTagsException",
            "Tag keys can't begin with \"aws:\": it is reserved.",
        ));
    }
    match tags.len() > MOST_TAGS {
        true => Err(Fault::new(
            "TooManyTagsException",
            format!("A pipeline can have at most {MOST_TAGS} tags."),
        )),
        false => Ok(tags),
    }
}

/// Tags as they are kept.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    check(tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
}

/// Tags as they are answered.
pub(crate) fn answer(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
}

fn name<'a>(ctx: &Context, arn: &'a str) -> Result<&'a str, Fault> {
    let name = arn.strip_prefix(&ctx.arn("codepipeline", ""));
    name.ok_or_else(|| {
        Fault::new(
            "InvalidArnException",
            "The ARN is not that of a pipeline in this account and region.",
        )
    })
}

async fn retag(
    service: &CodePipeline,
    ctx: &Context,
    name: &str,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let (key, missing) = (Pipeline::key_of(&ctx.realm(), name), faults::no_pipeline(ctx, name));
    service
        .store
        .write(move |tx| {
            let pipeline = tx.get::<Pipeline>(&key).ok_or(missing)?;
            let mut tags = pipeline.tags.clone();
            change(&mut tags);
            let tags = check(tags)?;
            tx.update::<Pipeline>(&key, |pipeline| pipeline.tags = tags);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    service: &CodePipeline,
    ctx: &Context,
    input: TagResourceInput,
) -> Result<TagResourceOutput, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    find(service, ctx, name, "codepipeline:TagResource")?;
    let added = collect(input.tags)?;
    retag(service, ctx, name, |tags| tags.extend(added)).await?;
    Ok(TagResourceOutput::default())
}

pub(crate) async fn untag_resource(
    service: &CodePipeline,
    ctx: &Context,
    input: UntagResourceInput,
) -> Result<UntagResourceOutput, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    find(service, ctx, name, "codepipeline:UntagResource")?;
    retag(service, ctx, name, move |tags| tags.retain(|key, _| !input.tag_keys.contains(key)))
        .await?;
    Ok(UntagResourceOutput::default())
}

pub(crate) async fn list_tags_for_resource(
    service: &CodePipeline,
    ctx: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    let pipeline = find(service, ctx, name, "codepipeline:ListTagsForResource")?;
    let size = input.max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(MOST_TAGS);
    let tags = answer(&pipeline.tags).into_iter().map(|tag| (tag.key.clone(), tag));
    let listing = format!("ListTagsForResource {name}");
    let page = Page::take(&listing, input.next_token.as_deref(), size.max(1), tags);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListTagsForResourceOutput { tags: Some(page.items), next_token: page.next_token })
}
