//! Tags on clusters, services, task definitions and tasks.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>

use super::named::{cluster_name, service_name, task, task_definition};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{Cluster, Service, Tags, Task, TaskDefinition, tags_out},
};
use std::sync::Arc;
use store::{Record, Tx};
use wire::{Context, Fault};

/// The most tags on one resource.
const MOST_TAGS: usize = 50;

/// `tags` with `new` set, checked.
pub(super) fn checked(mut tags: Tags, new: Option<Vec<Tag>>) -> Result<Tags, Fault> {
    for tag in new.into_iter().flatten() {
        let Some(key) = tag.key.filter(|key| !key.is_empty()) else {
            return Err(faults::invalid("Tag key cannot be null or empty."));
        };
        if key.to_lowercase().starts_with("aws:") {
            let message = "Tag keys and values cannot start with the reserved prefix aws:.";
            return Err(faults::invalid(message));
        }
        tags.insert(key, tag.value.unwrap_or_default());
    }
    match tags.len() > MOST_TAGS {
        true => Err(faults::invalid("The maximum number of tags per resource is 50.")),
        false => Ok(tags),
    }
}

/// A taggable resource by its ARN.
enum Tagged {
    Cluster(String),
    TaskDefinition(String),
    Task(String),
    Service(String),
}

fn find(ecs: &Ecs, ctx: &Context, arn: &str) -> Result<(Tagged, Tags), Fault> {
    let missing = || faults::no_resource(arn);
    let rest = arn.strip_prefix(&ctx.arn("ecs", "")).ok_or_else(missing)?;
    let snapshot = ecs.store.read();
    match rest.split_once('/').ok_or_else(missing)? {
        ("cluster", _) => {
            let key = Cluster::key_of(&ctx.realm(), &cluster_name(ctx, Some(arn))?);
            let cluster = snapshot.get::<Cluster>(&key).filter(|cluster| cluster.active);
            Ok((Tagged::Cluster(key), cluster.ok_or_else(missing)?.tags.clone()))
        }
        ("task-definition", _) => {
            let definition = task_definition(ecs, ctx, arn).ok_or_else(missing)?;
            Ok((Tagged::TaskDefinition(definition.key()), definition.tags.clone()))
        }
        ("task", rest) => {
            let cluster = rest.split('/').next().unwrap_or_default();
            let task = task(ecs, ctx, cluster, arn).ok_or_else(missing)?;
            Ok((Tagged::Task(task.key()), task.tags.clone()))
        }
        ("service", rest) => {
            let cluster = rest.split('/').next().unwrap_or_default();
            let name = service_name(ctx, cluster, arn)?;
            let key = Service::key_of(&ctx.realm(), cluster, &name);
            let service = snapshot.get::<Service>(&key).ok_or_else(missing)?;
            Ok((Tagged::Service(key), service.tags.clone()))
        }
        _ => Err(missing()),
    }
}

impl Tagged {
    fn set(&self, tx: &mut Tx, tags: Tags) {
        match self {
            Self::Cluster(key) => tx.update::<Cluster>(key, |cluster| cluster.tags = tags),
            Self::TaskDefinition(key) => tx.update::<TaskDefinition>(key, |d| d.tags = tags),
            Self::Task(key) => tx.update::<Task>(key, |task| task.tags = tags),
            Self::Service(key) => tx.update::<Service>(key, |service| service.tags = tags),
        };
    }

    fn tags(&self, tx: &Tx) -> Option<Tags> {
        match self {
            Self::Cluster(key) => tx.get::<Cluster>(key).map(|cluster| cluster.tags.clone()),
            Self::TaskDefinition(key) => tx.get::<TaskDefinition>(key).map(|d| d.tags.clone()),
            Self::Task(key) => tx.get::<Task>(key).map(|task| task.tags.clone()),
            Self::Service(key) => tx.get::<Service>(key).map(|service| service.tags.clone()),
        }
    }
}

async fn retag(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    arn: String,
    change: impl FnOnce(Tags) -> Result<Tags, Fault> + Send + 'static,
) -> Result<(), Fault> {
    let (tagged, _) = find(ecs, ctx, &arn)?;
    ecs.store
        .write(move |tx| {
            let tags = tagged.tags(tx).ok_or_else(|| faults::no_resource(&arn))?;
            tagged.set(tx, change(tags)?);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_resource(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, Fault> {
    ctx.authorise("ecs:TagResource", &input.resource_arn)?;
    retag(ecs, ctx, input.resource_arn, |tags| checked(tags, Some(input.tags))).await?;
    Ok(TagResourceResponse {})
}

pub(crate) async fn untag_resource(
    ecs: &Arc<Ecs>,
    ctx: &Context,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, Fault> {
    ctx.authorise("ecs:UntagResource", &input.resource_arn)?;
    retag(ecs, ctx, input.resource_arn, move |mut tags| {
        tags.retain(|key, _| !input.tag_keys.contains(key));
        Ok(tags)
    })
    .await?;
    Ok(UntagResourceResponse {})
}

pub(crate) async fn list_tags_for_resource(
    ecs: &Ecs,
    ctx: &Context,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, Fault> {
    ctx.authorise("ecs:ListTagsForResource", &input.resource_arn)?;
    let (_, tags) = find(ecs, ctx, &input.resource_arn)?;
    Ok(ListTagsForResourceResponse { tags: Some(tags_out(&tags)) })
}
