//! Where those volumes of a task come from that do not start empty and end with it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/efs-volumes.html>

use super::task::{SESSION, Trouble, failed};
use crate::{
    Ecs,
    api::{
        EFSAuthorizationConfigIAM, EFSVolumeConfiguration, S3FilesVolumeConfiguration,
        TaskFilesystemType,
    },
    endpoints,
    model::{Task, TaskDefinition, TaskVolume},
};
use ec2::model::NetworkInterface;
use runtime::{Actor, Directory, Filesystem, VolumeSource};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};
use wire::{Decision, Identity, Principal};

/// The volumes of a task that come from elsewhere.
#[derive(Default)]
pub(super) struct Volumes {
    /// Where each comes from, by name.
    pub(super) sources: BTreeMap<String, VolumeSource>,
    /// Which of them nobody may write.
    pub(super) read_only: BTreeSet<String>,
}

/// Finds them, with AWS's words for what cannot be had.
pub(super) async fn all(
    ecs: &Arc<Ecs>,
    task: &Task,
    definition: &TaskDefinition,
    interface: &Arc<NetworkInterface>,
) -> Result<Volumes, Trouble> {
    let mut all = Volumes::default();
    for volume in definition.document.volumes.iter().flatten() {
        let name = volume.name.clone().unwrap_or_default();
        let mounted = match (&volume.efs_volume_configuration, &volume.s3files_volume_configuration)
        {
            (Some(efs), _) => shared(ecs, task, definition, efs, interface).await?,
            (None, Some(files)) => bucket(ecs, task, definition, files, interface).await?,
            (None, None) => continue,
        };
        if !mounted.writable {
            all.read_only.insert(name.clone());
        }
        all.sources.insert(name, source(mounted)?);
    }
    for volume in &task.volumes {
        let disk = disk(ecs, task, volume, &interface.zone).await?;
        all.sources.insert(volume.name.clone(), disk);
    }
    Ok(all)
}

/// Makes an EBS volume. What is there already, from before a crash, is kept.
async fn disk(
    ecs: &Arc<Ecs>,
    task: &Task,
    volume: &TaskVolume,
    zone: &str,
) -> Result<VolumeSource, Trouble> {
    let asked = &volume.configuration;
    let unmade = |reason: &str| {
        failed(format!(
            "ResourceInitializationError: failed to create the EBS volume {}: {reason}",
            volume.id
        ))
    };
    may_make(ecs, task, volume).map_err(|reason| unmade(&reason))?;
    let kind = asked.volume_type.clone().unwrap_or_else(|| "gp3".to_owned());
    let gp3 = kind == "gp3";
    let size_gib = asked.size_in_gi_b.unwrap_or_default();
    ecs.ec2
        .put_volume(ec2::model::Volume {
            realm: task.realm.clone(),
            id: volume.id.clone(),
            size_gib,
            iops: asked.iops.or(gp3.then_some(3_000)),
            throughput: asked.throughput.or(gp3.then_some(125)),
            kind,
            encrypted: asked.encrypted.unwrap_or(false),
            zone: zone.to_owned(),
            task: Some(task.arn()),
            delete_on_termination: volume.ends(),
            tags: volume.tags.clone(),
            created: task.created_at,
        })
        .await?;
    let filesystem = match asked.filesystem_type {
        Some(TaskFilesystemType::Ext3) => Filesystem::Ext3,
        Some(TaskFilesystemType::Ext4) => Filesystem::Ext4,
        None | Some(TaskFilesystemType::Xfs) => Filesystem::Xfs,
        Some(other) => return Err(unmade(&format!("there is no {} here", other.as_str()))),
    };
    let image = ecs.ec2.volume_file(&volume.id);
    let (file, fresh) = (image.clone(), ecs.ec2.unmade_volume_file(&volume.id));
    let bytes = u64::from(size_gib.unsigned_abs()) << 30;
    let made = tokio::task::spawn_blocking(move || make(&file, &fresh, bytes, filesystem)).await;
    made.map_err(|error| unmade(&error.to_string()))?
        .map_err(|error| unmade(&error.to_string()))?;
    Ok(VolumeSource::Disk { image, filesystem })
}

/// Whether the infrastructure role that was named lets ECS make the volume.
fn may_make(ecs: &Ecs, task: &Task, volume: &TaskVolume) -> Result<(), String> {
    let role = &volume.configuration.role_arn;
    let session = ecs.iam.assume_for_service(role, "ecs.amazonaws.com", &task.id, SESSION);
    let session = session.map_err(|_| format!("ECS was unable to assume the role '{role}'"))?;
    let (account, region) = task.realm.split_once('/').unwrap_or_default();
    let arn = format!("arn:aws:ec2:{region}:{account}:volume/{}", volume.id);
    match ecs.iam.decide(&session.principal, "ec2:CreateVolume", &arn, &[]) {
        Decision::Allow => Ok(()),
        _ => {
            Err(format!("the role '{role}' is not authorized to perform ec2:CreateVolume on {arn}"))
        }
    }
}

/// Never seen half made.
fn make(image: &Path, fresh: &Path, bytes: u64, filesystem: Filesystem) -> io::Result<()> {
    if image.exists() {
        return Ok(());
    }
    if let Some(directory) = image.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    runtime::make_disk(fresh, bytes, filesystem)?;
    std::fs::rename(fresh, image)
}

/// Lets go of a task's EBS volumes, once nothing of it uses them any more.
pub(super) async fn release(ecs: &Ecs, task: &Task) -> Result<(), Trouble> {
    for volume in &task.volumes {
        ecs.ec2.release_volume(&task.realm, &volume.id, volume.ends()).await?;
    }
    Ok(())
}

async fn shared(
    ecs: &Arc<Ecs>,
    task: &Task,
    definition: &TaskDefinition,
    efs: &EFSVolumeConfiguration,
    interface: &Arc<NetworkInterface>,
) -> Result<efs::Mounted, Trouble> {
    let authorization = efs.authorization_config.clone().unwrap_or_default();
    let principal = match authorization.iam {
        Some(EFSAuthorizationConfigIAM::Enabled) => Some(task_role(ecs, task, definition)?),
        _ => None,
    };
    let (service, realm, interface) = (ecs.efs.clone(), task.realm.clone(), interface.clone());
    let (id, root) = (efs.file_system_id.clone(), efs.root_directory.clone());
    let mount = move || {
        service.mount(&efs::Wanted {
            realm: &realm,
            file_system: &id,
            root: root.as_deref().unwrap_or("/"),
            access_point: authorization.access_point_id.as_deref(),
            principal: principal.as_ref(),
            interface: &interface,
        })
    };
    let mounted = tokio::task::spawn_blocking(mount).await;
    let mounted = mounted.unwrap_or_else(|error| Err(error.to_string()));
    mounted.map_err(|reason| failed(unsuccessful(&reason)))
}

async fn bucket(
    ecs: &Arc<Ecs>,
    task: &Task,
    definition: &TaskDefinition,
    files: &S3FilesVolumeConfiguration,
    interface: &Arc<NetworkInterface>,
) -> Result<efs::Mounted, Trouble> {
    let principal = task_role(ecs, task, definition)?;
    let wanted = s3files::Wanted {
        realm: &task.realm,
        file_system: &files.file_system_arn,
        root: files.root_directory.as_deref().unwrap_or("/"),
        access_point: files.access_point_arn.as_deref(),
        principal: &principal,
        interface,
    };
    let mounted = ecs.s3files.mount(&wanted).await;
    mounted.map_err(|reason| failed(unsuccessful(&reason)))
}

fn unsuccessful(reason: &str) -> String {
    format!(
        "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: stderr: {reason} : \
         unsuccessful EFS utils command execution; code: 1"
    )
}

fn task_role(ecs: &Ecs, task: &Task, definition: &TaskDefinition) -> Result<Principal, Trouble> {
    let role = endpoints::role(task, definition);
    let role =
        role.ok_or_else(|| failed(unsuccessful("the task has no role to authorize with")))?;
    let session = ecs.iam.assume_for_service(role, task.principal(), &task.id, SESSION);
    session
        .map(|session| session.principal)
        .map_err(|error| failed(unsuccessful(&error.to_string())))
}

fn source(mounted: efs::Mounted) -> Result<VolumeSource, Trouble> {
    let directory = Directory { base: mounted.base, beneath: mounted.beneath.into() };
    let actor = match (mounted.user, mounted.squashed) {
        (Some((uid, gid, groups)), _) => Actor::Fixed { uid, gid, groups },
        (None, true) => Actor::RootSquashed,
        (None, false) => return Ok(VolumeSource::Directory(directory)),
    };
    // The machine's lack would otherwise be tried again without end.
    match Path::new("/dev/fuse").exists() {
        true => Ok(VolumeSource::Share { directory, actor }),
        false => Err(failed(unsuccessful(
            "this machine has no FUSE, which access points and file systems without root need",
        ))),
    }
}
