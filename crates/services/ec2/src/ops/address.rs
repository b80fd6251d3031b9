//! Elastic IP addresses. They are the machine's own, from the block that its network was given.

use super::{
    filter::{passes, tag_values},
    listing::stop_if_dry,
    tag::{self, NO_ADDRESS},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{Address as Record, NatGateway, NetworkInterface},
};
use std::{collections::BTreeSet, net::Ipv4Addr};
use store::Snapshot;
use wire::{Context, Fault};

/// The most addresses of an account in a region, AWS's quota.
const MOST_ADDRESSES: usize = 5;

pub(crate) async fn allocate_address(
    ec2: &Ec2,
    ctx: &Context,
    input: AllocateAddressRequest,
) -> Result<AllocateAddressResult, Fault> {
    ctx.authorise("ec2:AllocateAddress", &ctx.arn("ec2", "elastic-ip/*"))?;
    stop_if_dry(input.dry_run)?;
    if input.domain == Some(DomainType::Standard) {
        return Err(faults::invalid("EC2-Classic is gone; the domain must be vpc"));
    }
    let (realm, id) = (ctx.realm(), ec2.id("eipalloc"));
    let (tags, pool) = (tag::read(input.tag_specifications)?, ec2.network().public_addresses());
    let write = ec2.store.write(move |tx| {
        let own = tx.scan_prefix::<Record>(&format!("{realm}/")).count();
        if own >= MOST_ADDRESSES {
            let message = "The maximum number of addresses has been reached.";
            return Err(faults::of("AddressLimitExceeded", message));
        }
        let mut taken: BTreeSet<Ipv4Addr> =
            tx.scan::<NetworkInterface>().filter_map(|interface| interface.public_ip).collect();
        taken.extend(tx.scan::<Record>().map(|address| address.ip));
        let mut free = pool.filter(|address| !taken.contains(address));
        let ip = free.next().ok_or_else(|| {
            faults::of("InsufficientAddressCapacity", "There are no free addresses.")
        })?;
        let record = Record { realm, id, ip, tags };
        tx.put(record.clone());
        Ok(record)
    });
    let made = write.await?;
    Ok(AllocateAddressResult {
        allocation_id: Some(made.id),
        domain: Some(DomainType::Vpc),
        public_ip: Some(made.ip.to_string()),
        network_border_group: Some(ctx.region.clone()),
        public_ipv4_pool: Some("amazon".to_owned()),
        ..AllocateAddressResult::default()
    })
}

fn user(snapshot: &Snapshot, record: &Record) -> Option<std::sync::Arc<NatGateway>> {
    let mut gateways = snapshot.scan_prefix::<NatGateway>(&format!("{}/", record.realm));
    gateways.find(|gateway| gateway.allocation == record.id && gateway.deleted.is_none())
}

pub(crate) async fn release_address(
    ec2: &Ec2,
    ctx: &Context,
    input: ReleaseAddressRequest,
) -> Result<(), Fault> {
    let id = input.allocation_id.ok_or_else(|| faults::missing("AllocationId"))?;
    ctx.authorise("ec2:ReleaseAddress", &ctx.arn("ec2", format!("elastic-ip/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let address = tag::find::<Record>(tx, &realm, &id, NO_ADDRESS)?;
        let mut gateways = tx.scan_prefix::<NatGateway>(&format!("{realm}/"));
        if gateways.any(|gateway| gateway.allocation == id && gateway.deleted.is_none()) {
            let message = format!("Address {} is in use.", address.ip);
            return Err(faults::of("InvalidIPAddress.InUse", message));
        }
        drop(gateways);
        tx.delete::<Record>(&format!("{realm}/{id}"));
        Ok(())
    });
    write.await
}

pub(crate) async fn describe_addresses(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeAddressesRequest,
) -> Result<DescribeAddressesResult, Fault> {
    ctx.authorise("ec2:DescribeAddresses", "*")?;
    stop_if_dry(input.dry_run)?;
    let snapshot = ec2.store.read();
    let wanted = input.allocation_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_ADDRESS)?;
    }
    let ips = input.public_ips.unwrap_or_default();
    let mut addresses = Vec::new();
    for record in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let ip = record.ip.to_string();
        let passes = passes(input.filters.as_ref(), |name| match name {
            "allocation-id" => Some(vec![record.id.clone()]),
            "public-ip" => Some(vec![ip.clone()]),
            "domain" => Some(vec!["vpc".to_owned()]),
            name => tag_values(name, &record.tags),
        })?;
        let chosen = wanted.is_empty() || wanted.contains(&record.id);
        if passes && chosen && (ips.is_empty() || ips.contains(&ip)) {
            let user = user(&snapshot, &record);
            addresses.push(Address {
                allocation_id: Some(record.id.clone()),
                association_id: user.as_ref().map(|nat| nat.id.replace("nat-", "eipassoc-")),
                domain: Some(DomainType::Vpc),
                network_interface_id: user.as_ref().map(|nat| nat.eni.clone()),
                private_ip_address: user.as_ref().map(|nat| nat.ip.to_string()),
                public_ip: Some(ip),
                network_border_group: Some(ctx.region.clone()),
                public_ipv4_pool: Some("amazon".to_owned()),
                tags: tag::told(&record.tags),
                ..Address::default()
            });
        }
    }
    Ok(DescribeAddressesResult { addresses: Some(addresses) })
}
