//! Mount targets: where the tasks of an availability zone find a file system. The security groups of each say who does.

use super::{access_point, file_system, id, mount_target, page};
use crate::{
    Efs,
    api::*,
    faults,
    model::{FileSystem, MountTarget},
};
use ec2::{InterfaceError, InterfaceRequest};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// Security groups of a mount target.
const MOST_GROUPS: usize = 5;

fn described(target: &MountTarget) -> MountTargetDescription {
    let (account, _) = target.realm.split_once('/').unwrap_or_default();
    MountTargetDescription {
        owner_id: Some(account.to_owned()),
        mount_target_id: Some(target.id.clone()),
        file_system_id: Some(target.file_system.clone()),
        subnet_id: Some(target.subnet.clone()),
        life_cycle_state: Some(LifeCycleState::Available),
        ip_address: Some(target.ip.clone()),
        ipv6_address: None,
        network_interface_id: Some(target.interface.clone()),
        availability_zone_id: Some(ec2::zone_id(&target.zone)),
        availability_zone_name: Some(target.zone.clone()),
        vpc_id: Some(target.vpc.clone()),
    }
}

fn failed(error: InterfaceError) -> Fault {
    match error {
        InterfaceError::NoSubnet(id) => {
            Fault::new("SubnetNotFound", format!("The subnet ID '{id}' does not exist"))
        }
        InterfaceError::NoGroup(id) => {
            Fault::new("SecurityGroupNotFound", format!("The security group '{id}' does not exist"))
        }
        InterfaceError::Full => {
            Fault::new("NoFreeAddressesInSubnet", "The subnet has no free addresses").status(409)
        }
        other => faults::failed(&other),
    }
}

fn check_groups(groups: Option<&Vec<String>>) -> Result<(), Fault> {
    match groups.is_some_and(|groups| groups.len() > MOST_GROUPS) {
        true => Err(Fault::new(
            "SecurityGroupLimitExceeded",
            "A mount target has at most 5 security groups",
        )),
        false => Ok(()),
    }
}

pub(crate) async fn create_mount_target(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: CreateMountTargetRequest,
) -> Result<MountTargetDescription, Fault> {
    let file_system_id = id(&input.file_system_id).to_owned();
    let arn = FileSystem::arn_of(&ctx.realm(), &file_system_id);
    ctx.authorise("elasticfilesystem:CreateMountTarget", &arn)?;
    check_groups(input.security_groups.as_ref())?;
    if input.ip_address_type.is_some_and(|kind| kind != IpAddressType::Ipv4Only) {
        return Err(faults::bad("Neargate's addresses are IPv4: IpAddressType must be IPV4_ONLY."));
    }
    let found = file_system(&efs.store.read(), ctx, &file_system_id)?;
    let target_id = format!("fsmt-{}", efs.world.hex(17));
    let request = InterfaceRequest {
        realm: ctx.realm(),
        subnets: vec![input.subnet_id],
        groups: input.security_groups.unwrap_or_default(),
        public: false,
        description: format!("EFS mount target for {file_system_id} ({target_id})"),
    };
    let interface = efs.ec2.create_interface(request).await.map_err(failed)?;
    let target = MountTarget {
        realm: ctx.realm(),
        id: target_id,
        file_system: file_system_id,
        subnet: interface.subnet.clone(),
        vpc: interface.vpc.clone(),
        zone: interface.zone.clone(),
        interface: interface.id.clone(),
        ip: interface.ip.to_string(),
    };
    let (record, context) = (target.clone(), ctx.clone());
    let written = efs.store.write(move |tx| {
        file_system(tx, &context, &record.file_system)?;
        let all = tx.scan_prefix::<MountTarget>(&format!("{}/", record.realm));
        for other in all.filter(|other| other.file_system == record.file_system) {
            if other.vpc != record.vpc {
                return Err(faults::mount_target_conflict(
                    "requested subnet for new mount target is not in the same VPC as existing mount targets",
                ));
            }
            if other.zone == record.zone {
                return Err(faults::mount_target_conflict("mount target already exists in this AZ"));
            }
        }
        if found.zone.as_ref().is_some_and(|zone| *zone != record.zone) {
            let message = "The subnet is not in the Availability Zone of the One Zone file system";
            return Err(Fault::new("AvailabilityZonesMismatch", message));
        }
        tx.put(record);
        Ok(())
    });
    if let Err(fault) = written.await {
        let gone = efs.ec2.delete_interface(&ctx.realm(), &interface.id).await;
        gone.map_err(|error| faults::failed(&error))?;
        return Err(fault);
    }
    Ok(described(&target))
}

pub(crate) async fn describe_mount_targets(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeMountTargetsRequest,
) -> Result<DescribeMountTargetsResponse, Fault> {
    let snapshot = efs.store.read();
    let (wanted, of) = match (&input.mount_target_id, &input.file_system_id, &input.access_point_id)
    {
        (Some(target), None, None) => {
            ctx.authorise(
                "elasticfilesystem:DescribeMountTargets",
                &MountTarget::arn_of(&ctx.realm(), target),
            )?;
            let target = mount_target(&snapshot, ctx, target)?;
            (Some(target.id.clone()), target.file_system.clone())
        }
        (None, Some(of), None) => {
            let arn = FileSystem::arn_of(&ctx.realm(), id(of));
            ctx.authorise("elasticfilesystem:DescribeMountTargets", &arn)?;
            (None, file_system(&snapshot, ctx, of)?.id.clone())
        }
        (None, None, Some(point)) => {
            let arn = crate::model::AccessPoint::arn_of(&ctx.realm(), id(point));
            ctx.authorise("elasticfilesystem:DescribeMountTargets", &arn)?;
            (None, access_point(&snapshot, ctx, point)?.file_system.clone())
        }
        _ => {
            ctx.authorise("elasticfilesystem:DescribeMountTargets", "*")?;
            return Err(faults::bad(
                "You must specify exactly one of the following mutually exclusive parameters: FileSystemId, \
                 MountTargetId, AccessPointId",
            ));
        }
    };
    let all = snapshot.scan_prefix::<MountTarget>(&format!("{}/", ctx.realm()));
    let fits = |target: &Arc<MountTarget>| {
        target.file_system == of && wanted.as_ref().is_none_or(|id| target.id == *id)
    };
    let listed = all.filter(fits).map(|target| (target.key(), described(&target)));
    let (mount_targets, next_marker) =
        page("mount targets", input.marker.as_deref(), input.max_items, listed)?;
    Ok(DescribeMountTargetsResponse { marker: input.marker, mount_targets, next_marker })
}

pub(crate) async fn delete_mount_target(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DeleteMountTargetRequest,
) -> Result<(), Fault> {
    let arn = MountTarget::arn_of(&ctx.realm(), &input.mount_target_id);
    ctx.authorise("elasticfilesystem:DeleteMountTarget", &arn)?;
    let target = mount_target(&efs.store.read(), ctx, &input.mount_target_id)?;
    // The interface first: with its record gone nobody would know of it.
    efs.ec2
        .delete_interface(&target.realm, &target.interface)
        .await
        .map_err(|error| faults::failed(&error))?;
    let key = target.key();
    let write = efs.store.write(move |tx| {
        tx.delete::<MountTarget>(&key);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn describe_mount_target_security_groups(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeMountTargetSecurityGroupsRequest,
) -> Result<DescribeMountTargetSecurityGroupsResponse, Fault> {
    let arn = MountTarget::arn_of(&ctx.realm(), &input.mount_target_id);
    ctx.authorise("elasticfilesystem:DescribeMountTargetSecurityGroups", &arn)?;
    let target = mount_target(&efs.store.read(), ctx, &input.mount_target_id)?;
    let interface = efs.ec2.interface(&target.realm, &target.interface);
    let groups = interface.map(|interface| interface.groups.clone()).unwrap_or_default();
    Ok(DescribeMountTargetSecurityGroupsResponse { security_groups: Some(groups) })
}

pub(crate) async fn modify_mount_target_security_groups(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: ModifyMountTargetSecurityGroupsRequest,
) -> Result<(), Fault> {
    let arn = MountTarget::arn_of(&ctx.realm(), &input.mount_target_id);
    ctx.authorise("elasticfilesystem:ModifyMountTargetSecurityGroups", &arn)?;
    check_groups(input.security_groups.as_ref())?;
    let target = mount_target(&efs.store.read(), ctx, &input.mount_target_id)?;
    let groups = input.security_groups.unwrap_or_default();
    if groups.is_empty() {
        return Err(faults::bad("A mount target needs a security group."));
    }
    efs.ec2.check_network(&target.realm, &[], &groups).map_err(failed)?;
    let Some(interface) = efs.ec2.interface(&target.realm, &target.interface) else {
        return Err(faults::no_mount_target(&target.id));
    };
    efs.ec2.set_interface_groups(&interface, &groups).await.map(drop).map_err(failed)
}
