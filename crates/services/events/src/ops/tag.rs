//! Tags on rules.

use super::rule::find;
use crate::{Events, api::*, faults, model::Rule as Record};
use std::collections::BTreeMap;
use wire::{Context, Fault};

/// The most tags on one rule.
const MOST_TAGS: usize = 50;

fn check(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
    if tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(faults::validation("Tag keys can't begin with \"aws:\": it is reserved."));
    }
    match tags.len() > MOST_TAGS {
        true => Err(faults::limit(format!("A rule can have at most {MOST_TAGS} tags."))),
        false => Ok(tags),
    }
}

/// Tags as they are kept.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    check(tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
}

fn name<'a>(ctx: &Context, arn: &'a str) -> Result<&'a str, Fault> {
    let name = arn.strip_prefix(&super::rule_arn(ctx, ""));
    name.ok_or_else(|| {
        faults::validation(format!(
            "Parameter {arn} is not valid. Reason: Provided Arn is not in correct format."
        ))
    })
}

async fn retag(
    events: &Events,
    ctx: &Context,
    name: &str,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let (key, name) = (Record::key_of(&ctx.realm(), name), name.to_owned());
    events
        .store
        .write(move |tx| {
            let rule = tx.get::<Record>(&key).ok_or_else(|| faults::no_rule(&name))?;
            let mut tags = rule.tags.clone();
            change(&mut tags);
            let tags = check(tags)?;
            tx.update::<Record>(&key, |rule| rule.tags = tags);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    events: &Events,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    find(events, ctx, name, None, "events:TagResource")?;
    let added = collect(input.tags)?;
    retag(events, ctx, name, |tags| tags.extend(added)).await?;
    Ok(TagResourceResponse::default())
}

pub(crate) async fn untag_resource(
    events: &Events,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    find(events, ctx, name, None, "events:UntagResource")?;
    retag(events, ctx, name, move |tags| tags.retain(|key, _| !input.tag_keys.contains(key)))
        .await?;
    Ok(UntagResourceResponse::default())
}

pub(crate) async fn list_tags_for_resource(
    events: &Events,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    let rule = find(events, ctx, name, None, "events:ListTagsForResource")?;
    let tags = rule.tags.iter();
    let tags = tags.map(|(key, value)| Tag { key: key.clone(), value: value.clone() });
    Ok(ListTagsForResourceResponse { tags: Some(tags.collect()) })
}
