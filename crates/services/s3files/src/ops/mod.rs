//! The operations.

pub(crate) mod access_point;
pub(crate) mod file_system;
pub(crate) mod mount_target;
pub(crate) mod policy;
pub(crate) mod synchronization;
pub(crate) mod tag;

use crate::{
    api::Tag,
    faults,
    model::{AccessPoint, FileSystem, MountTarget, Tags},
};
use std::sync::Arc;
use store::View;
use wire::{Context, Fault, Page};

/// The longest page, and the one for callers that do not say.
const PAGE: usize = 100;
/// Tags of one resource.
const MOST_TAGS: usize = 50;

/// The id in what may be an ARN.
fn id(given: &str) -> &str {
    given.rsplit('/').next().unwrap_or(given)
}

fn file_system(view: &impl View, ctx: &Context, given: &str) -> Result<Arc<FileSystem>, Fault> {
    let key = format!("{}/{}", ctx.realm(), id(given));
    view.record(&key).ok_or_else(|| faults::no_file_system(id(given)))
}

fn mount_target(view: &impl View, ctx: &Context, given: &str) -> Result<Arc<MountTarget>, Fault> {
    let key = format!("{}/{given}", ctx.realm());
    view.record(&key).ok_or_else(|| faults::no_mount_target(given))
}

fn access_point(view: &impl View, ctx: &Context, given: &str) -> Result<Arc<AccessPoint>, Fault> {
    let key = format!("{}/{}", ctx.realm(), id(given));
    view.record(&key).ok_or_else(|| faults::no_access_point(id(given)))
}

/// Whether the caller may do something with a file system, whether that is there or not.
fn may(ctx: &Context, action: &str, file_system: &str) -> Result<(), Fault> {
    let arn = FileSystem::arn_of(&ctx.realm(), id(file_system));
    ctx.authorise(&format!("s3files:{action}"), &arn)
}

/// One page of `ordered`, and the token for the next.
fn page<T>(
    listing: &str,
    token: Option<&str>,
    size: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let page = Page::take(listing, token, size, ordered);
    let page = page.map_err(|_| faults::invalid("The nextToken is invalid."))?;
    Ok((page.items, page.next_token))
}

/// Tags of a resource that is to be made.
fn tags_in(given: Option<Vec<Tag>>) -> Result<Tags, Fault> {
    check_tags(given.into_iter().flatten().map(|tag| (tag.key, tag.value)).collect())
}

fn check_tags(tags: Tags) -> Result<Tags, Fault> {
    if tags.len() > MOST_TAGS {
        return Err(faults::invalid("The number of tags exceeds the limit of 50."));
    }
    match tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        true => Err(faults::invalid("Tag keys that begin with aws: are AWS's.")),
        false => Ok(tags),
    }
}

fn tags_out(tags: &Tags) -> Vec<Tag> {
    let tag = |(key, value): (&String, &String)| Tag { key: key.clone(), value: value.clone() };
    tags.iter().map(tag).collect()
}

fn owner(realm: &str) -> Option<String> {
    realm.split_once('/').map(|(account, _)| account.to_owned())
}
