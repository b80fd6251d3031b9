//! Values and their versions.

use super::{Content, authorised, living, open, page};
use crate::{
    SecretsManager,
    api::*,
    faults,
    model::{Secret, Version, VersionState},
    stages::{self, CURRENT},
};
use std::{collections::BTreeSet, sync::Arc};
use store::{Sealer, Tx};
use wire::{Context, Fault};
use world::Timestamp;

const DAY_MS: i64 = 24 * 3_600_000;

/// Stores `secret` with one version more. A version that is there already with the same value is left
/// alone; with another value it is a fault.
pub(crate) fn add_version(
    tx: &mut Tx,
    sealer: &Sealer,
    mut secret: Secret,
    id: &str,
    content: &Content,
    stages: &BTreeSet<String>,
    now: Timestamp,
) -> Result<BTreeSet<String>, Fault> {
    let key = secret.version_key(id);
    if let Some(version) = tx.get::<Version>(&key) {
        if !content.is_in(sealer, &version)? {
            return Err(faults::version_exists(id));
        }
    } else {
        for gone in stages::add(&mut secret, id, stages, now)? {
            tx.delete::<Version>(&secret.version_key(&gone));
        }
        secret.changed = now;
        tx.put(content.seal(sealer, key));
    }
    let stages = secret.version(id).map(|version| version.stages.clone()).unwrap_or_default();
    tx.put(secret);
    Ok(stages)
}

/// A value that was read.
pub(crate) struct Read {
    pub secret: Arc<Secret>,
    pub state: VersionState,
    pub binary: bool,
    pub bytes: Vec<u8>,
}

/// Reads a value, which needs secretsmanager:GetSecretValue.
pub(crate) async fn read(
    secrets: &SecretsManager,
    ctx: &Context,
    secret_id: &str,
    version_id: Option<&str>,
    stage: Option<&str>,
) -> Result<Read, Fault> {
    let mut keys = Vec::new();
    if let Some(id) = version_id {
        keys.push(("secretsmanager:VersionId", id));
    }
    if stage.is_some() || version_id.is_none() {
        keys.push(("secretsmanager:VersionStage", stage.unwrap_or(CURRENT)));
    }
    let action = "secretsmanager:GetSecretValue";
    let secret = authorised(secrets, ctx, action, secret_id, &keys)?;
    if secret.deletion.is_some() {
        return Err(faults::marked_deleted());
    }
    let state = select(&secret, version_id, stage)?.clone();
    let version = secrets.store.read().get::<Version>(&secret.version_key(&state.id));
    let version = version.ok_or_else(faults::no_secret)?;
    let bytes = open(&secrets.sealer, &version)?;
    note_access(secrets, &secret, &state, ctx.now).await;
    Ok(Read { secret, state, binary: version.binary, bytes })
}

fn select<'a>(
    secret: &'a Secret,
    version_id: Option<&str>,
    stage: Option<&str>,
) -> Result<&'a VersionState, Fault> {
    let Some(id) = version_id else {
        let stage = stage.unwrap_or(CURRENT);
        return secret.staged(stage).ok_or_else(|| {
            faults::not_found(format!(
                "Secrets Manager can't find the specified secret value for staging label: {stage}"
            ))
        });
    };
    let version = secret.version(id).ok_or_else(|| {
        faults::not_found(format!(
            "Secrets Manager can't find the specified secret value for VersionId: {id}"
        ))
    })?;
    match stage {
        Some(stage) if !version.stages.contains(stage) => Err(faults::request(
            "You provided a VersionStage that is not associated to the provided VersionId.",
        )),
        _ => Ok(version),
    }
}

/// Keeps the day of the last access, as AWS does. That it cannot be kept does not hinder the reader.
async fn note_access(
    secrets: &SecretsManager,
    secret: &Secret,
    state: &VersionState,
    now: Timestamp,
) {
    let today = Some(Timestamp::from_millis(now.millis() - now.millis().rem_euclid(DAY_MS)));
    if secret.accessed == today && state.accessed == today {
        return;
    }
    let written = secrets.store.write(|tx| {
        // It may be gone or on its way; then there is nothing to note.
        if let Ok(mut secret) = living(tx, secret) {
            secret.accessed = today;
            let version = secret.versions.iter_mut().find(|version| version.id == state.id);
            version.into_iter().for_each(|version| version.accessed = today);
            tx.put(secret);
        }
        Ok::<_, Fault>(())
    });
    if let Err(fault) = written.await {
        tracing::warn!(secret = secret.name, %fault.message, "the last access was not noted");
    }
}

pub(crate) async fn get_secret_value(
    secrets: &SecretsManager,
    ctx: &Context,
    input: GetSecretValueRequest,
) -> Result<GetSecretValueResponse, Fault> {
    let (version, stage) = (input.version_id.as_deref(), input.version_stage.as_deref());
    let read = read(secrets, ctx, &input.secret_id, version, stage).await?;
    let (text, bytes) = match read.binary {
        true => (None, Some(read.bytes.into())),
        false => {
            let text = String::from_utf8(read.bytes);
            (Some(text.map_err(|error| faults::unsealable(&error.utf8_error()))?), None)
        }
    };
    Ok(GetSecretValueResponse {
        arn: Some(read.secret.arn()),
        name: Some(read.secret.name.clone()),
        version_id: Some(read.state.id),
        secret_binary: bytes,
        secret_string: text,
        version_stages: Some(read.state.stages.into_iter().collect()),
        created_date: Some(read.state.created),
    })
}

pub(crate) async fn put_secret_value(
    secrets: &SecretsManager,
    ctx: &Context,
    input: PutSecretValueRequest,
) -> Result<PutSecretValueResponse, Fault> {
    let action = "secretsmanager:PutSecretValue";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    let content = Content::read(input.secret_string, input.secret_binary)?;
    let content = content.ok_or_else(|| {
        faults::parameter("You must provide either SecretString or SecretBinary.")
    })?;
    let id = input.client_request_token.unwrap_or_else(|| secrets.world.uuid());
    let stages = input.version_stages.unwrap_or_else(|| vec![CURRENT.to_owned()]);
    let stages: BTreeSet<String> = stages.into_iter().collect();
    let (sealer, now) = (secrets.sealer.clone(), ctx.now);
    let put = secrets.store.write(move |tx| {
        let secret = living(tx, &secret)?;
        let answer = (secret.arn(), secret.name.clone());
        let stages = add_version(tx, &sealer, secret, &id, &content, &stages, now)?;
        Ok::<_, Fault>((answer.0, answer.1, id, stages))
    });
    let (arn, name, id, stages) = put.await?;
    Ok(PutSecretValueResponse {
        arn: Some(arn),
        name: Some(name),
        version_id: Some(id),
        version_stages: Some(stages.into_iter().collect()),
    })
}

pub(crate) async fn update_secret_version_stage(
    secrets: &SecretsManager,
    ctx: &Context,
    input: UpdateSecretVersionStageRequest,
) -> Result<UpdateSecretVersionStageResponse, Fault> {
    let action = "secretsmanager:UpdateSecretVersionStage";
    let keys = [("secretsmanager:VersionStage", input.version_stage.as_str())];
    let secret = authorised(secrets, ctx, action, &input.secret_id, &keys)?;
    let (arn, name, now) = (secret.arn(), secret.name.clone(), ctx.now);
    let updated = secrets.store.write(move |tx| {
        let mut secret = living(tx, &secret)?;
        let (from, to) = (input.remove_from_version_id, input.move_to_version_id);
        stages::update(&mut secret, &input.version_stage, from.as_deref(), to.as_deref())?;
        secret.changed = now;
        tx.put(secret);
        Ok::<_, Fault>(())
    });
    updated.await?;
    Ok(UpdateSecretVersionStageResponse { arn: Some(arn), name: Some(name) })
}

pub(crate) async fn list_secret_version_ids(
    secrets: &SecretsManager,
    ctx: &Context,
    input: ListSecretVersionIdsRequest,
) -> Result<ListSecretVersionIdsResponse, Fault> {
    let action = "secretsmanager:ListSecretVersionIds";
    let secret = authorised(secrets, ctx, action, &input.secret_id, &[])?;
    let deprecated_too = input.include_deprecated.unwrap_or(false);
    let mut ordered: Vec<(String, &VersionState)> = secret
        .versions
        .iter()
        .filter(|version| deprecated_too || !version.stages.is_empty())
        .map(|version| (format!("{:020} {}", version.created.millis().max(0), version.id), version))
        .collect();
    ordered.sort_by(|a, b| a.0.cmp(&b.0));
    let listing = format!("ListSecretVersionIds {}", secret.arn());
    let token = input.next_token.as_deref();
    let page = page(&listing, token, input.max_results, ordered.into_iter())?;
    let versions = page.items.into_iter().map(|version| SecretVersionsListEntry {
        version_id: Some(version.id.clone()),
        version_stages: Some(version.stages.iter().cloned().collect()),
        last_accessed_date: version.accessed,
        created_date: Some(version.created),
        ..SecretVersionsListEntry::default()
    });
    Ok(ListSecretVersionIdsResponse {
        versions: Some(versions.collect()),
        next_token: page.next_token,
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
    })
}
