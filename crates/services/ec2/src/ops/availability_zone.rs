//! Availability Zones: three in every region.

use super::{filter::passes, listing::stop_if_dry};
use crate::{DEFAULT_SUBNETS, Ec2, api::*};
use wire::{Context, Fault};

/// `us-east-1a` -> `use1-az1`.
pub fn zone_id(zone: &str) -> String {
    let (region, letter) = zone.split_at(zone.len().saturating_sub(1));
    let short: String = region
        .split('-')
        .map(|part| match part {
            "north" | "south" | "east" | "west" | "central" => &part[..1],
            "northeast" => "ne",
            "northwest" => "nw",
            "southeast" => "se",
            "southwest" => "sw",
            other => other,
        })
        .collect();
    let number = letter.bytes().next().map_or(1, |b| b.saturating_sub(b'a') + 1);
    format!("{short}-az{number}")
}

pub(crate) async fn describe_availability_zones(
    _ec2: &Ec2,
    ctx: &Context,
    input: DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResult, Fault> {
    ctx.authorise("ec2:DescribeAvailabilityZones", "*")?;
    stop_if_dry(input.dry_run)?;
    let mut zones = Vec::new();
    for (letter, _) in DEFAULT_SUBNETS {
        let name = format!("{}{letter}", ctx.region);
        let id = zone_id(&name);
        let named = |list: &Option<Vec<String>>, value: &String| {
            list.as_ref().is_none_or(|list| list.is_empty() || list.contains(value))
        };
        let passes = passes(input.filters.as_ref(), |filter| match filter {
            "zone-name" => Some(vec![name.clone()]),
            "zone-id" => Some(vec![id.clone()]),
            "region-name" | "group-name" => Some(vec![ctx.region.clone()]),
            "state" => Some(vec!["available".to_owned()]),
            "zone-type" => Some(vec!["availability-zone".to_owned()]),
            "opt-in-status" => Some(vec!["opt-in-not-required".to_owned()]),
            _ => None,
        })?;
        if passes && named(&input.zone_names, &name) && named(&input.zone_ids, &id) {
            zones.push(AvailabilityZone {
                opt_in_status: Some(AvailabilityZoneOptInStatus::OptInNotRequired),
                messages: Some(Vec::new()),
                region_name: Some(ctx.region.clone()),
                zone_name: Some(name),
                zone_id: Some(id),
                group_name: Some(ctx.region.clone()),
                network_border_group: Some(ctx.region.clone()),
                zone_type: Some("availability-zone".to_owned()),
                state: Some(AvailabilityZoneState::Available),
                ..AvailabilityZone::default()
            });
        }
    }
    Ok(DescribeAvailabilityZonesResult { availability_zones: Some(zones) })
}
