//! Who is told of pushes.

use super::find;
use crate::{
    CodeCommit,
    api::*,
    model::{References, Repository, Triggers},
    names, triggers,
};
use std::{collections::BTreeSet, result::Result};
use wire::{Context, Fault};

/// The most triggers of a repository, and branches of a trigger.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_TRIGGERS: usize = 10;
const MOST_BRANCHES: usize = 10;
/// The longest custom data, in characters.
const LONGEST_DATA: usize = 1000;

/// What the ARNs of a realm's topics begin with.
fn topics_of(realm: &str) -> String {
    let (account, region) = realm.split_once('/').unwrap_or_default();
    format!("arn:aws:sns:{region}:{account}:")
}

fn check(
    codecommit: &CodeCommit,
    repository: &Repository,
    all: &[RepositoryTrigger],
) -> Result<(), Fault> {
    if all.len() > MOST_TRIGGERS {
        return Err(Fault::new(
            "MaximumRepositoryTriggersExceededException",
            format!("A repository can have at most {MOST_TRIGGERS} triggers."),
        ));
    }
    let mut seen = BTreeSet::new();
    for trigger in all {
        let name = &trigger.name;
        let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 100 || !name.chars().all(letter) || !seen.insert(name) {
            return Err(Fault::new(
                "InvalidRepositoryTriggerNameException",
                "A trigger has a name of its own: letters, digits, periods, underscores and hyphens, at most 100.",
            ));
        }
        let destination = &trigger.destination_arn;
        let wrong = |why: String| {
            let message =
                format!("The trigger {name} cannot have the destination {destination}: {why}");
            Fault::new("InvalidRepositoryTriggerDestinationArnException", message)
        };
        match (codecommit.told.get(), destination.contains(":sns:")) {
            (Some(told), false) => {
                told.lambda.function(&repository.realm, destination).map_err(wrong)?;
            }
            (_, true) if !destination.starts_with(&topics_of(&repository.realm)) => {
                return Err(wrong("it is not a topic of this account and region.".to_owned()));
            }
            _ => {}
        }
        if trigger.events.is_empty() {
            return Err(Fault::new(
                "RepositoryTriggerEventsListRequiredException",
                format!("The trigger {name} needs events."),
            ));
        }
        if trigger.custom_data.as_ref().is_some_and(|data| data.chars().count() > LONGEST_DATA) {
            return Err(Fault::new(
                "InvalidRepositoryTriggerCustomDataException",
                format!(
                    "The trigger {name} has more than {LONGEST_DATA} characters of custom data."
                ),
            ));
        }
        let branches = trigger.branches.as_deref().unwrap_or_default();
        if branches.len() > MOST_BRANCHES {
            return Err(Fault::new(
                "MaximumBranchesExceededException",
                format!("A trigger can have at most {MOST_BRANCHES} branches."),
            ));
        }
        if let Some(bad) = branches.iter().find(|branch| names::branch(branch).is_err()) {
            return Err(Fault::new(
                "InvalidRepositoryTriggerBranchNameException",
                format!("{bad} is not the name of a branch."),
            ));
        }
    }
    Ok(())
}

pub(crate) async fn put_repository_triggers(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: PutRepositoryTriggersInput,
) -> Result<PutRepositoryTriggersOutput, Fault> {
    let name = &input.repository_name;
    let repository = find(codecommit, ctx, name, "codecommit:PutRepositoryTriggers")?;
    check(codecommit, &repository, &input.triggers)?;
    let configuration = codecommit.world.uuid();
    let triggers = Triggers { configuration: configuration.clone(), list: input.triggers };
    super::repository::change(codecommit, ctx, name, |repository| repository.triggers = triggers)
        .await?;
    Ok(PutRepositoryTriggersOutput { configuration_id: Some(configuration) })
}

pub(crate) async fn get_repository_triggers(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetRepositoryTriggersInput,
) -> Result<GetRepositoryTriggersOutput, Fault> {
    let name = &input.repository_name;
    let repository = find(codecommit, ctx, name, "codecommit:GetRepositoryTriggers")?;
    let Triggers { configuration, list } = repository.triggers.clone();
    let configuration_id = Some(configuration).filter(|id| !id.is_empty());
    Ok(GetRepositoryTriggersOutput { configuration_id, triggers: Some(list) })
}

pub(crate) async fn test_repository_triggers(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: TestRepositoryTriggersInput,
) -> Result<TestRepositoryTriggersOutput, Fault> {
    let name = &input.repository_name;
    let repository = find(codecommit, ctx, name, "codecommit:TestRepositoryTriggers")?;
    check(codecommit, &repository, &input.triggers)?;
    let now = codecommit.store.read().get::<References>(&repository.id);
    let now = now.map(|references| references.told.clone()).unwrap_or_default();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for trigger in &input.triggers {
        match triggers::test(codecommit, &repository, trigger, &now, &ctx.principal.arn).await {
            Ok(()) => good.push(trigger.name.clone()),
            Err(why) => bad.push(RepositoryTriggerExecutionFailure {
                trigger: Some(trigger.name.clone()),
                failure_message: Some(why),
            }),
        }
    }
    Ok(TestRepositoryTriggersOutput {
        successful_executions: Some(good),
        failed_executions: Some(bad),
    })
}
