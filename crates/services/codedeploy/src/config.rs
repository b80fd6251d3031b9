//! The configurations that traffic is shifted by: AWS's own and those that were made.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-configurations.html>

use crate::{
    api::{TimeBasedCanary, TimeBasedLinear, TrafficRoutingConfig, TrafficRoutingType},
    model::Config,
};
use std::time::Duration;
use store::Snapshot;

/// What deployments to ECS are shifted by unless their group says otherwise.
pub(crate) const DEFAULT: &str = "CodeDeployDefault.ECSAllAtOnce";

const LINEAR: [(&str, i32, i32); 2] = [
    ("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", 10, 1),
    ("CodeDeployDefault.ECSLinear10PercentEvery3Minutes", 10, 3),
];
const CANARY: [(&str, i32, i32); 2] = [
    ("CodeDeployDefault.ECSCanary10Percent5Minutes", 10, 5),
    ("CodeDeployDefault.ECSCanary10Percent15Minutes", 10, 15),
];

/// The names of AWS's own.
pub(crate) fn predefined() -> impl Iterator<Item = &'static str> {
    [DEFAULT].into_iter().chain(LINEAR.iter().chain(&CANARY).map(|(name, _, _)| *name))
}

/// How AWS's own of this name shifts traffic.
pub(crate) fn own(name: &str) -> Option<TrafficRoutingConfig> {
    let by = |kind| TrafficRoutingConfig {
        r#type: Some(kind),
        time_based_canary: None,
        time_based_linear: None,
    };
    if name == DEFAULT {
        return Some(by(TrafficRoutingType::AllAtOnce));
    }
    if let Some((_, percent, minutes)) = LINEAR.iter().find(|(known, _, _)| *known == name) {
        return Some(TrafficRoutingConfig {
            time_based_linear: Some(TimeBasedLinear {
                linear_percentage: Some(*percent),
                linear_interval: Some(*minutes),
            }),
            ..by(TrafficRoutingType::TimeBasedLinear)
        });
    }
    let (_, percent, minutes) = CANARY.iter().find(|(known, _, _)| *known == name)?;
    Some(TrafficRoutingConfig {
        time_based_canary: Some(TimeBasedCanary {
            canary_percentage: Some(*percent),
            canary_interval: Some(*minutes),
        }),
        ..by(TrafficRoutingType::TimeBasedCanary)
    })
}

/// How the configuration of this name shifts traffic.
pub(crate) fn routing(
    snapshot: &Snapshot,
    realm: &str,
    name: &str,
) -> Option<TrafficRoutingConfig> {
    own(name).or_else(|| {
        snapshot.get::<Config>(&Config::key_of(realm, name)).map(|config| config.routing.clone())
    })
}

/// What is wrong with a configuration, if anything.
pub(crate) fn check(routing: &TrafficRoutingConfig) -> Result<(), String> {
    let part =
        |percent: Option<i32>, minutes: Option<i32>| {
            let (percent, minutes) = (percent.unwrap_or_default(), minutes.unwrap_or_default());
            match (1..=99).contains(&percent) && (1..=2880).contains(&minutes) {
                true => Ok(()),
                false => Err("The percentage must be 1 to 99, and the interval 1 to 2880 minutes."
                    .to_owned()),
            }
        };
    match (routing.r#type, &routing.time_based_canary, &routing.time_based_linear) {
        (Some(TrafficRoutingType::AllAtOnce), None, None) => Ok(()),
        (Some(TrafficRoutingType::TimeBasedCanary), Some(canary), None) => {
            part(canary.canary_percentage, canary.canary_interval)
        }
        (Some(TrafficRoutingType::TimeBasedLinear), None, Some(linear)) => {
            part(linear.linear_percentage, linear.linear_interval)
        }
        _ => Err("The traffic routing configuration does not fit its type.".to_owned()),
    }
}

/// Percent of the traffic that green has when `passed` has passed since the shift began, and how long until it has
/// more. `minute` is how long a minute is.
pub(crate) fn weight(
    routing: &TrafficRoutingConfig,
    passed: Duration,
    minute: Duration,
) -> (i32, Option<Duration>) {
    let minutes = |count: Option<i32>| minute * count.unwrap_or(1).unsigned_abs();
    match (&routing.time_based_canary, &routing.time_based_linear) {
        (Some(canary), _) => {
            let interval = minutes(canary.canary_interval);
            match interval.checked_sub(passed) {
                Some(left) if !left.is_zero() => {
                    (canary.canary_percentage.unwrap_or(10), Some(left))
                }
                _ => (100, None),
            }
        }
        (_, Some(linear)) => {
            let interval = minutes(linear.linear_interval).max(Duration::from_millis(1));
            let steps =
                i32::try_from(passed.as_nanos() / interval.as_nanos()).unwrap_or(i32::MAX - 1) + 1;
            let weight = linear.linear_percentage.unwrap_or(10).saturating_mul(steps).min(100);
            let next = interval * steps.unsigned_abs();
            (weight, (weight < 100).then(|| next.saturating_sub(passed)))
        }
        _ => (100, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_grow_as_their_names_say() {
        let minute = Duration::from_secs(60);
        let at = |name: &str, seconds: u64| {
            weight(&own(name).unwrap(), Duration::from_secs(seconds), minute)
        };
        let left = |seconds: u64| Some(Duration::from_secs(seconds));
        assert_eq!(at(DEFAULT, 0), (100, None));
        assert_eq!(at("CodeDeployDefault.ECSCanary10Percent5Minutes", 0), (10, left(300)));
        assert_eq!(at("CodeDeployDefault.ECSCanary10Percent5Minutes", 299), (10, left(1)));
        assert_eq!(at("CodeDeployDefault.ECSCanary10Percent5Minutes", 300), (100, None));
        assert_eq!(at("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", 0), (10, left(60)));
        assert_eq!(at("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", 90), (20, left(30)));
        assert_eq!(at("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", 9 * 60), (100, None));
        assert!(predefined().all(|name| check(&own(name).unwrap()).is_ok()));
    }
}
