//! Network interfaces: ECS makes them for its tasks; here they are told.

use super::{
    availability_zone::zone_id,
    filter::passes,
    listing::{page, stop_if_dry},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{NetworkInterface as Record, SecurityGroup as Group},
};
use wire::{Context, Fault};

pub(crate) async fn describe_network_interfaces(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeNetworkInterfacesRequest,
) -> Result<DescribeNetworkInterfacesResult, Fault> {
    ctx.authorise("ec2:DescribeNetworkInterfaces", "*")?;
    stop_if_dry(input.dry_run)?;
    let snapshot = ec2.store.read();
    let wanted = input.network_interface_ids.unwrap_or_default();
    for id in &wanted {
        let known = snapshot.get::<Record>(&format!("{}/{id}", ctx.realm()));
        known.ok_or_else(|| {
            faults::not_found("InvalidNetworkInterfaceID.NotFound", "networkInterface", id)
        })?;
    }
    let mut interfaces = Vec::new();
    for interface in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "network-interface-id" => Some(vec![interface.id.clone()]),
            "vpc-id" => Some(vec![interface.vpc.clone()]),
            "subnet-id" => Some(vec![interface.subnet.clone()]),
            "availability-zone" => Some(vec![interface.zone.clone()]),
            "group-id" => Some(interface.groups.clone()),
            "private-ip-address" | "addresses.private-ip-address" => {
                Some(vec![interface.ip.to_string()])
            }
            "association.public-ip" | "addresses.association.public-ip" => {
                Some(interface.public_ip.iter().map(ToString::to_string).collect())
            }
            "mac-address" => Some(vec![interface.mac.clone()]),
            "description" => Some(vec![interface.description.clone()]),
            "status" => Some(vec!["in-use".to_owned()]),
            "interface-type" => Some(vec!["interface".to_owned()]),
            "requester-managed" => Some(vec!["true".to_owned()]),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            _ => None,
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&interface.id)) {
            interfaces.push((interface.id.clone(), answer(ec2, ctx, &interface)));
        }
    }
    let (network_interfaces, next_token) = page(
        "DescribeNetworkInterfaces",
        input.next_token.as_deref(),
        input.max_results,
        interfaces,
    )?;
    Ok(DescribeNetworkInterfacesResult { network_interfaces, next_token })
}

fn answer(ec2: &Ec2, ctx: &Context, interface: &Record) -> NetworkInterface {
    let snapshot = ec2.store.read();
    let groups = interface.groups.iter().map(|id| {
        let group = snapshot.get::<Group>(&format!("{}/{id}", interface.realm));
        GroupIdentifier {
            group_id: Some(id.clone()),
            group_name: group.map(|group| group.name.clone()),
        }
    });
    let association = interface.public_ip.map(|public_ip| NetworkInterfaceAssociation {
        ip_owner_id: Some("amazon".to_owned()),
        public_ip: Some(public_ip.to_string()),
        ..NetworkInterfaceAssociation::default()
    });
    let ip = interface.ip.to_string();
    NetworkInterface {
        association: association.clone(),
        attachment: Some(NetworkInterfaceAttachment {
            attach_time: Some(interface.created),
            attachment_id: Some(interface.attachment.clone()),
            delete_on_termination: Some(false),
            device_index: Some(1),
            network_card_index: Some(0),
            status: Some(AttachmentStatus::Attached),
            ..NetworkInterfaceAttachment::default()
        }),
        availability_zone: Some(interface.zone.clone()),
        availability_zone_id: Some(zone_id(&interface.zone)),
        description: Some(interface.description.clone()),
        groups: Some(groups.collect()),
        interface_type: Some(NetworkInterfaceType::Interface),
        mac_address: Some(interface.mac.clone()),
        network_interface_id: Some(interface.id.clone()),
        owner_id: Some(ctx.account().to_owned()),
        private_ip_address: Some(ip.clone()),
        private_ip_addresses: Some(vec![NetworkInterfacePrivateIpAddress {
            association,
            primary: Some(true),
            private_dns_name: None,
            private_ip_address: Some(ip),
        }]),
        requester_managed: Some(true),
        source_dest_check: Some(true),
        status: Some(NetworkInterfaceStatus::InUse),
        subnet_id: Some(interface.subnet.clone()),
        vpc_id: Some(interface.vpc.clone()),
        ..NetworkInterface::default()
    }
}
