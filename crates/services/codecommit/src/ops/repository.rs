//! Repositories.

use super::{find, tag};
use crate::{
    CodeCommit,
    api::*,
    faults,
    model::{References, Repository, Triggers},
    names, pull, settle,
};
use wire::{Context, Fault, Page};

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 1000;
/// The most repositories of an account.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_REPOSITORIES: usize = 5000;
/// The most names in one request.
const MOST_NAMES: usize = 100;
/// So many names are on a page.
const PAGE: usize = 1000;

fn metadata(codecommit: &CodeCommit, repository: &Repository) -> RepositoryMetadata {
    RepositoryMetadata {
        account_id: Some(repository.account().to_owned()),
        repository_id: Some(repository.id.clone()),
        repository_name: Some(repository.name.clone()),
        repository_description: repository.description.clone(),
        default_branch: repository.default_branch.clone(),
        last_modified_date: Some(repository.modified),
        creation_date: Some(repository.created),
        clone_url_http: Some(codecommit.clone_url(repository)),
        // There is no SSH server, so there is no URL for one.
        clone_url_ssh: None,
        arn: Some(repository.arn()),
        kms_key_id: None,
    }
}

fn description(text: Option<String>) -> Result<Option<String>, Fault> {
    let text = text.filter(|text| !text.is_empty());
    match text.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        true => Err(Fault::new(
            "InvalidRepositoryDescriptionException",
            format!("A description can have at most {LONGEST_DESCRIPTION} characters."),
        )),
        false => Ok(text),
    }
}

pub(crate) async fn create_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreateRepositoryInput,
) -> Result<CreateRepositoryOutput, Fault> {
    if !names::is_repository(&input.repository_name) {
        return Err(faults::repository_name());
    }
    let tags = input.tags.unwrap_or_default();
    let arn = ctx.arn("codecommit", &input.repository_name);
    ctx.authorise("codecommit:CreateRepository", &arn)?;
    if !tags.is_empty() {
        ctx.authorise("codecommit:TagResource", &arn)?;
    }
    tag::check(&tags)?;
    let repository = Repository {
        realm: ctx.realm(),
        name: input.repository_name,
        id: codecommit.world.uuid(),
        description: description(input.repository_description)?,
        default_branch: None,
        created: ctx.now,
        modified: ctx.now,
        tags,
        triggers: Triggers::default(),
    };
    let record = repository.clone();
    codecommit
        .store
        .write(move |tx| {
            if tx.get::<Repository>(&Repository::key_of(&record.realm, &record.name)).is_some() {
                return Err(faults::repository_exists(&record.name));
            }
            if tx.scan_prefix::<Repository>(&format!("{}/", record.realm)).count()
                >= MOST_REPOSITORIES
            {
                return Err(Fault::new(
                    "RepositoryLimitExceededException",
                    format!(
                        "An account can have at most {MOST_REPOSITORIES} repositories in a region."
                    ),
                ));
            }
            tx.put(record);
            Ok(())
        })
        .await?;
    // With the record first, no moment leaves a directory that nothing names.
    if let Err(error) = codecommit.git.bare(&repository.id).init().await {
        forget(codecommit, &repository).await?;
        return Err(error.into());
    }
    let repository_metadata = Some(metadata(codecommit, &repository));
    Ok(CreateRepositoryOutput { repository_metadata })
}

/// Deletes the records; whether they were there.
async fn forget(codecommit: &CodeCommit, repository: &Repository) -> Result<(), Fault> {
    let (id, key) =
        (repository.id.clone(), Repository::key_of(&repository.realm, &repository.name));
    codecommit
        .store
        .write(move |tx| {
            if tx.get::<Repository>(&key).is_some_and(|found| found.id == id) {
                tx.delete::<Repository>(&key);
                tx.delete::<References>(&id);
                pull::forget(tx, &id);
            }
            Ok(())
        })
        .await
}

pub(crate) async fn delete_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DeleteRepositoryInput,
) -> Result<DeleteRepositoryOutput, Fault> {
    // As on AWS, deleting what is not there is no error.
    let found = find(codecommit, ctx, &input.repository_name, "codecommit:DeleteRepository");
    let repository = match found {
        Err(fault) if fault.code == "RepositoryDoesNotExistException" => {
            return Ok(DeleteRepositoryOutput { repository_id: None });
        }
        found => found?,
    };
    forget(codecommit, &repository).await?;
    codecommit.settling.lock().expect("nothing panics with the lock held").remove(&repository.id);
    let path = codecommit.git.bare(&repository.id).path().to_owned();
    if let Err(error) = tokio::fs::remove_dir_all(path).await {
        tracing::warn!(%error, "a deleted repository's directory stays until the next start");
    }
    Ok(DeleteRepositoryOutput { repository_id: Some(repository.id.clone()) })
}

pub(crate) async fn get_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetRepositoryInput,
) -> Result<GetRepositoryOutput, Fault> {
    let repository = find(codecommit, ctx, &input.repository_name, "codecommit:GetRepository")?;
    Ok(GetRepositoryOutput { repository_metadata: Some(metadata(codecommit, &repository)) })
}

pub(crate) async fn batch_get_repositories(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: BatchGetRepositoriesInput,
) -> Result<BatchGetRepositoriesOutput, Fault> {
    if input.repository_names.len() > MOST_NAMES {
        return Err(Fault::new(
            "MaximumRepositoryNamesExceededException",
            format!("The maximum number of allowed repository names is {MOST_NAMES}."),
        ));
    }
    let (mut repositories, mut missing, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for name in input.repository_names {
        match find(codecommit, ctx, &name, "codecommit:BatchGetRepositories") {
            Ok(repository) => repositories.push(metadata(codecommit, &repository)),
            Err(fault) if fault.code == "RepositoryDoesNotExistException" => {
                errors.push(BatchGetRepositoriesError {
                    repository_id: None,
                    repository_name: Some(name.clone()),
                    error_code: Some(
                        BatchGetRepositoriesErrorCodeEnum::RepositoryDoesNotExistException,
                    ),
                    error_message: Some(fault.message),
                });
                missing.push(name);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(BatchGetRepositoriesOutput {
        repositories: Some(repositories),
        repositories_not_found: Some(missing),
        errors: Some(errors),
    })
}

pub(crate) async fn list_repositories(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListRepositoriesInput,
) -> Result<ListRepositoriesOutput, Fault> {
    ctx.authorise("codecommit:ListRepositories", "*")?;
    let by_date = matches!(input.sort_by, Some(SortByEnum::LastModifiedDate));
    let descending = matches!(input.order, Some(OrderEnum::Descending));
    let snapshot = codecommit.store.read();
    let prefix = format!("{}/", ctx.realm());
    let mut all: Vec<(String, RepositoryNameIdPair)> = snapshot
        .scan_prefix::<Repository>(&prefix)
        .map(|repository| {
            let name = repository.name.clone();
            let key = match by_date {
                true => format!("{:020} {name}", repository.modified.millis()),
                false => name.clone(),
            };
            let id = repository.id.clone();
            (key, RepositoryNameIdPair { repository_name: Some(name), repository_id: Some(id) })
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let listing = format!("ListRepositories {by_date} {descending}");
    if descending {
        // Pages go up; what goes down is numbered.
        all.reverse();
        for (index, (key, _)) in all.iter_mut().enumerate() {
            *key = format!("{index:08}");
        }
    }
    let page = Page::take(&listing, input.next_token.as_deref(), PAGE, all.into_iter());
    let page = page.map_err(|_| faults::token())?;
    Ok(ListRepositoriesOutput { repositories: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn update_default_branch(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateDefaultBranchInput,
) -> Result<(), Fault> {
    let (name, branch) = (input.repository_name, input.default_branch_name);
    let repository = find(codecommit, ctx, &name, "codecommit:UpdateDefaultBranch")?;
    names::branch(&branch)?;
    let told = codecommit.store.read().get::<References>(&repository.id).unwrap_or_default();
    if !told.told.contains_key(&format!("{}{branch}", names::BRANCH)) {
        return Err(faults::no_branch(&branch));
    }
    settle::point_head(&codecommit.git.bare(&repository.id), &branch).await?;
    change(codecommit, ctx, &name, move |repository| repository.default_branch = Some(branch)).await
}

pub(crate) async fn update_repository_description(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateRepositoryDescriptionInput,
) -> Result<(), Fault> {
    let name = input.repository_name;
    find(codecommit, ctx, &name, "codecommit:UpdateRepositoryDescription")?;
    let description = description(input.repository_description)?;
    change(codecommit, ctx, &name, move |repository| repository.description = description).await
}

pub(crate) async fn update_repository_name(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateRepositoryNameInput,
) -> Result<(), Fault> {
    if !names::is_repository(&input.new_name) {
        return Err(faults::repository_name());
    }
    ctx.authorise("codecommit:UpdateRepositoryName", &ctx.arn("codecommit", &input.new_name))?;
    find(codecommit, ctx, &input.old_name, "codecommit:UpdateRepositoryName")?;
    if input.old_name == input.new_name {
        return Err(faults::repository_exists(&input.new_name));
    }
    let (realm, now) = (ctx.realm(), ctx.now);
    codecommit
        .store
        .write(move |tx| {
            let (old, new) = (input.old_name, input.new_name);
            let key = Repository::key_of(&realm, &old);
            let record = tx.get::<Repository>(&key).ok_or_else(|| faults::no_repository(&old))?;
            if tx.get::<Repository>(&Repository::key_of(&realm, &new)).is_some() {
                return Err(faults::repository_exists(&new));
            }
            tx.delete::<Repository>(&key);
            tx.put(Repository { name: new, modified: now, ..(*record).clone() });
            Ok(())
        })
        .await
}

pub(super) async fn change(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    change: impl FnOnce(&mut Repository) + Send + 'static,
) -> Result<(), Fault> {
    let (key, name, now) = (Repository::key_of(&ctx.realm(), name), name.to_owned(), ctx.now);
    codecommit
        .store
        .write(move |tx| {
            let changed = tx.update::<Repository>(&key, |repository| {
                change(repository);
                repository.modified = now;
            });
            if changed { Ok(()) } else { Err(faults::no_repository(&name)) }
        })
        .await
}
