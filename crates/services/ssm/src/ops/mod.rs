//! Handlers: authorise, validate, commit, answer.

pub(crate) mod label;
pub(crate) mod parameter;
pub(crate) mod tag;
pub(crate) mod value;

use crate::{
    Ssm, faults,
    model::{Parameter as Record, Version},
};
use std::sync::Arc;
use store::{Snapshot, Tx};
use wire::{Context, Fault, Page};

/// What a request names: a parameter, perhaps a version or a label of it.
pub(crate) struct Named {
    /// The parameter's name; of one that was named by its ARN, without a leading slash.
    pub name: String,
    /// By ARN: then the name may or may not begin with a slash.
    pub by_arn: bool,
    /// What stands behind the colon.
    pub selector: Option<String>,
}

impl Named {
    /// Reads a name or an ARN of this account and region, with `:selector` if there is one.
    pub(crate) fn read(ctx: &Context, text: &str) -> Result<Self, Fault> {
        let by_arn = text.starts_with("arn:");
        let rest = match by_arn {
            true => {
                let own = text.strip_prefix(&ctx.arn("ssm", "parameter/"));
                own.ok_or_else(|| faults::not_found(text))?
            }
            false => text,
        };
        let (name, selector) = match rest.split_once(':') {
            Some((name, selector)) => (name, Some(selector.to_owned())),
            None => (rest, None),
        };
        Ok(Self { name: name.to_owned(), by_arn, selector })
    }

    pub(crate) fn arn(&self, ctx: &Context) -> String {
        arn(ctx, &self.name)
    }

    /// The parameter, if it is there and not over.
    pub(crate) fn find(&self, snapshot: &Snapshot, ctx: &Context) -> Option<Arc<Record>> {
        let realm = ctx.realm();
        let get = |name: &str| snapshot.get::<Record>(&Record::key_of(&realm, name));
        let found = match self.by_arn {
            true => get(&format!("/{}", self.name)).or_else(|| get(&self.name)),
            false => get(&self.name),
        };
        found.filter(|parameter| !parameter.is_over(ctx.now))
    }
}

pub(crate) fn arn(ctx: &Context, name: &str) -> String {
    ctx.arn("ssm", Record::resource(name))
}

/// The versions of a parameter, oldest first.
pub(crate) fn versions(snapshot: &Snapshot, parameter: &Record) -> Vec<Arc<Version>> {
    let prefix = Version::prefix_of(&parameter.realm, &parameter.name);
    snapshot.scan_prefix::<Version>(&prefix).collect()
}

/// The newest version of a parameter.
pub(crate) fn latest(snapshot: &Snapshot, parameter: &Record) -> Arc<Version> {
    let key = Version::key_of(&parameter.realm, &parameter.name, parameter.latest);
    snapshot.get::<Version>(&key).expect("a parameter is stored together with its newest version")
}

/// Deletes a parameter with all its versions; tells whether it was there.
pub(crate) fn remove(tx: &mut Tx, realm: &str, name: &str) -> bool {
    let keys: Vec<String> = tx
        .scan_prefix::<Version>(&Version::prefix_of(realm, name))
        .map(|version| Version::key_of(realm, name, version.version))
        .collect();
    for key in keys {
        tx.delete::<Version>(&key);
    }
    tx.delete::<Record>(&Record::key_of(realm, name))
}

/// The value in plain text.
pub(crate) fn open(ssm: &Ssm, version: &Version) -> Result<String, Fault> {
    match &version.value {
        crate::model::Value::Plain(text) => Ok(text.clone()),
        crate::model::Value::Sealed(sealed) => {
            let bytes = ssm.sealer.open(&version.seal_context(), sealed);
            let bytes = bytes.map_err(|error| faults::unsealable(&error))?;
            String::from_utf8(bytes).map_err(|error| faults::unsealable(&error.utf8_error()))
        }
    }
}

/// The value as it is answered: sealed ones stay opaque unless the plain text is asked for.
pub(crate) fn shown(ssm: &Ssm, version: &Version, decrypt: bool) -> Result<String, Fault> {
    match &version.value {
        crate::model::Value::Sealed(sealed) if !decrypt => {
            let json = serde_json::to_value(sealed).map_err(|error| faults::unsealable(&error))?;
            Ok(json.as_str().expect("sealed values are text in JSON").to_owned())
        }
        _ => open(ssm, version),
    }
}

/// One page of `default` unless `limit` says less.
pub(crate) fn page<T>(
    listing: &str,
    token: Option<&str>,
    limit: Option<i32>,
    default: usize,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    let size = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
    let token = token.filter(|token| !token.is_empty());
    Page::take(listing, token, size, ordered).map_err(|_| faults::token())
}
