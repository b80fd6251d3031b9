//! Branches.

use super::{find, open_branch};
use crate::{
    CodeCommit,
    api::*,
    faults,
    git::{Bare, GitError},
    model::References,
    names::{self, BRANCH},
    objects,
};
use wire::{Context, Fault, Page};

/// So many branches are on a page.
const PAGE: usize = 1000;
/// What a reference that is not there is said to have been.
pub(crate) const NOTHING: &str = "0000000000000000000000000000000000000000";

/// Moves a branch from `old` ([`NOTHING`]: it must not be there) to `new`; false when it is elsewhere by now.
pub(crate) async fn swap(
    bare: &Bare,
    branch: &str,
    old: &str,
    new: &str,
) -> Result<bool, GitError> {
    let reference = format!("{BRANCH}{branch}");
    match bare.run(&["update-ref", &reference, new, old]).await {
        Ok(_) => Ok(true),
        Err(GitError::Failed { .. })
            if tip(bare, branch).await?.as_deref().unwrap_or(NOTHING) != old =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The commit that a branch has now, on disk.
pub(crate) async fn tip(bare: &Bare, branch: &str) -> Result<Option<String>, GitError> {
    let reference = format!("{BRANCH}{branch}");
    let output =
        bare.run(&["for-each-ref", "--format=%(objectname) %(refname)", "--", &reference]).await?;
    let output = objects::text(output);
    let mut lines = output.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.find(|(_, name)| *name == reference).map(|(id, _)| id.to_owned()))
}

pub(crate) async fn create_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreateBranchInput,
) -> Result<(), Fault> {
    let (name, branch) = (&input.repository_name, &input.branch_name);
    let (repository, bare) = open_branch(codecommit, ctx, name, branch, "codecommit:CreateBranch")?;
    if !names::is_object_id(&input.commit_id) {
        return Err(faults::commit_id());
    }
    let commit = objects::resolve(&bare, &input.commit_id).await?;
    let exists =
        || Fault::new("BranchNameExistsException", format!("Branch named {branch} already exists"));
    if tip(&bare, branch).await?.is_some() {
        return Err(exists());
    }
    if !swap(&bare, branch, NOTHING, &commit).await? {
        return Err(exists());
    }
    codecommit.settle(&repository.id, Some(&ctx.principal.arn)).await
}

pub(crate) async fn delete_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DeleteBranchInput,
) -> Result<DeleteBranchOutput, Fault> {
    let (name, branch) = (&input.repository_name, &input.branch_name);
    let (repository, bare) = open_branch(codecommit, ctx, name, branch, "codecommit:DeleteBranch")?;
    if repository.default_branch.as_deref() == Some(branch) {
        return Err(Fault::new(
            "DefaultBranchCannotBeDeletedException",
            format!("Branch {branch} is the default branch and cannot be deleted"),
        ));
    }
    // As on AWS, deleting what is not there is no error.
    let Some(commit) = tip(&bare, branch).await? else {
        return Ok(DeleteBranchOutput { deleted_branch: None });
    };
    let reference = format!("{BRANCH}{branch}");
    bare.run(&["update-ref", "-d", &reference, &commit]).await?;
    codecommit.settle(&repository.id, Some(&ctx.principal.arn)).await?;
    let deleted = BranchInfo { branch_name: Some(branch.clone()), commit_id: Some(commit) };
    Ok(DeleteBranchOutput { deleted_branch: Some(deleted) })
}

pub(crate) async fn get_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetBranchInput,
) -> Result<GetBranchOutput, Fault> {
    let name = input.repository_name.ok_or_else(|| {
        Fault::new("RepositoryNameRequiredException", "A repository name is required.")
    })?;
    let branch = input
        .branch_name
        .ok_or_else(|| Fault::new("BranchNameRequiredException", "A branch name is required."))?;
    let repository = find(codecommit, ctx, &name, "codecommit:GetBranch")?;
    names::branch(&branch)?;
    let references = codecommit.store.read().get::<References>(&repository.id).unwrap_or_default();
    let commit = references.told.get(&format!("{BRANCH}{branch}")).cloned();
    let commit_id = Some(commit.ok_or_else(|| faults::no_branch(&branch))?);
    Ok(GetBranchOutput { branch: Some(BranchInfo { branch_name: Some(branch), commit_id }) })
}

pub(crate) async fn list_branches(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListBranchesInput,
) -> Result<ListBranchesOutput, Fault> {
    let name = &input.repository_name;
    let repository = find(codecommit, ctx, name, "codecommit:ListBranches")?;
    let references = codecommit.store.read().get::<References>(&repository.id).unwrap_or_default();
    let branches = references.told.keys().filter_map(|reference| reference.strip_prefix(BRANCH));
    let branches = branches.map(|branch| (branch.to_owned(), branch.to_owned()));
    let listing = format!("ListBranches {name}");
    let page = Page::take(&listing, input.next_token.as_deref(), PAGE, branches);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListBranchesOutput { branches: Some(page.items), next_token: page.next_token })
}
