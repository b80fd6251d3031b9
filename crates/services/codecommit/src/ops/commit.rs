//! Commits, and what differs between them.

use super::{open, open_branch, resolve};
use crate::{
    CodeCommit,
    api::*,
    draft::{Draft, Words, mode, mode_name},
    faults,
    git::Bare,
    names,
    objects::{self, Object},
};
use std::collections::BTreeSet;
use wire::{Context, Fault, Page};

/// The largest commit (its message, mostly) that is answered, in bytes.
const MOST_COMMIT_BYTES: u64 = 1 << 20;
/// The most commits of one BatchGetCommits, and files of one CreateCommit.
const MOST_ENTRIES: usize = 100;
/// So many differences are on a page unless asked otherwise.
const PAGE: usize = 100;

async fn read(bare: &Bare, id: &str) -> Result<Option<Commit>, Fault> {
    let Object::Found { kind, content } = objects::object(bare, id, MOST_COMMIT_BYTES).await?
    else {
        return Ok(None);
    };
    if kind != "commit" {
        return Ok(None);
    }
    let commit = objects::commit(&content);
    let who = |text: &str| {
        let (name, email, date) = objects::person(text);
        let owned = |text: &str| Some(text.to_owned());
        Some(UserInfo { name: owned(name), email: owned(email), date: owned(date) })
    };
    Ok(Some(Commit {
        commit_id: Some(id.to_owned()),
        author: who(&commit.author),
        committer: who(&commit.committer),
        tree_id: Some(commit.tree),
        parents: Some(commit.parents),
        message: Some(commit.message),
        additional_data: Some(commit.rest),
    }))
}

fn no_commit_id(id: &str) -> Fault {
    Fault::new("CommitIdDoesNotExistException", format!("Commit {id} does not exist"))
}

pub(crate) async fn get_commit(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetCommitInput,
) -> Result<GetCommitOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetCommit")?;
    let id = &input.commit_id;
    if !names::is_object_id(id) {
        return Err(faults::commit_id());
    }
    let commit = read(&bare, id).await?.ok_or_else(|| no_commit_id(id))?;
    Ok(GetCommitOutput { commit: Some(commit) })
}

pub(crate) async fn batch_get_commits(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: BatchGetCommitsInput,
) -> Result<BatchGetCommitsOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:BatchGetCommits")?;
    if input.commit_ids.len() > MOST_ENTRIES {
        return Err(Fault::new(
            "CommitIdsLimitExceededException",
            format!("The maximum number of allowed commit IDs is {MOST_ENTRIES}."),
        ));
    }
    let (mut commits, mut errors) = (Vec::new(), Vec::new());
    for id in input.commit_ids {
        let found = match names::is_object_id(&id) {
            true => read(&bare, &id).await?.ok_or_else(|| no_commit_id(&id)),
            false => Err(faults::commit_id()),
        };
        match found {
            Ok(commit) => commits.push(commit),
            Err(fault) => errors.push(BatchGetCommitsError {
                commit_id: Some(id),
                error_code: Some(fault.code.to_string()),
                error_message: Some(fault.message),
            }),
        }
    }
    Ok(BatchGetCommitsOutput { commits: Some(commits), errors: Some(errors) })
}

pub(crate) async fn get_differences(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetDifferencesInput,
) -> Result<GetDifferencesOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetDifferences")?;
    let size = match input.max_results {
        None => PAGE,
        Some(size @ 1..=1000) => size as usize,
        Some(_) => {
            return Err(Fault::new(
                "InvalidMaxResultsException",
                "MaxResults must be between 1 and 1000.",
            ));
        }
    };
    let after = resolve(&bare, Some(&input.after_commit_specifier)).await?;
    let before = match &input.before_commit_specifier {
        Some(specifier) => resolve(&bare, Some(specifier)).await?,
        None => objects::EMPTY_TREE.to_owned(),
    };
    let given = [&input.before_path, &input.after_path].into_iter().flatten();
    let paths: Vec<&str> = given.map(|path| names::folder(path)).collect::<Result<_, _>>()?;
    let paths: Vec<&str> = match paths.iter().any(|path| path.is_empty()) {
        true => Vec::new(),
        false => paths,
    };
    for path in &paths {
        let before = match &input.before_commit_specifier {
            Some(_) => objects::entry(&bare, &before, path).await?,
            None => None,
        };
        if before.is_none() && objects::entry(&bare, &after, path).await?.is_none() {
            let message = format!("Could not find path {path}");
            return Err(Fault::new("PathDoesNotExistException", message));
        }
    }
    let found = objects::differences(&bare, &before, &after, &paths).await?;
    let all = found.into_iter().map(|difference| {
        let blob = |side: Option<(String, String)>| {
            side.map(|(mode, id)| BlobMetadata {
                blob_id: Some(id),
                path: Some(difference.path.clone()),
                mode: Some(mode),
            })
        };
        let (before_blob, after_blob) = (blob(difference.before), blob(difference.after));
        let change = match (&before_blob, &after_blob) {
            (None, _) => ChangeTypeEnum::A,
            (_, None) => ChangeTypeEnum::D,
            _ => ChangeTypeEnum::M,
        };
        let change_type = Some(change);
        (difference.path, Difference { before_blob, after_blob, change_type })
    });
    let listing = format!("GetDifferences {before} {after}");
    // By path, byte for byte, which is how git orders them.
    let page = Page::take(&listing, input.next_token.as_deref(), size, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(GetDifferencesOutput { differences: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn create_commit(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreateCommitInput,
) -> Result<CreateCommitOutput, Fault> {
    let (name, branch) = (&input.repository_name, &input.branch_name);
    let (repository, bare) = open_branch(codecommit, ctx, name, branch, "codecommit:CreateCommit")?;
    let (puts, deletes, modes) = (
        input.put_files.unwrap_or_default(),
        input.delete_files.unwrap_or_default(),
        input.set_file_modes.unwrap_or_default(),
    );
    if puts.len() + deletes.len() + modes.len() > MOST_ENTRIES {
        return Err(Fault::new(
            "MaximumFileEntriesExceededException",
            format!("A commit can have at most {MOST_ENTRIES} file entries."),
        ));
    }
    if puts.is_empty() && deletes.is_empty() && modes.is_empty() {
        return Err(Fault::new(
            "FileEntryRequiredException",
            "The commit cannot be created because no files have been specified as added, updated, or changed \
             (PutFile or DeleteFile) for the commit.",
        ));
    }
    let named = puts.iter().map(|put| &put.file_path);
    let named = named.chain(deletes.iter().map(|delete| &delete.file_path));
    distinct(named.chain(modes.iter().map(|mode| &mode.file_path)))?;
    let mut draft = Draft::begin(&bare, branch, input.parent_commit_id.as_deref()).await?;
    let keep = input.keep_empty_folders.unwrap_or_default();
    let mut changed = Changed::default();
    for entry in deletes {
        let path = names::file(&entry.file_path)?;
        let (mode, id) = draft.remove(path, keep).await?;
        changed.deleted.push(file(path, &id, &mode));
    }
    for entry in puts {
        put(&mut draft, entry, keep, &mut changed).await?;
    }
    for entry in modes {
        let path = names::file(&entry.file_path)?;
        let (before, id) = draft.file(path).cloned().ok_or_else(|| faults::no_file(path))?;
        if before != mode(entry.file_mode) {
            draft.put_id(path, &id, Some(entry.file_mode))?;
            changed.updated.push(file(path, &id, mode(entry.file_mode)));
        }
    }
    if changed.added.is_empty() && changed.updated.is_empty() && changed.deleted.is_empty() {
        return Err(Fault::new(
            "NoChangeException",
            "The commit cannot be created because no changes will be made to the repository as a result of this \
             commit. A commit must contain at least one change.",
        ));
    }
    let words =
        Words { name: input.author_name, email: input.email, message: input.commit_message };
    let (commit, tree) = draft.commit(codecommit, ctx, (&repository.id, branch), &words).await?;
    Ok(CreateCommitOutput {
        commit_id: Some(commit),
        tree_id: Some(tree),
        files_added: Some(changed.added),
        files_updated: Some(changed.updated),
        files_deleted: Some(changed.deleted),
    })
}

#[derive(Default)]
struct Changed {
    added: Vec<FileMetadata>,
    updated: Vec<FileMetadata>,
    deleted: Vec<FileMetadata>,
}

fn file(path: &str, id: &str, mode: &str) -> FileMetadata {
    FileMetadata {
        absolute_path: Some(path.to_owned()),
        blob_id: Some(id.to_owned()),
        file_mode: mode_name(mode),
    }
}

fn distinct<'a>(paths: impl Iterator<Item = &'a String>) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(names::file(path)?) {
            return Err(Fault::new(
                "SamePathRequestException",
                format!("{path} is there more than once: a commit changes a file in one way."),
            ));
        }
    }
    Ok(())
}

async fn put(
    draft: &mut Draft<'_>,
    entry: PutFileEntry,
    keep: bool,
    changed: &mut Changed,
) -> Result<(), Fault> {
    let path = names::file(&entry.file_path)?;
    let before = draft.file(path).cloned();
    let id = match (entry.file_content, entry.source_file) {
        (Some(content), None) => draft.put(path, &content, entry.file_mode).await?,
        (None, Some(source)) => {
            let from = names::file(&source.file_path)?;
            let (mode, id) = draft.file(from).cloned().ok_or_else(|| faults::no_file(from))?;
            if source.is_move.unwrap_or_default() {
                draft.remove(from, keep).await?;
                changed.deleted.push(file(from, &id, &mode));
            }
            draft.put_id(path, &id, entry.file_mode.or(mode_name(&mode)))?;
            id
        }
        (Some(_), Some(_)) => {
            return Err(Fault::new(
                "FileContentAndSourceFileSpecifiedException",
                "A file has either content or a source file, not both.",
            ));
        }
        (None, None) => {
            return Err(Fault::new(
                "SourceFileOrContentRequiredException",
                "A file has either content or a source file.",
            ));
        }
    };
    let now = draft.file(path).cloned();
    let mode = now.as_ref().map(|(mode, _)| mode.clone()).unwrap_or_default();
    match before {
        None => changed.added.push(file(path, &id, &mode)),
        before if before != now => changed.updated.push(file(path, &id, &mode)),
        _ => {}
    }
    Ok(())
}
