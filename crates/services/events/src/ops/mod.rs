//! Handlers: authorise, validate, commit, answer.

pub(crate) mod bus;
pub(crate) mod event;
pub(crate) mod rule;
pub(crate) mod tag;
pub(crate) mod target;

use crate::faults;
use wire::{Context, Fault};

/// The only bus, by its name or its ARN; it is meant where none is named.
pub(crate) fn bus(ctx: &Context, name: Option<&str>) -> Result<(), Fault> {
    match name {
        None | Some("default") => Ok(()),
        Some(arn) if arn == ctx.arn("events", "event-bus/default") => Ok(()),
        Some(name) => Err(faults::no_bus(name)),
    }
}

/// `arn:aws:events:REGION:ACCOUNT:rule/NAME`.
pub(crate) fn rule_arn(ctx: &Context, name: &str) -> String {
    ctx.arn("events", format!("rule/{name}"))
}

/// How many a page has: as asked, or 100.
pub(crate) fn size(limit: Option<i32>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100)
}
