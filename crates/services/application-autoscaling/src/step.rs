//! Policies that do what they say when an alarm tells them.
//! <https://docs.aws.amazon.com/autoscaling/application/userguide/step-scaling-policy-overview.html>

use crate::{
    AutoScaling,
    api::{AdjustmentType, MetricAggregationType, StepAdjustment, StepScalingPolicyConfiguration},
    model::{Policy, Target},
    plan::{Decision, cooldown},
};
use std::sync::Arc;

/// What an alarm tells.
pub struct Breach<'a> {
    /// Its name.
    pub alarm: &'a str,
    /// Its state, in AWS's words.
    pub state: &'a str,
    /// The metric's figures that were looked at, one at least.
    pub values: &'a [f64],
    /// What it is compared with.
    pub threshold: f64,
}

/// The steps of a policy.
pub(crate) fn steps(policy: &StepScalingPolicyConfiguration) -> &[StepAdjustment] {
    policy.step_adjustments.as_deref().unwrap_or_default()
}

/// Whether a metric that is so far from its threshold is within a step. The bound that is nearer to the threshold
/// belongs to the step.
fn holds(step: &StepAdjustment, difference: f64) -> bool {
    let lower = step.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
    let upper = step.metric_interval_upper_bound.unwrap_or(f64::INFINITY);
    match difference >= 0.0 {
        true => lower <= difference && difference < upper,
        false => lower < difference && difference <= upper,
    }
}

/// How many copies a policy wants of a service that has `current`, when its metric is so far from its threshold. None
/// when no step is about that.
fn wants(policy: &StepScalingPolicyConfiguration, current: i32, difference: f64) -> Option<i32> {
    let step = steps(policy).iter().find(|step| holds(step, difference))?;
    let adjustment = step.scaling_adjustment;
    let change = match policy.adjustment_type? {
        AdjustmentType::ExactCapacity => return Some(adjustment),
        AdjustmentType::ChangeInCapacity => adjustment,
        AdjustmentType::PercentChangeInCapacity => {
            let exact = f64::from(current) * f64::from(adjustment) / 100.0;
            // What is less than one copy is one; of more, the fraction does not count.
            let whole =
                if exact.abs() < 1.0 { exact.signum() * exact.abs().ceil() } else { exact.trunc() };
            let least = policy.min_adjustment_magnitude.unwrap_or(0);
            // Casts of what is too large give the largest.
            match adjustment.signum() {
                0 => 0,
                1 => (whole as i32).max(least),
                _ => (whole as i32).min(-least),
            }
        }
    };
    Some(current.saturating_add(change))
}

/// Whether the steps of a policy leave nothing out between them and say one thing only. The error is for people.
pub(crate) fn check(policy: &StepScalingPolicyConfiguration) -> Result<(), String> {
    if policy.adjustment_type.is_none() {
        return Err("AdjustmentType must be specified".to_owned());
    }
    let percent = policy.adjustment_type == Some(AdjustmentType::PercentChangeInCapacity);
    if policy.min_adjustment_magnitude.is_some() && !percent {
        return Err(
            "MinAdjustmentMagnitude is only supported by PercentChangeInCapacity".to_owned()
        );
    }
    if policy.min_adjustment_magnitude.is_some_and(|least| least <= 0) {
        return Err("MinAdjustmentMagnitude must be greater than 0".to_owned());
    }
    if policy.cooldown.is_some_and(|seconds| seconds < 0) {
        return Err("Cooldown must be greater than or equal to 0".to_owned());
    }
    let bounds = |step: &StepAdjustment| {
        let lower = step.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
        (lower, step.metric_interval_upper_bound.unwrap_or(f64::INFINITY))
    };
    let mut steps: Vec<_> = steps(policy).iter().map(bounds).collect();
    if steps.is_empty() || steps.len() > 20 {
        return Err("There must be between 1 and 20 step adjustments".to_owned());
    }
    steps.sort_by(|one, other| one.0.total_cmp(&other.0));
    if steps.iter().any(|(lower, upper)| lower.is_nan() || upper.is_nan() || lower >= upper) {
        return Err(
            "The lower bound of a step adjustment must be less than its upper bound".to_owned()
        );
    }
    if steps.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err("Step adjustment intervals can't overlap".to_owned());
    }
    if steps.windows(2).any(|pair| pair[0].1 < pair[1].0) {
        return Err("Step adjustment intervals can't have a gap between them".to_owned());
    }
    let (lowest, highest) = (steps[0].0, steps[steps.len() - 1].1);
    if lowest < 0.0 && lowest.is_finite() {
        return Err(
            "There must be a step adjustment with an unspecified lower bound for the adjustments with a \
             negative lower bound"
                .to_owned(),
        );
    }
    if highest > 0.0 && highest.is_finite() {
        return Err(
            "There must be a step adjustment with an unspecified upper bound for the adjustments with a \
             positive upper bound"
                .to_owned(),
        );
    }
    Ok(())
}

/// What a policy decides about a service that has `current` copies. Times are those that the machine's setting makes of
/// AWS's.
fn decide(
    target: &Target,
    policy: &Policy,
    step: &StepScalingPolicyConfiguration,
    (current, difference): (i32, f64),
    now: world::Timestamp,
    rest: std::time::Duration,
) -> Option<Decision> {
    let rests = |last: &&crate::model::Scaling| now < last.at + rest;
    let added = policy.last_out.as_ref().filter(rests);
    let wanted = wants(step, current, difference)?;
    let out = wanted > current;
    let wanted = match added {
        // What was added just now counts as part of what is wanted now: only what is more is added.
        Some(last) if out => wants(step, last.from, difference)?,
        // Nothing is taken away while what was added or taken just now shows its effect.
        Some(_) => return None,
        None if !out && policy.last_in.as_ref().is_some_and(|last| now < last.at + rest) => {
            return None;
        }
        None => wanted,
    };
    let to = wanted.clamp(target.min, target.max.max(target.min));
    let suspended = if out { target.suspended.scaling_out } else { target.suspended.scaling_in };
    let changes = if out { to > current } else { to < current };
    (changes && !suspended).then(|| Decision { to, policy: policy.name.clone(), out })
}

/// The figures as one.
fn aggregate(kind: Option<MetricAggregationType>, values: &[f64]) -> f64 {
    match kind.unwrap_or(MetricAggregationType::Average) {
        MetricAggregationType::Average => values.iter().sum::<f64>() / values.len() as f64,
        MetricAggregationType::Minimum => values.iter().copied().fold(f64::INFINITY, f64::min),
        MetricAggregationType::Maximum => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

impl AutoScaling {
    /// Does what the policy of an ARN says about an alarm. The error is for people.
    pub async fn breached(&self, realm: &str, arn: &str, breach: Breach<'_>) -> Result<(), String> {
        let snapshot = self.store.read();
        let mut policies = snapshot.scan_prefix::<Policy>(&format!("{realm}/"));
        let policy: Arc<Policy> = policies
            .find(|policy| policy.arn() == arn)
            .ok_or_else(|| "The scaling policy does not exist".to_owned())?;
        let step = policy.step.as_ref().ok_or("The scaling policy tracks its own metric")?;
        let target = snapshot.get::<Target>(&Target::key_of(realm, &policy.resource));
        let target = target.ok_or("The scalable target does not exist")?;
        let capacity = self.scaled().capacity(realm, &policy.resource);
        let current = capacity.ok_or("The service does not exist")?.desired;
        let now = self.world.now();
        let rest = cooldown(step.cooldown, |time| self.world.scaled(time));
        let difference = aggregate(step.metric_aggregation_type, breach.values) - breach.threshold;
        let decision = decide(&target, &policy, step, (current, difference), now, rest);
        let Some(decision) = decision else { return Ok(()) };
        let Breach { alarm, state, .. } = breach;
        let cause =
            format!("monitor alarm {alarm} in state {state} triggered policy {}", policy.name);
        match self.carry_out(&target, current, decision, Some(cause)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err("The desired count could not be set; the scaling activity says why".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scaling, Suspended};
    use std::time::Duration;
    use world::Timestamp;

    fn policy(
        kind: AdjustmentType,
        steps: &[(Option<f64>, Option<f64>, i32)],
    ) -> StepScalingPolicyConfiguration {
        let step = |(lower, upper, adjustment): &(Option<f64>, Option<f64>, i32)| StepAdjustment {
            metric_interval_lower_bound: *lower,
            metric_interval_upper_bound: *upper,
            scaling_adjustment: *adjustment,
        };
        StepScalingPolicyConfiguration {
            adjustment_type: Some(kind),
            step_adjustments: Some(steps.iter().map(step).collect()),
            ..Default::default()
        }
    }

    /// The example of AWS's guide: percent of 10 copies, around a threshold of 50.
    #[test]
    fn steps_are_as_awss_example_has_them() {
        let example = policy(
            AdjustmentType::PercentChangeInCapacity,
            &[
                (Some(0.0), Some(10.0), 0),
                (Some(10.0), Some(20.0), 10),
                (Some(20.0), None, 30),
                (Some(-10.0), Some(0.0), 0),
                (Some(-20.0), Some(-10.0), -10),
                (None, Some(-20.0), -30),
            ],
        );
        assert_eq!(check(&example), Ok(()));
        for (value, wanted) in [
            (50.0, 10),
            (59.9, 10),
            (60.0, 11),
            (70.0, 13),
            (45.0, 10),
            (40.0, 9),
            (30.0, 7),
            (0.0, 7),
        ] {
            assert_eq!(wants(&example, 10, value - 50.0), Some(wanted), "{value}");
        }
    }

    #[test]
    fn percent_of_little_is_one_and_of_much_is_cut() {
        let by = |percent, least, current| {
            let mut policy =
                policy(AdjustmentType::PercentChangeInCapacity, &[(None, None, percent)]);
            policy.min_adjustment_magnitude = least;
            wants(&policy, current, 1.0).unwrap()
        };
        assert_eq!((by(5, None, 4), by(-5, None, 4)), (5, 3));
        assert_eq!((by(127, None, 10), by(-66, None, 10)), (22, 4));
        assert_eq!((by(5, Some(3), 4), by(-5, Some(3), 4)), (7, 1));
        assert_eq!(by(i32::MAX, None, i32::MAX), i32::MAX);
        assert_eq!(
            wants(&policy(AdjustmentType::ExactCapacity, &[(None, None, 7)]), 2, 0.0),
            Some(7)
        );
        assert_eq!(
            wants(&policy(AdjustmentType::ExactCapacity, &[(Some(0.0), None, 7)]), 2, -1.0),
            None
        );
    }

    #[test]
    fn figures_become_one_as_the_policy_says() {
        use MetricAggregationType::{Average, Maximum, Minimum};
        let of = |kind| aggregate(kind, &[1.0, 5.0, 3.0]);
        assert_eq!([of(Some(Minimum)), of(Some(Maximum)), of(Some(Average))], [1.0, 5.0, 3.0]);
        assert_eq!(aggregate(None, &[1.0, 2.0]), 1.5, "the average, unless it says otherwise");
    }

    #[test]
    fn steps_that_overlap_or_leave_gaps_are_refused() {
        let kind = AdjustmentType::ChangeInCapacity;
        for steps in [
            &[][..],
            &[(Some(0.0), Some(10.0), 1)],
            &[(Some(-5.0), None, 1)],
            &[(Some(0.0), Some(10.0), 1), (Some(5.0), None, 2)],
            &[(Some(0.0), Some(10.0), 1), (Some(11.0), None, 2)],
            &[(Some(3.0), Some(3.0), 1), (Some(3.0), None, 2)],
            &[(None, None, 1), (Some(3.0), None, 2)],
            &[(Some(f64::NAN), None, 1)],
        ] {
            assert!(check(&policy(kind, steps)).is_err(), "{steps:?}");
        }
        let mut percent = policy(kind, &[(None, None, 1)]);
        percent.min_adjustment_magnitude = Some(2);
        assert!(check(&percent).is_err());
    }

    #[test]
    fn while_it_rests_only_more_is_added_and_nothing_taken() {
        let step = policy(
            AdjustmentType::ChangeInCapacity,
            &[(None, Some(0.0), -1), (Some(0.0), Some(10.0), 2), (Some(10.0), None, 3)],
        );
        let target = Target {
            realm: "1/r".to_owned(),
            resource: "service/c/s".to_owned(),
            id: String::new(),
            min: 1,
            max: 20,
            suspended: Suspended::default(),
            tags: Default::default(),
            created: Timestamp::from_millis(0),
        };
        let start = Timestamp::from_millis(1_000_000);
        let mut known = Policy {
            realm: "1/r".to_owned(),
            resource: "service/c/s".to_owned(),
            name: "p".to_owned(),
            id: String::new(),
            tracking: None,
            step: None,
            last_out: None,
            last_in: None,
            created: start,
        };
        let rest = Duration::from_secs(300);
        let to = |known: &Policy, current, difference, after: u64| {
            let now = start + Duration::from_secs(after);
            decide(&target, known, &step, (current, difference), now, rest).map(|it| it.to)
        };
        assert_eq!(to(&known, 10, 5.0, 0), Some(12));
        known.last_out = Some(Scaling { at: start, to: 12, from: 10 });
        assert_eq!(to(&known, 12, 5.0, 60), None, "as many as it wants come already");
        assert_eq!(to(&known, 12, 15.0, 60), Some(13), "one more than two is three");
        assert_eq!(to(&known, 12, -5.0, 60), None);
        assert_eq!(to(&known, 12, 5.0, 300), Some(14));
        assert_eq!(to(&known, 12, -5.0, 300), Some(11));
        known = Policy {
            last_out: None,
            last_in: Some(Scaling { at: start, to: 11, from: 12 }),
            ..known
        };
        assert_eq!(to(&known, 11, -5.0, 60), None);
        assert_eq!(to(&known, 11, 5.0, 60), Some(13), "adding does not wait");
        assert_eq!(to(&known, 19, 50.0, 60), Some(20));
        assert_eq!(to(&known, 20, 50.0, 60), None);
        assert_eq!(to(&known, 1, -50.0, 900), None);
    }
}
