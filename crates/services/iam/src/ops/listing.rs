//! IAM's way to page: `Marker` and `MaxItems`, 100 at a time unless told otherwise.

use crate::{api::Tag, faults};
use std::collections::BTreeMap;
use wire::{Fault, Page};

/// A page's items, whether there is more, and the marker for it: as every IAM listing answers them.
pub(super) type Listed<T> = (Vec<T>, Option<bool>, Option<String>);

/// One page of `ordered`.
pub(super) fn page<T>(
    listing: &str,
    marker: Option<&str>,
    max_items: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Listed<T>, Fault> {
    let size = max_items.and_then(|size| usize::try_from(size).ok()).unwrap_or(100);
    let page = Page::take(listing, marker, size, ordered).map_err(|_| faults::bad_marker())?;
    Ok((page.items, Some(page.next_token.is_some()), page.next_token))
}

pub(super) fn tags_out(tags: &BTreeMap<String, String>) -> Option<Vec<Tag>> {
    let tag = |(key, value): (&String, &String)| Tag { key: key.clone(), value: value.clone() };
    (!tags.is_empty()).then(|| tags.iter().map(tag).collect())
}

/// The most tags on one resource.
const MOST_TAGS: usize = 50;

/// `tags` with `new` set.
pub(super) fn tagged(
    mut tags: BTreeMap<String, String>,
    new: Option<Vec<Tag>>,
) -> Result<BTreeMap<String, String>, Fault> {
    tags.extend(new.into_iter().flatten().map(|tag| (tag.key, tag.value)));
    match tags.len() > MOST_TAGS {
        true => Err(faults::limit("TagsPerResource", MOST_TAGS)),
        false => Ok(tags),
    }
}
