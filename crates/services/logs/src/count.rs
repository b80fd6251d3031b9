//! Holds events against their group's metric filters, and keeps what they count.

use crate::{
    Logs,
    api::StandardUnit,
    model::{MetricFilter, Transformation},
};
use cloudwatch::{Measured, Summary, metric::Metric};
use logstore::{
    NewEvent,
    pattern::{Pattern, Selector},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use world::Timestamp;

const MINUTE_MS: i64 = 60_000;

/// Whether a metric's value is taken from the event.
pub(crate) fn names(value: &str) -> bool {
    value.starts_with('$')
}

/// Where a value comes from.
enum Value {
    Number(f64),
    /// Of a line that is JSON.
    Property(Selector),
    /// Of a line of fields; its name as the pattern has it, `$size`.
    Field(String),
}

impl Value {
    fn of(text: &str, json: bool) -> Option<Self> {
        match (names(text), json) {
            (false, _) => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Number)
            }
            (true, true) => Selector::parse(text).ok().map(Self::Property),
            (true, false) => Some(Self::Field(text.to_owned())),
        }
    }

    fn in_line(&self, line: &str, fields: &BTreeMap<String, String>) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.to_string()),
            Self::Property(selector) => selector.value(line),
            Self::Field(name) => fields.get(name).cloned(),
        }
    }
}

/// A filter, read.
pub(crate) struct Ready<'a> {
    pattern: Pattern,
    value: Value,
    dimensions: Vec<(&'a str, Value)>,
    wanted: &'a Transformation,
}

impl<'a> Ready<'a> {
    /// None when the filter cannot be read, which is looked at when it is put.
    pub(crate) fn of(filter: &'a MetricFilter) -> Option<Self> {
        let wanted = &filter.transformation;
        let json = filter.pattern.trim_start().starts_with('{');
        let dimension =
            |(name, value): (&'a String, &String)| Some((name.as_str(), Value::of(value, json)?));
        Some(Self {
            pattern: Pattern::parse(&filter.pattern).ok()?,
            value: Value::of(&wanted.value, json)?,
            dimensions: wanted.dimensions.iter().map(dimension).collect::<Option<_>>()?,
            wanted,
        })
    }

    /// What a line counts, with the values of its dimensions. Nothing when it does not match, or lacks what is to be
    /// taken from it.
    fn counts(&self, line: &str) -> Option<(Vec<String>, f64)> {
        let fields = self.pattern.extract(line)?;
        let value: f64 = self.value.in_line(line, &fields)?.parse().ok()?;
        let value = Some(value).filter(|value| value.is_finite())?;
        let dimension = |(_, from): &(&str, Value)| {
            // Names of metrics hold no control characters.
            let told = from.in_line(line, &fields)?;
            Some(told).filter(|told| !told.is_empty() && !told.chars().any(char::is_control))
        };
        Some((self.dimensions.iter().map(dimension).collect::<Option<_>>()?, value))
    }

    /// What a batch of events counts, by minute.
    fn measure(&self, events: &[NewEvent]) -> Vec<Measured> {
        let mut counted = BTreeMap::<(i64, Vec<String>), Vec<(f64, f64)>>::new();
        let mut minutes = BTreeSet::new();
        for event in events {
            let minute = event.timestamp_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
            minutes.insert(minute);
            if let Some((dimensions, value)) = self.counts(&event.message) {
                counted.entry((minute, dimensions)).or_default().push((value, 1.0));
            }
        }
        if let Some(default) = self.wanted.default {
            // Of minutes that had events, of which none matched.
            for minute in minutes {
                counted.entry((minute, Vec::new())).or_insert_with(|| vec![(default, 1.0)]);
            }
        }
        let mut measured = Vec::new();
        for ((minute, dimensions), values) in counted {
            let names = self.dimensions.iter().map(|(name, _)| (*name).to_owned());
            let dimensions = names.zip(dimensions).collect();
            measured.extend(Summary::of_values(values).map(|summary| Measured {
                metric: Metric::new(&self.wanted.namespace, &self.wanted.name, dimensions),
                unit: StandardUnit::parse(&self.wanted.unit).map_or("None", StandardUnit::as_str),
                at: Timestamp::from_millis(minute),
                summary,
            }));
        }
        measured
    }
}

impl Logs {
    /// Counts events of a group as its filters say.
    pub(crate) async fn count(
        &self,
        realm: &str,
        group: &str,
        filters: &[Arc<MetricFilter>],
        events: &[NewEvent],
    ) {
        let mut measured = Vec::new();
        for filter in filters {
            measured.extend(Ready::of(filter).iter().flat_map(|ready| ready.measure(events)));
        }
        if measured.is_empty() {
            return;
        }
        if let Err(error) = self.metrics.keep(realm, measured).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, group, "what events count could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pattern: &str, value: &str, dimensions: &[(&str, &str)]) -> MetricFilter {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        MetricFilter {
            realm: "1/r".to_owned(),
            group: "g".to_owned(),
            name: "f".to_owned(),
            pattern: pattern.to_owned(),
            transformation: Transformation {
                name: "M".to_owned(),
                namespace: "N".to_owned(),
                value: value.to_owned(),
                default: dimensions.is_empty().then_some(0.0),
                dimensions: dimensions.iter().map(own).collect(),
                unit: "None".to_owned(),
            },
            created: Timestamp::from_millis(0),
        }
    }

    /// Minute, dimensions' values, sum and count of what lines (minute, text) count.
    fn measured(filter: &MetricFilter, lines: &[(i64, &str)]) -> Vec<(i64, Vec<String>, f64, f64)> {
        let event = |(minute, text): &(i64, &str)| NewEvent {
            timestamp_ms: minute * MINUTE_MS + 7,
            message: (*text).to_owned(),
        };
        let events: Vec<_> = lines.iter().map(event).collect();
        let told = |one: Measured| {
            let values = one.metric.dimensions.into_iter().map(|(_, value)| value).collect();
            (one.at.millis() / MINUTE_MS, values, one.summary.sum, one.summary.count)
        };
        Ready::of(filter).unwrap().measure(&events).into_iter().map(told).collect()
    }

    #[test]
    fn words_are_counted_and_minutes_without_them_too() {
        let lines = [(1, "an ERROR"), (1, "ERROR again"), (1, "well"), (2, "well")];
        assert_eq!(
            measured(&filter("ERROR", "1", &[]), &lines),
            [(1, vec![], 2.0, 2.0), (2, vec![], 0.0, 1.0)]
        );
    }

    #[test]
    fn values_and_dimensions_come_from_the_line() {
        let of_json = filter("{ $.ms > 5 }", "$.ms", &[("Path", "$.path")]);
        let lines = [
            (1, r#"{"ms": 7, "path": "/a"}"#),
            (1, r#"{"ms": 3, "path": "/a"}"#),
            (1, r#"{"ms": 8.5, "path": "/b"}"#),
            (1, r#"{"ms": 9}"#),
            (1, "no JSON"),
        ];
        assert_eq!(
            measured(&of_json, &lines),
            [(1, vec!["/a".to_owned()], 7.0, 1.0), (1, vec!["/b".to_owned()], 8.5, 1.0)]
        );
        let of_fields = filter("[host, size]", "$size", &[]);
        let lines = [(3, "a 10"), (3, "b 20"), (3, "c many")];
        assert_eq!(measured(&of_fields, &lines), [(3, vec![], 30.0, 2.0)]);
    }

    #[test]
    fn what_cannot_be_read_is_no_filter() {
        for (pattern, value) in [("ERROR", "x"), ("{ $.a = 1 }", "$"), ("[", "1"), ("a", "inf")] {
            assert!(Ready::of(&filter(pattern, value, &[])).is_none(), "{pattern} {value}");
        }
    }
}
