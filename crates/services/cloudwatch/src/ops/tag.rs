//! Tags of alarms.

use super::authorise_alarm;
use crate::{CloudWatch, api::*, faults, model::Alarm};
use std::{collections::BTreeMap, sync::Arc};
use store::Record;
use wire::{Context, Fault};

type Tags = BTreeMap<String, String>;

pub(super) fn check(tags: &Tags) -> Result<(), Fault> {
    match tags.len() > 50 {
        true => Err(faults::invalid("A resource can have 50 tags at most")),
        false => Ok(()),
    }
}

/// The alarm of an ARN, for who may do `action` with it.
fn alarm(
    cloudwatch: &CloudWatch,
    ctx: &Context,
    action: &str,
    arn: &str,
) -> Result<Arc<Alarm>, Fault> {
    let name = arn.strip_prefix(&ctx.arn("cloudwatch", "alarm:"));
    authorise_alarm(ctx, action, name.unwrap_or("*"))?;
    let key = name.map(|name| Alarm::key_of(&ctx.realm(), name));
    let found = key.and_then(|key| cloudwatch.store.read().get::<Alarm>(&key));
    found.ok_or_else(|| faults::no_resource(arn))
}

async fn change(
    cloudwatch: &CloudWatch,
    alarm: &Alarm,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let (key, arn) = (alarm.key(), alarm.arn());
    let write = cloudwatch.store.write(move |tx| {
        let known = tx.get::<Alarm>(&key).ok_or_else(|| faults::no_resource(&arn))?;
        let mut changed = Arc::unwrap_or_clone(known);
        change(&mut changed.tags);
        check(&changed.tags)?;
        tx.put(changed);
        Ok(())
    });
    write.await
}

pub(crate) async fn list_tags_for_resource(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    let found = alarm(cloudwatch, ctx, "ListTagsForResource", &input.resource_arn)?;
    let tag = |(key, value): (&String, &String)| Tag { key: key.clone(), value: value.clone() };
    Ok(ListTagsForResourceOutput { tags: Some(found.tags.iter().map(tag).collect()) })
}

pub(crate) async fn tag_resource(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: TagResourceInput,
) -> Result<TagResourceOutput, Fault> {
    let found = alarm(cloudwatch, ctx, "TagResource", &input.resource_arn)?;
    let new: Vec<_> = input.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    change(cloudwatch, &found, move |tags| tags.extend(new)).await?;
    Ok(TagResourceOutput {})
}

pub(crate) async fn untag_resource(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: UntagResourceInput,
) -> Result<UntagResourceOutput, Fault> {
    let found = alarm(cloudwatch, ctx, "UntagResource", &input.resource_arn)?;
    let gone = input.tag_keys;
    change(cloudwatch, &found, move |tags| tags.retain(|key, _| !gone.contains(key))).await?;
    Ok(UntagResourceOutput {})
}
