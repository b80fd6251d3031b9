//! Scalable targets.

use super::{authorise, check_kind, check_resource, page};
use crate::{
    AutoScaling,
    api::*,
    faults,
    model::{Activity, Policy, ScheduledAction as Action, Suspended, Target},
};
use std::sync::Arc;
use store::{Record, Tx};
use wire::{Context, Fault};

/// The most tags of a target.
pub(super) const MOST_TAGS: usize = 50;

/// The role that AWS has for this; nothing here needs to assume it.
fn role(account: &str) -> String {
    format!(
        "arn:aws:iam::{account}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/\
         AWSServiceRoleForApplicationAutoScaling_ECSService"
    )
}

pub(crate) async fn register_scalable_target(
    scaling: &AutoScaling,
    ctx: &Context,
    input: RegisterScalableTargetRequest,
) -> Result<RegisterScalableTargetResponse, Fault> {
    authorise(ctx, "RegisterScalableTarget")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    check_resource(&input.resource_id)?;
    if scaling.scaled().capacity(&ctx.realm(), &input.resource_id).is_none() {
        let resource = &input.resource_id;
        return Err(faults::invalid(format!("ECS service doesn't exist: {resource}")));
    }
    let new = Target {
        realm: ctx.realm(),
        resource: input.resource_id.clone(),
        id: scaling.world.hex(34),
        min: 0,
        max: 0,
        suspended: Suspended::default(),
        tags: Default::default(),
        created: ctx.now,
    };
    let arn = scaling.store.write(move |tx| {
        let known = tx.get::<Target>(&new.key());
        if known.is_none() && (input.min_capacity.is_none() || input.max_capacity.is_none()) {
            return Err(faults::invalid(
                "MinCapacity and MaxCapacity are required to register a new scalable target.",
            ));
        }
        if known.is_some() && input.tags.is_some() {
            return Err(faults::invalid(
                "Tags can't be set for a scalable target that is registered already. Use TagResource.",
            ));
        }
        let mut target = known.map_or(new, Arc::unwrap_or_clone);
        target.min = input.min_capacity.unwrap_or(target.min);
        target.max = input.max_capacity.unwrap_or(target.max);
        if target.min < 0 || target.max < target.min {
            return Err(faults::invalid(
                "Minimum capacity must be at least 0 and less than or equal to maximum capacity",
            ));
        }
        if let Some(state) = input.suspended_state {
            let or = |given: Option<bool>, known: bool| given.unwrap_or(known);
            target.suspended = Suspended {
                scaling_in: or(state.dynamic_scaling_in_suspended, target.suspended.scaling_in),
                scaling_out: or(state.dynamic_scaling_out_suspended, target.suspended.scaling_out),
                schedules: or(state.scheduled_scaling_suspended, target.suspended.schedules),
            };
        }
        target.tags.extend(input.tags.unwrap_or_default());
        let arn = target.arn();
        if target.tags.len() > MOST_TAGS {
            return Err(faults::too_many_tags(&arn));
        }
        tx.put(target);
        Ok(arn)
    });
    Ok(RegisterScalableTargetResponse { scalable_target_arn: Some(arn.await?) })
}

fn answer(target: &Target) -> ScalableTarget {
    let (account, _) = target.realm.split_once('/').unwrap_or_default();
    ScalableTarget {
        service_namespace: Some(ServiceNamespace::Ecs),
        resource_id: Some(target.resource.clone()),
        scalable_dimension: Some(ScalableDimension::EcsServiceDesiredCount),
        min_capacity: Some(target.min),
        max_capacity: Some(target.max),
        predicted_capacity: None,
        role_arn: Some(role(account)),
        creation_time: Some(target.created),
        suspended_state: Some(SuspendedState {
            dynamic_scaling_in_suspended: Some(target.suspended.scaling_in),
            dynamic_scaling_out_suspended: Some(target.suspended.scaling_out),
            scheduled_scaling_suspended: Some(target.suspended.schedules),
        }),
        scalable_target_arn: Some(target.arn()),
    }
}

pub(crate) async fn describe_scalable_targets(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DescribeScalableTargetsRequest,
) -> Result<DescribeScalableTargetsResponse, Fault> {
    authorise(ctx, "DescribeScalableTargets")?;
    check_kind(input.service_namespace, input.scalable_dimension)?;
    let snapshot = scaling.store.read();
    let wanted = |target: &Arc<Target>| {
        input.resource_ids.as_ref().is_none_or(|ids| ids.contains(&target.resource))
    };
    let all = snapshot.scan_prefix::<Target>(&format!("{}/", ctx.realm())).filter(wanted);
    let all = all.map(|target| (target.resource.clone(), answer(&target)));
    let (scalable_targets, next_token) =
        page("targets", input.next_token.as_deref(), input.max_results, all)?;
    Ok(DescribeScalableTargetsResponse { scalable_targets, next_token })
}

pub(crate) async fn deregister_scalable_target(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DeregisterScalableTargetRequest,
) -> Result<DeregisterScalableTargetResponse, Fault> {
    authorise(ctx, "DeregisterScalableTarget")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    let realm = ctx.realm();
    let write = scaling.store.write(move |tx| match remove(tx, &realm, &input.resource_id) {
        true => Ok(()),
        false => Err(faults::no_target(&input.resource_id)),
    });
    write.await.map(|()| DeregisterScalableTargetResponse::default())
}

/// Takes a target away, with its policies, actions and history.
fn remove(tx: &mut Tx, realm: &str, resource: &str) -> bool {
    let key = Target::key_of(realm, resource);
    let prefix = format!("{key}/");
    let policies: Vec<String> = tx.scan_prefix::<Policy>(&prefix).map(|p| p.key()).collect();
    let actions: Vec<String> = tx.scan_prefix::<Action>(&prefix).map(|a| a.key()).collect();
    let activities: Vec<String> = tx.scan_prefix::<Activity>(&prefix).map(|a| a.key()).collect();
    for key in policies {
        tx.delete::<Policy>(&key);
    }
    for key in actions {
        tx.delete::<Action>(&key);
    }
    for key in activities {
        tx.delete::<Activity>(&key);
    }
    tx.delete::<Target>(&key)
}
