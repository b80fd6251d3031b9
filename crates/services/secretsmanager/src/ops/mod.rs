//! Handlers: authorise, validate, commit, answer.

pub(crate) mod password;
pub(crate) mod secret;
pub(crate) mod tag;
pub(crate) mod version;

use crate::{
    SecretsManager, faults,
    model::{Secret, Version},
};
use bytes::Bytes;
use std::sync::Arc;
use store::{Sealer, Tx};
use wire::{Context, Fault, Page};

/// How many characters an ARN's suffix has.
const SUFFIX: usize = 6;
/// The largest value, in bytes.
const MOST_BYTES: usize = 65_536;

/// The secret that a name, an ARN or an ARN without its suffix names.
fn lookup(secrets: &SecretsManager, ctx: &Context, id: &str) -> Option<Arc<Secret>> {
    let snapshot = secrets.store.read();
    let realm = ctx.realm();
    let get = |name: &str| snapshot.get::<Secret>(&Secret::key_of(&realm, name));
    if !id.starts_with("arn:") {
        return get(id);
    }
    let resource = id.strip_prefix(&ctx.arn("secretsmanager", "secret:"))?;
    let whole = resource.rsplit_once('-').filter(|(_, suffix)| suffix.len() == SUFFIX);
    let by_suffix =
        whole.and_then(|(name, suffix)| get(name).filter(|secret| secret.suffix == suffix));
    by_suffix.or_else(|| get(resource))
}

/// Authorises `action` on the secret that `id` names (with the condition keys that its tags make and
/// `keys`), and only then tells whether there is one.
fn authorised(
    secrets: &SecretsManager,
    ctx: &Context,
    action: &str,
    id: &str,
    keys: &[(&str, &str)],
) -> Result<Arc<Secret>, Fault> {
    let Some(secret) = lookup(secrets, ctx, id) else {
        let arn = match id.starts_with("arn:") {
            true => id.to_owned(),
            false => ctx.arn("secretsmanager", format!("secret:{id}")),
        };
        ctx.authorise_with(action, &arn, keys)?;
        return Err(faults::no_secret());
    };
    let tags: Vec<(String, &str)> = secret
        .tags
        .iter()
        .flat_map(|(key, value)| {
            let of = |service: &str| (format!("{service}:ResourceTag/{key}"), value.as_str());
            [of("aws"), of("secretsmanager")]
        })
        .collect();
    let tags = tags.iter().map(|(key, value)| (key.as_str(), *value));
    let keys: Vec<(&str, &str)> = keys.iter().copied().chain(tags).collect();
    ctx.authorise_with(action, &secret.arn(), &keys)?;
    Ok(secret)
}

/// The newest state of `secret` within a transaction: not one that was made anew under its name.
fn newest(tx: &Tx, secret: &Secret) -> Result<Secret, Fault> {
    let newest = tx.get::<Secret>(&Secret::key_of(&secret.realm, &secret.name));
    let newest = newest.filter(|newest| newest.suffix == secret.suffix);
    newest.map(|newest| Secret::clone(&newest)).ok_or_else(faults::no_secret)
}

/// [`newest`], which must not wait for its deletion.
fn living(tx: &Tx, secret: &Secret) -> Result<Secret, Fault> {
    let secret = newest(tx, secret)?;
    if secret.deletion.is_some() { Err(faults::marked_deleted()) } else { Ok(secret) }
}

/// Deletes a secret with its values.
pub(crate) fn remove(tx: &mut Tx, secret: &Secret) {
    for version in &secret.versions {
        tx.delete::<Version>(&secret.version_key(&version.id));
    }
    tx.delete::<Secret>(&Secret::key_of(&secret.realm, &secret.name));
}

/// A value that came with a request.
pub(crate) struct Content {
    binary: bool,
    bytes: Bytes,
}

impl Content {
    /// The value, if the request has one.
    fn read(text: Option<String>, binary: Option<Bytes>) -> Result<Option<Self>, Fault> {
        let content = match (text, binary) {
            (Some(_), Some(_)) => {
                return Err(faults::parameter(
                    "You can't specify both a binary secret value and a string secret value in the \
                     same secret.",
                ));
            }
            (Some(text), None) => Self { binary: false, bytes: text.into() },
            (None, Some(bytes)) => Self { binary: true, bytes },
            (None, None) => return Ok(None),
        };
        if content.bytes.len() > MOST_BYTES {
            let message = format!("A secret value can have at most {MOST_BYTES} bytes.");
            return Err(faults::validation(message));
        }
        Ok(Some(content))
    }

    fn is_in(&self, sealer: &Sealer, version: &Version) -> Result<bool, Fault> {
        Ok(version.binary == self.binary && open(sealer, version)? == self.bytes)
    }

    fn seal(&self, sealer: &Sealer, key: String) -> Version {
        let context = Version::seal_context(&key, self.binary);
        let value = sealer.seal(&context, &self.bytes);
        Version { key, binary: self.binary, value }
    }
}

fn open(sealer: &Sealer, version: &Version) -> Result<Vec<u8>, Fault> {
    let context = Version::seal_context(&version.key, version.binary);
    sealer.open(&context, &version.value).map_err(|error| faults::unsealable(&error))
}

/// Only the service's own key is there.
fn check_key(ctx: &Context, key: Option<&str>) -> Result<(), Fault> {
    const OWN: &str = "alias/aws/secretsmanager";
    match key {
        Some(key) if !key.is_empty() && key != OWN && key != ctx.arn("kms", OWN) => {
            Err(faults::no_kms())
        }
        _ => Ok(()),
    }
}

/// One page of 100 unless `limit` says less.
fn page<T>(
    listing: &str,
    token: Option<&str>,
    limit: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    let size = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100);
    Page::take(listing, token, size, ordered).map_err(|_| faults::token())
}
