//! What an alarm's state is, from datapoints alone.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>,
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>

use crate::{
    api::{ComparisonOperator, StateValue},
    model::Watch,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use world::Timestamp;

/// So many periods before those that count are looked at too, for datapoints in place of missing ones.
pub(crate) const MORE: u32 = 2;

/// What a missing datapoint counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreatMissingData {
    /// As missing: without any the state is not known.
    Missing,
    /// As nothing: without any the state stays.
    Ignore,
    /// As one that breaches.
    Breaching,
    /// As one that does not.
    NotBreaching,
}

impl TreatMissingData {
    /// By AWS's name.
    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Missing, Self::Ignore, Self::Breaching, Self::NotBreaching]
            .into_iter()
            .find(|known| known.name() == text)
    }

    /// AWS's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ignore => "ignore",
            Self::Breaching => "breaching",
            Self::NotBreaching => "notBreaching",
        }
    }
}

/// A period's figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Datapoint {
    /// When the period began.
    pub(crate) at: Timestamp,
    /// The statistic.
    pub(crate) value: f64,
    /// Of so many values.
    pub(crate) count: f64,
}

/// What datapoints say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) state: StateValue,
    pub(crate) reason: String,
    pub(crate) data: String,
    /// The figures that it is from, the newest first.
    pub(crate) values: Vec<f64>,
}

pub(crate) fn breaches(comparison: ComparisonOperator, value: f64, threshold: f64) -> bool {
    match comparison {
        ComparisonOperator::GreaterThanOrEqualToThreshold => value >= threshold,
        ComparisonOperator::GreaterThanThreshold => value > threshold,
        ComparisonOperator::LessThanThreshold => value < threshold,
        ComparisonOperator::LessThanOrEqualToThreshold => value <= threshold,
        // Those of anomaly detectors, which no alarm here has.
        _ => false,
    }
}

fn words(comparison: ComparisonOperator) -> &'static str {
    match comparison {
        ComparisonOperator::GreaterThanOrEqualToThreshold => "greater than or equal to",
        ComparisonOperator::GreaterThanThreshold => "greater than",
        ComparisonOperator::LessThanThreshold => "less than",
        _ => "less than or equal to",
    }
}

/// The state that an alarm is to have; none when it stays as it is. `range` has the figure of each period that is
/// looked at, the newest first, of those that count and [`MORE`]; `now` is when they were read.
pub(crate) fn evaluate(
    watch: &Watch,
    range: &[Option<Datapoint>],
    now: Timestamp,
) -> Option<Verdict> {
    let count = watch.periods as usize;
    let needed = watch.datapoints.unwrap_or(watch.periods) as usize;
    let real: Vec<(usize, Datapoint)> =
        range.iter().enumerate().filter_map(|(age, one)| Some((age + 1, (*one)?))).collect();
    let used = &real[..real.len().min(count)];
    let breach =
        |one: &&(usize, Datapoint)| breaches(watch.comparison, one.1.value, watch.threshold);
    let breaching = used.iter().filter(breach).count();
    let filled = count - used.len();
    let missing = watch.missing.unwrap_or(TreatMissingData::Missing);
    let counted = breaching + if missing == TreatMissingData::Breaching { filled } else { 0 };
    let state = if counted >= needed {
        StateValue::Alarm
    } else if filled == 0
        || matches!(missing, TreatMissingData::Breaching | TreatMissingData::NotBreaching)
    {
        StateValue::Ok
    } else if used.is_empty() {
        if missing == TreatMissingData::Ignore {
            return None;
        }
        StateValue::InsufficientData
    } else if breaching < used.len() {
        StateValue::Ok
    } else if missing == TreatMissingData::Missing
        && used.last().is_some_and(|(age, _)| *age >= needed)
    {
        // Nothing but breaches since long enough: more of them would not say more.
        StateValue::Alarm
    } else {
        return None;
    };
    let used: Vec<Datapoint> = used.iter().map(|(_, datapoint)| *datapoint).collect();
    Some(Verdict {
        reason: reason(watch, state, &used, filled),
        data: data(watch, &used, now),
        values: used.iter().map(|one| one.value).collect(),
        state,
    })
}

/// A figure as AWS writes it: with a point.
fn figure(value: f64) -> String {
    format!("{value:?}")
}

/// Why, in AWS's words.
fn reason(watch: &Watch, state: StateValue, used: &[Datapoint], filled: usize) -> String {
    let of = |count: usize, one: &str| match count {
        1 => format!("{count} {one}"),
        _ => format!("{count} {one}s"),
    };
    let are = |count: usize| if count == 1 { "was" } else { "were" };
    if state == StateValue::InsufficientData {
        return format!("Insufficient Data: {} {} unknown.", of(filled, "datapoint"), are(filled));
    }
    if used.is_empty() {
        let treated = match watch.missing {
            Some(TreatMissingData::Breaching) => "Breaching",
            _ => "NonBreaching",
        };
        let (periods, missing) = (of(filled, "period"), of(filled, "missing datapoint"));
        return format!(
            "Threshold Crossed: no datapoints were received for {periods} and {missing} {} treated as [{treated}].",
            are(filled)
        );
    }
    let alarms = state == StateValue::Alarm;
    let telling: Vec<&Datapoint> = used
        .iter()
        .filter(|one| breaches(watch.comparison, one.value, watch.threshold) == alarms)
        .collect();
    let listed: Vec<String> = telling
        .iter()
        .map(|one| {
            format!("{} ({})", figure(one.value), one.at.datetime().format("%d/%m/%y %H:%M:%S"))
        })
        .collect();
    let needed = match alarms {
        true => watch.datapoints.unwrap_or(watch.periods),
        false => watch.periods - watch.datapoints.unwrap_or(watch.periods) + 1,
    };
    let needed = of(needed as usize, "datapoint");
    let not = if alarms { "" } else { "not " };
    format!(
        "Threshold Crossed: {} out of the last {} datapoints [{}] {} {not}{} the threshold ({}) (minimum \
         {needed} for {} -> {} \
         transition).",
        telling.len(),
        watch.periods,
        listed.join(", "),
        are(telling.len()),
        words(watch.comparison),
        figure(watch.threshold),
        if alarms { "OK" } else { "ALARM" },
        if alarms { "ALARM" } else { "OK" },
    )
}

/// A time as alarms' JSON has it.
pub(crate) fn stamp(at: Timestamp) -> String {
    let at: DateTime<Utc> = at.datetime();
    at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

fn data(watch: &Watch, used: &[Datapoint], now: Timestamp) -> String {
    let values: Vec<f64> = used.iter().rev().map(|one| one.value).collect();
    let evaluated: Vec<Json> = used
        .iter()
        .map(
            |one| json!({"timestamp": stamp(one.at), "sampleCount": one.count, "value": one.value}),
        )
        .collect();
    let mut data = json!({
        "version": "1.0", "queryDate": stamp(now), "statistic": watch.statistic, "period": watch.period_s,
        "recentDatapoints": values, "threshold": watch.threshold, "evaluatedDatapoints": evaluated,
    });
    if let Some(oldest) = used.last() {
        data["startDate"] = json!(stamp(oldest.at));
    }
    if let Some(unit) = &watch.unit {
        data["unit"] = json!(unit);
    }
    data.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;
    use std::time::Duration;

    fn watch(periods: u32, datapoints: u32, missing: TreatMissingData) -> Watch {
        Watch {
            description: None,
            acts: true,
            ok: vec![],
            alarm: vec![],
            unknown: vec![],
            metric: Metric::new("N", "M", vec![]),
            statistic: "Average".to_owned(),
            unit: None,
            period_s: 60,
            periods,
            datapoints: Some(datapoints),
            threshold: 1.0,
            comparison: ComparisonOperator::GreaterThanThreshold,
            missing: Some(missing),
            low_sample: None,
        }
    }

    /// Datapoints as AWS's tables have them, the oldest first: `0` is well, `X` breaches, `-` is missing.
    fn range(text: &str) -> Vec<Option<Datapoint>> {
        let start = Timestamp::from_millis(1_767_225_600_000);
        let datapoint = |(place, letter): (usize, char)| {
            let at = start + Duration::from_secs(60 * place as u64);
            let value = if letter == 'X' { 5.0 } else { 0.5 };
            (letter != '-').then_some(Datapoint { at, value, count: 1.0 })
        };
        let mut range: Vec<_> = text.chars().enumerate().map(datapoint).collect();
        range.reverse();
        range
    }

    fn verdict(watch: &Watch, text: &str) -> Option<Verdict> {
        evaluate(watch, &range(text), Timestamp::from_millis(0))
    }

    #[test]
    fn missing_datapoints_are_treated_as_awss_tables_say() {
        use StateValue::{Alarm, InsufficientData, Ok};
        let ways = [
            TreatMissingData::Missing,
            TreatMissingData::Ignore,
            TreatMissingData::Breaching,
            TreatMissingData::NotBreaching,
        ];
        for (datapoints, text, states) in [
            (3, "0-X-X", [Some(Ok); 4]),
            (3, "0----", [Some(Ok); 4]),
            (3, "-----", [Some(InsufficientData), None, Some(Alarm), Some(Ok)]),
            (3, "0XX-X", [Some(Alarm); 4]),
            (3, "--X--", [Some(Alarm), None, Some(Alarm), Some(Ok)]),
            (2, "0-X-X", [Some(Alarm); 4]),
            (2, "00X0X", [Some(Alarm); 4]),
            (2, "0-X--", [Some(Ok), Some(Ok), Some(Alarm), Some(Ok)]),
            (2, "----0", [Some(Ok), Some(Ok), Some(Alarm), Some(Ok)]),
            (2, "---X-", [Some(Alarm), None, Some(Alarm), Some(Ok)]),
        ] {
            for (missing, state) in ways.into_iter().zip(states) {
                let found = verdict(&watch(3, datapoints, missing), text);
                assert_eq!(
                    found.map(|it| it.state),
                    state,
                    "{datapoints} of 3, {text}, {missing:?}"
                );
            }
        }
    }

    #[test]
    fn a_breach_alone_is_not_enough_before_it_is_old_enough() {
        assert_eq!(verdict(&watch(3, 3, TreatMissingData::Missing), "----X"), None);
        assert_eq!(
            verdict(&watch(1, 1, TreatMissingData::Missing), "--X").unwrap().state,
            StateValue::Alarm
        );
    }

    #[test]
    fn reasons_are_in_awss_words() {
        let reason = |watch: &Watch, text: &str| verdict(watch, text).unwrap().reason;
        assert_eq!(
            reason(&watch(1, 1, TreatMissingData::Missing), "00X"),
            "Threshold Crossed: 1 out of the last 1 datapoints [5.0 (01/01/26 00:02:00)] was greater than the \
             threshold \
             (1.0) (minimum 1 datapoint for OK -> ALARM transition)."
        );
        assert_eq!(
            reason(&watch(2, 2, TreatMissingData::Missing), "00X0"),
            "Threshold Crossed: 1 out of the last 2 datapoints [0.5 (01/01/26 00:03:00)] was not greater than the \
             threshold (1.0) (minimum 1 datapoint for ALARM -> OK transition)."
        );
        assert_eq!(
            reason(&watch(2, 1, TreatMissingData::Missing), "----"),
            "Insufficient Data: 2 datapoints were unknown."
        );
        assert_eq!(
            reason(&watch(1, 1, TreatMissingData::Breaching), "---"),
            "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as \
             [Breaching]."
        );
        let data: Json = serde_json::from_str(
            &verdict(&watch(2, 2, TreatMissingData::Missing), "00X0").unwrap().data,
        )
        .unwrap();
        assert_eq!(data["recentDatapoints"], json!([5.0, 0.5]));
        assert_eq!(data["startDate"], "2026-01-01T00:02:00.000+0000");
    }
}
