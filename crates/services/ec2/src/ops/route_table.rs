//! Route tables.

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag::{self, NO_SUBNET, NO_TABLE},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{self, NatGateway, RouteTable as Record, Subnet, VpcEndpoint},
};
use std::{collections::BTreeMap, sync::Arc};
use store::{Snapshot, Tx};
use wire::{Context, Fault};

pub(crate) async fn create_route_table(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateRouteTableRequest,
) -> Result<CreateRouteTableResult, Fault> {
    ctx.authorise("ec2:CreateRouteTable", &ctx.arn("ec2", "route-table/*"))?;
    stop_if_dry(input.dry_run)?;
    let record = Record {
        realm: ctx.realm(),
        id: ec2.id("rtb"),
        vpc: input.vpc_id,
        main: None,
        outside: None,
        associations: BTreeMap::new(),
        tags: tag::read(input.tag_specifications)?,
    };
    let made = record.clone();
    let write = ec2.store.write(move |tx| {
        tag::vpc(tx, &record.realm, &record.vpc)?;
        tx.put(record);
        Ok::<_, Fault>(())
    });
    write.await?;
    let answer = told(ctx, &ec2.store.read(), &made)?;
    Ok(CreateRouteTableResult { route_table: Some(answer), client_token: input.client_token })
}

fn told(ctx: &Context, snapshot: &Snapshot, record: &Record) -> Result<RouteTable, Fault> {
    let vpc = tag::vpc(snapshot, &record.realm, &record.vpc)?;
    let state = || {
        Some(RouteTableAssociationState {
            state: RouteTableAssociationStateCode::parse("associated"),
            status_message: None,
        })
    };
    let main = record.main.iter().map(|id| RouteTableAssociation {
        main: Some(true),
        route_table_association_id: Some(id.clone()),
        route_table_id: Some(record.id.clone()),
        association_state: state(),
        ..RouteTableAssociation::default()
    });
    let own = record.associations.iter().map(|(id, subnet)| RouteTableAssociation {
        main: Some(false),
        route_table_association_id: Some(id.clone()),
        route_table_id: Some(record.id.clone()),
        subnet_id: Some(subnet.clone()),
        association_state: state(),
        ..RouteTableAssociation::default()
    });
    let mut routes = vec![Route {
        destination_cidr_block: Some(vpc.block.to_string()),
        gateway_id: Some("local".to_owned()),
        origin: RouteOrigin::parse("CreateRouteTable"),
        state: RouteState::parse("active"),
        ..Route::default()
    }];
    if let Some(target) = &record.outside {
        let nat = target.starts_with("nat-");
        routes.push(Route {
            destination_cidr_block: Some(EVERYWHERE.to_owned()),
            gateway_id: (!nat).then(|| target.clone()),
            nat_gateway_id: nat.then(|| target.clone()),
            origin: RouteOrigin::parse("CreateRoute"),
            state: RouteState::parse(if leads(snapshot, record) { "active" } else { "blackhole" }),
            ..Route::default()
        });
    }
    for endpoint in snapshot.scan_prefix::<VpcEndpoint>(&format!("{}/", record.realm)) {
        if endpoint.is_in(&record.id) {
            routes.push(Route {
                destination_prefix_list_id: Some(S3_ADDRESSES.to_owned()),
                gateway_id: Some(endpoint.id.clone()),
                origin: RouteOrigin::parse("CreateRoute"),
                state: RouteState::parse("active"),
                ..Route::default()
            });
        }
    }
    Ok(RouteTable {
        associations: Some(main.chain(own).collect()),
        propagating_vgws: Some(Vec::new()),
        route_table_id: Some(record.id.clone()),
        routes: Some(routes),
        tags: tag::told(&record.tags),
        vpc_id: Some(record.vpc.clone()),
        owner_id: Some(ctx.account().to_owned()),
    })
}

/// The only destination besides the VPC itself.
pub(super) const EVERYWHERE: &str = "0.0.0.0/0";

/// AWS's list of S3's addresses in us-east-1; each region has one of its own there.
const S3_ADDRESSES: &str = "pl-63a5400a";

/// Whether what the table's route leads to is there.
fn leads(snapshot: &Snapshot, record: &Record) -> bool {
    let Some(target) = &record.outside else { return false };
    let key = format!("{}/{target}", record.realm);
    let gateway = snapshot.get::<model::InternetGateway>(&key);
    let nat = snapshot.get::<NatGateway>(&key);
    gateway.is_some_and(|gateway| gateway.vpc.as_ref() == Some(&record.vpc))
        || nat.is_some_and(|nat| nat.deleted.is_none())
}

pub(crate) async fn delete_route_table(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteRouteTableRequest,
) -> Result<(), Fault> {
    let id = input.route_table_id;
    ctx.authorise("ec2:DeleteRouteTable", &ctx.arn("ec2", format!("route-table/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let table = tag::find::<Record>(tx, &realm, &id, NO_TABLE)?;
        let endpoints = tx.scan_prefix::<VpcEndpoint>(&format!("{realm}/"));
        let leads = endpoints.into_iter().any(|endpoint| endpoint.is_in(&id));
        if table.main.is_some() || !table.associations.is_empty() || leads {
            return Err(faults::dependency("routeTable", &id));
        }
        tx.delete::<Record>(&format!("{realm}/{id}"));
        Ok(())
    });
    write.await
}

pub(crate) async fn describe_route_tables(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeRouteTablesRequest,
) -> Result<DescribeRouteTablesResult, Fault> {
    ctx.authorise("ec2:DescribeRouteTables", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let snapshot = ec2.store.read();
    let wanted = input.route_table_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_TABLE)?;
    }
    let mut found = Vec::new();
    for table in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let target = |prefix: &str| -> Vec<String> {
            table.outside.iter().filter(|target| target.starts_with(prefix)).cloned().collect()
        };
        let passes = passes(input.filters.as_ref(), |name| match name {
            "route-table-id" | "association.route-table-id" => Some(vec![table.id.clone()]),
            "vpc-id" => Some(vec![table.vpc.clone()]),
            "association.main" => Some(vec![table.main.is_some().to_string()]),
            "association.subnet-id" => Some(table.associations.values().cloned().collect()),
            "association.route-table-association-id" => {
                Some(table.main.iter().chain(table.associations.keys()).cloned().collect())
            }
            "route.gateway-id" => Some(target("igw-")),
            "route.nat-gateway-id" => Some(target("nat-")),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name => tag_values(name, &table.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&table.id)) {
            found.push((table.id.clone(), told(ctx, &snapshot, &table)?));
        }
    }
    let (route_tables, next_token) =
        page("DescribeRouteTables", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeRouteTablesResult { route_tables, next_token })
}

/// The table that has an association.
fn associated(tx: &Tx, realm: &str, id: &str) -> Result<Arc<Record>, Fault> {
    let mut tables = tx.scan_prefix::<Record>(&format!("{realm}/"));
    let found = tables
        .find(|table| table.main.as_deref() == Some(id) || table.associations.contains_key(id));
    found.ok_or_else(|| {
        let message = format!("The association ID '{id}' does not exist");
        faults::of("InvalidAssociationID.NotFound", message)
    })
}

pub(crate) async fn associate_route_table(
    ec2: &Ec2,
    ctx: &Context,
    input: AssociateRouteTableRequest,
) -> Result<AssociateRouteTableResult, Fault> {
    let id = input.route_table_id;
    ctx.authorise("ec2:AssociateRouteTable", &ctx.arn("ec2", format!("route-table/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let subnet = input.subnet_id.ok_or_else(|| faults::missing("subnetId"))?;
    let (realm, association) = (ctx.realm(), ec2.id("rtbassoc"));
    let write = ec2.store.write(move |tx| {
        let table = tag::find::<Record>(tx, &realm, &id, NO_TABLE)?;
        let place = tag::find::<Subnet>(tx, &realm, &subnet, NO_SUBNET)?;
        if table.vpc != place.vpc {
            let message = format!("Route table {id} and subnet {subnet} belong to different networks");
            return Err(faults::invalid(message));
        }
        let mut tables = tx.scan_prefix::<Record>(&format!("{realm}/"));
        if let Some(other) = tables.find(|table| table.associations.values().any(|own| *own == subnet)) {
            let own = other.associations.iter().find(|(_, own)| **own == subnet);
            // The same again is the same association.
            return match own.filter(|_| other.id == id) {
                Some((association, _)) => Ok((association.clone(), table.vpc.clone())),
                None => Err(faults::of(
                    "Resource.AlreadyAssociated",
                    format!("the specified association for route table {id} conflicts with an existing association"),
                )),
            };
        }
        drop(tables);
        let made = association.clone();
        tx.update::<Record>(&format!("{realm}/{id}"), |table| {
            table.associations.insert(made, subnet);
        });
        Ok((association, table.vpc.clone()))
    });
    let (association, vpc) = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await?;
    Ok(AssociateRouteTableResult {
        association_id: Some(association),
        association_state: Some(RouteTableAssociationState {
            state: RouteTableAssociationStateCode::parse("associated"),
            status_message: None,
        }),
    })
}

pub(crate) async fn disassociate_route_table(
    ec2: &Ec2,
    ctx: &Context,
    input: DisassociateRouteTableRequest,
) -> Result<(), Fault> {
    let id = input.association_id;
    ctx.authorise("ec2:DisassociateRouteTable", &ctx.arn("ec2", "route-table/*"))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let table = associated(tx, &realm, &id)?;
        if table.main.as_deref() == Some(&id) {
            let message = format!("cannot disassociate the main route table association {id}");
            return Err(faults::invalid(message));
        }
        tx.update::<Record>(&format!("{realm}/{}", table.id), |table| {
            table.associations.remove(&id);
        });
        Ok(table.vpc.clone())
    });
    let vpc = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await
}

pub(crate) async fn replace_route_table_association(
    ec2: &Ec2,
    ctx: &Context,
    input: ReplaceRouteTableAssociationRequest,
) -> Result<ReplaceRouteTableAssociationResult, Fault> {
    let (id, wanted) = (input.association_id, input.route_table_id);
    ctx.authorise(
        "ec2:ReplaceRouteTableAssociation",
        &ctx.arn("ec2", format!("route-table/{wanted}")),
    )?;
    stop_if_dry(input.dry_run)?;
    let (realm, association) = (ctx.realm(), ec2.id("rtbassoc"));
    let write = ec2.store.write(move |tx| {
        let from = associated(tx, &realm, &id)?;
        let to = tag::find::<Record>(tx, &realm, &wanted, NO_TABLE)?;
        if from.vpc != to.vpc {
            let message = format!("Route table {wanted} is of another network");
            return Err(faults::invalid(message));
        }
        let made = association.clone();
        let subnet = from.associations.get(&id).cloned();
        tx.update::<Record>(&format!("{realm}/{}", from.id), |table| {
            table.associations.remove(&id);
            if table.main.as_deref() == Some(&id) {
                table.main = None;
            }
        });
        tx.update::<Record>(&format!("{realm}/{wanted}"), |table| match subnet {
            Some(subnet) => {
                table.associations.insert(made, subnet);
            }
            None => table.main = Some(made),
        });
        Ok((association, to.vpc.clone()))
    });
    let (association, vpc) = write.await?;
    ec2.apply_ways(&ctx.realm(), &vpc).await?;
    Ok(ReplaceRouteTableAssociationResult {
        new_association_id: Some(association),
        association_state: None,
    })
}
