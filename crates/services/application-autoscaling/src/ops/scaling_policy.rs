//! Scaling policies.

use super::{authorise, check_kind, page};
use crate::{
    AutoScaling,
    api::*,
    faults,
    model::{Policy, Target},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// The most policies of a target.
/// <https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-limits.html>
const MOST_POLICIES: usize = 50;

/// Whether what is tracked is something that can be tracked here.
fn check(
    scaling: &AutoScaling,
    realm: &str,
    tracking: &TargetTrackingScalingPolicyConfiguration,
) -> Result<(), Fault> {
    if !tracking.target_value.is_finite() || tracking.target_value <= 0.0 {
        return Err(faults::invalid("TargetValue must be greater than 0"));
    }
    let cooldowns = [tracking.scale_in_cooldown, tracking.scale_out_cooldown];
    if cooldowns.into_iter().flatten().any(|seconds| seconds < 0) {
        return Err(faults::invalid("Cooldown must be greater than or equal to 0"));
    }
    let metric = tracking.predefined_metric_specification.as_ref();
    let metric = metric.ok_or_else(|| {
        faults::invalid("Either a predefined or a customized metric specification must be given")
    })?;
    match (metric.predefined_metric_type, &metric.resource_label) {
        (
            MetricType::ECSServiceAverageCPUUtilization
            | MetricType::ECSServiceAverageMemoryUtilization,
            None,
        ) => Ok(()),
        (MetricType::ALBRequestCountPerTarget, Some(label)) => {
            match scaling.scaled().requests(realm, label) {
                Some(_) => Ok(()),
                None => Err(faults::invalid(format!(
                    "Resource label '{label}' names no target group that a load balancer sends to; it must \
                     have the form \
                     app/<load-balancer-name>/<load-balancer-id>/targetgroup/<target-group-name>/<target-group-id>"
                ))),
            }
        }
        (MetricType::ALBRequestCountPerTarget, None) => {
            Err(faults::invalid("ResourceLabel is required for ALBRequestCountPerTarget"))
        }
        (metric, Some(_)) => Err(faults::invalid(format!(
            "ResourceLabel can't be given for the metric type {}",
            metric.as_str()
        ))),
        (metric, None) => Err(faults::invalid(format!(
            "Predefined metric type {} is not supported for ecs services",
            metric.as_str()
        ))),
    }
}

pub(crate) async fn put_scaling_policy(
    scaling: &AutoScaling,
    ctx: &Context,
    input: PutScalingPolicyRequest,
) -> Result<PutScalingPolicyResponse, Fault> {
    authorise(ctx, "PutScalingPolicy")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    match input.policy_type {
        None | Some(PolicyType::TargetTrackingScaling) => {}
        Some(PolicyType::StepScaling) => {
            return Err(faults::invalid(
                "Neargate does not support StepScaling: step scaling acts on CloudWatch alarms, which are \
                 not built yet",
            ));
        }
        Some(PolicyType::PredictiveScaling) => {
            return Err(faults::invalid("Predictive scaling is not supported for ecs services"));
        }
    }
    let tracking = input
        .target_tracking_scaling_policy_configuration
        .ok_or_else(|| faults::invalid("TargetTrackingScalingPolicyConfiguration must be given"))?;
    check(scaling, &ctx.realm(), &tracking)?;
    let new = Policy {
        realm: ctx.realm(),
        resource: input.resource_id,
        name: input.policy_name,
        id: scaling.world.uuid(),
        tracking,
        last_out: None,
        last_in: None,
        created: ctx.now,
    };
    let arn = scaling.store.write(move |tx| {
        let target = Target::key_of(&new.realm, &new.resource);
        tx.get::<Target>(&target).ok_or_else(|| faults::no_target(&new.resource))?;
        let known = tx.get::<Policy>(&new.key());
        let count = tx.scan_prefix::<Policy>(&format!("{target}/")).count();
        if known.is_none() && count >= MOST_POLICIES {
            return Err(faults::limit("scaling policies per scalable target", MOST_POLICIES));
        }
        let policy = match known {
            Some(known) => Policy { tracking: new.tracking, ..Arc::unwrap_or_clone(known) },
            None => new,
        };
        let arn = policy.arn();
        tx.put(policy);
        Ok::<_, Fault>(arn)
    });
    // The alarms that AWS makes for a policy would be CloudWatch's.
    Ok(PutScalingPolicyResponse { policy_arn: Some(arn.await?), alarms: Some(Vec::new()) })
}

fn answer(policy: &Policy) -> ScalingPolicy {
    ScalingPolicy {
        policy_arn: Some(policy.arn()),
        policy_name: Some(policy.name.clone()),
        service_namespace: Some(ServiceNamespace::Ecs),
        resource_id: Some(policy.resource.clone()),
        scalable_dimension: Some(ScalableDimension::EcsServiceDesiredCount),
        policy_type: Some(PolicyType::TargetTrackingScaling),
        target_tracking_scaling_policy_configuration: Some(policy.tracking.clone()),
        alarms: Some(Vec::new()),
        creation_time: Some(policy.created),
        ..ScalingPolicy::default()
    }
}

pub(crate) async fn describe_scaling_policies(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DescribeScalingPoliciesRequest,
) -> Result<DescribeScalingPoliciesResponse, Fault> {
    authorise(ctx, "DescribeScalingPolicies")?;
    check_kind(input.service_namespace, input.scalable_dimension)?;
    let snapshot = scaling.store.read();
    let wanted = |policy: &Arc<Policy>| {
        input.policy_names.as_ref().is_none_or(|names| names.contains(&policy.name))
            && input.resource_id.as_ref().is_none_or(|id| *id == policy.resource)
    };
    let all = snapshot.scan_prefix::<Policy>(&format!("{}/", ctx.realm())).filter(wanted);
    let all = all.map(|policy| (policy.key(), answer(&policy)));
    let (scaling_policies, next_token) =
        page("policies", input.next_token.as_deref(), input.max_results, all)?;
    Ok(DescribeScalingPoliciesResponse { scaling_policies, next_token })
}

pub(crate) async fn delete_scaling_policy(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DeleteScalingPolicyRequest,
) -> Result<DeleteScalingPolicyResponse, Fault> {
    authorise(ctx, "DeleteScalingPolicy")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    let key = Policy::key_of(&ctx.realm(), &input.resource_id, &input.policy_name);
    let write = scaling.store.write(move |tx| match tx.delete::<Policy>(&key) {
        true => Ok(()),
        false => Err(faults::no_policy(&input.policy_name, &input.resource_id)),
    });
    write.await.map(|()| DeleteScalingPolicyResponse::default())
}
