//! Handlers: authorise, validate, do, settle, answer.

pub(crate) mod approval;
pub(crate) mod branch;
pub(crate) mod commit;
pub(crate) mod file;
pub(crate) mod merge;
pub(crate) mod pull_request;
pub(crate) mod repository;
pub(crate) mod tag;
pub(crate) mod template;
pub(crate) mod trigger;

use crate::{CodeCommit, faults, git::Bare, model::Repository, names, objects};
use std::sync::Arc;
use wire::{Context, Fault};

/// The repository with this name, if the caller may do `action` to it.
pub(crate) fn find(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    action: &str,
) -> Result<Arc<Repository>, Fault> {
    find_with(codecommit, ctx, name, action, &[])
}

fn find_with(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    action: &str,
    keys: &[(&str, &str)],
) -> Result<Arc<Repository>, Fault> {
    if !names::is_repository(name) {
        return Err(faults::repository_name());
    }
    ctx.authorise_with(action, &ctx.arn("codecommit", name), keys)?;
    let found = codecommit.store.read().get::<Repository>(&Repository::key_of(&ctx.realm(), name));
    found.ok_or_else(|| faults::no_repository(name))
}

/// [`find`], and the repository on disk.
pub(crate) fn open(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    action: &str,
) -> Result<(Arc<Repository>, Bare), Fault> {
    let repository = find(codecommit, ctx, name, action)?;
    let bare = codecommit.git.bare(&repository.id);
    Ok((repository, bare))
}

/// [`open`] for what changes `branch`: who asks must be allowed to change that branch (`codecommit:References`).
pub(crate) fn open_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    branch: &str,
    action: &str,
) -> Result<(Arc<Repository>, Bare), Fault> {
    names::branch(branch)?;
    let reference = format!("{}{branch}", names::BRANCH);
    let keys = [("codecommit:References", reference.as_str())];
    let repository = find_with(codecommit, ctx, name, action, &keys)?;
    let bare = codecommit.git.bare(&repository.id);
    Ok((repository, bare))
}

/// The commit that a specifier means; the default branch's tip where there is none.
pub(crate) async fn resolve(bare: &Bare, specifier: Option<&str>) -> Result<String, Fault> {
    objects::resolve(bare, specifier.unwrap_or("HEAD")).await
}
