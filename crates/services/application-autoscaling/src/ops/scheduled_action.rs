//! Scheduled actions.

use super::{authorise, check_kind, page};
use crate::{
    AutoScaling,
    api::*,
    faults,
    model::{ScheduledAction as Action, Target},
    reconcile, schedule,
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// The most scheduled actions of a target.
const MOST_ACTIONS: usize = 200;

/// Letters that a name must not have, and spaces around it.
fn check_name(name: &str) -> Result<(), Fault> {
    let bad = |c: char| c.is_control() || matches!(c, ':' | '/' | '|');
    match name.contains(bad) || name.starts_with(' ') || name.ends_with(' ') {
        true => Err(faults::invalid(format!(
            "1 validation error detected: Value '{name}' at 'scheduledActionName' failed to satisfy \
             constraint: Member must have no control characters, none of :/| and no spaces around it"
        ))),
        false => Ok(()),
    }
}

/// What was put, over what is there: members that are not given stay.
fn merge(
    known: Option<Action>,
    new: Action,
    input: PutScheduledActionRequest,
    now: world::Timestamp,
) -> Result<Action, Fault> {
    let mut action = match (known, &input.schedule) {
        (Some(known), _) => Action { put: now, ..known },
        (None, Some(_)) => new,
        (None, None) => {
            return Err(faults::invalid("Schedule is required for a new scheduled action."));
        }
    };
    action.schedule = input.schedule.unwrap_or(action.schedule);
    action.timezone = input.timezone.or(action.timezone);
    action.start = input.start_time.or(action.start);
    action.end = input.end_time.or(action.end);
    if let Some(given) = input.scalable_target_action {
        (action.min, action.max) = (given.min_capacity, given.max_capacity);
    }
    if action.min.is_none() && action.max.is_none() {
        return Err(faults::invalid(
            "At least one of MinCapacity and MaxCapacity must be given in ScalableTargetAction.",
        ));
    }
    if action.min.is_some_and(|min| min < 0)
        || action.min.zip(action.max).is_some_and(|(min, max)| max < min)
    {
        return Err(faults::invalid(
            "Minimum capacity must be at least 0 and less than or equal to maximum capacity",
        ));
    }
    let read = schedule::read(&action.schedule, action.timezone.as_deref());
    read.map_err(faults::invalid)?;
    action.next = reconcile::next(&action, now);
    match action.next {
        Some(_) => Ok(action),
        None => Err(faults::invalid(format!(
            "The schedule {} lies in the past, or outside of StartTime and EndTime.",
            action.schedule
        ))),
    }
}

pub(crate) async fn put_scheduled_action(
    scaling: &AutoScaling,
    ctx: &Context,
    input: PutScheduledActionRequest,
) -> Result<PutScheduledActionResponse, Fault> {
    authorise(ctx, "PutScheduledAction")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    check_name(&input.scheduled_action_name)?;
    let new = Action {
        realm: ctx.realm(),
        resource: input.resource_id.clone(),
        name: input.scheduled_action_name.clone(),
        id: scaling.world.uuid(),
        schedule: String::new(),
        timezone: None,
        start: None,
        end: None,
        min: None,
        max: None,
        put: ctx.now,
        created: ctx.now,
        next: None,
    };
    let now = ctx.now;
    let write = scaling.store.write(move |tx| {
        let target = Target::key_of(&new.realm, &new.resource);
        tx.get::<Target>(&target).ok_or_else(|| faults::no_target(&new.resource))?;
        let known = tx.get::<Action>(&new.key());
        let count = tx.scan_prefix::<Action>(&format!("{target}/")).count();
        if known.is_none() && count >= MOST_ACTIONS {
            return Err(faults::limit("scheduled actions per scalable target", MOST_ACTIONS));
        }
        let action = merge(known.map(Arc::unwrap_or_clone), new, input, now)?;
        tx.put(action);
        Ok::<_, Fault>(())
    });
    write.await.map(|()| PutScheduledActionResponse::default())
}

fn answer(action: &Action) -> ScheduledAction {
    ScheduledAction {
        scheduled_action_name: Some(action.name.clone()),
        scheduled_action_arn: Some(action.arn()),
        service_namespace: Some(ServiceNamespace::Ecs),
        schedule: Some(action.schedule.clone()),
        timezone: action.timezone.clone(),
        resource_id: Some(action.resource.clone()),
        scalable_dimension: Some(ScalableDimension::EcsServiceDesiredCount),
        start_time: action.start,
        end_time: action.end,
        scalable_target_action: Some(ScalableTargetAction {
            min_capacity: action.min,
            max_capacity: action.max,
        }),
        creation_time: Some(action.created),
    }
}

pub(crate) async fn describe_scheduled_actions(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DescribeScheduledActionsRequest,
) -> Result<DescribeScheduledActionsResponse, Fault> {
    authorise(ctx, "DescribeScheduledActions")?;
    check_kind(input.service_namespace, input.scalable_dimension)?;
    let snapshot = scaling.store.read();
    let wanted = |action: &Arc<Action>| {
        input.scheduled_action_names.as_ref().is_none_or(|names| names.contains(&action.name))
            && input.resource_id.as_ref().is_none_or(|id| *id == action.resource)
    };
    let all = snapshot.scan_prefix::<Action>(&format!("{}/", ctx.realm())).filter(wanted);
    let all = all.map(|action| (action.key(), answer(&action)));
    let (scheduled_actions, next_token) =
        page("actions", input.next_token.as_deref(), input.max_results, all)?;
    Ok(DescribeScheduledActionsResponse { scheduled_actions, next_token })
}

pub(crate) async fn delete_scheduled_action(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DeleteScheduledActionRequest,
) -> Result<DeleteScheduledActionResponse, Fault> {
    authorise(ctx, "DeleteScheduledAction")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    let key = Action::key_of(&ctx.realm(), &input.resource_id, &input.scheduled_action_name);
    let write = scaling.store.write(move |tx| match tx.delete::<Action>(&key) {
        true => Ok(()),
        false => Err(faults::no_action(&input.scheduled_action_name, &input.resource_id)),
    });
    write.await.map(|()| DeleteScheduledActionResponse::default())
}
