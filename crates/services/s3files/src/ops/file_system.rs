//! File systems.

use super::{file_system, id, may, owner, page, synchronization, tags_in, tags_out};
use crate::{
    S3Files,
    api::*,
    faults,
    model::{AccessPoint, Entry, FileSystem, MountTarget},
    private, synchronize,
};
use std::{os::unix::fs::PermissionsExt, sync::Arc};
use store::Record;
use wire::{Context, Fault};

/// File systems of an account in a region.
const MOST: usize = 1000;

/// The same members, in an answer of either name.
macro_rules! described {
    ($answer:ident, $service:expr, $system:expr) => {{
        let (status, status_message) = status($service, &$system);
        $answer {
            creation_time: Some($system.created),
            file_system_arn: Some($system.arn()),
            file_system_id: Some($system.id.clone()),
            bucket: Some(format!("arn:aws:s3:::{}", $system.bucket)),
            prefix: Some($system.prefix.clone()),
            client_token: Some($system.token.clone()),
            kms_key_id: None,
            status: Some(status),
            status_message,
            role_arn: Some($system.role.clone()),
            owner_id: owner(&$system.realm),
            tags: Some(tags_out(&$system.tags)),
            name: $system.tags.get("Name").cloned(),
        }
    }};
}

/// How a file system is: in error while it and its bucket cannot be made the same.
fn status(service: &S3Files, system: &FileSystem) -> (LifeCycleState, Option<String>) {
    match service.progress(&system.key()).trouble() {
        None => (LifeCycleState::Available, None),
        trouble => (LifeCycleState::Error, trouble),
    }
}

/// The name of a bucket that can be a file system.
fn usable(service: &S3Files, ctx: &Context, arn: &str) -> Result<String, Fault> {
    let name = arn.rsplit(':').next().unwrap_or_default();
    let found = service.s3.bucket(name).filter(|found| found.account == ctx.account());
    let found = found.ok_or_else(|| faults::no_bucket(name))?;
    if found.region != ctx.region {
        return Err(faults::invalid("The bucket must be in the same Region as the file system."));
    }
    match found.versioning {
        s3::model::Versioning::Enabled => Ok(name.to_owned()),
        _ => Err(faults::invalid("S3 Versioning must be enabled on the bucket.")),
    }
}

pub(crate) async fn create_file_system(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: CreateFileSystemRequest,
) -> Result<CreateFileSystemResponse, Fault> {
    ctx.authorise("s3files:CreateFileSystem", "*")?;
    let service_name = [("iam:PassedToService", synchronize::SERVICE)];
    ctx.authorise_with("iam:PassRole", &input.role_arn, &service_name)?;
    let bucket = usable(service, ctx, &input.bucket)?;
    let made = FileSystem {
        realm: ctx.realm(),
        id: format!("fs-{}", service.world.hex(17)),
        token: input.client_token.unwrap_or_else(|| service.world.uuid()),
        bucket,
        prefix: input.prefix.unwrap_or_default(),
        role: input.role_arn,
        policy: None,
        synchronization: synchronization::standard(),
        tags: tags_in(input.tags)?,
        created: ctx.now,
    };
    let role = service.context(&made.realm, &made.role, &made.id);
    role.map_err(|reason| {
        faults::invalid(format!("S3 Files cannot assume the role {}: {reason}", made.role))
    })?;
    // The directory first: a record of a file system that is not there would be worse than a directory too many.
    let tree = service.tree(&made.id);
    let place = tree.root.clone();
    let directory = tokio::task::spawn_blocking(move || {
        let parent = tree.root.parent().unwrap_or(&tree.root);
        private(parent)?;
        private(&tree.aside)?;
        std::fs::create_dir(&tree.root)?;
        // Root's, as on EFS.
        std::fs::set_permissions(&tree.root, PermissionsExt::from_mode(0o755))?;
        std::fs::File::open(parent)?.sync_all()
    });
    directory.await.map_err(|e| faults::failed(&e))?.map_err(|e| faults::failed(&e))?;
    let record = made.clone();
    let written = service.store.write(move |tx| {
        let all: Vec<_> = tx.scan_prefix::<FileSystem>(&format!("{}/", record.realm)).collect();
        if let Some(other) = all.iter().find(|other| other.token == record.token) {
            let same = (&other.bucket, &other.prefix, &other.role)
                == (&record.bucket, &record.prefix, &record.role);
            return match same {
                true => Ok(Arc::clone(other)),
                false => Err(faults::conflict(
                    "IdempotentParameterMismatch",
                    "A file system with this client token has other parameters.".to_owned(),
                    &other.id,
                    "FileSystem",
                )),
            };
        }
        if all.len() >= MOST {
            return Err(faults::quota("You have reached the maximum number of file systems."));
        }
        tx.put(record.clone());
        Ok(Arc::new(record))
    });
    let written = written.await;
    let is_new = written.as_ref().is_ok_and(|written| written.id == made.id);
    if is_new {
        service.follow(made.key());
    } else {
        for directory in [&place, &service.tree(&made.id).aside] {
            if let Err(error) = std::fs::remove_dir(directory) {
                tracing::warn!(%error, "a directory that became no file system is left; the next start takes it away");
            }
        }
    }
    let written = written?;
    Ok(described!(CreateFileSystemResponse, service, written))
}

pub(crate) async fn get_file_system(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: GetFileSystemRequest,
) -> Result<GetFileSystemResponse, Fault> {
    may(ctx, "GetFileSystem", &input.file_system_id)?;
    let found = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    Ok(described!(GetFileSystemResponse, service, found))
}

pub(crate) async fn list_file_systems(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: ListFileSystemsRequest,
) -> Result<ListFileSystemsResponse, Fault> {
    ctx.authorise("s3files:ListFileSystems", "*")?;
    let snapshot = service.store.read();
    let bucket = input.bucket.as_deref().and_then(|arn| arn.rsplit(':').next());
    let all = snapshot.scan_prefix::<FileSystem>(&format!("{}/", ctx.realm()));
    let fits = |system: &Arc<FileSystem>| bucket.is_none_or(|bucket| system.bucket == bucket);
    let listed = all.filter(fits).map(|system| {
        let (status, status_message) = status(service, &system);
        let described = ListFileSystemsDescription {
            creation_time: Some(system.created),
            file_system_arn: Some(system.arn()),
            file_system_id: Some(system.id.clone()),
            name: system.tags.get("Name").cloned(),
            bucket: Some(format!("arn:aws:s3:::{}", system.bucket)),
            status: Some(status),
            status_message,
            role_arn: Some(system.role.clone()),
            owner_id: owner(&system.realm),
        };
        (system.key(), described)
    });
    let token = input.next_token.as_deref();
    let (file_systems, next_token) = page("file systems", token, input.max_results, listed)?;
    Ok(ListFileSystemsResponse { next_token, file_systems: Some(file_systems) })
}

/// Whether the bucket has all that is here.
async fn is_kept(service: &Arc<S3Files>, found: &FileSystem) -> Result<(), Fault> {
    let conflict = |reason: &str| {
        let message = format!(
            "The file system '{}' has data that the bucket does not have yet{reason}. Use forceDelete to lose it.",
            found.id
        );
        faults::conflict("PendingExport", message, &found.id, "FileSystem")
    };
    service.pass(found).await.map_err(|reason| conflict(&format!(": {reason}")))?;
    match service.progress(&found.key()).waits().await {
        true => Err(conflict("")),
        false => Ok(()),
    }
}

pub(crate) async fn delete_file_system(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: DeleteFileSystemRequest,
) -> Result<(), Fault> {
    let gone = id(&input.file_system_id).to_owned();
    may(ctx, "DeleteFileSystem", &gone)?;
    let found = file_system(&service.store.read(), ctx, &gone)?;
    let in_use = move |tx: &store::Tx, found: &FileSystem| {
        let mut targets = tx.scan_prefix::<MountTarget>(&format!("{}/", found.realm));
        match targets.any(|target| target.file_system == found.id) {
            true => Err(faults::conflict(
                "FileSystemInUse",
                format!("The file system '{}' has mount targets and cannot be deleted.", found.id),
                &found.id,
                "FileSystem",
            )),
            false => Ok(()),
        }
    };
    let known = found.clone();
    service.store.write(move |tx| in_use(tx, &known)).await?;
    if input.force_delete != Some(true) {
        is_kept(service, &found).await?;
    }
    let (context, key) = (ctx.clone(), found.key());
    let write = service.store.write(move |tx| {
        let found = file_system(tx, &context, &found.id)?;
        in_use(tx, &found)?;
        let points = tx.scan_prefix::<AccessPoint>(&format!("{}/", found.realm));
        let points: Vec<String> =
            points.filter(|p| p.file_system == found.id).map(|p| p.key()).collect();
        for key in points {
            tx.delete::<AccessPoint>(&key);
        }
        let entries = tx.scan_prefix::<Entry>(&Entry::prefix_of(&found.key()));
        let entries: Vec<String> = entries.map(|entry| entry.key()).collect();
        for key in entries {
            tx.delete::<Entry>(&key);
        }
        tx.delete::<FileSystem>(&found.key());
        Ok::<_, Fault>(())
    });
    write.await?;
    // A pass that is under way ends first; it writes nothing down any more.
    service.progress(&key).waits().await;
    service.forget(&key);
    let (service, id) = (service.clone(), gone.clone());
    let removed = tokio::task::spawn_blocking(move || service.remove(&id));
    // It is gone for everybody; what is left of it on the disk is mostly taken away by the next start.
    match removed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(id = gone, %error, "a deleted file system's files are left")
        }
        Err(error) => tracing::warn!(id = gone, %error, "a deleted file system's files are left"),
    }
    Ok(())
}
