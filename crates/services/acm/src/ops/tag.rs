//! Tags of certificates.

use super::find;
use crate::{Acm, api::*, faults, model::Certificate};
use std::collections::BTreeMap;
use store::Record;
use wire::{Context, Fault};

/// The most tags of a certificate.
const MOST_TAGS: usize = 50;

/// Tags as they are kept; keys that begin with `aws:` are AWS's own.
pub(super) fn read(tags: Option<Vec<Tag>>) -> Result<BTreeMap<String, String>, Fault> {
    let mut all = BTreeMap::new();
    for tag in tags.unwrap_or_default() {
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(faults::invalid_tag(format!("The tag key {} is reserved.", tag.key)));
        }
        all.insert(tag.key, tag.value.unwrap_or_default());
    }
    if all.len() > MOST_TAGS { Err(faults::too_many_tags()) } else { Ok(all) }
}

async fn change(
    acm: &Acm,
    certificate: &Certificate,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let (key, arn) = (certificate.key(), certificate.arn());
    let write = acm.store.write(move |tx| {
        let known = tx.get::<Certificate>(&key).ok_or_else(|| faults::no_certificate(&arn))?;
        let mut tags = known.tags.clone();
        change(&mut tags);
        if tags.len() > MOST_TAGS {
            return Err(faults::too_many_tags());
        }
        tx.update::<Certificate>(&key, |certificate| certificate.tags = tags);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn add_tags_to_certificate(
    acm: &Acm,
    ctx: &Context,
    input: AddTagsToCertificateRequest,
) -> Result<(), Fault> {
    let found = find(acm, ctx, "AddTagsToCertificate", &input.certificate_arn)?;
    let new = read(Some(input.tags))?;
    change(acm, &found, move |tags| tags.extend(new)).await
}

/// A tag that is named with a value goes only when it has that value.
pub(crate) async fn remove_tags_from_certificate(
    acm: &Acm,
    ctx: &Context,
    input: RemoveTagsFromCertificateRequest,
) -> Result<(), Fault> {
    let found = find(acm, ctx, "RemoveTagsFromCertificate", &input.certificate_arn)?;
    let gone = move |key: &String, value: &String| {
        let named = |tag: &Tag| tag.key == *key && tag.value.as_ref().is_none_or(|v| v == value);
        input.tags.iter().any(named)
    };
    change(acm, &found, move |tags| tags.retain(|key, value| !gone(key, value))).await
}

pub(crate) async fn list_tags_for_certificate(
    acm: &Acm,
    ctx: &Context,
    input: ListTagsForCertificateRequest,
) -> Result<ListTagsForCertificateResponse, Fault> {
    let found = find(acm, ctx, "ListTagsForCertificate", &input.certificate_arn)?;
    let tag =
        |(key, value): (&String, &String)| Tag { key: key.clone(), value: Some(value.clone()) };
    Ok(ListTagsForCertificateResponse { tags: Some(found.tags.iter().map(tag).collect()) })
}
