//! Where those volumes of a task come from that do not start empty and end with it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/efs-volumes.html>

use super::task::{SESSION, Trouble, failed};
use crate::{
    Ecs,
    api::{EFSAuthorizationConfigIAM, EFSVolumeConfiguration},
    endpoints,
    model::{Task, TaskDefinition},
};
use ec2::model::NetworkInterface;
use runtime::{Actor, Directory, VolumeSource};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};
use wire::Principal;

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
        if let Some(efs) = &volume.efs_volume_configuration {
            let mounted = shared(ecs, task, definition, efs, interface).await?;
            if !mounted.writable {
                all.read_only.insert(name.clone());
            }
            all.sources.insert(name, source(mounted)?);
        }
    }
    Ok(all)
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
