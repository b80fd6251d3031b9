//! Handlers: authorise, validate, do, answer.

pub(crate) mod connection;
pub(crate) mod host;
pub(crate) mod tag;

use crate::api::Tag;
use std::collections::BTreeMap;
use wire::{Context, Fault, Page};

/// <https://docs.aws.amazon.com/dtconsole/latest/userguide/limits-connections.html>
const MOST_CONNECTIONS: usize = 250;
const MOST_HOSTS: usize = 50;
const MOST_TAGS: usize = 200;
/// So many are on a page, at most and unless asked otherwise.
const PAGE: usize = 100;

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message.into())
}

fn missing(message: String) -> Fault {
    Fault::new("ResourceNotFoundException", message)
}

pub(crate) fn no_connection(arn: &str) -> Fault {
    missing(format!("Connection not found: {arn}"))
}

pub(crate) fn no_host(arn: &str) -> Fault {
    missing(format!("Host not found: {arn}"))
}

fn limit(message: String) -> Fault {
    Fault::new("LimitExceededException", message)
}

/// Tags as they are kept.
fn tags(given: Option<Vec<Tag>>) -> Result<BTreeMap<String, String>, Fault> {
    let tags = given.into_iter().flatten().map(|tag| (tag.key, tag.value)).collect();
    check(&tags)?;
    Ok(tags)
}

fn check(tags: &BTreeMap<String, String>) -> Result<(), Fault> {
    if tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(invalid("Tag keys cannot begin with aws:."));
    }
    match tags.len() > MOST_TAGS {
        true => Err(limit(format!("A resource can have at most {MOST_TAGS} tags."))),
        false => Ok(()),
    }
}

fn listed(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
}

/// A page of what is listed by ARN.
fn page<T>(
    listing: &str,
    (size, token): (Option<i32>, Option<&str>),
    all: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    // Zero is the least that AWS's model allows, and means what is usual.
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let page = Page::take(listing, token, size.unwrap_or(PAGE).min(PAGE), all);
    page.map_err(|_| invalid("The token is not one of this listing's."))
}

/// The prefix of the keys of the caller's own.
fn prefix(ctx: &Context, kind: &str) -> String {
    ctx.arn("codeconnections", format!("{kind}/"))
}
