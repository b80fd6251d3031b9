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
    let metric = match (
        &tracking.predefined_metric_specification,
        &tracking.customized_metric_specification,
    ) {
        (Some(metric), None) => metric,
        (None, Some(metric)) => return check_metric(metric),
        _ => {
            return Err(faults::invalid(
                "Either a predefined or a customized metric specification must be given",
            ));
        }
    };
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

/// Whether a metric of CloudWatch is named whole.
fn check_metric(metric: &CustomizedMetricSpecification) -> Result<(), Fault> {
    let named = [&metric.namespace, &metric.metric_name].into_iter().all(Option::is_some);
    match named && metric.statistic.is_some() {
        true => Ok(()),
        false => Err(faults::invalid(
            "A customized metric specification must have a Namespace, a MetricName and a Statistic",
        )),
    }
}

/// What a policy is to do: it tracks, or waits for alarms.
type Told =
    (Option<TargetTrackingScalingPolicyConfiguration>, Option<StepScalingPolicyConfiguration>);

fn told(
    scaling: &AutoScaling,
    realm: &str,
    kind: Option<PolicyType>,
    (tracking, step): Told,
) -> Result<Told, Fault> {
    match (kind, tracking, step) {
        (Some(PolicyType::PredictiveScaling), _, _) => {
            Err(faults::invalid("Predictive scaling is not supported for ecs services"))
        }
        (Some(PolicyType::TargetTrackingScaling), Some(tracking), None) => {
            check(scaling, realm, &tracking)?;
            Ok((Some(tracking), None))
        }
        (Some(PolicyType::TargetTrackingScaling), _, _) => Err(faults::invalid(
            "A policy of the type TargetTrackingScaling must have a TargetTrackingScalingPolicyConfiguration \
             and nothing else",
        )),
        // Nothing said is step scaling on AWS; what tracks is taken as it is meant.
        (None, Some(tracking), None) => {
            check(scaling, realm, &tracking)?;
            Ok((Some(tracking), None))
        }
        (None | Some(PolicyType::StepScaling), None, Some(step)) => {
            crate::step::check(&step).map_err(faults::invalid)?;
            Ok((None, Some(step)))
        }
        (None | Some(PolicyType::StepScaling), _, _) => Err(faults::invalid(
            "A policy of the type StepScaling must have a StepScalingPolicyConfiguration and nothing else",
        )),
    }
}

pub(crate) async fn put_scaling_policy(
    scaling: &AutoScaling,
    ctx: &Context,
    input: PutScalingPolicyRequest,
) -> Result<PutScalingPolicyResponse, Fault> {
    authorise(ctx, "PutScalingPolicy")?;
    check_kind(input.service_namespace, Some(input.scalable_dimension))?;
    let given = (
        input.target_tracking_scaling_policy_configuration,
        input.step_scaling_policy_configuration,
    );
    let (tracking, step) = told(scaling, &ctx.realm(), input.policy_type, given)?;
    let new = Policy {
        realm: ctx.realm(),
        resource: input.resource_id,
        name: input.policy_name,
        id: scaling.world.uuid(),
        tracking,
        step,
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
            Some(known) if known.step.is_some() != new.step.is_some() => {
                return Err(faults::invalid("The type of a scaling policy can't be changed"));
            }
            Some(known) => {
                Policy { tracking: new.tracking, step: new.step, ..Arc::unwrap_or_clone(known) }
            }
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
        policy_type: Some(match policy.step.is_some() {
            true => PolicyType::StepScaling,
            false => PolicyType::TargetTrackingScaling,
        }),
        target_tracking_scaling_policy_configuration: policy.tracking.clone(),
        step_scaling_policy_configuration: policy.step.clone(),
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
