//! Access keys of users.

use super::{
    listing::page,
    user::{find, named_or_caller},
};
use crate::{Iam, api::*, faults, model::AccessKey as Record};
use std::sync::Arc;
use wire::{Context, Fault};

/// The most keys of one user.
const MOST_KEYS: usize = 2;

fn status(active: bool) -> Option<StatusType> {
    Some(if active { StatusType::Active } else { StatusType::Inactive })
}

pub(crate) async fn create_access_key(
    iam: &Iam,
    ctx: &Context,
    input: CreateAccessKeyRequest,
) -> Result<CreateAccessKeyResponse, Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:CreateAccessKey")?;
    let (id, secret) = (format!("AKIA{}", iam.key_text(16)), iam.secret_text());
    let key = Record {
        secret: iam.sealer.seal(&id, secret.as_bytes()),
        id: id.clone(),
        account: user.account.clone(),
        user: user.name.clone(),
        active: true,
        created: ctx.now,
    };
    iam.store
        .write(move |tx| {
            let keys = tx.scan::<Record>();
            let own = keys.into_iter().filter(|k| k.account == key.account && k.user == key.user);
            if own.count() >= MOST_KEYS {
                return Err(faults::limit("AccessKeysPerUser", MOST_KEYS));
            }
            tx.put(key);
            Ok::<_, Fault>(())
        })
        .await?;
    let access_key = AccessKey {
        user_name: Some(user.name.clone()),
        access_key_id: Some(id),
        status: status(true),
        secret_access_key: Some(secret),
        create_date: Some(ctx.now),
    };
    Ok(CreateAccessKeyResponse { access_key: Some(access_key) })
}

pub(crate) async fn list_access_keys(
    iam: &Iam,
    ctx: &Context,
    input: ListAccessKeysRequest,
) -> Result<ListAccessKeysResponse, Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:ListAccessKeys")?;
    let snapshot = iam.store.read();
    let keys = snapshot
        .scan::<Record>()
        .filter(|key| key.account == user.account && key.user == user.name)
        .map(|key| {
            let metadata = AccessKeyMetadata {
                user_name: Some(key.user.clone()),
                access_key_id: Some(key.id.clone()),
                status: status(key.active),
                create_date: Some(key.created),
            };
            (key.id.clone(), metadata)
        });
    let (metadata, is_truncated, marker) =
        page("ListAccessKeys", input.marker.as_deref(), input.max_items, keys)?;
    Ok(ListAccessKeysResponse { access_key_metadata: Some(metadata), is_truncated, marker })
}

pub(crate) async fn update_access_key(
    iam: &Iam,
    ctx: &Context,
    input: UpdateAccessKeyRequest,
) -> Result<(), Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:UpdateAccessKey")?;
    let active = match input.status {
        StatusType::Active => true,
        StatusType::Inactive => false,
        StatusType::Expired => {
            return Err(Fault::new("ValidationError", "Status must be Active or Inactive."));
        }
    };
    iam.store
        .write(move |tx| {
            let key = tx.get::<Record>(&input.access_key_id);
            let key = key.filter(|key| key.account == user.account && key.user == user.name);
            let key = key.ok_or_else(|| faults::no_key(&input.access_key_id))?;
            let mut key = Arc::unwrap_or_clone(key);
            key.active = active;
            tx.put(key);
            Ok(())
        })
        .await
}

pub(crate) async fn delete_access_key(
    iam: &Iam,
    ctx: &Context,
    input: DeleteAccessKeyRequest,
) -> Result<(), Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:DeleteAccessKey")?;
    iam.store
        .write(move |tx| {
            let key = tx.get::<Record>(&input.access_key_id);
            let key = key.filter(|key| key.account == user.account && key.user == user.name);
            let key = key.ok_or_else(|| faults::no_key(&input.access_key_id))?;
            tx.delete::<Record>(&key.id);
            Ok(())
        })
        .await
}
