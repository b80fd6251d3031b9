//! What policies want, from figures alone.
//! <https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html>

use crate::{
    api::TargetTrackingScalingPolicyConfiguration,
    model::{Policy, Target},
};
use std::{collections::VecDeque, time::Duration};
use world::Timestamp;

/// So many minutes above the value add copies, and so many clearly below it take some away.
const HIGH: usize = 3;
const LOW: usize = 15;
/// What is clearly below.
const CLEARLY: f64 = 0.9;
/// How long a policy rests after it scaled, unless it says otherwise, in seconds.
const COOLDOWN_S: i32 = 300;

/// A figure of each of the last minutes, the newest last; none where there was none.
pub(crate) type Series = VecDeque<Option<f64>>;

/// A policy that tracks, and its figures.
pub(crate) struct Tracked<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) tracking: &'a TargetTrackingScalingPolicyConfiguration,
    pub(crate) series: &'a Series,
}

/// Takes note of a minute.
pub(crate) fn push(series: &mut Series, figure: Option<f64>) {
    if series.len() == LOW {
        series.pop_front();
    }
    series.push_back(figure);
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// So many copies.
    pub(crate) to: i32,
    /// The name of the policy that wants them.
    pub(crate) policy: String,
    /// It adds.
    pub(crate) out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Out(i32),
    In(i32),
    Stay,
}

/// So many copies would bring the figure to its value.
fn proportion(current: i32, figure: f64, value: f64) -> i32 {
    let wanted = (f64::from(current) * figure / value).ceil();
    if wanted >= f64::from(i32::MAX) { i32::MAX } else { wanted as i32 }
}

/// What one policy wants, cooldowns aside.
fn want(value: f64, no_scale_in: bool, series: &Series, current: i32) -> Want {
    let last = |count: usize| -> Option<Vec<f64>> {
        let from = series.len().checked_sub(count)?;
        series.iter().skip(from).copied().collect()
    };
    if let Some(figures) = last(HIGH)
        && figures.iter().all(|figure| *figure > value)
    {
        let newest = figures.last().copied().unwrap_or(value);
        return Want::Out(proportion(current, newest, value).max(current.saturating_add(1)));
    }
    if !no_scale_in
        && current > 0
        && let Some(figures) = last(LOW)
        && figures.iter().all(|figure| *figure < value * CLEARLY)
    {
        // The highest of the last few: rather one copy too many.
        let highest = figures.iter().rev().take(HIGH).copied().fold(0.0, f64::max);
        let wanted = proportion(current, highest, value);
        return if wanted < current { Want::In(wanted) } else { Want::Stay };
    }
    Want::Stay
}

pub(crate) fn cooldown(given: Option<i32>, scale: impl Fn(Duration) -> Duration) -> Duration {
    let seconds = given.unwrap_or(COOLDOWN_S).max(0).unsigned_abs();
    scale(Duration::from_secs(u64::from(seconds)))
}

/// What a target's policies, each with its figures, amount to. `scale` shortens waiting times as the machine's
/// setting says.
///
/// The largest that any policy wants is added at once. Something is taken away only when all policies that may
/// take want that, and then as little as any of them.
pub(crate) fn decide(
    target: &Target,
    policies: &[Tracked],
    current: i32,
    now: Timestamp,
    scale: impl Fn(Duration) -> Duration + Copy,
) -> Option<Decision> {
    let wants: Vec<(&Tracked, Want)> = policies
        .iter()
        .map(|tracked| {
            let tracking = tracked.tracking;
            let no_scale_in = tracking.disable_scale_in == Some(true);
            (tracked, want(tracking.target_value, no_scale_in, tracked.series, current))
        })
        .collect();
    let outs = wants.iter().filter_map(|(Tracked { policy, tracking, .. }, want)| match want {
        // While a policy rests, only what is more than it added last is added.
        Want::Out(to) => {
            let rest = cooldown(tracking.scale_out_cooldown, scale);
            let rests = policy.last_out.is_some_and(|last| now < last.at + rest && *to <= last.to);
            (!rests).then_some((*to, *policy))
        }
        _ => None,
    });
    if wants.iter().any(|(_, want)| matches!(want, Want::Out(_))) {
        let (to, policy) = outs.max_by_key(|(to, _)| *to)?;
        let to = to.clamp(target.min, target.max.max(target.min));
        let allowed = to > current && !target.suspended.scaling_out;
        return allowed.then(|| Decision { to, policy: policy.name.clone(), out: true });
    }
    let taking: Vec<_> =
        wants.iter().filter(|(it, _)| it.tracking.disable_scale_in != Some(true)).collect();
    let ins: Option<Vec<(i32, &Tracked)>> = taking
        .iter()
        .map(|(tracked, want)| match want {
            Want::In(to) => Some((*to, *tracked)),
            _ => None,
        })
        .collect();
    let (to, Tracked { policy, tracking, .. }) = ins?.into_iter().max_by_key(|(to, _)| *to)?;
    let rest = cooldown(tracking.scale_in_cooldown, scale);
    let last = policy.last_in.into_iter().chain(policy.last_out).map(|last| last.at).max();
    if last.is_some_and(|last| now < last + rest) {
        return None;
    }
    let to = to.clamp(target.min, target.max.max(target.min));
    let allowed = to < current && !target.suspended.scaling_in;
    allowed.then(|| Decision { to, policy: policy.name.clone(), out: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::TargetTrackingScalingPolicyConfiguration,
        model::{Scaling, Suspended},
    };
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn target(min: i32, max: i32) -> Target {
        Target {
            realm: "1/r".to_owned(),
            resource: "service/c/s".to_owned(),
            id: String::new(),
            min,
            max,
            suspended: Suspended::default(),
            tags: Default::default(),
            created: Timestamp::from_millis(0),
        }
    }

    fn policy(name: &str, value: f64) -> Policy {
        Policy {
            realm: "1/r".to_owned(),
            resource: "service/c/s".to_owned(),
            name: name.to_owned(),
            id: String::new(),
            tracking: Some(TargetTrackingScalingPolicyConfiguration {
                target_value: value,
                ..Default::default()
            }),
            step: None,
            last_out: None,
            last_in: None,
            created: Timestamp::from_millis(0),
        }
    }

    fn series(figures: &[f64]) -> Series {
        figures.iter().map(|figure| Some(*figure)).collect()
    }

    fn minutes(count: u32) -> Timestamp {
        Timestamp::from_millis(0) + MINUTE * count
    }

    fn decided(
        target: &Target,
        policies: &[(&Policy, &Series)],
        current: i32,
        now: Timestamp,
    ) -> Option<Decision> {
        let mut tracked = Vec::new();
        for (policy, series) in policies {
            tracked.push(Tracked { policy, tracking: policy.tracking.as_ref().unwrap(), series });
        }
        decide(target, &tracked, current, now, |d| d)
    }

    fn to(policies: &[(&Policy, &Series)], current: i32, now: Timestamp) -> Option<i32> {
        decided(&target(1, 100), policies, current, now).map(|decision| decision.to)
    }

    #[test]
    fn it_takes_three_minutes_to_add_and_fifteen_to_take_away() {
        let half = policy("p", 50.0);
        let now = minutes(100);
        assert_eq!(to(&[(&half, &series(&[100.0, 100.0]))], 2, now), None);
        assert_eq!(to(&[(&half, &series(&[49.0, 100.0, 100.0]))], 2, now), None);
        assert_eq!(to(&[(&half, &series(&[60.0, 70.0, 100.0]))], 2, now), Some(4));
        assert_eq!(to(&[(&half, &series(&[51.0; 3]))], 10, now), Some(11), "one at least");
        assert_eq!(to(&[(&half, &series(&[10.0; 14]))], 10, now), None);
        assert_eq!(to(&[(&half, &series(&[10.0; 15]))], 10, now), Some(2));
        assert_eq!(to(&[(&half, &series(&[46.0; 15]))], 10, now), None, "not clearly below");
        let mut gaps = series(&[10.0; 15]);
        gaps[7] = None;
        assert_eq!(to(&[(&half, &gaps)], 10, now), None, "too little is known");
    }

    #[test]
    fn policies_add_alone_and_take_away_together() {
        let (one, other) = (policy("one", 50.0), policy("other", 50.0));
        let now = minutes(100);
        let (high, low) = (series(&[100.0; 15]), series(&[10.0; 15]));
        let decision = decided(&target(1, 100), &[(&one, &low), (&other, &high)], 10, now).unwrap();
        assert_eq!(decision, Decision { to: 20, policy: "other".to_owned(), out: true });
        assert_eq!(to(&[(&one, &low), (&other, &series(&[48.0; 15]))], 10, now), None);
        assert_eq!(to(&[(&one, &low), (&other, &series(&[20.0; 15]))], 10, now), Some(4));
        let mut never = policy("never", 50.0);
        never.tracking.as_mut().unwrap().disable_scale_in = Some(true);
        assert_eq!(to(&[(&never, &low)], 10, now), None);
        assert_eq!(to(&[(&one, &low), (&never, &series(&[49.0; 15]))], 10, now), Some(2));
    }

    #[test]
    fn cooldowns_limits_and_suspensions_hold() {
        let mut half = policy("p", 50.0);
        half.last_out = Some(Scaling { at: minutes(100), to: 4, from: 2 });
        let high = series(&[100.0; 3]);
        assert_eq!(
            to(&[(&half, &high)], 2, minutes(104)),
            None,
            "as many as it wants come already"
        );
        assert_eq!(to(&[(&half, &high)], 4, minutes(104)), Some(8), "more than last time");
        assert_eq!(to(&[(&half, &high)], 2, minutes(105)), Some(4));
        let low = series(&[10.0; 15]);
        assert_eq!(to(&[(&half, &low)], 4, minutes(104)), None);
        assert_eq!(to(&[(&half, &low)], 4, minutes(105)), Some(1));
        let mut narrow = target(3, 5);
        let at = |narrow: &Target, series, current| {
            decided(narrow, &[(&half, series)], current, minutes(200)).map(|d| d.to)
        };
        assert_eq!((at(&narrow, &high, 4), at(&narrow, &low, 4)), (Some(5), Some(3)));
        assert_eq!((at(&narrow, &high, 5), at(&narrow, &low, 3)), (None, None));
        narrow.suspended = Suspended { scaling_in: true, scaling_out: true, schedules: false };
        assert_eq!((at(&narrow, &high, 4), at(&narrow, &low, 4)), (None, None));
    }

    proptest! {
        /// A load that comes and goes, served by copies that each take a share of it: always within the limits, at rest
        /// when the load is, and with the right number of copies.
        #[test]
        fn a_load_from_nothing_to_a_hundredfold_and_back(
            loads in proptest::collection::vec(0.0..5000.0_f64, 1..6),
            value in 20.0..80.0_f64,
            max in 1..120,
        ) {
            let target = target(1, max);
            let mut policy = policy("p", value);
            let (mut current, mut series, mut now) = (1, Series::new(), minutes(0));
            for load in loads {
                let mut still = 0;
                for _ in 0..240 {
                    now = now + MINUTE;
                    push(&mut series, Some(load / f64::from(current)));
                    let decision = decided(&target, &[(&policy, &series)], current, now);
                    still += 1;
                    if let Some(decision) = decision {
                        prop_assert!((1..=max).contains(&decision.to) && decision.to != current);
                        current = decision.to;
                        still = 0;
                        let last = Some(Scaling { at: now, to: current, from: current });
                        if decision.out { policy.last_out = last } else { policy.last_in = last }
                    }
                }
                prop_assert!(still > 60, "it comes to rest");
                let figure = load / f64::from(current);
                prop_assert!(figure <= value + 1e-9 || current == max, "enough: {figure} of {value}");
                let fewer = f64::from((current - 1).max(1));
                prop_assert!(current == 1 || load / fewer > value * CLEARLY * 0.9, "not too many");
            }
        }
    }
}
