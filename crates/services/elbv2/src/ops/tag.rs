//! Tags of load balancers, listeners, rules and target groups.

use super::find::{FoundRule, Resource, find, find_rule, kind_of};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{
        Listener as ListenerRecord, LoadBalancer as Balancer, Rule as RuleRecord, Tags,
        TargetGroup as Group,
    },
};
use store::{Tx, View};
use wire::{Context, Fault};

/// The most tags on one resource.
const MOST_TAGS: usize = 50;
/// The most resources in one call.
const MOST_RESOURCES: usize = 20;

/// New tags, checked.
pub(super) fn tags_in(tags: Option<Vec<Tag>>) -> Result<Tags, Fault> {
    let mut read = Tags::new();
    for tag in tags.into_iter().flatten() {
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            let message = format!("Tag keys cannot begin with 'aws:': '{}'", tag.key);
            return Err(faults::invalid(message));
        }
        if read.insert(tag.key, tag.value.unwrap_or_default()).is_some() {
            return Err(faults::duplicate_tags());
        }
    }
    check_count(&read).map(|()| read)
}

fn check_count(tags: &Tags) -> Result<(), Fault> {
    match tags.len() > MOST_TAGS {
        true => Err(faults::too_many("TooManyTags", "tags on a resource", MOST_TAGS)),
        false => Ok(()),
    }
}

/// Lets a caller create a thing, with tags if there are some: `operation` is `CreateRule` and the like.
pub(super) fn authorise_create(
    ctx: &Context,
    operation: &str,
    arn: &str,
    tags: Option<&Vec<Tag>>,
) -> Result<(), Fault> {
    ctx.authorise(&format!("elasticloadbalancing:{operation}"), arn)?;
    if tags.is_some_and(|tags| !tags.is_empty()) {
        let key = ("elasticloadbalancing:CreateAction", operation);
        ctx.authorise_with("elasticloadbalancing:AddTags", arn, &[key])?;
    }
    Ok(())
}

fn check_arns(arns: &[String]) -> Result<(), Fault> {
    match arns.len() {
        0 => Err(faults::invalid("At least one resource ARN must be specified")),
        count if count > MOST_RESOURCES => {
            let message =
                format!("The number of resource ARNs cannot be more than '{MOST_RESOURCES}'");
            Err(faults::invalid(message))
        }
        _ => Ok(()),
    }
}

/// Authorises an action on every resource of a call.
fn authorise(ctx: &Context, action: &str, arns: &[String]) -> Result<(), Fault> {
    match arns {
        [] => ctx.authorise(action, "*"),
        arns => arns.iter().try_for_each(|arn| ctx.authorise(action, arn)),
    }
}

/// Changes the tags of what an ARN names.
fn change(
    tx: &mut Tx,
    realm: &str,
    arn: &str,
    change: impl FnOnce(&mut Tags),
) -> Result<(), Fault> {
    match kind_of(arn) {
        Some(Balancer::KIND) => change_of::<Balancer>(tx, realm, arn, change),
        Some(ListenerRecord::KIND) => change_of::<ListenerRecord>(tx, realm, arn, change),
        Some(Group::KIND) => change_of::<Group>(tx, realm, arn, change),
        Some(RuleRecord::KIND) => match find_rule(tx, realm, arn)? {
            FoundRule::Own(_) => change_of::<RuleRecord>(tx, realm, arn, change),
            FoundRule::Default(_) => {
                let message = format!("Default rule '{arn}' cannot be tagged");
                Err(faults::not_permitted(message))
            }
        },
        _ => Err(faults::bad_arn(arn, "resource")),
    }
}

fn change_of<T: Resource>(
    tx: &mut Tx,
    realm: &str,
    arn: &str,
    change: impl FnOnce(&mut Tags),
) -> Result<(), Fault> {
    let found = find::<T>(tx, realm, arn)?;
    let mut record = T::clone(&found);
    change(record.tags_mut());
    check_count(record.tags())?;
    tx.put(record);
    Ok(())
}

pub(crate) async fn add_tags(
    elb: &ElbV2,
    ctx: &Context,
    input: AddTagsInput,
) -> Result<AddTagsOutput, Fault> {
    authorise(ctx, "elasticloadbalancing:AddTags", &input.resource_arns)?;
    check_arns(&input.resource_arns)?;
    let tags = tags_in(Some(input.tags))?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| {
            input
                .resource_arns
                .iter()
                .try_for_each(|arn| change(tx, &realm, arn, |own| own.extend(tags.clone())))
        })
        .await?;
    Ok(AddTagsOutput {})
}

pub(crate) async fn remove_tags(
    elb: &ElbV2,
    ctx: &Context,
    input: RemoveTagsInput,
) -> Result<RemoveTagsOutput, Fault> {
    authorise(ctx, "elasticloadbalancing:RemoveTags", &input.resource_arns)?;
    check_arns(&input.resource_arns)?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| {
            input.resource_arns.iter().try_for_each(|arn| {
                change(tx, &realm, arn, |own| own.retain(|key, _| !input.tag_keys.contains(key)))
            })
        })
        .await?;
    Ok(RemoveTagsOutput {})
}

/// The tags of what an ARN names.
fn tags_of(view: &impl View, realm: &str, arn: &str) -> Result<Tags, Fault> {
    match kind_of(arn) {
        Some(Balancer::KIND) => Ok(find::<Balancer>(view, realm, arn)?.tags.clone()),
        Some(ListenerRecord::KIND) => Ok(find::<ListenerRecord>(view, realm, arn)?.tags.clone()),
        Some(Group::KIND) => Ok(find::<Group>(view, realm, arn)?.tags.clone()),
        Some(RuleRecord::KIND) => match find_rule(view, realm, arn)? {
            FoundRule::Own(rule) => Ok(rule.tags.clone()),
            FoundRule::Default(_) => Ok(Tags::new()),
        },
        _ => Err(faults::bad_arn(arn, "resource")),
    }
}

pub(crate) async fn describe_tags(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeTagsInput,
) -> Result<DescribeTagsOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeTags", "*")?;
    check_arns(&input.resource_arns)?;
    let snapshot = elb.store.read();
    let mut described = Vec::new();
    for arn in input.resource_arns {
        let tags = tags_of(&snapshot, &ctx.realm(), &arn)?;
        let tags = tags.into_iter().map(|(key, value)| Tag { key, value: Some(value) });
        described.push(TagDescription { resource_arn: Some(arn), tags: Some(tags.collect()) });
    }
    Ok(DescribeTagsOutput { tag_descriptions: Some(described) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str) -> Tag {
        Tag { key: key.to_owned(), value: None }
    }

    #[test]
    fn new_tags() {
        assert_eq!(tags_in(Some(vec![tag("a"), tag("b")])).unwrap().len(), 2);
        let code = |tags: Vec<Tag>| tags_in(Some(tags)).unwrap_err().code;
        assert_eq!(code(vec![tag("a"), tag("a")]), "DuplicateTagKeys");
        assert_eq!(code(vec![tag("AWS:x")]), "ValidationError");
        assert_eq!(code((0..51).map(|n| tag(&n.to_string())).collect()), "TooManyTags");
    }
}
