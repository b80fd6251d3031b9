//! Subnets.

use super::{
    availability_zone::zone_id,
    filter::passes,
    listing::{page, stop_if_dry},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{NetworkInterface as Interface, Subnet as Record},
};
use wire::{Context, Fault};

/// AWS keeps the first four addresses and the last.
const RESERVED: u64 = 5;

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
            "default-for-az" | "defaultForAz" | "map-public-ip-on-launch" => {
                Some(vec!["true".to_owned()])
            }
            "state" => Some(vec!["available".to_owned()]),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name if name.starts_with("tag") => Some(Vec::new()),
            _ => None,
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
        default_for_az: Some(true),
        map_public_ip_on_launch: Some(true),
        ..Subnet::default()
    }
}
