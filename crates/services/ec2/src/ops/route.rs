//! Routes: where packets go that are not for the VPC itself.

use super::{
    listing::stop_if_dry,
    route_table::EVERYWHERE,
    tag::{self, NO_GATEWAY, NO_NAT, NO_TABLE},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{InternetGateway, NatGateway, RouteTable as Record},
};
use store::Tx;
use wire::{Context, Fault};

/// What a route leads to, if it is in the table's VPC.
fn target(
    tx: &Tx,
    table: &Record,
    gateway: Option<String>,
    nat: Option<String>,
) -> Result<String, Fault> {
    let elsewhere = |id: &str| {
        let message = format!(
            "route table {} and network gateway {id} belong to different networks",
            table.id
        );
        Err(faults::invalid(message))
    };
    match (gateway, nat) {
        (Some(id), None) if id.starts_with("igw-") => {
            let found = tag::find::<InternetGateway>(tx, &table.realm, &id, NO_GATEWAY)?;
            if found.vpc.as_ref() == Some(&table.vpc) { Ok(id) } else { elsewhere(&id) }
        }
        (None, Some(id)) => {
            let found = tag::find::<NatGateway>(tx, &table.realm, &id, NO_NAT)?;
            let there = found.deleted.is_none() && found.vpc == table.vpc;
            if there { Ok(id) } else { elsewhere(&id) }
        }
        _ => Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support routes to other targets than one internet gateway or one NAT gateway",
        )),
    }
}

fn check_destination(block: Option<&str>) -> Result<(), Fault> {
    match block {
        Some(EVERYWHERE) => Ok(()),
        None => Err(faults::missing("destinationCidrBlock")),
        Some(_) => Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support routes to other destinations than 0.0.0.0/0",
        )),
    }
}

pub(crate) async fn create_route(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateRouteRequest,
) -> Result<CreateRouteResult, Fault> {
    let id = input.route_table_id;
    ctx.authorise("ec2:CreateRoute", &ctx.arn("ec2", format!("route-table/{id}")))?;
    stop_if_dry(input.dry_run)?;
    check_destination(input.destination_cidr_block.as_deref())?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let table = tag::find::<Record>(tx, &realm, &id, NO_TABLE)?;
        let target = target(tx, &table, input.gateway_id, input.nat_gateway_id)?;
        match &table.outside {
            Some(there) if *there != target => {
                let message = format!("The route identified by {EVERYWHERE} already exists.");
                return Err(faults::of("RouteAlreadyExists", message));
            }
            _ => {}
        }
        tx.update::<Record>(&format!("{realm}/{id}"), |table| table.outside = Some(target));
        Ok(table.vpc.clone())
    });
    let vpc = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await?;
    Ok(CreateRouteResult { r#return: Some(true) })
}

fn no_route(id: &str) -> Fault {
    let message = format!("no route with destination-cidr-block {EVERYWHERE} in route table {id}");
    faults::of("InvalidRoute.NotFound", message)
}

pub(crate) async fn replace_route(
    ec2: &Ec2,
    ctx: &Context,
    input: ReplaceRouteRequest,
) -> Result<(), Fault> {
    let id = input.route_table_id;
    ctx.authorise("ec2:ReplaceRoute", &ctx.arn("ec2", format!("route-table/{id}")))?;
    stop_if_dry(input.dry_run)?;
    check_destination(input.destination_cidr_block.as_deref())?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let table = tag::find::<Record>(tx, &realm, &id, NO_TABLE)?;
        if table.outside.is_none() {
            return Err(no_route(&id));
        }
        let target = target(tx, &table, input.gateway_id, input.nat_gateway_id)?;
        tx.update::<Record>(&format!("{realm}/{id}"), |table| table.outside = Some(target));
        Ok(table.vpc.clone())
    });
    let vpc = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await
}

pub(crate) async fn delete_route(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteRouteRequest,
) -> Result<(), Fault> {
    let id = input.route_table_id;
    ctx.authorise("ec2:DeleteRoute", &ctx.arn("ec2", format!("route-table/{id}")))?;
    stop_if_dry(input.dry_run)?;
    check_destination(input.destination_cidr_block.as_deref())?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let table = tag::find::<Record>(tx, &realm, &id, NO_TABLE)?;
        if table.outside.is_none() {
            return Err(no_route(&id));
        }
        tx.update::<Record>(&format!("{realm}/{id}"), |table| table.outside = None);
        Ok(table.vpc.clone())
    });
    let vpc = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await
}
