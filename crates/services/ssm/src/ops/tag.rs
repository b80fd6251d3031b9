//! Tags on parameters.

use super::Named;
use crate::{Ssm, api::*, faults, model::Parameter as Record, rules::MOST_TAGS};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault};

/// Tags as they are kept; keys that begin with `aws:` are AWS's own.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    if tags.iter().any(|tag| tag.key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(faults::invalid("Tag keys can't begin with \"aws:\": it is reserved."));
    }
    let tags: BTreeMap<String, String> = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    if tags.len() > MOST_TAGS { Err(too_many()) } else { Ok(tags) }
}

fn too_many() -> Fault {
    let message = format!("A parameter can have at most {MOST_TAGS} tags.");
    Fault::new("TooManyTagsError", message)
}

fn resource(
    ssm: &Ssm,
    ctx: &Context,
    action: &str,
    kind: ResourceTypeForTagging,
    id: &str,
) -> Result<Arc<Record>, Fault> {
    ctx.authorise(action, &super::value::arn_of(ctx, id))?;
    if kind != ResourceTypeForTagging::Parameter {
        let message = "Neargate has tags on resources of the type Parameter only.";
        return Err(Fault::new("InvalidResourceType", message));
    }
    let named = Named::read(ctx, id).map_err(|_| faults::no_resource(id))?;
    named.find(&ssm.store.read(), ctx).ok_or_else(|| faults::no_resource(id))
}

async fn retag(
    ssm: &Ssm,
    parameter: Arc<Record>,
    change: impl FnOnce(&mut BTreeMap<String, String>),
) -> Result<(), Fault> {
    let key = Record::key_of(&parameter.realm, &parameter.name);
    ssm.store
        .write(move |tx| {
            let record = tx.get::<Record>(&key);
            let mut tags = record.ok_or_else(|| faults::no_resource(&parameter.name))?.tags.clone();
            change(&mut tags);
            if tags.len() > MOST_TAGS {
                return Err(too_many());
            }
            tx.update::<Record>(&key, |record| record.tags = tags);
            Ok(())
        })
        .await
}

pub(crate) async fn add_tags_to_resource(
    ssm: &Ssm,
    ctx: &Context,
    input: AddTagsToResourceRequest,
) -> Result<AddTagsToResourceResult, Fault> {
    let action = "ssm:AddTagsToResource";
    let parameter = resource(ssm, ctx, action, input.resource_type, &input.resource_id)?;
    let added = collect(input.tags)?;
    retag(ssm, parameter, |tags| tags.extend(added)).await?;
    Ok(AddTagsToResourceResult::default())
}

pub(crate) async fn remove_tags_from_resource(
    ssm: &Ssm,
    ctx: &Context,
    input: RemoveTagsFromResourceRequest,
) -> Result<RemoveTagsFromResourceResult, Fault> {
    let action = "ssm:RemoveTagsFromResource";
    let parameter = resource(ssm, ctx, action, input.resource_type, &input.resource_id)?;
    retag(ssm, parameter, |tags| tags.retain(|key, _| !input.tag_keys.contains(key))).await?;
    Ok(RemoveTagsFromResourceResult::default())
}

pub(crate) async fn list_tags_for_resource(
    ssm: &Ssm,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResult, Fault> {
    let action = "ssm:ListTagsForResource";
    let parameter = resource(ssm, ctx, action, input.resource_type, &input.resource_id)?;
    let tags = parameter.tags.iter();
    let tags = tags.map(|(key, value)| Tag { key: key.clone(), value: value.clone() });
    Ok(ListTagsForResourceResult { tag_list: Some(tags.collect()) })
}
