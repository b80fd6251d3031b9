//! Handlers.

pub(crate) mod change_set;
pub(crate) mod event;
pub(crate) mod export;
mod given;
pub(crate) mod policy;
pub(crate) mod recovery;
pub(crate) mod resource;
pub(crate) mod stack;
pub(crate) mod template;

use crate::{CloudFormation, engine, faults, model::Stack};
use std::sync::Arc;
use wire::{Context, Fault};

/// The stack of this name or ARN, if the caller may do `action` to it.
fn find(
    house: &CloudFormation,
    ctx: &Context,
    action: &str,
    name: &str,
) -> Result<Arc<Stack>, Fault> {
    let found = engine::find(&house.store.read(), &ctx.realm(), name);
    let arn = found.as_ref().map_or_else(|| named(ctx, name), |stack| stack.arn());
    ctx.authorise(&format!("cloudformation:{action}"), &arn)?;
    found.ok_or_else(|| faults::no_stack(name))
}

/// What policies name where there is no such stack (yet).
fn named(ctx: &Context, name: &str) -> String {
    match name.starts_with("arn:") {
        true => name.to_owned(),
        false => ctx.arn("cloudformation", format!("stack/{name}/*")),
    }
}

/// The most of anything that a page lists.
const PAGE: usize = 100;
