//! Secrets: create, describe, update, list, delete, restore.

use super::{Content, SUFFIX, authorised, check_key, living, newest, page, remove, tag};
use crate::{
    SecretsManager,
    api::*,
    faults, filter,
    model::{Deletion, Secret, Version},
    ops::version::add_version,
};
use std::{collections::BTreeMap, time::Duration};
use wire::{Context, Fault};

const SUFFIX_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The recovery window unless another is asked for, in days.
const RECOVERY_DAYS: i64 = 30;

fn check_name(name: &str) -> Result<(), Fault> {
    if name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-/_+=.@!".contains(letter)) {
        return Ok(());
    }
    Err(faults::validation(
        "Invalid name. Must be a valid name containing alphanumeric characters, or any of the \
         following: -/_+=.@!",
    ))
}

pub(crate) async fn create_secret(
    secrets: &SecretsManager,
    ctx: &Context,
    input: CreateSecretRequest,
) -> Result<CreateSecretResponse, Fault> {
    let secret = Secret {
        realm: ctx.realm(),
        name: input.name,
        suffix: secrets.world.text(SUFFIX, SUFFIX_LETTERS),
        description: input.description,
        kms_key_id: input.kms_key_id.filter(|key| !key.is_empty()),
        created: ctx.now,
        changed: ctx.now,
        accessed: None,
        deletion: None,
        tags: tag::collect(input.tags.unwrap_or_default())?,
        versions: Vec::new(),
    };
    let name_key = [("secretsmanager:Name", secret.name.as_str())];
    ctx.authorise_with("secretsmanager:CreateSecret", &secret.arn(), &name_key)?;
    if !secret.tags.is_empty() {
        ctx.authorise("secretsmanager:TagResource", &secret.arn())?;
    }
    check_name(&secret.name)?;
    check_key(ctx, secret.kms_key_id.as_deref())?;
    let content = Content::read(input.secret_string, input.secret_binary)?;
    let id = input.client_request_token.unwrap_or_else(|| secrets.world.uuid());
    let (sealer, now) = (secrets.sealer.clone(), ctx.now);
    let created = secrets.store.write(move |tx| {
        let before = tx.get::<Secret>(&Secret::key_of(&secret.realm, &secret.name));
        if let Some(before) = before {
            if before.deletion.is_some() {
                return Err(faults::request(
                    "You can't create this secret because a secret with this name is already \
                     scheduled for deletion.",
                ));
            }
            let version = tx.get::<Version>(&before.version_key(&id));
            if let (Some(content), Some(version)) = (&content, version)
                && content.is_in(&sealer, &version)?
            {
                // The same request once more.
                return Ok((before.arn(), before.name.clone(), Some(id)));
            }
            let name = &secret.name;
            let message = format!("The operation failed because the secret {name} already exists.");
            return Err(Fault::new("ResourceExistsException", message));
        }
        let answer = (secret.arn(), secret.name.clone());
        let made = match content {
            Some(content) => {
                let stages = [crate::stages::CURRENT.to_owned()].into();
                add_version(tx, &sealer, secret, &id, &content, &stages, now)?;
                Some(id)
            }
            None => {
                tx.put(secret);
                None
            }
        };
        Ok::<_, Fault>((answer.0, answer.1, made))
    });
    let (arn, name, version_id) = created.await?;
    Ok(CreateSecretResponse {
        arn: Some(arn),
        name: Some(name),
        version_id,
        replication_status: None,
    })
}

fn stages_by_version(secret: &Secret) -> Option<BTreeMap<String, Vec<String>>> {
    let versions = secret.versions.iter().filter(|version| !version.stages.is_empty());
    let stages: BTreeMap<String, Vec<String>> = versions
        .map(|version| (version.id.clone(), version.stages.iter().cloned().collect()))
        .collect();
    (!stages.is_empty()).then_some(stages)
}

pub(crate) async fn describe_secret(
    secrets: &SecretsManager,
    ctx: &Context,
    input: DescribeSecretRequest,
) -> Result<DescribeSecretResponse, Fault> {
    let action = "secretsmanager:DescribeSecret";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    Ok(DescribeSecretResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        description: secret.description.clone(),
        kms_key_id: secret.kms_key_id.clone(),
        last_changed_date: Some(secret.changed),
        last_accessed_date: secret.accessed,
        deleted_date: secret.deletion.map(|deletion| deletion.due),
        tags: tag::answer(&secret),
        version_ids_to_stages: stages_by_version(&secret),
        created_date: Some(secret.created),
        ..DescribeSecretResponse::default()
    })
}

pub(crate) async fn update_secret(
    secrets: &SecretsManager,
    ctx: &Context,
    input: UpdateSecretRequest,
) -> Result<UpdateSecretResponse, Fault> {
    let action = "secretsmanager:UpdateSecret";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    check_key(ctx, input.kms_key_id.as_deref())?;
    let content = Content::read(input.secret_string, input.secret_binary)?;
    let id = input.client_request_token.unwrap_or_else(|| secrets.world.uuid());
    let (sealer, now) = (secrets.sealer.clone(), ctx.now);
    let (description, key) = (input.description, input.kms_key_id);
    let updated = secrets.store.write(move |tx| {
        let mut secret = living(tx, &secret)?;
        secret.description = description.or(secret.description);
        if let Some(key) = key {
            secret.kms_key_id = Some(key).filter(|key| !key.is_empty());
        }
        secret.changed = now;
        let answer = (secret.arn(), secret.name.clone());
        let made = match content {
            Some(content) => {
                let stages = [crate::stages::CURRENT.to_owned()].into();
                add_version(tx, &sealer, secret, &id, &content, &stages, now)?;
                Some(id)
            }
            None => {
                tx.put(secret);
                None
            }
        };
        Ok::<_, Fault>((answer.0, answer.1, made))
    });
    let (arn, name, version_id) = updated.await?;
    Ok(UpdateSecretResponse { arn: Some(arn), name: Some(name), version_id })
}

/// Bytes turned round, in a form that sorts the other way: longer names come before their beginnings.
fn descending(text: &str) -> String {
    text.bytes().map(|byte| format!("{:02x}", !byte)).chain(["g".to_owned()]).collect()
}

pub(crate) async fn list_secrets(
    secrets: &SecretsManager,
    ctx: &Context,
    input: ListSecretsRequest,
) -> Result<ListSecretsResponse, Fault> {
    ctx.authorise("secretsmanager:ListSecrets", "*")?;
    let filters = input.filters.unwrap_or_default();
    let deleted_too = input.include_planned_deletion.unwrap_or(false);
    let by = input.sort_by.map_or("created-date", SortByType::as_str);
    let order = input.sort_order.map_or("asc", SortOrderType::as_str);
    let key = |secret: &Secret| {
        let time = match by {
            "name" => None,
            "last-changed-date" => Some(secret.changed),
            "last-accessed-date" => Some(secret.accessed.unwrap_or_default()),
            _ => Some(secret.created),
        };
        match (time.map(world::Timestamp::millis), order) {
            (None, "desc") => descending(&secret.name),
            (None, _) => secret.name.clone(),
            (Some(time), "desc") => {
                format!("{:020} {}", i64::MAX - time.max(0), descending(&secret.name))
            }
            (Some(time), _) => format!("{:020} {}", time.max(0), secret.name),
        }
    };
    let snapshot = secrets.store.read();
    let found = snapshot
        .scan_prefix::<Secret>(&format!("{}/", ctx.realm()))
        .filter(|secret| deleted_too || secret.deletion.is_none())
        .filter(|secret| filters.iter().all(|one| filter::matches(one, secret)))
        .map(|secret| (key(&secret), secret));
    let ordered: BTreeMap<_, _> = found.collect();
    let listing = format!("ListSecrets {by} {order}");
    let token = input.next_token.as_deref();
    let page = page(&listing, token, input.max_results, ordered.into_iter())?;
    let entries = page.items.iter().map(|secret| SecretListEntry {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        description: secret.description.clone(),
        kms_key_id: secret.kms_key_id.clone(),
        last_changed_date: Some(secret.changed),
        last_accessed_date: secret.accessed,
        deleted_date: secret.deletion.map(|deletion| deletion.asked),
        tags: tag::answer(secret),
        secret_versions_to_stages: stages_by_version(secret),
        created_date: Some(secret.created),
        ..SecretListEntry::default()
    });
    Ok(ListSecretsResponse { secret_list: Some(entries.collect()), next_token: page.next_token })
}

pub(crate) async fn delete_secret(
    secrets: &SecretsManager,
    ctx: &Context,
    input: DeleteSecretRequest,
) -> Result<DeleteSecretResponse, Fault> {
    let force = input.force_delete_without_recovery.unwrap_or(false);
    let days = input.recovery_window_in_days;
    let action = "secretsmanager:DeleteSecret";
    let secret = match authorised(secrets, ctx, action, &input.secret_id, &[]) {
        // As AWS does: what is forced to go may be gone already.
        Err(fault) if force && days.is_none() && fault.code == "ResourceNotFoundException" => {
            return Ok(DeleteSecretResponse {
                arn: None,
                name: Some(input.secret_id),
                deletion_date: Some(ctx.now),
            });
        }
        found => found?,
    };
    if force && days.is_some() {
        return Err(faults::parameter(
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
        ));
    }
    let days = days.unwrap_or(RECOVERY_DAYS);
    let days =
        u32::try_from(days).ok().filter(|days| (7..=30).contains(days)).ok_or_else(|| {
            faults::parameter(
                "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).",
            )
        })?;
    let now = ctx.now;
    let due = if force { now } else { now + DAY * days };
    let (arn, name) = (secret.arn(), secret.name.clone());
    let deleted = secrets.store.write(move |tx| {
        if force {
            let newest = newest(tx, &secret)?;
            remove(tx, &newest);
            return Ok::<_, Fault>(());
        }
        let mut secret = living(tx, &secret)?;
        secret.deletion = Some(Deletion { asked: now, due });
        tx.put(secret);
        Ok(())
    });
    deleted.await?;
    Ok(DeleteSecretResponse { arn: Some(arn), name: Some(name), deletion_date: Some(due) })
}

pub(crate) async fn restore_secret(
    secrets: &SecretsManager,
    ctx: &Context,
    input: RestoreSecretRequest,
) -> Result<RestoreSecretResponse, Fault> {
    let action = "secretsmanager:RestoreSecret";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    let (arn, name) = (secret.arn(), secret.name.clone());
    let restored = secrets.store.write(move |tx| {
        let mut secret = newest(tx, &secret)?;
        secret.deletion = None;
        tx.put(secret);
        Ok::<_, Fault>(())
    });
    restored.await?;
    Ok(RestoreSecretResponse { arn: Some(arn), name: Some(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(check_name("prod/db_1+x=y.z@w!-").is_ok());
        assert!(["a b", "a:b", "ä", "a\u{1}b"].iter().all(|name| check_name(name).is_err()));
    }

    #[test]
    fn descending_keys_sort_the_other_way() {
        let mut names = ["b", "a", "ab", "abc", "ac"];
        names.sort_by_key(|name| descending(name));
        assert_eq!(names, ["b", "ac", "abc", "ab", "a"]);
    }
}
