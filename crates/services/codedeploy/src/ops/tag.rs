//! Tags on applications and deployment groups.

use super::{application_arn, group_arn};
use crate::{
    CodeDeploy,
    api::*,
    faults,
    model::{Application, Group},
};
use std::collections::BTreeMap;
use store::Tx;
use wire::{Context, Fault};

/// The most tags on one of them.
const MOST_TAGS: usize = 50;

type Tags = BTreeMap<String, String>;

fn check(tags: Tags) -> Result<Tags, Fault> {
    let own = tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:"));
    if own || tags.len() > MOST_TAGS {
        let message =
            format!("There can be at most {MOST_TAGS} tags, and keys can't begin with \"aws:\".");
        return Err(Fault::new("InvalidTagsToAddException", message));
    }
    Ok(tags)
}

/// Tags as they are kept.
pub(crate) fn collect(tags: Vec<Tag>) -> Result<Tags, Fault> {
    let pair = |tag: Tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
    check(tags.into_iter().map(pair).collect())
}

/// What an ARN names.
enum Tagged {
    Application(String),
    Group(String),
}

impl Tagged {
    fn read(ctx: &Context, arn: &str) -> Result<Self, Fault> {
        let realm = ctx.realm();
        if let Some(name) = arn.strip_prefix(&application_arn(ctx, "")) {
            return Ok(Self::Application(Application::key_of(&realm, name)));
        }
        let group = arn.strip_prefix(group_arn(ctx, "", "").trim_end_matches('/'));
        match group.and_then(|rest| rest.split_once('/')) {
            Some((application, name)) => Ok(Self::Group(Group::key_of(&realm, application, name))),
            None => Err(Fault::new(
                "InvalidArnException",
                "The specified ARN is not in a valid format.",
            )),
        }
    }

    fn missing(&self) -> Fault {
        match self {
            Self::Application(key) => faults::no_application(key.rsplit('/').next().unwrap_or(key)),
            Self::Group(key) => faults::no_group(key.rsplit('/').next().unwrap_or(key)),
        }
    }

    fn change(&self, tx: &mut Tx, change: impl FnOnce(&mut Tags)) -> Result<(), Fault> {
        let tags = match self {
            Self::Application(key) => tx.get::<Application>(key).map(|one| one.tags.clone()),
            Self::Group(key) => tx.get::<Group>(key).map(|one| one.tags.clone()),
        };
        let mut tags = tags.ok_or_else(|| self.missing())?;
        change(&mut tags);
        let tags = check(tags)?;
        match self {
            Self::Application(key) => tx.update::<Application>(key, |one| one.tags = tags),
            Self::Group(key) => tx.update::<Group>(key, |one| one.tags = tags),
        };
        Ok(())
    }
}

pub(crate) async fn tag_resource(
    service: &CodeDeploy,
    ctx: &Context,
    input: TagResourceInput,
) -> Result<TagResourceOutput, Fault> {
    ctx.authorise("codedeploy:TagResource", &input.resource_arn)?;
    let (tagged, added) = (Tagged::read(ctx, &input.resource_arn)?, collect(input.tags)?);
    service.store.write(move |tx| tagged.change(tx, |tags| tags.extend(added))).await?;
    Ok(TagResourceOutput::default())
}

pub(crate) async fn untag_resource(
    service: &CodeDeploy,
    ctx: &Context,
    input: UntagResourceInput,
) -> Result<UntagResourceOutput, Fault> {
    ctx.authorise("codedeploy:UntagResource", &input.resource_arn)?;
    let tagged = Tagged::read(ctx, &input.resource_arn)?;
    let gone = input.tag_keys;
    let removed = service
        .store
        .write(move |tx| tagged.change(tx, |tags| tags.retain(|key, _| !gone.contains(key))));
    removed.await?;
    Ok(UntagResourceOutput::default())
}

pub(crate) async fn list_tags_for_resource(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput, Fault> {
    ctx.authorise("codedeploy:ListTagsForResource", &input.resource_arn)?;
    // All tags go on one page, so there is no token that could be given back.
    if input.next_token.is_some() {
        return Err(faults::token());
    }
    let (tagged, snapshot) = (Tagged::read(ctx, &input.resource_arn)?, service.store.read());
    let tags = match &tagged {
        Tagged::Application(key) => snapshot.get::<Application>(key).map(|one| one.tags.clone()),
        Tagged::Group(key) => snapshot.get::<Group>(key).map(|one| one.tags.clone()),
    };
    let tags = tags.ok_or_else(|| tagged.missing())?.into_iter();
    let tags = tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) });
    Ok(ListTagsForResourceOutput { tags: Some(tags.collect()), next_token: None })
}
