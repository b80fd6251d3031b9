//! Handlers: authorise, validate, commit, answer.

pub(crate) mod log_event;
pub(crate) mod log_group;
pub(crate) mod log_stream;
pub(crate) mod metric_filter;
pub(crate) mod subscription_filter;
pub(crate) mod tag;

use crate::{
    Logs, faults,
    model::{LogGroup, LogStream},
};
use std::sync::Arc;
use wire::{Context, Fault, Page};

/// The group's name from a name or an ARN (with or without `:*` behind it).
fn group_name(
    ctx: &Context,
    name: Option<String>,
    identifier: Option<String>,
) -> Result<String, Fault> {
    match (name, identifier) {
        (Some(_), Some(_)) => Err(faults::invalid(
            "LogGroup name and LogGroup ARN are mutually exclusive parameters.",
        )),
        (Some(name), None) => Ok(name),
        (None, Some(identifier)) => {
            let prefix = ctx.arn("logs", "log-group:");
            match identifier.strip_prefix(&prefix) {
                Some(rest) => Ok(rest.trim_end_matches(":*").to_owned()),
                None if identifier.starts_with("arn:") => Err(faults::no_group()),
                None => Ok(identifier),
            }
        }
        (None, None) => Err(faults::invalid("LogGroup name or LogGroup identifier is required.")),
    }
}

fn group_arn(ctx: &Context, name: &str) -> String {
    ctx.arn("logs", format!("log-group:{name}"))
}

fn stream_arn(ctx: &Context, group: &str, stream: &str) -> String {
    ctx.arn("logs", format!("log-group:{group}:log-stream:{stream}"))
}

fn group(logs: &Logs, ctx: &Context, name: &str) -> Result<Arc<LogGroup>, Fault> {
    let group = logs.store.read().get::<LogGroup>(&LogGroup::key_of(&ctx.realm(), name));
    group.ok_or_else(faults::no_group)
}

fn stream(logs: &Logs, ctx: &Context, group: &str, name: &str) -> Result<Arc<LogStream>, Fault> {
    let stream = logs.store.read().get::<LogStream>(&LogStream::key_of(&ctx.realm(), group, name));
    stream.ok_or_else(faults::no_stream)
}

/// One page of 50 unless `limit` says less.
fn page<T>(
    listing: &str,
    token: Option<&str>,
    limit: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<(Option<Vec<T>>, Option<String>), Fault> {
    let size = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(50);
    let page = Page::take(listing, token, size, ordered);
    let page = page.map_err(|_| faults::invalid("The specified nextToken is invalid."))?;
    Ok((Some(page.items), page.next_token))
}
