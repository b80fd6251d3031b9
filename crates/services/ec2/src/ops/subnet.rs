//! Subnets.

use super::{
    availability_zone::zone_id,
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag::{self, NO_SUBNET},
    vpc,
};
use crate::{
    DEFAULT_SUBNETS, Ec2,
    api::*,
    faults,
    model::{NetworkInterface as Interface, RouteTable, Subnet as Record},
};
use wire::{Context, Fault};

/// AWS keeps the first four addresses and the last.
const RESERVED: u64 = 5;

/// The zone that a request names, or the first one.
fn zone(ctx: &Context, name: Option<String>, id: Option<String>) -> Result<String, Fault> {
    let mut zones = DEFAULT_SUBNETS.iter().map(|(letter, _)| format!("{}{letter}", ctx.region));
    let found = match (&name, &id) {
        (Some(name), _) => zones.find(|zone| zone == name),
        (None, Some(id)) => zones.find(|zone| zone_id(zone) == *id),
        (None, None) => zones.next(),
    };
    found.ok_or_else(|| {
        let given = name.or(id).unwrap_or_default();
        faults::invalid(format!(
            "Value ({given}) for parameter availabilityZone is invalid. Subnets can \
         currently only be created in the zones of {}.",
            ctx.region
        ))
    })
}

pub(crate) async fn create_subnet(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateSubnetRequest,
) -> Result<CreateSubnetResult, Fault> {
    ctx.authorise("ec2:CreateSubnet", &ctx.arn("ec2", "subnet/*"))?;
    stop_if_dry(input.dry_run)?;
    let given = input.cidr_block.ok_or_else(|| faults::missing("cidrBlock"))?;
    let block = vpc::block("InvalidSubnet.Range", &given)?;
    let record = Record {
        realm: ctx.realm(),
        id: ec2.id("subnet"),
        vpc: input.vpc_id,
        block,
        zone: zone(ctx, input.availability_zone, input.availability_zone_id)?,
        map_public: false,
        default: false,
        tags: tag::read(input.tag_specifications)?,
    };
    let made = record.clone();
    let write = ec2.store.write(move |tx| {
        let vpc = tag::vpc(tx, &record.realm, &record.vpc)?;
        if !vpc.block.covers(&block) {
            return Err(faults::of(
                "InvalidSubnet.Range",
                format!("The CIDR '{given}' is invalid."),
            ));
        }
        let mut others = tx.scan_prefix::<Record>(&format!("{}/", record.realm));
        if others.any(|other| other.vpc == record.vpc && other.block.overlaps(&block)) {
            let message = format!("The CIDR '{given}' conflicts with another subnet");
            return Err(faults::of("InvalidSubnet.Conflict", message));
        }
        drop(others);
        tx.put(record);
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(CreateSubnetResult { subnet: Some(answer(ctx, &made, 0)) })
}

pub(crate) async fn delete_subnet(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteSubnetRequest,
) -> Result<(), Fault> {
    let id = input.subnet_id;
    ctx.authorise("ec2:DeleteSubnet", &ctx.arn("ec2", format!("subnet/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        tag::find::<Record>(tx, &realm, &id, NO_SUBNET)?;
        let prefix = format!("{realm}/");
        if tx.scan_prefix::<Interface>(&prefix).any(|one| one.subnet == id) {
            return Err(faults::dependency("subnet", &id));
        }
        let tables = tx.scan_prefix::<RouteTable>(&prefix);
        let own: Vec<_> = tables
            .filter(|table| table.associations.values().any(|subnet| *subnet == id))
            .collect();
        for table in own {
            tx.update::<RouteTable>(&store::Record::key(table.as_ref()), |table| {
                table.associations.retain(|_, subnet| *subnet != id);
            });
        }
        tx.delete::<Record>(&format!("{realm}/{id}"));
        Ok(())
    });
    write.await
}

pub(crate) async fn modify_subnet_attribute(
    ec2: &Ec2,
    ctx: &Context,
    input: ModifySubnetAttributeRequest,
) -> Result<(), Fault> {
    let id = input.subnet_id;
    ctx.authorise("ec2:ModifySubnetAttribute", &ctx.arn("ec2", format!("subnet/{id}")))?;
    let (realm, wanted) =
        (ctx.realm(), input.map_public_ip_on_launch.and_then(|wanted| wanted.value));
    let write = ec2.store.write(move |tx| {
        tag::find::<Record>(tx, &realm, &id, NO_SUBNET)?;
        if let Some(wanted) = wanted {
            tx.update::<Record>(&format!("{realm}/{id}"), |subnet| subnet.map_public = wanted);
        }
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn describe_subnets(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeSubnetsRequest,
) -> Result<DescribeSubnetsResult, Fault> {
    ctx.authorise("ec2:DescribeSubnets", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let snapshot = ec2.store.read();
    let wanted = input.subnet_ids.unwrap_or_default();
    for id in &wanted {
        let known = snapshot.get::<Record>(&format!("{}/{id}", ctx.realm()));
        known.ok_or_else(|| faults::not_found("InvalidSubnetID.NotFound", "subnet", id))?;
    }
    let prefix = format!("{}/", ctx.realm());
    let mut subnets = Vec::new();
    for subnet in snapshot.scan_prefix::<Record>(&prefix) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "subnet-id" => Some(vec![subnet.id.clone()]),
            "vpc-id" => Some(vec![subnet.vpc.clone()]),
            "availability-zone" | "availabilityZone" => Some(vec![subnet.zone.clone()]),
            "availability-zone-id" | "availabilityZoneId" => Some(vec![zone_id(&subnet.zone)]),
            "cidr" | "cidr-block" | "cidrBlock" => Some(vec![subnet.block.to_string()]),
            "default-for-az" | "defaultForAz" => Some(vec![subnet.default.to_string()]),
            "map-public-ip-on-launch" => Some(vec![subnet.map_public.to_string()]),
            "state" => Some(vec!["available".to_owned()]),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name => tag_values(name, &subnet.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&subnet.id)) {
            let interfaces = snapshot.scan_prefix::<Interface>(&prefix);
            let used = interfaces.filter(|i| i.subnet == subnet.id).count() as u64;
            subnets.push((subnet.id.clone(), answer(ctx, &subnet, used)));
        }
    }
    let (subnets, next_token) =
        page("DescribeSubnets", input.next_token.as_deref(), input.max_results, subnets)?;
    Ok(DescribeSubnetsResult { next_token, subnets })
}

fn answer(ctx: &Context, subnet: &Record, used: u64) -> Subnet {
    let free = subnet.block.size().saturating_sub(RESERVED + used);
    Subnet {
        availability_zone_id: Some(zone_id(&subnet.zone)),
        owner_id: Some(ctx.account().to_owned()),
        assign_ipv6_address_on_creation: Some(false),
        subnet_arn: Some(ctx.arn("ec2", format!("subnet/{}", subnet.id))),
        subnet_id: Some(subnet.id.clone()),
        state: Some(SubnetState::Available),
        vpc_id: Some(subnet.vpc.clone()),
        cidr_block: Some(subnet.block.to_string()),
        available_ip_address_count: Some(i32::try_from(free).unwrap_or(i32::MAX)),
        availability_zone: Some(subnet.zone.clone()),
        default_for_az: Some(subnet.default),
        map_public_ip_on_launch: Some(subnet.map_public),
        tags: tag::told(&subnet.tags),
        ..Subnet::default()
    }
}
