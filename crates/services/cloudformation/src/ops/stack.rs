//! Stacks.

use super::{
    PAGE, find,
    given::{self, Request},
    named,
};
use crate::{
    CloudFormation,
    api::*,
    engine::{self, stack_event},
    faults,
    model::{self, Operation},
    template::Value,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Record;
use wire::{Context, Fault, Page};

/// How long a stack's name is at most.
const LONGEST_NAME: usize = 128;

/// Names are letters, digits and hyphens, and begin with a letter. Resources' names begin with them.
fn check_name(name: &str) -> Result<(), Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    match first && name.len() <= LONGEST_NAME && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(faults::validation(format!(
            "1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
        ))),
    }
}

impl CloudFormation {
    /// A stack that is to be made.
    pub(super) fn new_stack(
        &self,
        ctx: &Context,
        name: String,
        status: StackStatus,
    ) -> Result<model::Stack, Fault> {
        check_name(&name)?;
        let id = self.world.uuid();
        let principal = model::Principal::new(&ctx.principal);
        let principal = principal.ok_or_else(|| faults::validation("Services own no stacks."))?;
        let values = self.seal(&id, &BTreeMap::<String, Value>::new());
        Ok(model::Stack {
            realm: ctx.realm(),
            name,
            id,
            status,
            reason: None,
            created: ctx.now,
            updated: None,
            deleted: None,
            settings: model::Settings {
                template: String::new(),
                description: None,
                values,
                tags: BTreeMap::new(),
                capabilities: Vec::new(),
                role: None,
                notify: Vec::new(),
                principal,
            },
            previous: None,
            operation: self.operation(None),
            on_failure: OnFailure::Rollback,
            timeout_minutes: None,
            protected: false,
            policy: None,
            outputs: Vec::new(),
            imports: BTreeSet::new(),
            change_set: None,
            parent: None,
            events: 0,
        })
    }

    /// An operation that begins.
    pub(super) fn operation(&self, token: Option<String>) -> Operation {
        Operation { id: self.world.uuid(), token, ..Operation::default() }
    }

    /// Begins an operation on a stack that has not changed since it was looked at: `change` gives it a status.
    pub(super) async fn begin(
        self: &Arc<Self>,
        seen: &model::Stack,
        kept: Option<model::Template>,
        reason: &'static str,
        change: impl FnOnce(&mut model::Stack) + Send,
    ) -> Result<model::Stack, Fault> {
        let (key, before, now) =
            (seen.key(), (seen.status, seen.operation.id.clone()), self.world.now());
        let write = self.store.write(move |tx| {
            let stack = tx.get::<model::Stack>(&key).ok_or_else(|| faults::no_stack(&seen.name))?;
            if (stack.status, stack.operation.id.clone()) != before {
                return Err(not_now(&stack, "updated"));
            }
            let mut stack = stack.as_ref().clone();
            change(&mut stack);
            stack.reason = Some(reason.to_owned());
            kept.into_iter().for_each(|kept| tx.put(kept));
            stack_event(tx, &mut stack, now, Some(reason.to_owned()));
            tx.put(stack.clone());
            Ok::<_, Fault>(stack)
        });
        let stack = write.await?;
        self.interrupt(&stack.key());
        self.work_on(&stack.key());
        Ok(stack)
    }
}

pub(super) fn not_now(stack: &model::Stack, what: &str) -> Fault {
    let (arn, status) = (stack.arn(), stack.status.as_str());
    faults::validation(format!("Stack:{arn} is in {status} state and can not be {what}."))
}

pub(crate) async fn create_stack(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: CreateStackInput,
) -> Result<CreateStackOutput, Fault> {
    create(house, ctx, input, None).await
}

/// Begins to make a stack, which is a resource of `parent`, an ARN, if it has one.
pub(crate) async fn create(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: CreateStackInput,
    parent: Option<String>,
) -> Result<CreateStackOutput, Fault> {
    ctx.authorise("cloudformation:CreateStack", &named(ctx, &input.stack_name))?;
    let answer = |stack: &model::Stack| CreateStackOutput {
        stack_id: Some(stack.arn()),
        operation_id: Some(stack.operation.id.clone()),
    };
    if let Some(there) = engine::find(&house.store.read(), &ctx.realm(), &input.stack_name) {
        let again = input.client_request_token.is_some()
            && there.operation.token == input.client_request_token;
        return if again {
            Ok(answer(&there))
        } else {
            Err(faults::already_exists(&input.stack_name))
        };
    }
    if input.disable_rollback.is_some() && input.on_failure.is_some() {
        return Err(faults::validation(
            "Either DisableRollback or OnFailure can be specified, not both.",
        ));
    }
    let policy =
        super::policy::read(house, ctx, input.stack_policy_body, input.stack_policy_url).await?;
    let mut stack = house.new_stack(ctx, input.stack_name, StackStatus::CreateInProgress)?;
    stack.policy = policy;
    let request = Request {
        body: input.template_body,
        url: input.template_url,
        use_previous: false,
        parameters: input.parameters,
        capabilities: input.capabilities,
        tags: input.tags,
        role: input.role_arn,
        notify: input.notification_arns,
        direct: true,
    };
    let read = request.read(house, ctx, &stack, None).await?;
    (stack.settings, stack.parent) = (read.settings, parent);
    stack.on_failure = input.on_failure.unwrap_or(OnFailure::Rollback);
    stack.operation.token = input.client_request_token;
    stack.operation.no_rollback =
        input.disable_rollback == Some(true) || stack.on_failure == OnFailure::DoNothing;
    stack.timeout_minutes = input.timeout_in_minutes;
    stack.protected = input.enable_termination_protection == Some(true);
    stack.reason = Some("User Initiated".to_owned());
    let (kept, now, realm, made) = (read.kept, ctx.now, ctx.realm(), stack.clone());
    let write = house.store.write(move |tx| {
        if engine::find(tx, &realm, &stack.name).is_some() {
            return Err(faults::already_exists(&stack.name));
        }
        kept.into_iter().for_each(|kept| tx.put(kept));
        stack_event(tx, &mut stack, now, Some("User Initiated".to_owned()));
        tx.put(stack);
        Ok::<_, Fault>(())
    });
    write.await?;
    house.work_on(&made.key());
    Ok(answer(&made))
}

/// Whether a stack can be updated as it is.
pub(super) fn updatable(stack: &model::Stack) -> Result<(), Fault> {
    match stack.status {
        StackStatus::CreateComplete
        | StackStatus::CreateFailed
        | StackStatus::UpdateComplete
        | StackStatus::UpdateFailed
        | StackStatus::UpdateRollbackComplete => Ok(()),
        _ => Err(not_now(stack, "updated")),
    }
}

pub(crate) async fn update_stack(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: UpdateStackInput,
) -> Result<UpdateStackOutput, Fault> {
    let stack = find(house, ctx, "UpdateStack", &input.stack_name)?;
    updatable(&stack)?;
    let request = Request {
        body: input.template_body,
        url: input.template_url,
        use_previous: input.use_previous_template == Some(true),
        parameters: input.parameters,
        capabilities: input.capabilities,
        tags: input.tags,
        role: input.role_arn,
        notify: input.notification_arns,
        direct: true,
    };
    let read = request.read(house, ctx, &stack, Some(&stack.settings)).await?;
    if !house.is_update(&stack, &read)? {
        return Err(faults::validation("No updates are to be performed."));
    }
    let mut operation = house.operation(input.client_request_token);
    operation.no_rollback = input.disable_rollback == Some(true);
    let (body, url) = (input.stack_policy_during_update_body, input.stack_policy_during_update_url);
    operation.policy = super::policy::read(house, ctx, body, url).await?;
    let policy =
        super::policy::read(house, ctx, input.stack_policy_body, input.stack_policy_url).await?;
    if policy.is_some() {
        let key = stack.key();
        let write = house.store.write(move |tx| {
            tx.update::<model::Stack>(&key, |stack| stack.policy = policy);
            Ok::<_, Fault>(())
        });
        write.await?;
    }
    let stack = house.update(ctx, &stack, read.settings, read.kept, operation, None).await?;
    Ok(UpdateStackOutput { stack_id: Some(stack.arn()), operation_id: Some(stack.operation.id) })
}

impl CloudFormation {
    /// Whether anything would be other than it is.
    pub(super) fn is_update(
        &self,
        stack: &model::Stack,
        read: &given::Read,
    ) -> Result<bool, Fault> {
        let before = self.plan(stack, &stack.settings)?;
        let outputs = |plan: &engine::Plan| -> Vec<String> {
            let all = plan.template.outputs.iter();
            all.map(|(key, output)| {
                format!(
                    "{key} {} {:?} {:?} {:?}",
                    output.value, output.description, output.export, output.condition
                )
            })
            .collect()
        };
        let same = outputs(&before) == outputs(&read.plan)
            && before.conditions == read.plan.conditions
            && stack.settings.tags == read.settings.tags
            && stack.status != StackStatus::UpdateFailed;
        Ok(!same || !self.changes(stack, &read.plan)?.is_empty())
    }

    /// Begins to update a stack to `settings`.
    pub(super) async fn update(
        self: &Arc<Self>,
        ctx: &Context,
        stack: &model::Stack,
        settings: model::Settings,
        kept: Option<model::Template>,
        operation: Operation,
        change_set: Option<String>,
    ) -> Result<model::Stack, Fault> {
        let now = ctx.now;
        let begun = self.begin(stack, kept, "User Initiated", move |stack| {
            let before = std::mem::replace(&mut stack.settings, settings);
            // After an update that failed and was left so, what to go back to is what was there before it.
            stack.previous.get_or_insert(before);
            (stack.operation, stack.updated) = (operation, Some(now));
            stack.status = StackStatus::UpdateInProgress;
            if change_set.is_some() {
                stack.change_set = change_set;
            }
        });
        begun.await
    }
}

pub(crate) async fn delete_stack(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DeleteStackInput,
) -> Result<(), Fault> {
    let found = engine::find(&house.store.read(), &ctx.realm(), &input.stack_name);
    let arn = found.as_ref().map_or_else(|| named(ctx, &input.stack_name), |stack| stack.arn());
    ctx.authorise("cloudformation:DeleteStack", &arn)?;
    if let Some(role) = &input.role_arn {
        ctx.authorise_with(
            "iam:PassRole",
            role,
            &[("iam:PassedToService", "cloudformation.amazonaws.com")],
        )?;
    }
    // What is not there is deleted already, as on AWS.
    let Some(stack) = found.filter(|stack| stack.is_live()) else { return Ok(()) };
    if stack.protected {
        let name = &stack.name;
        return Err(faults::validation(format!(
            "Stack [{name}] cannot be deleted while TerminationProtection is enabled"
        )));
    }
    let retain: BTreeSet<String> = input.retain_resources.unwrap_or_default().into_iter().collect();
    if !retain.is_empty() && stack.status != StackStatus::DeleteFailed {
        return Err(faults::validation(
            "Invalid operation on stack. Specify which resources to retain only when the stack is in the \
             DELETE_FAILED state.",
        ));
    }
    match stack.status {
        StackStatus::DeleteInProgress => return Ok(()),
        StackStatus::UpdateInProgress
        | StackStatus::UpdateRollbackInProgress
        | StackStatus::RollbackInProgress
        | StackStatus::UpdateCompleteCleanupInProgress
        | StackStatus::UpdateRollbackCompleteCleanupInProgress => {
            return Err(not_now(&stack, "deleted"));
        }
        _ => {}
    }
    let mut operation = house.operation(input.client_request_token);
    operation.retain = retain;
    let principal = model::Principal::new(&ctx.principal);
    house
        .begin(&stack, None, "User Initiated", move |stack| {
            (stack.status, stack.operation) = (StackStatus::DeleteInProgress, operation);
            stack.settings.role = input.role_arn.or(stack.settings.role.take());
            if let Some(principal) = principal {
                stack.settings.principal = principal;
            }
        })
        .await?;
    Ok(())
}

pub(crate) async fn describe_stacks(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DescribeStacksInput,
) -> Result<DescribeStacksOutput, Fault> {
    if let Some(name) = &input.stack_name {
        let stack = find(house, ctx, "DescribeStacks", name)?;
        return Ok(DescribeStacksOutput {
            stacks: Some(vec![told(house, &stack)?]),
            next_token: None,
        });
    }
    ctx.authorise("cloudformation:DescribeStacks", &ctx.arn("cloudformation", "stack/*"))?;
    let snapshot = house.store.read();
    let live = snapshot
        .scan_prefix::<model::Stack>(&format!("{}/", ctx.realm()))
        .filter(|stack| stack.is_live());
    let ordered = live.map(|stack| (stack.key(), stack));
    let page = Page::take("stacks", input.next_token.as_deref(), PAGE, ordered);
    let page = page.map_err(|_| faults::bad_token())?;
    let stacks: Result<Vec<Stack>, Fault> =
        page.items.iter().map(|stack| told(house, stack)).collect();
    Ok(DescribeStacksOutput { stacks: Some(stacks?), next_token: page.next_token })
}

/// Parameters as they are told: what `NoEcho` hides is not.
pub(super) fn parameters(
    house: &CloudFormation,
    stack: &str,
    settings: &model::Settings,
) -> Result<Vec<Parameter>, Fault> {
    let values: BTreeMap<String, Value> = house.unseal(stack, &settings.values)?;
    let told = values.into_iter().map(|(name, value)| Parameter {
        parameter_key: Some(name),
        parameter_value: Some(if value.no_echo { "****".to_owned() } else { value.text }),
        resolved_value: value.resolved,
        ..Parameter::default()
    });
    Ok(told.collect())
}

pub(super) fn tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
}

pub(super) fn told_capabilities(settings: &model::Settings) -> Vec<Capability> {
    settings.capabilities.iter().filter_map(|name| Capability::parse(name)).collect()
}

/// The stack that a nested one belongs to in the end, an ARN.
fn root(house: &CloudFormation, stack: &model::Stack) -> Option<String> {
    let mut root = stack.parent.clone()?;
    let snapshot = house.store.read();
    while let Some(above) =
        engine::find(&snapshot, &stack.realm, &root).and_then(|stack| stack.parent.clone())
    {
        root = above;
    }
    Some(root)
}

fn told(house: &CloudFormation, stack: &model::Stack) -> Result<Stack, Fault> {
    let outputs = stack.outputs.iter().map(|output| Output {
        output_key: Some(output.key.clone()),
        output_value: Some(output.value.clone()),
        description: output.description.clone(),
        export_name: output.export.clone(),
    });
    let settings = &stack.settings;
    Ok(Stack {
        stack_id: Some(stack.arn()),
        stack_name: Some(stack.name.clone()),
        change_set_id: stack.change_set.clone(),
        description: settings.description.clone(),
        parameters: Some(parameters(house, &stack.id, settings)?),
        creation_time: Some(stack.created),
        deletion_time: stack.deleted,
        last_updated_time: stack.updated,
        rollback_configuration: Some(RollbackConfiguration::default()),
        stack_status: Some(stack.status),
        stack_status_reason: stack.reason.clone(),
        disable_rollback: Some(stack.operation.no_rollback),
        notification_arns: Some(stack.settings.notify.clone()),
        timeout_in_minutes: stack.timeout_minutes,
        capabilities: Some(told_capabilities(settings)),
        outputs: Some(outputs.collect()),
        role_arn: settings.role.clone(),
        tags: Some(tags(&settings.tags)),
        enable_termination_protection: Some(stack.protected),
        parent_id: stack.parent.clone(),
        root_id: root(house, stack),
        drift_information: Some(StackDriftInformation {
            stack_drift_status: Some(StackDriftStatus::NotChecked),
            last_check_timestamp: None,
        }),
        ..Stack::default()
    })
}

pub(crate) async fn list_stacks(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ListStacksInput,
) -> Result<ListStacksOutput, Fault> {
    ctx.authorise("cloudformation:ListStacks", &ctx.arn("cloudformation", "stack/*"))?;
    let snapshot = house.store.read();
    let wanted = input.stack_status_filter.unwrap_or_default();
    let all = snapshot.scan_prefix::<model::Stack>(&format!("{}/", ctx.realm()));
    let chosen = all.filter(|stack| wanted.is_empty() || wanted.contains(&stack.status));
    let ordered = chosen.map(|stack| (stack.key(), stack));
    let page = Page::take("all-stacks", input.next_token.as_deref(), PAGE, ordered);
    let page = page.map_err(|_| faults::bad_token())?;
    let summaries = page.items.iter().map(|stack| StackSummary {
        stack_id: Some(stack.arn()),
        stack_name: Some(stack.name.clone()),
        template_description: stack.settings.description.clone(),
        creation_time: Some(stack.created),
        last_updated_time: stack.updated,
        deletion_time: stack.deleted,
        stack_status: Some(stack.status),
        stack_status_reason: stack.reason.clone(),
        parent_id: stack.parent.clone(),
        root_id: root(house, stack),
        drift_information: Some(StackDriftInformationSummary {
            stack_drift_status: Some(StackDriftStatus::NotChecked),
            last_check_timestamp: None,
        }),
        ..StackSummary::default()
    });
    Ok(ListStacksOutput { stack_summaries: Some(summaries.collect()), next_token: page.next_token })
}

pub(crate) async fn update_termination_protection(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: UpdateTerminationProtectionInput,
) -> Result<UpdateTerminationProtectionOutput, Fault> {
    let stack = find(house, ctx, "UpdateTerminationProtection", &input.stack_name)?;
    if !stack.is_live() || stack.status == StackStatus::DeleteInProgress {
        return Err(not_now(&stack, "updated"));
    }
    let (key, arn) = (stack.key(), stack.arn());
    let write = house.store.write(move |tx| {
        tx.update::<model::Stack>(&key, |stack| {
            stack.protected = input.enable_termination_protection
        });
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(UpdateTerminationProtectionOutput { stack_id: Some(arn) })
}
