//! Attributes of services.

use super::find::{arn_of, service};
use crate::{ServiceDiscovery, api::*, faults, model::Service as Record};
use std::collections::BTreeMap;
use store::Record as _;
use wire::{Context, Fault};

/// Attributes of a service.
const MOST: usize = 30;

pub(crate) async fn get_service_attributes(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetServiceAttributesRequest,
) -> Result<GetServiceAttributesResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:GetServiceAttributes", &arn)?;
    let found = service(&discovery.store.read(), ctx, &input.service_id)?;
    let attributes = ServiceAttributes {
        service_arn: Some(found.arn()),
        resource_owner: found.realm.split_once('/').map(|(account, _)| account.to_owned()),
        attributes: Some(found.attributes.clone()),
    };
    Ok(GetServiceAttributesResponse { service_attributes: Some(attributes) })
}

async fn change(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    id: String,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let ctx = ctx.clone();
    let write = discovery.store.write(move |tx| {
        let found = service(tx, &ctx, &id)?;
        let mut attributes = found.attributes.clone();
        change(&mut attributes);
        if attributes.len() > MOST {
            return Err(faults::too_many_attributes());
        }
        tx.update::<Record>(&found.key(), |service| service.attributes = attributes);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn update_service_attributes(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UpdateServiceAttributesRequest,
) -> Result<UpdateServiceAttributesResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:UpdateServiceAttributes", &arn)?;
    let new = input.attributes;
    change(discovery, ctx, input.service_id, move |attributes| attributes.extend(new)).await?;
    Ok(UpdateServiceAttributesResponse::default())
}

pub(crate) async fn delete_service_attributes(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DeleteServiceAttributesRequest,
) -> Result<DeleteServiceAttributesResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:DeleteServiceAttributes", &arn)?;
    let gone = input.attributes;
    let less = move |attributes: &mut BTreeMap<String, String>| {
        attributes.retain(|key, _| !gone.contains(key));
    };
    change(discovery, ctx, input.service_id, less).await?;
    Ok(DeleteServiceAttributesResponse::default())
}
