//! Tags on repositories.

use super::find;
use crate::{CodeCommit, api::*, faults, model::Repository};
use std::collections::BTreeMap;
use wire::{Context, Fault};

/// The most tags on one repository.
const MOST_TAGS: usize = 50;

fn system_tag() -> Fault {
    Fault::new(
        "InvalidSystemTagUsageException",
        "The tag is not valid. Key names cannot be prefixed with aws:.",
    )
}

/// Whether a repository may have these.
pub(crate) fn check(tags: &BTreeMap<String, String>) -> Result<(), Fault> {
    if tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(system_tag());
    }
    match tags.len() > MOST_TAGS {
        true => Err(Fault::new(
            "TooManyTagsException",
            format!("A repository can have at most {MOST_TAGS} tags."),
        )),
        false => Ok(()),
    }
}

fn name<'a>(ctx: &Context, arn: &'a str) -> Result<&'a str, Fault> {
    let name = arn.strip_prefix(&ctx.arn("codecommit", ""));
    name.ok_or_else(|| {
        Fault::new(
            "InvalidResourceArnException",
            "The value for the resource ARN is not that of a repository in this account and region.",
        )
    })
}

async fn retag(
    codecommit: &CodeCommit,
    repository: &Repository,
    change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
) -> Result<(), Fault> {
    let (key, name) =
        (Repository::key_of(&repository.realm, &repository.name), repository.name.clone());
    codecommit
        .store
        .write(move |tx| {
            let record = tx.get::<Repository>(&key).ok_or_else(|| faults::no_repository(&name))?;
            let mut tags = record.tags.clone();
            change(&mut tags);
            check(&tags)?;
            tx.update::<Repository>(&key, |record| record.tags = tags);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: TagResourceInput,
) -> Result<(), Fault> {
    let name = name(ctx, &input.resource_arn)?;
    let repository = find(codecommit, ctx, name, "codecommit:TagResource")?;
    retag(codecommit, &repository, |tags| tags.extend(input.tags)).await
}

pub(crate) async fn untag_resource(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UntagResourceInput,
) -> Result<(), Fault> {
    let name = name(ctx, &input.resource_arn)?;
    let repository = find(codecommit, ctx, name, "codecommit:UntagResource")?;
    retag(codecommit, &repository, move |tags| tags.retain(|key, _| !input.tag_keys.contains(key)))
        .await
}

pub(crate) async fn list_tags_for_resource(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    let name = name(ctx, &input.resource_arn)?;
    let repository = find(codecommit, ctx, name, "codecommit:ListTagsForResource")?;
    // All tags go on one page, so there is no token that could be given back.
    match input.next_token {
        Some(_) => Err(faults::token()),
        None => {
            Ok(ListTagsForResourceOutput { tags: Some(repository.tags.clone()), next_token: None })
        }
    }
}
