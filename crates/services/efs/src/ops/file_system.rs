//! File systems.

use super::{file_system, id, page, tags_in, tags_out};
use crate::{
    Efs,
    api::*,
    faults,
    model::{AccessPoint, FileSystem, MountTarget},
};
use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    sync::Arc,
};
use store::{Record, Snapshot};
use wire::{Context, Fault};

/// File systems of an account in a region.
const MOST: usize = 1000;

async fn described(
    efs: &Arc<Efs>,
    snapshot: &Snapshot,
    found: &FileSystem,
) -> Result<FileSystemDescription, Fault> {
    let targets = snapshot.scan_prefix::<MountTarget>(&format!("{}/", found.realm));
    let targets = targets.filter(|target| target.file_system == found.id).count();
    let (service, id, now) = (efs.clone(), found.id.clone(), efs.world.now());
    let metered =
        tokio::task::spawn_blocking(move || service.sizes.of(&id, &service.place(&id), now));
    let (at, bytes) = metered.await.map_err(|error| faults::failed(&error))?;
    let (account, _) = found.realm.split_once('/').unwrap_or_default();
    Ok(FileSystemDescription {
        owner_id: Some(account.to_owned()),
        creation_token: Some(found.token.clone()),
        file_system_id: Some(found.id.clone()),
        file_system_arn: Some(found.arn()),
        creation_time: Some(found.created),
        life_cycle_state: Some(LifeCycleState::Available),
        name: found.tags.get("Name").cloned(),
        number_of_mount_targets: i32::try_from(targets).ok(),
        size_in_bytes: Some(FileSystemSize {
            value: Some(bytes),
            timestamp: Some(at),
            value_in_ia: Some(0),
            value_in_standard: Some(bytes),
            value_in_archive: Some(0),
        }),
        performance_mode: Some(found.performance),
        encrypted: Some(found.encrypted),
        throughput_mode: Some(found.throughput),
        provisioned_throughput_in_mibps: found.provisioned,
        availability_zone_name: found.zone.clone(),
        availability_zone_id: found.zone.as_deref().map(ec2::zone_id),
        tags: tags_out(&found.tags),
        file_system_protection: Some(FileSystemProtectionDescription {
            replication_overwrite_protection: Some(ReplicationOverwriteProtection::Enabled),
        }),
        kms_key_id: None,
    })
}

fn check_throughput(mode: ThroughputMode, provisioned: Option<f64>) -> Result<(), Fault> {
    match (mode, provisioned) {
        (ThroughputMode::Provisioned, None) => Err(faults::bad(
            "ProvisionedThroughputInMibps is required for throughput mode provisioned",
        )),
        (ThroughputMode::Bursting | ThroughputMode::Elastic, Some(_)) => {
            Err(faults::bad("ProvisionedThroughputInMibps is only for throughput mode provisioned"))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn create_file_system(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: CreateFileSystemRequest,
) -> Result<FileSystemDescription, Fault> {
    ctx.authorise("elasticfilesystem:CreateFileSystem", "*")?;
    if input.backup == Some(true) {
        return Err(faults::bad(
            "Neargate has no AWS Backup: Backup must be false or be left out.",
        ));
    }
    let throughput = input.throughput_mode.unwrap_or(ThroughputMode::Bursting);
    check_throughput(throughput, input.provisioned_throughput_in_mibps)?;
    let performance = input.performance_mode.unwrap_or(PerformanceMode::GeneralPurpose);
    if let Some(zone) = &input.availability_zone_name
        && zone.strip_prefix(&ctx.region).is_none_or(|letter| !matches!(letter, "a" | "b" | "c"))
    {
        let message = format!("The Availability Zone {zone} is not supported");
        return Err(Fault::new("UnsupportedAvailabilityZone", message));
    }
    let made = FileSystem {
        realm: ctx.realm(),
        id: format!("fs-{}", efs.world.hex(17)),
        token: input.creation_token,
        performance,
        throughput,
        provisioned: input.provisioned_throughput_in_mibps,
        zone: input.availability_zone_name,
        encrypted: input.encrypted.unwrap_or(false),
        lifecycle: Vec::new(),
        policy: None,
        tags: tags_in(input.tags)?,
        created: ctx.now,
    };
    // The directory first: a record of a file system that is not there would be worse than a directory too many.
    let place = efs.place(&made.id);
    let new = place.clone();
    let directory = tokio::task::spawn_blocking(move || {
        let parent = new.parent().unwrap_or(&new);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        std::fs::create_dir(&new)?;
        // Root's, as on EFS.
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        std::fs::File::open(parent)?.sync_all()
    });
    directory.await.map_err(|e| faults::failed(&e))?.map_err(|e| faults::failed(&e))?;
    let record = made.clone();
    let written = efs.store.write(move |tx| {
        let all: Vec<_> = tx.scan_prefix::<FileSystem>(&format!("{}/", record.realm)).collect();
        if let Some(other) = all.iter().find(|other| other.token == record.token) {
            return Err(faults::file_system_exists(&other.id, &other.token));
        }
        if all.len() >= MOST {
            return Err(faults::limit(
                "FileSystemLimitExceeded",
                "You have reached the maximum number of file systems.",
            ));
        }
        tx.put(record);
        Ok(())
    });
    if let Err(fault) = written.await {
        if let Err(error) = std::fs::remove_dir(&place) {
            tracing::warn!(%error, "a directory that became no file system is left; the next start takes it away");
        }
        return Err(fault);
    }
    described(efs, &efs.store.read(), &made).await
}

pub(crate) async fn describe_file_systems(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeFileSystemsRequest,
) -> Result<DescribeFileSystemsResponse, Fault> {
    let wanted = input.file_system_id.as_deref().map(id);
    let arn = wanted.map_or_else(|| "*".to_owned(), |id| FileSystem::arn_of(&ctx.realm(), id));
    ctx.authorise("elasticfilesystem:DescribeFileSystems", &arn)?;
    let snapshot = efs.store.read();
    if let Some(id) = wanted {
        file_system(&snapshot, ctx, id)?;
    }
    let all = snapshot.scan_prefix::<FileSystem>(&format!("{}/", ctx.realm()));
    let fits = |found: &Arc<FileSystem>| {
        wanted.is_none_or(|id| found.id == id)
            && input.creation_token.as_ref().is_none_or(|token| found.token == *token)
    };
    let listed = all.filter(fits).map(|found| (found.key(), found));
    let (found, next_marker) =
        page("file systems", input.marker.as_deref(), input.max_items, listed)?;
    let mut file_systems = Vec::new();
    for found in found.into_iter().flatten() {
        file_systems.push(described(efs, &snapshot, &found).await?);
    }
    Ok(DescribeFileSystemsResponse {
        marker: input.marker,
        file_systems: Some(file_systems),
        next_marker,
    })
}

pub(crate) async fn update_file_system(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: UpdateFileSystemRequest,
) -> Result<FileSystemDescription, Fault> {
    let arn = FileSystem::arn_of(&ctx.realm(), id(&input.file_system_id));
    ctx.authorise("elasticfilesystem:UpdateFileSystem", &arn)?;
    let ctx = ctx.clone();
    let changed = efs.store.write(move |tx| {
        let found = file_system(tx, &ctx, &input.file_system_id)?;
        let mut changed = FileSystem::clone(&found);
        changed.throughput = input.throughput_mode.unwrap_or(changed.throughput);
        let provisioned = changed.throughput == ThroughputMode::Provisioned;
        let known = changed.provisioned.filter(|_| provisioned);
        changed.provisioned = input.provisioned_throughput_in_mibps.or(known);
        check_throughput(changed.throughput, changed.provisioned)?;
        tx.put(changed.clone());
        Ok::<_, Fault>(changed)
    });
    let changed = changed.await?;
    described(efs, &efs.store.read(), &changed).await
}

pub(crate) async fn delete_file_system(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DeleteFileSystemRequest,
) -> Result<(), Fault> {
    let id = id(&input.file_system_id).to_owned();
    ctx.authorise("elasticfilesystem:DeleteFileSystem", &FileSystem::arn_of(&ctx.realm(), &id))?;
    let (context, gone) = (ctx.clone(), id.clone());
    let write = efs.store.write(move |tx| {
        let found = file_system(tx, &context, &gone)?;
        let realm = format!("{}/", found.realm);
        if tx.scan_prefix::<MountTarget>(&realm).any(|target| target.file_system == gone) {
            let message =
                format!("The file system '{gone}' has mount targets and cannot be deleted.");
            return Err(faults::in_use(message));
        }
        let points = tx.scan_prefix::<AccessPoint>(&realm);
        let points: Vec<String> =
            points.filter(|p| p.file_system == gone).map(|p| p.key()).collect();
        for key in points {
            tx.delete::<AccessPoint>(&key);
        }
        tx.delete::<FileSystem>(&found.key());
        Ok(())
    });
    write.await?;
    efs.sizes.forget(&id);
    let (service, gone) = (efs.clone(), id.clone());
    let removed = tokio::task::spawn_blocking(move || service.remove(&gone));
    // It is gone for everybody; what is left of it on the disk is mostly taken away by the next start.
    match removed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(id, %error, "a deleted file system's files are left"),
        Err(error) => tracing::warn!(id, %error, "a deleted file system's files are left"),
    }
    Ok(())
}
