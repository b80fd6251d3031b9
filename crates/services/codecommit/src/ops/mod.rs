//! Handlers: authorise, validate, do, settle, answer.

pub(crate) mod branch;
pub(crate) mod commit;
pub(crate) mod file;
pub(crate) mod repository;
pub(crate) mod tag;

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
    if !names::is_repository(name) {
        return Err(faults::repository_name());
    }
    ctx.authorise(action, &ctx.arn("codecommit", name))?;
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

/// [`find`] for what changes `branch`: who asks must be allowed to change that branch (`codecommit:References`).
pub(crate) fn open_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    branch: &str,
    action: &str,
) -> Result<(Arc<Repository>, Bare), Fault> {
    if !names::is_repository(name) {
        return Err(faults::repository_name());
    }
    names::branch(branch)?;
    let reference = format!("{}{branch}", names::BRANCH);
    let arn = ctx.arn("codecommit", name);
    ctx.authorise_with(action, &arn, &[("codecommit:References", &reference)])?;
    let found = codecommit.store.read().get::<Repository>(&Repository::key_of(&ctx.realm(), name));
    let repository = found.ok_or_else(|| faults::no_repository(name))?;
    let bare = codecommit.git.bare(&repository.id);
    Ok((repository, bare))
}

/// The commit that a specifier means; the default branch's tip where there is none.
pub(crate) async fn resolve(bare: &Bare, specifier: Option<&str>) -> Result<String, Fault> {
    objects::resolve(bare, specifier.unwrap_or("HEAD")).await
}
