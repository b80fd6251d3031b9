//! Change sets: what an update would do, told before it is done.

use super::{
    PAGE,
    given::Request,
    named,
    stack::{not_now, parameters, tags, told_capabilities, updatable},
};
use crate::{
    CloudFormation,
    api::*,
    engine::{self, stack_event},
    faults,
    model::{self, ChangeSet},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault, Page};

/// What AWS says of a change set that would change nothing.
const NO_CHANGES: &str = "The submitted information didn't contain changes. Submit different information to \
 create a change set.";

fn arn(ctx: &Context, set: &ChangeSet) -> String {
    ctx.arn("cloudformation", format!("changeSet/{}/{}", set.name, set.id))
}

/// The change set of this ARN, or of this name and stack, if the caller may do `action`.
pub(super) fn find(
    house: &CloudFormation,
    ctx: &Context,
    action: &str,
    name: &str,
    stack: Option<&str>,
) -> Result<Arc<ChangeSet>, Fault> {
    let snapshot = house.store.read();
    let found = match (name.strip_prefix("arn:"), stack) {
        (Some(_), _) => {
            let mut all = snapshot.scan_prefix::<ChangeSet>(&format!("{}/", ctx.realm()));
            all.find(|set| arn(ctx, set) == name)
        }
        (None, Some(stack)) => {
            let stack = super::find(house, ctx, action, stack)?;
            snapshot.get::<ChangeSet>(&format!("{}/{name}", stack.key()))
        }
        (None, None) => {
            return Err(faults::validation(
                "StackName must be specified if ChangeSetName is not specified as an ARN.",
            ));
        }
    };
    let stack = found.as_ref().and_then(|set| snapshot.get::<model::Stack>(&set.stack));
    let owner = stack.map_or_else(|| ctx.arn("cloudformation", "stack/*"), |stack| stack.arn());
    ctx.authorise(&format!("cloudformation:{action}"), &owner)?;
    found.ok_or_else(|| faults::no_change_set(name))
}

/// The stack that a change set is for; a new one, to be reviewed, where it is to make it.
async fn stack_for(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: &CreateChangeSetInput,
) -> Result<Arc<model::Stack>, Fault> {
    let found = engine::find(&house.store.read(), &ctx.realm(), &input.stack_name);
    let resource =
        found.as_ref().map_or_else(|| named(ctx, &input.stack_name), |stack| stack.arn());
    ctx.authorise("cloudformation:CreateChangeSet", &resource)?;
    match (input.change_set_type.unwrap_or(ChangeSetType::Update), found) {
        (ChangeSetType::Import, _) => {
            Err(faults::validation("Neargate does not support change sets that import resources."))
        }
        (ChangeSetType::Create, Some(stack)) if stack.status == StackStatus::ReviewInProgress => {
            Ok(stack)
        }
        (ChangeSetType::Create, Some(stack)) if stack.is_live() => {
            let message = format!(
                "Stack [{}] already exists and cannot be created again with the changeSet [{}].",
                stack.name, input.change_set_name
            );
            Err(faults::validation(message))
        }
        (ChangeSetType::Create, _) if input.stack_name.starts_with("arn:") => {
            Err(faults::no_stack(&input.stack_name))
        }
        (ChangeSetType::Create, _) => {
            let stack =
                house.new_stack(ctx, input.stack_name.clone(), StackStatus::ReviewInProgress)?;
            Ok(Arc::new(stack))
        }
        (ChangeSetType::Update, None) => {
            Err(faults::validation(format!("Stack [{}] does not exist", input.stack_name)))
        }
        (ChangeSetType::Update, Some(stack)) => {
            if stack.status != StackStatus::RollbackComplete {
                updatable(&stack)?;
                return Ok(stack);
            }
            Err(not_now(&stack, "updated"))
        }
    }
}

pub(crate) async fn create_change_set(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: CreateChangeSetInput,
) -> Result<CreateChangeSetOutput, Fault> {
    let stack = stack_for(house, ctx, &input).await?;
    let review = stack.status == StackStatus::ReviewInProgress;
    let request = Request {
        body: input.template_body,
        url: input.template_url,
        use_previous: input.use_previous_template == Some(true),
        parameters: input.parameters,
        capabilities: input.capabilities,
        tags: input.tags,
        role: input.role_arn,
        notify: input.notification_arns,
        direct: false,
    };
    let before = (!review).then_some(&stack.settings);
    let read = request.read(house, ctx, &stack, before).await?;
    let changed = review || house.is_update(&stack, &read)?;
    let on_failure = input.on_stack_failure.and_then(|choice| OnFailure::parse(choice.as_str()));
    let import = input.import_existing_resources == Some(true);
    let mut changes = house.changes(&stack, &read.plan)?;
    if import {
        house.imports(&stack, &read.settings, &read.plan, &mut changes).await?;
    }
    let set = ChangeSet {
        stack: stack.key(),
        name: input.change_set_name,
        id: input
            .client_token
            .filter(|token| token.len() == 36)
            .unwrap_or_else(|| house.world.uuid()),
        description: input.description,
        created: ctx.now,
        status: if changed { ChangeSetStatus::CreateComplete } else { ChangeSetStatus::Failed },
        reason: (!changed).then(|| NO_CHANGES.to_owned()),
        execution: if changed { ExecutionStatus::Available } else { ExecutionStatus::Unavailable },
        changes,
        settings: read.settings,
        on_failure,
        import,
        nested: input.include_nested_stacks == Some(true),
    };
    let (id, stack_id, kept) = (arn(ctx, &set), stack.arn(), read.kept);
    let (now, realm) = (ctx.now, ctx.realm());
    let write = house.store.write(move |tx| {
        if let Some(there) = tx.get::<ChangeSet>(&set.key()) {
            if there.id == set.id {
                return Ok(());
            }
            let message = format!(
                "ChangeSet {} cannot be created due to a mismatch with existing attribute",
                there.name
            );
            return Err(Fault::new("AlreadyExistsException", message));
        }
        match engine::find(tx, &realm, &stack.name) {
            Some(there) if there.id == stack.id => {}
            Some(there) => return Err(faults::already_exists(&there.name)),
            None => {
                let mut stack = stack.as_ref().clone();
                stack.reason = Some("User Initiated".to_owned());
                stack_event(tx, &mut stack, now, Some("User Initiated".to_owned()));
                tx.put(stack);
            }
        }
        kept.into_iter().for_each(|kept| tx.put(kept));
        tx.put(set);
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(CreateChangeSetOutput { id: Some(id), stack_id: Some(stack_id) })
}

fn change(told: &model::Change, values: bool) -> Change {
    let details = told.details.iter().map(|detail| ResourceChangeDetail {
        target: Some(ResourceTargetDefinition {
            attribute: ResourceAttribute::parse(&detail.attribute),
            name: detail.name.clone(),
            requires_recreation: detail.recreation.as_deref().and_then(RequiresRecreation::parse),
            ..ResourceTargetDefinition::default()
        }),
        evaluation: Some(if detail.is_static {
            EvaluationType::Static
        } else {
            EvaluationType::Dynamic
        }),
        change_source: Some(match detail.is_static {
            true => ChangeSource::DirectModification,
            false => ChangeSource::ResourceReference,
        }),
        ..ResourceChangeDetail::default()
    });
    Change {
        r#type: Some(ChangeType::Resource),
        resource_change: Some(ResourceChange {
            action: ChangeAction::parse(&told.action),
            logical_resource_id: Some(told.logical.clone()),
            physical_resource_id: told.physical.clone(),
            resource_type: Some(told.kind.clone()),
            replacement: told.replacement.as_deref().and_then(Replacement::parse),
            scope: Some(
                told.scope.iter().filter_map(|name| ResourceAttribute::parse(name)).collect(),
            ),
            details: Some(details.collect()),
            before_context: told.before.clone().filter(|_| values),
            after_context: told.after.clone().filter(|_| values),
            ..ResourceChange::default()
        }),
        ..Change::default()
    }
}

pub(crate) async fn describe_change_set(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DescribeChangeSetInput,
) -> Result<DescribeChangeSetOutput, Fault> {
    let set =
        find(house, ctx, "DescribeChangeSet", &input.change_set_name, input.stack_name.as_deref())?;
    let stack = house.store.read().get::<model::Stack>(&set.stack);
    let stack = stack.ok_or_else(|| faults::no_change_set(&input.change_set_name))?;
    let values = input.include_property_values == Some(true);
    let told = set.changes.iter().map(|told| change(told, values));
    let ordered = told.enumerate().map(|(index, told)| (format!("{index:06}"), told));
    let page = Page::take("changes", input.next_token.as_deref(), PAGE, ordered);
    let page = page.map_err(|_| faults::bad_token())?;
    Ok(DescribeChangeSetOutput {
        change_set_name: Some(set.name.clone()),
        change_set_id: Some(arn(ctx, &set)),
        stack_id: Some(stack.arn()),
        stack_name: Some(stack.name.clone()),
        description: set.description.clone(),
        parameters: Some(parameters(house, &stack.id, &set.settings)?),
        creation_time: Some(set.created),
        execution_status: Some(set.execution),
        status: Some(set.status),
        status_reason: set.reason.clone(),
        notification_arns: Some(set.settings.notify.clone()),
        rollback_configuration: Some(RollbackConfiguration::default()),
        capabilities: Some(told_capabilities(&set.settings)),
        tags: Some(tags(&set.settings.tags)),
        changes: Some(page.items),
        next_token: page.next_token,
        include_nested_stacks: Some(set.nested),
        import_existing_resources: Some(set.import),
        on_stack_failure: set.on_failure.and_then(|choice| OnStackFailure::parse(choice.as_str())),
        ..DescribeChangeSetOutput::default()
    })
}

pub(crate) async fn execute_change_set(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ExecuteChangeSetInput,
) -> Result<ExecuteChangeSetOutput, Fault> {
    let set =
        find(house, ctx, "ExecuteChangeSet", &input.change_set_name, input.stack_name.as_deref())?;
    let stack = house.store.read().get::<model::Stack>(&set.stack);
    let stack = stack.ok_or_else(|| faults::no_change_set(&input.change_set_name))?;
    if set.execution != ExecutionStatus::Available {
        let (id, status) = (arn(ctx, &set), set.status.as_str());
        return Err(faults::change_set_status(format!(
            "ChangeSet [{id}] cannot be executed in its current status of [{status}]"
        )));
    }
    let mut operation = house.operation(input.client_request_token);
    operation.no_rollback =
        input.disable_rollback == Some(true) || set.on_failure == Some(OnFailure::DoNothing);
    operation.import = set.import;
    let id = arn(ctx, &set);
    match stack.status {
        StackStatus::ReviewInProgress => {
            let (settings, on_failure) =
                (set.settings.clone(), set.on_failure.unwrap_or(OnFailure::Rollback));
            let begun = house.begin(&stack, None, "User Initiated", move |stack| {
                (stack.settings, stack.operation, stack.on_failure) =
                    (settings, operation, on_failure);
                (stack.status, stack.change_set) = (StackStatus::CreateInProgress, Some(id));
            });
            begun.await?;
        }
        _ => {
            updatable(&stack)?;
            house.update(ctx, &stack, set.settings.clone(), None, operation, Some(id)).await?;
        }
    }
    let write = house.store.write(move |tx| {
        // The others were made for what the stack is no more.
        let all: Vec<Arc<ChangeSet>> =
            tx.scan_prefix::<ChangeSet>(&format!("{}/", set.stack)).collect();
        for other in all.iter().filter(|other| other.id != set.id) {
            tx.delete::<ChangeSet>(&other.key());
        }
        tx.update::<ChangeSet>(&set.key(), |set| set.execution = ExecutionStatus::ExecuteComplete);
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(ExecuteChangeSetOutput::default())
}

pub(crate) async fn delete_change_set(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DeleteChangeSetInput,
) -> Result<DeleteChangeSetOutput, Fault> {
    let found =
        find(house, ctx, "DeleteChangeSet", &input.change_set_name, input.stack_name.as_deref());
    let set = match found {
        Ok(set) => set,
        // What is not there is deleted already, as on AWS.
        Err(fault) if fault.code == "ChangeSetNotFound" => {
            return Ok(DeleteChangeSetOutput::default());
        }
        Err(fault) => return Err(fault),
    };
    let write = house.store.write(move |tx| {
        tx.delete::<ChangeSet>(&set.key());
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(DeleteChangeSetOutput::default())
}

pub(crate) async fn list_change_sets(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ListChangeSetsInput,
) -> Result<ListChangeSetsOutput, Fault> {
    let stack = super::find(house, ctx, "ListChangeSets", &input.stack_name)?;
    let snapshot = house.store.read();
    let all = snapshot.scan_prefix::<ChangeSet>(&format!("{}/", stack.key()));
    let page = Page::take(
        "change-sets",
        input.next_token.as_deref(),
        PAGE,
        all.map(|set| (set.key(), set)),
    );
    let page = page.map_err(|_| faults::bad_token())?;
    let summaries = page.items.iter().map(|set| ChangeSetSummary {
        stack_id: Some(stack.arn()),
        stack_name: Some(stack.name.clone()),
        change_set_id: Some(arn(ctx, set)),
        change_set_name: Some(set.name.clone()),
        execution_status: Some(set.execution),
        status: Some(set.status),
        status_reason: set.reason.clone(),
        creation_time: Some(set.created),
        description: set.description.clone(),
        include_nested_stacks: Some(set.nested),
        ..ChangeSetSummary::default()
    });
    Ok(ListChangeSetsOutput { summaries: Some(summaries.collect()), next_token: page.next_token })
}
