//! Handlers: authorise, validate, commit, answer.

pub(crate) mod application;
pub(crate) mod config;
pub(crate) mod deployment;
pub(crate) mod group;
pub(crate) mod tag;
pub(crate) mod target;

use crate::{
    CodeDeploy, faults,
    model::{Application, Deployment, Group},
};
use std::sync::Arc;
use wire::{Context, Fault};

/// So many are on a page.
pub(crate) const PAGE: usize = 100;

pub(crate) fn application_arn(ctx: &Context, name: &str) -> String {
    ctx.arn("codedeploy", format!("application:{name}"))
}

pub(crate) fn group_arn(ctx: &Context, application: &str, name: &str) -> String {
    ctx.arn("codedeploy", format!("deploymentgroup:{application}/{name}"))
}

/// Whether AWS takes this as a name: it holds nothing that separates the parts of ARNs and keys.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+=,@-".contains(&byte))
}

pub(crate) fn application(
    service: &CodeDeploy,
    ctx: &Context,
    name: &str,
) -> Result<Arc<Application>, Fault> {
    let found = service.store.read().get::<Application>(&Application::key_of(&ctx.realm(), name));
    found.ok_or_else(|| faults::no_application(name))
}

/// The deployment group, if the caller may do `action` to it.
pub(crate) fn group(
    service: &CodeDeploy,
    ctx: &Context,
    (name, group): (&str, &str),
    action: &str,
) -> Result<Arc<Group>, Fault> {
    ctx.authorise(action, &group_arn(ctx, name, group))?;
    application(service, ctx, name)?;
    let found = service.store.read().get::<Group>(&Group::key_of(&ctx.realm(), name, group));
    found.ok_or_else(|| faults::no_group(group))
}

/// The deployment, if the caller may do `action` to its group. Who may not is told no more than that.
pub(crate) fn deployment(
    service: &CodeDeploy,
    ctx: &Context,
    id: &str,
    action: &str,
) -> Result<Arc<Deployment>, Fault> {
    let found = service.store.read().get::<Deployment>(&Deployment::key_of(&ctx.realm(), id));
    let arn = match &found {
        Some(found) => group_arn(ctx, &found.group.application, &found.group.name),
        None => group_arn(ctx, "*", "*"),
    };
    ctx.authorise(action, &arn)?;
    found.ok_or_else(|| faults::no_deployment(id))
}
