//! Tags of namespaces and services.

use super::find::{namespace, service};
use crate::{
    ServiceDiscovery,
    api::*,
    faults,
    model::{Namespace, Service, Tags},
};
use store::{Record as _, Tx};
use wire::{Context, Fault};

/// Tags of one resource.
const MOST: usize = 50;

/// Tags of a resource that is to be made.
pub(super) fn tags_in(given: Option<Vec<Tag>>) -> Result<Tags, Fault> {
    let tags: Tags = given.into_iter().flatten().map(|tag| (tag.key, tag.value)).collect();
    match tags.len() > MOST {
        true => Err(faults::too_many_tags()),
        false => Ok(tags),
    }
}

/// Whether an ARN is a namespace's.
fn is_namespace(arn: &str) -> bool {
    arn.contains(":namespace/")
}

pub(crate) async fn list_tags_for_resource(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    let arn = input.resource_arn;
    ctx.authorise("servicediscovery:ListTagsForResource", &arn)?;
    let snapshot = discovery.store.read();
    let tags = match is_namespace(&arn) {
        true => namespace(&snapshot, ctx, &arn).map(|found| found.tags.clone()),
        false => service(&snapshot, ctx, &arn).map(|found| found.tags.clone()),
    };
    let tags = tags.map_err(|_| faults::no_resource(&arn))?;
    let tags = tags.into_iter().map(|(key, value)| Tag { key, value }).collect();
    Ok(ListTagsForResourceResponse { tags: Some(tags) })
}

async fn change(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    arn: String,
    change: impl FnOnce(&mut Tags) + Send + 'static,
) -> Result<(), Fault> {
    let ctx = ctx.clone();
    let write = discovery.store.write(move |tx: &mut Tx| {
        let missing = |_| faults::no_resource(&arn);
        let check = |tags: &Tags| match tags.len() > MOST {
            true => Err(faults::too_many_tags()),
            false => Ok(()),
        };
        if is_namespace(&arn) {
            let found = namespace(tx, &ctx, &arn).map_err(missing)?;
            let mut tags = found.tags.clone();
            change(&mut tags);
            check(&tags)?;
            tx.update::<Namespace>(&found.key(), |namespace| namespace.tags = tags);
        } else {
            let found = service(tx, &ctx, &arn).map_err(missing)?;
            let mut tags = found.tags.clone();
            change(&mut tags);
            check(&tags)?;
            tx.update::<Service>(&found.key(), |service| service.tags = tags);
        }
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn tag_resource(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    ctx.authorise("servicediscovery:TagResource", &input.resource_arn)?;
    let new = input.tags.into_iter().map(|tag| (tag.key, tag.value));
    let new: Vec<_> = new.collect();
    change(discovery, ctx, input.resource_arn, move |tags| tags.extend(new)).await?;
    Ok(TagResourceResponse::default())
}

pub(crate) async fn untag_resource(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    ctx.authorise("servicediscovery:UntagResource", &input.resource_arn)?;
    let gone = input.tag_keys;
    let less = move |tags: &mut Tags| tags.retain(|key, _| !gone.contains(key));
    change(discovery, ctx, input.resource_arn, less).await?;
    Ok(UntagResourceResponse::default())
}
