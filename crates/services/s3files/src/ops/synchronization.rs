//! When data would come to a file system, and leave it: told, and kept in order, and no more than that, for all of it
//! is always here.

use super::{file_system, may};
use crate::{
    S3Files,
    api::*,
    faults,
    model::{FileSystem, Synchronization},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// What file systems have of which nobody said anything: small files at once, for thirty days.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files-synchronization.html>
pub(super) fn standard() -> Synchronization {
    Synchronization {
        version: 0,
        import: vec![ImportDataRule {
            prefix: String::new(),
            trigger: ImportTrigger::OnDirectoryFirstAccess,
            size_less_than: 128 << 10,
        }],
        expiration: vec![ExpirationDataRule { days_after_last_access: 30 }],
    }
}

pub(crate) async fn put_synchronization_configuration(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: PutSynchronizationConfigurationRequest,
) -> Result<PutSynchronizationConfigurationResponse, Fault> {
    may(ctx, "PutSynchronizationConfiguration", &input.file_system_id)?;
    let prefixes: std::collections::BTreeSet<_> =
        input.import_data_rules.iter().map(|rule| &rule.prefix).collect();
    if prefixes.len() < input.import_data_rules.len() {
        return Err(faults::invalid("Each import data rule has a prefix of its own."));
    }
    let ctx = ctx.clone();
    let written = service.store.write(move |tx| {
        let found = file_system(tx, &ctx, &input.file_system_id)?;
        let known = found.synchronization.version;
        if input.latest_version_number.unwrap_or(0) != known {
            let message = format!("The latest version number is {known}.");
            return Err(faults::conflict("VersionMismatch", message, &found.id, "FileSystem"));
        }
        let new = Synchronization {
            version: known + 1,
            import: input.import_data_rules,
            expiration: input.expiration_data_rules,
        };
        tx.update::<FileSystem>(&found.key(), |system| system.synchronization = new);
        Ok(())
    });
    written.await?;
    Ok(PutSynchronizationConfigurationResponse {})
}

pub(crate) async fn get_synchronization_configuration(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: GetSynchronizationConfigurationRequest,
) -> Result<GetSynchronizationConfigurationResponse, Fault> {
    may(ctx, "GetSynchronizationConfiguration", &input.file_system_id)?;
    let found = file_system(&service.store.read(), ctx, &input.file_system_id)?;
    let told = found.synchronization.clone();
    Ok(GetSynchronizationConfigurationResponse {
        latest_version_number: Some(told.version),
        import_data_rules: Some(told.import),
        expiration_data_rules: Some(told.expiration),
    })
}
