//! What a metric is called, and which statistics there are.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html>

use metricstore::Summary;
use serde::{Deserialize, Serialize};

/// Between the parts of a series' name. No part holds it: whoever names metrics may not use control characters.
const BETWEEN: char = '\u{1f}';

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its namespace, `AWS/ECS`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its dimensions, by name: the same name with others is another metric.
    pub dimensions: Vec<(String, String)>,
}

impl Metric {
    /// A metric. The order of dimensions does not matter.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        mut dimensions: Vec<(String, String)>,
    ) -> Self {
        dimensions.sort();
        Self { namespace: namespace.into(), name: name.into(), dimensions }
    }

    /// What the names of its series begin with, one for each unit.
    pub(crate) fn prefix(&self, realm: &str) -> String {
        let mut text = format!("{}{}", Self::named(realm, &self.namespace), self.name);
        for (name, value) in &self.dimensions {
            text.extend([BETWEEN.to_string().as_str(), name, "=", value]);
        }
        text.push(BETWEEN);
        text.push(BETWEEN);
        text
    }

    /// The name of its series in a unit.
    pub(crate) fn series(&self, realm: &str, unit: &str) -> String {
        self.prefix(realm) + unit
    }

    /// What the names of a namespace's series begin with.
    pub(crate) fn named(realm: &str, namespace: &str) -> String {
        format!("{realm}{BETWEEN}{namespace}{BETWEEN}")
    }

    /// What the names of a realm's series begin with.
    pub(crate) fn within(realm: &str) -> String {
        format!("{realm}{BETWEEN}")
    }

    /// The metric of a series.
    pub(crate) fn of_series(series: &str) -> Option<Self> {
        let (named, _unit) = series.rsplit_once(&format!("{BETWEEN}{BETWEEN}"))?;
        let mut parts = named.split(BETWEEN);
        let (_realm, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let dimension = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        let dimensions = parts.map(dimension).collect::<Option<_>>()?;
        Some(Self::new(namespace, name, dimensions))
    }
}

/// A figure of many values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// How many there are.
    SampleCount,
    /// Their average.
    Average,
    /// Their sum.
    Sum,
    /// The smallest.
    Minimum,
    /// The largest.
    Maximum,
    /// What so many percent do not exceed.
    Percentile(f64),
}

impl Statistic {
    /// Reads `Average` or `p99.9`. None for what is no statistic, and for those that are not built (trimmed means and
    /// what goes with them).
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html>
    pub fn read(text: &str) -> Option<Self> {
        Some(match text {
            "SampleCount" => Self::SampleCount,
            "Average" => Self::Average,
            "Sum" => Self::Sum,
            "Minimum" => Self::Minimum,
            "Maximum" => Self::Maximum,
            text => {
                let digits = text.strip_prefix('p')?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let percent: f64 = digits.parse().ok().filter(|_| plain && digits.len() <= 13)?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percentile(percent))?
            }
        })
    }

    /// This figure of what is summed up; none when the summary does not tell.
    pub fn of(&self, summary: &Summary) -> Option<f64> {
        match self {
            Self::SampleCount => Some(summary.count),
            Self::Average => Some(summary.average()),
            Self::Sum => Some(summary.sum),
            Self::Minimum => Some(summary.min),
            Self::Maximum => Some(summary.max),
            Self::Percentile(percent) => summary.percentile(*percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_its_metric() {
        let dimensions = [("b", "2=3"), ("a", "x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        for metric in [
            Metric::new("AWS/ECS", "CPUUtilization", dimensions.to_vec()),
            Metric::new("N", "M", Vec::new()),
        ] {
            let series = metric.series("1/us-east-1", "Percent");
            assert_eq!(Metric::of_series(&series), Some(metric.clone()));
            assert!(series.starts_with(&Metric::named("1/us-east-1", &metric.namespace)));
        }
        // A metric without dimensions is not the beginning of one with some.
        let (bare, other) =
            (Metric::new("N", "M", vec![]), Metric::new("N", "M", dimensions.to_vec()));
        assert!(!other.series("r", "None").starts_with(&bare.prefix("r")));
    }

    #[test]
    fn statistics_are_read() {
        assert_eq!(Statistic::read("p99.9"), Some(Statistic::Percentile(99.9)));
        assert_eq!(Statistic::read("Sum"), Some(Statistic::Sum));
        for wrong in ["p", "p101", "p-1", "tm90", "sum", "p1e1", "pNaN"] {
            assert_eq!(Statistic::read(wrong), None, "{wrong}");
        }
    }
}
