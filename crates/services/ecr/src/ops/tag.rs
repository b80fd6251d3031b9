//! Tags on repositories.

use super::change;
use crate::{Ecr, api::*, faults, model::Repository};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault};

const MOST_TAGS: usize = 50;

/// Tags as they are kept; keys that begin with `aws:` are AWS's own.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    let reserved = |tag: &Tag| tag.key.to_ascii_lowercase().starts_with("aws:");
    if tags.iter().any(|tag| tag.key.is_empty() || tag.key.chars().count() > 128 || reserved(tag)) {
        return Err(faults::tag_parameter(
            "Tag keys have 1 to 128 letters and don't begin with 'aws:'.",
        ));
    }
    if tags.iter().any(|tag| tag.value.chars().count() > 256) {
        return Err(faults::tag_parameter("Tag values have at most 256 letters."));
    }
    let tags: BTreeMap<String, String> = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    if tags.len() > MOST_TAGS { Err(faults::too_many_tags()) } else { Ok(tags) }
}

/// The repository of an ARN, if the caller may do `action` to it.
fn resource(ecr: &Ecr, ctx: &Context, arn: &str, action: &str) -> Result<Arc<Repository>, Fault> {
    let begin = format!("arn:aws:ecr:{}:", ctx.region);
    let parts = arn.strip_prefix(&begin).and_then(|rest| rest.split_once(":repository/"));
    let Some((account, name)) = parts else {
        ctx.authorise(action, arn)?;
        let message = format!(
            "Invalid parameter at 'resourceArn': '{arn}' is no repository's of this region."
        );
        return Err(faults::parameter(message));
    };
    ecr.find(ctx, Some(account), name, action)
}

pub(crate) async fn tag_resource(
    ecr: &Ecr,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    let found = resource(ecr, ctx, &input.resource_arn, "ecr:TagResource")?;
    let mut tags = found.tags.clone();
    tags.extend(collect(input.tags)?);
    if tags.len() > MOST_TAGS {
        return Err(faults::too_many_tags());
    }
    change(ecr, &found, |repository| repository.tags = tags).await?;
    Ok(TagResourceResponse::default())
}

pub(crate) async fn untag_resource(
    ecr: &Ecr,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    let found = resource(ecr, ctx, &input.resource_arn, "ecr:UntagResource")?;
    let gone = input.tag_keys;
    change(ecr, &found, move |repository| repository.tags.retain(|key, _| !gone.contains(key)))
        .await?;
    Ok(UntagResourceResponse::default())
}

pub(crate) async fn list_tags_for_resource(
    ecr: &Ecr,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let found = resource(ecr, ctx, &input.resource_arn, "ecr:ListTagsForResource")?;
    let tags = found.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() });
    Ok(ListTagsForResourceResponse { tags: Some(tags.collect()) })
}
