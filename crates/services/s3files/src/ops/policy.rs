//! Who may mount a file system.

use super::{file_system, may};
use crate::{S3Files, api::*, faults, model::FileSystem};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

async fn set(service: &S3Files, found: &FileSystem, policy: Option<String>) -> Result<(), Fault> {
    let key = found.key();
    let write = service.store.write(move |tx| {
        tx.update::<FileSystem>(&key, |system| system.policy = policy);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn put_file_system_policy(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: PutFileSystemPolicyRequest,
) -> Result<PutFileSystemPolicyResponse, Fault> {
    may(ctx, "PutFileSystemPolicy", &input.file_system_id)?;
    let found = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    let malformed = |error| faults::invalid(format!("The policy is not valid: {error}"));
    service.iam.check_resource_policy(&input.policy).map_err(malformed)?;
    set(service, &found, Some(input.policy)).await?;
    Ok(PutFileSystemPolicyResponse {})
}

pub(crate) async fn get_file_system_policy(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: GetFileSystemPolicyRequest,
) -> Result<GetFileSystemPolicyResponse, Fault> {
    may(ctx, "GetFileSystemPolicy", &input.file_system_id)?;
    let found = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    let policy = found.policy.clone().ok_or_else(|| faults::no_policy(&found.id))?;
    let file_system_id = Some(found.id.clone());
    Ok(GetFileSystemPolicyResponse { file_system_id, policy: Some(policy) })
}

pub(crate) async fn delete_file_system_policy(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: DeleteFileSystemPolicyRequest,
) -> Result<(), Fault> {
    may(ctx, "DeleteFileSystemPolicy", &input.file_system_id)?;
    let found = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    set(service, &found, None).await
}
