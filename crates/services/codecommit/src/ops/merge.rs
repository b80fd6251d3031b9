//! Merges of branches and pull requests.

use super::{
    branch::{swap, tip},
    open, open_branch, pull_request,
};
use crate::{
    CodeCommit,
    api::*,
    draft::{Draft, Words, mode, mode_name},
    faults,
    git::Bare,
    merge::{self, Conflict, Manner, Merge, Tips},
    model::{self, PullRequest},
    names::{self, BRANCH},
    objects,
    pull::Happened,
};
use std::collections::BTreeSet;
use wire::{Context, Fault, Page};

/// The most decisions of one merge.
const MOST_DECISIONS: usize = 100;
/// So many files that conflict are on a page, at most and unless asked otherwise.
const PAGE: usize = 1000;

fn by_hand(message: &str) -> Fault {
    Fault::new("ManualMergeRequiredException", message)
}

fn concurrent(branch: &str) -> Fault {
    Fault::new(
        "ConcurrentReferenceUpdateException",
        format!("The branch {branch} has moved meanwhile. Try again."),
    )
}

pub(crate) async fn get_merge_options(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetMergeOptionsInput,
) -> Result<GetMergeOptionsOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetMergeOptions")?;
    let (source, destination) =
        (&input.source_commit_specifier, &input.destination_commit_specifier);
    let tips = Tips::find(&bare, source, destination).await?;
    let manner = Manner::new(input.conflict_detail_level, input.conflict_resolution_strategy);
    let mut options = Vec::new();
    if tips.is_fast_forward() {
        options.push(MergeOptionTypeEnum::FastForwardMerge);
    }
    if merge::merge(&bare, &tips, manner).await?.conflicts.is_empty() {
        options.extend([MergeOptionTypeEnum::SquashMerge, MergeOptionTypeEnum::ThreeWayMerge]);
    }
    Ok(GetMergeOptionsOutput {
        merge_options: Some(options),
        source_commit_id: Some(tips.source),
        destination_commit_id: Some(tips.destination),
        base_commit_id: Some(tips.base),
    })
}

pub(crate) async fn get_merge_conflicts(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetMergeConflictsInput,
) -> Result<GetMergeConflictsOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetMergeConflicts")?;
    let size = match input.max_conflict_files.map(usize::try_from) {
        None => PAGE,
        Some(Ok(size)) if (1..=PAGE).contains(&size) => size,
        Some(_) => {
            return Err(Fault::new(
                "InvalidMaxConflictFilesException",
                format!("maxConflictFiles is between 1 and {PAGE}."),
            ));
        }
    };
    let (source, destination) =
        (&input.source_commit_specifier, &input.destination_commit_specifier);
    let tips = Tips::find(&bare, source, destination).await?;
    let manner = Manner::new(input.conflict_detail_level, input.conflict_resolution_strategy);
    let conflicts = merge::merge(&bare, &tips, manner).await?.conflicts;
    let mergeable = match input.merge_option {
        MergeOptionTypeEnum::FastForwardMerge => tips.is_fast_forward(),
        _ => conflicts.is_empty(),
    };
    let listing = format!("GetMergeConflicts {} {}", tips.source, tips.destination);
    let all = conflicts.iter().map(|conflict| (conflict.path.clone(), metadata(conflict)));
    let page = Page::take(&listing, input.next_token.as_deref(), size, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(GetMergeConflictsOutput {
        mergeable: Some(mergeable),
        source_commit_id: Some(tips.source),
        destination_commit_id: Some(tips.destination),
        base_commit_id: Some(tips.base),
        conflict_metadata_list: Some(page.items),
        next_token: page.next_token,
    })
}

fn metadata(conflict: &Conflict) -> ConflictMetadata {
    let sides = &conflict.sides;
    let sizes = |entry: &Option<objects::Entry>| {
        entry.as_ref().and_then(|entry| i64::try_from(entry.size?).ok())
    };
    let modes =
        |entry: &Option<objects::Entry>| entry.as_ref().and_then(|entry| mode_name(&entry.mode));
    let kinds = |entry: &Option<objects::Entry>| {
        let entry = entry.as_ref()?;
        Some(match &*entry.mode {
            "120000" => ObjectTypeEnum::SymbolicLink,
            "160000" => ObjectTypeEnum::GitLink,
            _ => ObjectTypeEnum::File,
        })
    };
    let change = |side: &Option<objects::Entry>| match (side, &sides.base) {
        (None, Some(_)) => Some(ChangeTypeEnum::D),
        (Some(_), None) => Some(ChangeTypeEnum::A),
        (Some(_), Some(_)) => Some(ChangeTypeEnum::M),
        (None, None) => None,
    };
    // A file that was not merged by lines conflicts in one place.
    let contents = if conflict.content { conflict.hunks.max(1) } else { 0 };
    let count = contents + usize::from(conflict.mode) + usize::from(conflict.kind);
    let [source, destination, base] = conflict.binary;
    ConflictMetadata {
        file_path: Some(conflict.path.clone()),
        file_sizes: Some(FileSizes {
            source: sizes(&sides.source),
            destination: sizes(&sides.destination),
            base: sizes(&sides.base),
        }),
        file_modes: Some(FileModes {
            source: modes(&sides.source),
            destination: modes(&sides.destination),
            base: modes(&sides.base),
        }),
        object_types: Some(ObjectTypes {
            source: kinds(&sides.source),
            destination: kinds(&sides.destination),
            base: kinds(&sides.base),
        }),
        number_of_conflicts: i32::try_from(count).ok(),
        is_binary_file: Some(IsBinaryFile { source, destination, base }),
        content_conflict: Some(conflict.content),
        file_mode_conflict: Some(conflict.mode),
        object_type_conflict: Some(conflict.kind),
        merge_operations: Some(MergeOperations {
            source: change(&sides.source),
            destination: change(&sides.destination),
        }),
    }
}

/// How a merge is asked for.
struct Asked {
    option: MergeOptionTypeEnum,
    manner: Manner,
    words: Words,
    keep_folders: bool,
    decisions: Option<ConflictResolution>,
}

impl Asked {
    fn fast_forward() -> Self {
        Self {
            option: MergeOptionTypeEnum::FastForwardMerge,
            manner: Manner::new(None, None),
            words: Words::default(),
            keep_folders: false,
            decisions: None,
        }
    }

    /// What the branch is to move to, commit and tree. What is made for it is in the repository, and nothing names it
    /// yet.
    async fn make(
        &mut self,
        ctx: &Context,
        bare: &Bare,
        tips: &Tips,
        title: impl FnOnce() -> String,
    ) -> Result<(String, String), Fault> {
        let mut parents = vec![tips.destination.clone()];
        match self.option {
            MergeOptionTypeEnum::FastForwardMerge => {
                if !tips.is_fast_forward() {
                    return Err(by_hand(
                        "The destination has commits that the source does not have, so it cannot be moved forward to \
                         it. Merge by squash or three-way.",
                    ));
                }
                return Ok((tips.source.clone(), tree(bare, &tips.source).await?));
            }
            MergeOptionTypeEnum::SquashMerge => {}
            MergeOptionTypeEnum::ThreeWayMerge => parents.push(tips.source.clone()),
        }
        let Merge { files, mut conflicts } = merge::merge(bare, tips, self.manner).await?;
        let mut draft = Draft::of(bare, parents, files);
        if let Some(decisions) = self.decisions.take() {
            if !self.manner.is_by_list() {
                return Err(bad_list("Decisions are for the strategy AUTOMERGE.".to_owned()));
            }
            decide(&mut draft, &mut conflicts, decisions, self.keep_folders).await?;
        }
        if let Some(conflict) = conflicts.first() {
            let more = match conflicts.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            return Err(by_hand(&format!("There is a conflict in {}{more}.", conflict.path)));
        }
        self.words.message.get_or_insert_with(title);
        draft.write(ctx, &self.words).await
    }
}

/// An [`Asked`] of an input that has all of it.
macro_rules! asked {
    ($input:ident, $option:expr) => {
        Asked {
            option: $option,
            manner: Manner::new($input.conflict_detail_level, $input.conflict_resolution_strategy),
            words: Words {
                name: $input.author_name,
                email: $input.email,
                message: $input.commit_message,
            },
            keep_folders: $input.keep_empty_folders.unwrap_or_default(),
            decisions: $input.conflict_resolution,
        }
    };
}

async fn tree(bare: &Bare, commit: &str) -> Result<String, Fault> {
    let tree = bare.run(&["rev-parse", "--verify", &format!("{commit}^{{tree}}")]).await?;
    Ok(objects::text(tree).trim().to_owned())
}

fn bad_list(message: String) -> Fault {
    Fault::new("InvalidConflictResolutionException", message)
}

/// Decides conflicts by a list.
async fn decide(
    draft: &mut Draft<'_>,
    conflicts: &mut Vec<Conflict>,
    decisions: ConflictResolution,
    keep_folders: bool,
) -> Result<(), Fault> {
    let (contents, deletes, modes) = (
        decisions.replace_contents.unwrap_or_default(),
        decisions.delete_files.unwrap_or_default(),
        decisions.set_file_modes.unwrap_or_default(),
    );
    if contents.len() + deletes.len() + modes.len() > MOST_DECISIONS {
        return Err(Fault::new(
            "MaximumConflictResolutionEntriesExceededException",
            format!("A merge can have at most {MOST_DECISIONS} decisions."),
        ));
    }
    let mut decided = BTreeSet::new();
    let mut conflict = |path: &str| {
        let path = names::file(path)?;
        if !decided.insert(path.to_owned()) {
            return Err(Fault::new(
                "MultipleConflictResolutionEntriesException",
                format!("{path} is decided more than once."),
            ));
        }
        let at = conflicts.iter().position(|conflict| conflict.path == path);
        at.map(|at| conflicts.remove(at))
            .ok_or_else(|| bad_list(format!("{path} is not in conflict.")))
    };
    for entry in contents {
        replace(draft, conflict(&entry.file_path)?, entry).await?;
    }
    for entry in deletes {
        let path = conflict(&entry.file_path)?.path;
        draft.keep_folder(&path, keep_folders).await?;
    }
    for entry in modes {
        let conflict = conflict(&entry.file_path)?;
        let Some(id) = conflict.merged.filter(|_| !conflict.kind) else {
            return Err(bad_list(format!(
                "More than the mode of {} is in conflict.",
                conflict.path
            )));
        };
        draft.put_id(&conflict.path, &id, Some(entry.file_mode))?;
    }
    Ok(())
}

async fn replace(
    draft: &mut Draft<'_>,
    conflict: Conflict,
    entry: ReplaceContentEntry,
) -> Result<(), Fault> {
    let Conflict { path, sides, .. } = conflict;
    let side = match entry.replacement_type {
        ReplacementTypeEnum::KeepSource => sides.source,
        ReplacementTypeEnum::KeepDestination => sides.destination,
        ReplacementTypeEnum::KeepBase => sides.base,
        ReplacementTypeEnum::UseNewContent => {
            let content = entry.content.ok_or_else(|| {
                Fault::new(
                    "ReplacementContentRequiredException",
                    format!("USE_NEW_CONTENT needs content for {path}."),
                )
            })?;
            let before = sides.source.or(sides.destination).and_then(|e| mode_name(&e.mode));
            let mode = entry.file_mode.or(before);
            return draft.put(&path, &content, mode).await.map(|_| ());
        }
    };
    // Without the file on that side, there is none.
    let Some(side) = side else { return Ok(()) };
    let chosen = entry.file_mode.map(|given| mode(given).to_owned()).unwrap_or(side.mode);
    draft.put_as(&path, (chosen, side.id))
}

pub(crate) async fn create_unreferenced_merge_commit(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreateUnreferencedMergeCommitInput,
) -> Result<CreateUnreferencedMergeCommitOutput, Fault> {
    let action = "codecommit:CreateUnreferencedMergeCommit";
    let (_, bare) = open(codecommit, ctx, &input.repository_name, action)?;
    if input.merge_option == MergeOptionTypeEnum::FastForwardMerge {
        return Err(Fault::new(
            "InvalidMergeOptionException",
            "A fast-forward merge makes no commit.",
        ));
    }
    let (source, destination) = (input.source_commit_specifier, input.destination_commit_specifier);
    let tips = Tips::find(&bare, &source, &destination).await?;
    let mut asked = asked!(input, input.merge_option);
    let title = || format!("Merge {source} into {destination}");
    let (commit, tree) = asked.make(ctx, &bare, &tips, title).await?;
    Ok(CreateUnreferencedMergeCommitOutput { commit_id: Some(commit), tree_id: Some(tree) })
}

/// What is merged into what.
struct Branches {
    repository: String,
    source: String,
    destination: String,
    target: Option<String>,
}

/// Merges into a branch; the commit that it has then, and its tree.
async fn merge_branches(
    codecommit: &CodeCommit,
    ctx: &Context,
    branches: Branches,
    (mut asked, action): (Asked, &str),
) -> Result<(Option<String>, Option<String>), Fault> {
    let Branches { repository, source, destination, target } = branches;
    let target = target.unwrap_or_else(|| destination.clone());
    let target = target.strip_prefix(BRANCH).unwrap_or(&target);
    let (repository, bare) = open_branch(codecommit, ctx, &repository, target, action)?;
    let old = tip(&bare, target).await?.ok_or_else(|| faults::no_branch(target))?;
    let tips = Tips::find(&bare, &source, &destination).await?;
    if old != tips.destination {
        return Err(Fault::new(
            "InvalidTargetBranchException",
            format!("The destination {destination} is not the tip of the branch {target}."),
        ));
    }
    if tips.base == tips.source {
        // There is nothing to merge.
        let tree = tree(&bare, &old).await?;
        return Ok((Some(old), Some(tree)));
    }
    let title = || format!("Merge {source} into {target}");
    let (commit, tree) = asked.make(ctx, &bare, &tips, title).await?;
    if !swap(&bare, target, &old, &commit).await? {
        return Err(concurrent(target));
    }
    codecommit.settle(&repository.id, Some(&ctx.principal.arn)).await?;
    Ok((Some(commit), Some(tree)))
}

pub(crate) async fn merge_branches_by_fast_forward(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergeBranchesByFastForwardInput,
) -> Result<MergeBranchesByFastForwardOutput, Fault> {
    let how = (Asked::fast_forward(), "codecommit:MergeBranchesByFastForward");
    let branches = Branches {
        repository: input.repository_name,
        source: input.source_commit_specifier,
        destination: input.destination_commit_specifier,
        target: input.target_branch,
    };
    let (commit_id, tree_id) = merge_branches(codecommit, ctx, branches, how).await?;
    Ok(MergeBranchesByFastForwardOutput { commit_id, tree_id })
}

pub(crate) async fn merge_branches_by_squash(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergeBranchesBySquashInput,
) -> Result<MergeBranchesBySquashOutput, Fault> {
    let asked = asked!(input, MergeOptionTypeEnum::SquashMerge);
    let branches = Branches {
        repository: input.repository_name,
        source: input.source_commit_specifier,
        destination: input.destination_commit_specifier,
        target: input.target_branch,
    };
    let how = (asked, "codecommit:MergeBranchesBySquash");
    let (commit_id, tree_id) = merge_branches(codecommit, ctx, branches, how).await?;
    Ok(MergeBranchesBySquashOutput { commit_id, tree_id })
}

pub(crate) async fn merge_branches_by_three_way(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergeBranchesByThreeWayInput,
) -> Result<MergeBranchesByThreeWayOutput, Fault> {
    let asked = asked!(input, MergeOptionTypeEnum::ThreeWayMerge);
    let branches = Branches {
        repository: input.repository_name,
        source: input.source_commit_specifier,
        destination: input.destination_commit_specifier,
        target: input.target_branch,
    };
    let how = (asked, "codecommit:MergeBranchesByThreeWay");
    let (commit_id, tree_id) = merge_branches(codecommit, ctx, branches, how).await?;
    Ok(MergeBranchesByThreeWayOutput { commit_id, tree_id })
}

/// Whether a pull request may be merged now: it is open, its source is at `commit`, its rules are satisfied.
fn mergeable(pull: &PullRequest, commit: &str) -> Result<(), Fault> {
    if !pull.open {
        return Err(pull_request::closed(pull));
    }
    if pull.source_commit != commit {
        return Err(Fault::new(
            "TipOfSourceReferenceIsDifferentException",
            format!("The tip of the source branch is {}, not {commit}.", pull.source_commit),
        ));
    }
    if !pull.is_approved() {
        return Err(Fault::new(
            "PullRequestApprovalRulesNotSatisfiedException",
            format!("These approval rules are not satisfied: {}.", pull.evaluate().1.join(", ")),
        ));
    }
    Ok(())
}

/// Merges a pull request. How it is merged is kept before its branch moves: whoever settles what the move changed
/// closes it, after a crash, too.
async fn merge_pull_request(
    codecommit: &CodeCommit,
    ctx: &Context,
    (id, name, commit): (String, String, Option<String>),
    (mut asked, action): (Asked, &str),
) -> Result<Option<crate::api::PullRequest>, Fault> {
    let (repository, _) = pull_request::named_to_merge(codecommit, ctx, &id, action)?;
    // What a crash left untold would make its branches look as if they had moved just now.
    codecommit.settle(&repository.id, None).await?;
    let (repository, pull) = pull_request::named_to_merge(codecommit, ctx, &id, action)?;
    if repository.name != name {
        super::find(codecommit, ctx, &name, action)?;
        return Err(Fault::new(
            "RepositoryNotAssociatedWithPullRequestException",
            format!("Pull request {id} is not one of the repository {name}."),
        ));
    }
    if commit.as_ref().is_some_and(|commit| !names::is_object_id(commit)) {
        return Err(faults::commit_id());
    }
    let commit = commit.unwrap_or_else(|| pull.source_commit.clone());
    mergeable(&pull, &commit)?;
    let bare = codecommit.git.bare(&repository.id);
    let tips = Tips::find(&bare, &pull.source_commit, &pull.destination_commit).await?;
    let title = || format!("Merge pull request {}: {}", pull.number, pull.title);
    let (made, _) = asked.make(ctx, &bare, &tips, title).await?;
    let (by, option) = (Some(ctx.principal.arn.clone()), asked.option);
    let intent = model::Merge { by, commit: made.clone(), option };
    let which = (&*repository, &*pull);
    pull_request::change(codecommit, ctx, which, move |pull| {
        mergeable(pull, &commit)?;
        pull.merge = Some(intent);
        Ok(None)
    })
    .await?;
    let branch = pull.destination_branch();
    if !swap(&bare, branch, &pull.destination_commit, &made).await? {
        return Err(concurrent(branch));
    }
    codecommit.settle(&repository.id, Some(&ctx.principal.arn)).await?;
    let now = pull_request::change(codecommit, ctx, which, |pull| {
        // Its branches were at the same commit already.
        let merged = std::mem::replace(&mut pull.open, false);
        Ok(merged.then_some(Happened::Merged))
    });
    Ok(Some(pull_request::described(codecommit, &repository, &now.await?).await?))
}

pub(crate) async fn merge_pull_request_by_fast_forward(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergePullRequestByFastForwardInput,
) -> Result<MergePullRequestByFastForwardOutput, Fault> {
    let how = (Asked::fast_forward(), "codecommit:MergePullRequestByFastForward");
    let which = (input.pull_request_id, input.repository_name, input.source_commit_id);
    let pull_request = merge_pull_request(codecommit, ctx, which, how).await?;
    Ok(MergePullRequestByFastForwardOutput { pull_request })
}

pub(crate) async fn merge_pull_request_by_squash(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergePullRequestBySquashInput,
) -> Result<MergePullRequestBySquashOutput, Fault> {
    let asked = asked!(input, MergeOptionTypeEnum::SquashMerge);
    let which = (input.pull_request_id, input.repository_name, input.source_commit_id);
    let how = (asked, "codecommit:MergePullRequestBySquash");
    let pull_request = merge_pull_request(codecommit, ctx, which, how).await?;
    Ok(MergePullRequestBySquashOutput { pull_request })
}

pub(crate) async fn merge_pull_request_by_three_way(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: MergePullRequestByThreeWayInput,
) -> Result<MergePullRequestByThreeWayOutput, Fault> {
    let asked = asked!(input, MergeOptionTypeEnum::ThreeWayMerge);
    let which = (input.pull_request_id, input.repository_name, input.source_commit_id);
    let how = (asked, "codecommit:MergePullRequestByThreeWay");
    let pull_request = merge_pull_request(codecommit, ctx, which, how).await?;
    Ok(MergePullRequestByThreeWayOutput { pull_request })
}
