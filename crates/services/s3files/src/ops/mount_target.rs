//! Mount targets: where the tasks of an availability zone find a file system. The security groups of each say who does.

use super::{access_point, file_system, may, mount_target, owner, page};
use crate::{S3Files, api::*, faults, model::MountTarget};
use ec2::{InterfaceError, InterfaceRequest};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// The same members, in an answer of any of these names.
macro_rules! described {
    ($answer:ident, $service:expr, $target:expr) => {
        $answer {
            availability_zone_id: Some(ec2::zone_id(&$target.zone)),
            owner_id: owner(&$target.realm),
            mount_target_id: Some($target.id.clone()),
            file_system_id: Some($target.file_system.clone()),
            subnet_id: Some($target.subnet.clone()),
            ipv4_address: Some($target.ip.clone()),
            ipv6_address: None,
            network_interface_id: Some($target.interface.clone()),
            vpc_id: Some($target.vpc.clone()),
            security_groups: Some(groups($service, &$target)),
            status: Some(LifeCycleState::Available),
            status_message: None,
        }
    };
}

fn groups(service: &S3Files, target: &MountTarget) -> Vec<String> {
    let interface = service.ec2.interface(&target.realm, &target.interface);
    interface.map(|interface| interface.groups.clone()).unwrap_or_default()
}

fn failed(error: InterfaceError) -> Fault {
    match error {
        InterfaceError::NoSubnet(_) | InterfaceError::NoGroup(_) => {
            faults::invalid(error.to_string())
        }
        InterfaceError::Full => faults::quota("The subnet has no free addresses."),
        other => faults::failed(&other),
    }
}

pub(crate) async fn create_mount_target(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: CreateMountTargetRequest,
) -> Result<CreateMountTargetResponse, Fault> {
    may(ctx, "CreateMountTarget", &input.file_system_id)?;
    if input.ip_address_type.is_some_and(|kind| kind != IpAddressType::Ipv4Only) {
        return Err(faults::invalid(
            "Neargate's addresses are IPv4: ipAddressType must be IPV4_ONLY.",
        ));
    }
    let of = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    let target_id = format!("fsmt-{}", service.world.hex(17));
    let request = InterfaceRequest {
        realm: ctx.realm(),
        subnets: vec![input.subnet_id],
        groups: input.security_groups.unwrap_or_default(),
        public: false,
        description: format!("S3 Files mount target for {} ({target_id})", of.id),
    };
    let interface = service.ec2.create_interface(request).await.map_err(failed)?;
    let target = MountTarget {
        realm: ctx.realm(),
        id: target_id,
        file_system: of.id.clone(),
        subnet: interface.subnet.clone(),
        vpc: interface.vpc.clone(),
        zone: interface.zone.clone(),
        interface: interface.id.clone(),
        ip: interface.ip.to_string(),
    };
    let (record, context) = (target.clone(), ctx.clone());
    let written = service.store.write(move |tx| {
        file_system(tx, &context, &record.file_system)?;
        let all = tx.scan_prefix::<MountTarget>(&format!("{}/", record.realm));
        for other in all.filter(|other| other.file_system == record.file_system) {
            let conflict = match (other.vpc != record.vpc, other.zone == record.zone) {
                (true, _) => "The file system has mount targets in another VPC.",
                (_, true) => "The file system has a mount target in this Availability Zone.",
                _ => continue,
            };
            let message = conflict.to_owned();
            return Err(faults::conflict("MountTargetConflict", message, &other.id, "MountTarget"));
        }
        tx.put(record);
        Ok(())
    });
    if let Err(fault) = written.await {
        let gone = service.ec2.delete_interface(&ctx.realm(), &interface.id).await;
        gone.map_err(|error| faults::failed(&error))?;
        return Err(fault);
    }
    Ok(described!(CreateMountTargetResponse, service, target))
}

/// Finds a mount target for whoever may do `action` with its file system: it has no ARN.
fn found(
    service: &S3Files,
    ctx: &Context,
    action: &str,
    given: &str,
) -> Result<Arc<MountTarget>, Fault> {
    let found = mount_target(&service.store.read(), ctx, given);
    match &found {
        Ok(target) => may(ctx, action, &target.file_system)?,
        Err(_) => ctx.authorise(&format!("s3files:{action}"), "*")?,
    }
    found
}

pub(crate) async fn get_mount_target(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: GetMountTargetRequest,
) -> Result<GetMountTargetResponse, Fault> {
    let target = found(service, ctx, "GetMountTarget", &input.mount_target_id)?;
    Ok(described!(GetMountTargetResponse, service, target))
}

pub(crate) async fn list_mount_targets(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: ListMountTargetsRequest,
) -> Result<ListMountTargetsResponse, Fault> {
    let snapshot = service.store.read();
    let of = match (&input.file_system_id, &input.access_point_id) {
        (Some(given), _) => {
            may(ctx, "ListMountTargets", given)?;
            Some(file_system(&snapshot, ctx, given)?.id.clone())
        }
        (None, Some(given)) => {
            let point = access_point(&snapshot, ctx, given);
            let arn = point.as_ref().map_or_else(|_| "*".to_owned(), |point| point.arn());
            ctx.authorise("s3files:ListMountTargets", &arn)?;
            Some(point?.file_system.clone())
        }
        (None, None) => {
            ctx.authorise("s3files:ListMountTargets", "*")?;
            None
        }
    };
    let all = snapshot.scan_prefix::<MountTarget>(&format!("{}/", ctx.realm()));
    let fits = |target: &Arc<MountTarget>| of.as_ref().is_none_or(|of| target.file_system == *of);
    let listed = all.filter(fits).map(|target| {
        let described = ListMountTargetsDescription {
            availability_zone_id: Some(ec2::zone_id(&target.zone)),
            file_system_id: Some(target.file_system.clone()),
            ipv4_address: Some(target.ip.clone()),
            ipv6_address: None,
            status: Some(LifeCycleState::Available),
            status_message: None,
            mount_target_id: Some(target.id.clone()),
            network_interface_id: Some(target.interface.clone()),
            owner_id: owner(&target.realm),
            subnet_id: Some(target.subnet.clone()),
            vpc_id: Some(target.vpc.clone()),
        };
        (target.key(), described)
    });
    let token = input.next_token.as_deref();
    let (mount_targets, next_token) = page("mount targets", token, input.max_results, listed)?;
    Ok(ListMountTargetsResponse { next_token, mount_targets: Some(mount_targets) })
}

pub(crate) async fn update_mount_target(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: UpdateMountTargetRequest,
) -> Result<UpdateMountTargetResponse, Fault> {
    let target = found(service, ctx, "UpdateMountTarget", &input.mount_target_id)?;
    if input.security_groups.is_empty() {
        return Err(faults::invalid("A mount target needs a security group."));
    }
    service.ec2.check_network(&target.realm, &[], &input.security_groups).map_err(failed)?;
    let Some(interface) = service.ec2.interface(&target.realm, &target.interface) else {
        return Err(faults::no_mount_target(&target.id));
    };
    let set = service.ec2.set_interface_groups(&interface, &input.security_groups).await;
    set.map_err(failed)?;
    Ok(described!(UpdateMountTargetResponse, service, target))
}

pub(crate) async fn delete_mount_target(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: DeleteMountTargetRequest,
) -> Result<(), Fault> {
    let target = found(service, ctx, "DeleteMountTarget", &input.mount_target_id)?;
    // The interface first: with its record gone nobody would know of it.
    let gone = service.ec2.delete_interface(&target.realm, &target.interface).await;
    gone.map_err(|error| faults::failed(&error))?;
    let key = target.key();
    let write = service.store.write(move |tx| {
        tx.delete::<MountTarget>(&key);
        Ok::<_, Fault>(())
    });
    write.await
}
