//! Task definitions.

use super::{
    listing::page,
    named::{task_definition, task_definition_arn},
    tag::checked,
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{Family, Tags, TaskDefinition as Record, tags_out},
    validate,
};
use std::sync::Arc;
use wire::{Context, Fault};

/// The ARN of a role that is named by it, or by its name alone, as templates often do.
pub(super) fn role_arn(ctx: &Context, role: &str) -> String {
    match role.starts_with("arn:") {
        true => role.to_owned(),
        false => format!("arn:aws:iam::{}:role/{role}", ctx.account()),
    }
}

pub(crate) async fn register_task_definition(
    ecs: &Ecs,
    ctx: &Context,
    input: RegisterTaskDefinitionRequest,
) -> Result<RegisterTaskDefinitionResponse, Fault> {
    let arn = ctx.arn("ecs", format!("task-definition/{}:*", input.family));
    ctx.authorise("ecs:RegisterTaskDefinition", &arn)?;
    let tags = checked(Tags::new(), input.tags.clone())?;
    let family = input.family.clone();
    let mut document = validate::document(input)?;
    let roles = [&mut document.task_role_arn, &mut document.execution_role_arn];
    for role in roles.into_iter().flatten() {
        *role = role_arn(ctx, role);
        let service = [("iam:PassedToService", "ecs-tasks.amazonaws.com")];
        ctx.authorise_with("iam:PassRole", role, &service)?;
    }
    document.registered_at = Some(ctx.now);
    document.registered_by = Some(ctx.principal.arn.clone());
    let (realm, prefix) = (ctx.realm(), ctx.arn("ecs", "task-definition/"));
    let written = ecs.store.write(move |tx| {
        let before = tx.get::<Family>(&Family::key_of(&realm, &family));
        let revision = before.map_or(0, |family| family.revision) + 1;
        document.task_definition_arn = Some(format!("{prefix}{family}:{revision}"));
        document.revision = Some(revision);
        let record =
            Record { realm: realm.clone(), family: family.clone(), revision, document, tags };
        tx.put(Family { realm, name: family, revision });
        tx.put(record.clone());
        Ok::<_, Fault>(record)
    });
    let record = written.await?;
    let tags = Some(tags_out(&record.tags));
    Ok(RegisterTaskDefinitionResponse { task_definition: Some(record.document), tags })
}

pub(crate) async fn describe_task_definition(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeTaskDefinitionRequest,
) -> Result<DescribeTaskDefinitionResponse, Fault> {
    ctx.authorise("ecs:DescribeTaskDefinition", "*")?;
    let found = task_definition(ecs, ctx, &input.task_definition);
    let found = found.ok_or_else(faults::no_task_definition)?;
    let tagged = input.include.is_some_and(|include| include.contains(&TaskDefinitionField::Tags));
    Ok(DescribeTaskDefinitionResponse {
        task_definition: Some(found.document.clone()),
        tags: Some(if tagged { tags_out(&found.tags) } else { Vec::new() }),
    })
}

pub(crate) async fn deregister_task_definition(
    ecs: &Ecs,
    ctx: &Context,
    input: DeregisterTaskDefinitionRequest,
) -> Result<DeregisterTaskDefinitionResponse, Fault> {
    ctx.authorise("ecs:DeregisterTaskDefinition", "*")?;
    if !input.task_definition.trim_start_matches("arn:").contains(':') {
        return Err(faults::invalid("Invalid revision number. Number: "));
    }
    let found = task_definition(ecs, ctx, &input.task_definition);
    let found =
        found.ok_or_else(|| faults::client("The specified task definition does not exist."))?;
    let now = ctx.now;
    let changed = set_status(ecs, &found, move |document| {
        if document.status == Some(TaskDefinitionStatus::Active) {
            document.status = Some(TaskDefinitionStatus::Inactive);
            document.deregistered_at = Some(now);
        }
        Ok(())
    });
    Ok(DeregisterTaskDefinitionResponse { task_definition: Some(changed.await?) })
}

async fn set_status(
    ecs: &Ecs,
    found: &Arc<Record>,
    change: impl FnOnce(&mut TaskDefinition) -> Result<(), Fault> + Send + 'static,
) -> Result<TaskDefinition, Fault> {
    let key = Record::key_of(&found.realm, &found.family, found.revision);
    let changed = ecs.store.write(move |tx| {
        let record = tx.get::<Record>(&key).ok_or_else(faults::no_task_definition)?;
        let mut record = Arc::unwrap_or_clone(record);
        change(&mut record.document)?;
        tx.put(record.clone());
        Ok::<_, Fault>(record.document)
    });
    changed.await
}

pub(crate) async fn delete_task_definitions(
    ecs: &Ecs,
    ctx: &Context,
    input: DeleteTaskDefinitionsRequest,
) -> Result<DeleteTaskDefinitionsResponse, Fault> {
    if input.task_definitions.len() > 10 {
        return Err(faults::invalid("The maximum number of task definitions to delete is 10."));
    }
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for given in input.task_definitions {
        let arn = task_definition_arn(ctx, &given);
        ctx.authorise("ecs:DeleteTaskDefinitions", &arn)?;
        let failure = |reason: &str| Failure {
            arn: Some(arn.clone()),
            reason: Some(reason.to_owned()),
            detail: None,
        };
        match task_definition(ecs, ctx, &given) {
            None => failures.push(failure("The specified task definition does not exist.")),
            Some(found) if found.status() == TaskDefinitionStatus::Active => {
                failures.push(failure(
                    "The specified task definition is still in ACTIVE status. \
                    Please deregister the target and try again.",
                ))
            }
            Some(found) => {
                let gone = set_status(ecs, &found, |document| {
                    document.status = Some(TaskDefinitionStatus::DeleteInProgress);
                    Ok(())
                });
                deleted.push(gone.await?);
            }
        }
    }
    // They stay in DELETE_IN_PROGRESS while tasks use them; `reconcile::task_definition` removes those that none does.
    Ok(DeleteTaskDefinitionsResponse { task_definitions: Some(deleted), failures: Some(failures) })
}

pub(crate) async fn list_task_definitions(
    ecs: &Ecs,
    ctx: &Context,
    input: ListTaskDefinitionsRequest,
) -> Result<ListTaskDefinitionsResponse, Fault> {
    ctx.authorise("ecs:ListTaskDefinitions", "*")?;
    let status = input.status.unwrap_or(TaskDefinitionStatus::Active);
    let descending = input.sort == Some(SortOrder::Desc);
    let snapshot = ecs.store.read();
    let prefix = match &input.family_prefix {
        Some(family) => format!("{}/{family}/", ctx.realm()),
        None => format!("{}/", ctx.realm()),
    };
    let found = snapshot.scan_prefix::<Record>(&prefix);
    let mut found: Vec<(String, String)> = found
        .filter(|definition| definition.status() == status)
        .map(|d| (format!("{}/{:010}", d.family, d.revision), d.arn().to_owned()))
        .collect();
    if descending {
        found.reverse();
        // Pages go by ascending keys; a descending listing is keyed by its rank, which changes only at its front.
        let total = found.len();
        for (rank, (key, _)) in found.iter_mut().enumerate() {
            *key = format!("{rank:010}/{total}");
        }
    }
    let (arns, next_token) = page(
        "ListTaskDefinitions",
        input.next_token.as_deref(),
        input.max_results,
        found.into_iter(),
    )?;
    Ok(ListTaskDefinitionsResponse { task_definition_arns: Some(arns), next_token })
}

pub(crate) async fn list_task_definition_families(
    ecs: &Ecs,
    ctx: &Context,
    input: ListTaskDefinitionFamiliesRequest,
) -> Result<ListTaskDefinitionFamiliesResponse, Fault> {
    ctx.authorise("ecs:ListTaskDefinitionFamilies", "*")?;
    let status = input.status.unwrap_or(TaskDefinitionFamilyStatus::Active);
    let snapshot = ecs.store.read();
    let prefix = format!("{}/{}", ctx.realm(), input.family_prefix.unwrap_or_default());
    let is_active = |family: &Family| {
        let revisions =
            snapshot.scan_prefix::<Record>(&format!("{}/{}/", family.realm, family.name));
        revisions.rev().any(|d| d.status() == TaskDefinitionStatus::Active)
    };
    let families = snapshot.scan_prefix::<Family>(&prefix).filter(|family| match status {
        TaskDefinitionFamilyStatus::All => true,
        TaskDefinitionFamilyStatus::Active => is_active(family),
        TaskDefinitionFamilyStatus::Inactive => !is_active(family),
    });
    let names = families.map(|family| (family.name.clone(), family.name.clone()));
    let (families, next_token) =
        page("ListTaskDefinitionFamilies", input.next_token.as_deref(), input.max_results, names)?;
    Ok(ListTaskDefinitionFamiliesResponse { families: Some(families), next_token })
}
