//! Who may mount a file system; and what AWS does with its files in time, which is told and changes nothing here.

use super::{file_system, id};
use crate::{Efs, api::*, faults, model::FileSystem};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// Finds a file system for whoever may do `action` with it.
fn found(efs: &Efs, ctx: &Context, given: &str, action: &str) -> Result<Arc<FileSystem>, Fault> {
    let arn = FileSystem::arn_of(&ctx.realm(), id(given));
    ctx.authorise(&format!("elasticfilesystem:{action}"), &arn)?;
    file_system(&efs.store.read(), ctx, given)
}

async fn change(
    efs: &Efs,
    found: &FileSystem,
    change: impl FnOnce(&mut FileSystem) + Send + 'static,
) -> Result<(), Fault> {
    let key = found.key();
    let write = efs.store.write(move |tx| {
        tx.update::<FileSystem>(&key, change);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn put_file_system_policy(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: PutFileSystemPolicyRequest,
) -> Result<FileSystemPolicyDescription, Fault> {
    let found = found(efs, ctx, &input.file_system_id, "PutFileSystemPolicy")?;
    let policy = input.policy;
    efs.iam.check_resource_policy(&policy).map_err(|error| {
        Fault::new("InvalidPolicyException", format!("The policy is not valid: {error}"))
    })?;
    let new = policy.clone();
    change(efs, &found, move |file_system| file_system.policy = Some(new)).await?;
    Ok(FileSystemPolicyDescription { file_system_id: Some(found.id.clone()), policy: Some(policy) })
}

pub(crate) async fn describe_file_system_policy(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeFileSystemPolicyRequest,
) -> Result<FileSystemPolicyDescription, Fault> {
    let found = found(efs, ctx, &input.file_system_id, "DescribeFileSystemPolicy")?;
    let policy = found.policy.clone().ok_or_else(|| faults::no_policy(&found.id))?;
    Ok(FileSystemPolicyDescription { file_system_id: Some(found.id.clone()), policy: Some(policy) })
}

pub(crate) async fn delete_file_system_policy(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DeleteFileSystemPolicyRequest,
) -> Result<(), Fault> {
    let found = found(efs, ctx, &input.file_system_id, "DeleteFileSystemPolicy")?;
    change(efs, &found, |file_system| file_system.policy = None).await
}

pub(crate) async fn put_lifecycle_configuration(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: PutLifecycleConfigurationRequest,
) -> Result<LifecycleConfigurationDescription, Fault> {
    let found = found(efs, ctx, &input.file_system_id, "PutLifecycleConfiguration")?;
    let policies = input.lifecycle_policies;
    let one = |policy: &LifecyclePolicy| {
        let set = [
            policy.transition_to_ia.is_some(),
            policy.transition_to_primary_storage_class.is_some(),
            policy.transition_to_archive.is_some(),
        ];
        set.iter().filter(|set| **set).count() == 1
    };
    if !policies.iter().all(one) {
        return Err(faults::bad("Each lifecycle policy has exactly one transition."));
    }
    let new = policies.clone();
    change(efs, &found, move |file_system| file_system.lifecycle = new).await?;
    Ok(LifecycleConfigurationDescription { lifecycle_policies: Some(policies) })
}

pub(crate) async fn describe_lifecycle_configuration(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeLifecycleConfigurationRequest,
) -> Result<LifecycleConfigurationDescription, Fault> {
    let found = found(efs, ctx, &input.file_system_id, "DescribeLifecycleConfiguration")?;
    Ok(LifecycleConfigurationDescription { lifecycle_policies: Some(found.lifecycle.clone()) })
}

pub(crate) async fn put_backup_policy(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: PutBackupPolicyRequest,
) -> Result<BackupPolicyDescription, Fault> {
    found(efs, ctx, &input.file_system_id, "PutBackupPolicy")?;
    match input.backup_policy.status {
        Status::Disabled => Ok(BackupPolicyDescription {
            backup_policy: Some(BackupPolicy { status: Status::Disabled }),
        }),
        _ => Err(faults::bad("Neargate has no AWS Backup: the status must be DISABLED.")),
    }
}

pub(crate) async fn describe_backup_policy(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeBackupPolicyRequest,
) -> Result<BackupPolicyDescription, Fault> {
    found(efs, ctx, &input.file_system_id, "DescribeBackupPolicy")?;
    Ok(BackupPolicyDescription { backup_policy: Some(BackupPolicy { status: Status::Disabled }) })
}
