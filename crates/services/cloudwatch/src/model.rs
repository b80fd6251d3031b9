//! What CloudWatch remembers, besides points.

use crate::{
    api::{ComparisonOperator, HistoryItemType, StateValue},
    evaluate::TreatMissingData,
    metric::Metric,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// What an alarm watches, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// For people.
    pub description: Option<String>,
    /// Whether actions are taken.
    pub acts: bool,
    /// ARNs of whom to tell when all is well.
    pub ok: Vec<String>,
    /// ARNs of whom to tell when it is not.
    pub alarm: Vec<String>,
    /// ARNs of whom to tell when that is not known.
    pub unknown: Vec<String>,
    /// What is watched.
    pub metric: Metric,
    /// As it was given: `Average`, `p99`.
    pub statistic: String,
    /// The unit, when only that is looked at.
    pub unit: Option<String>,
    /// In seconds.
    pub period_s: u32,
    /// So many periods are looked at.
    pub periods: u32,
    /// So many of them must breach.
    pub datapoints: Option<u32>,
    /// What they are compared with.
    pub threshold: f64,
    /// How.
    pub comparison: ComparisonOperator,
    /// What a missing datapoint counts as, if it was said.
    pub missing: Option<TreatMissingData>,
    /// EvaluateLowSampleCountPercentile, if it was said.
    pub low_sample: Option<String>,
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// What it watches.
    pub watch: Watch,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// PutMetricAlarm, the last time.
    pub configured: Timestamp,
    /// How it is.
    pub state: StateValue,
    /// Why, for people.
    pub reason: String,
    /// Why, as JSON.
    pub reason_data: Option<String>,
    /// When the reason changed.
    pub updated: Timestamp,
    /// When the state changed.
    pub transitioned: Timestamp,
    /// When scaling policies were told last: they are told again and again.
    pub scaled: Option<Timestamp>,
}

impl Alarm {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:cloudwatch:{region}:{account}:alarm:{}", self.name)
    }

    /// Whom a state is told to.
    pub fn actions(&self, state: StateValue) -> &[String] {
        match state {
            StateValue::Ok => &self.watch.ok,
            StateValue::Alarm => &self.watch.alarm,
            StateValue::InsufficientData => &self.watch.unknown,
        }
    }
}

impl Record for Alarm {
    const TABLE: &'static str = "cloudwatch.alarm";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// Something that happened to an alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryItem {
    /// `account/region`.
    pub realm: String,
    /// The alarm's name. The item outlives it.
    pub alarm: String,
    /// When.
    pub at: Timestamp,
    /// Counts what happened in the same millisecond.
    pub number: usize,
    /// What.
    pub kind: HistoryItemType,
    /// For people.
    pub summary: String,
    /// As JSON.
    pub data: String,
}

/// What the keys of an alarm's items of a time begin with. Names hold no control characters.
fn prefix(realm: &str, alarm: &str, at: Timestamp) -> String {
    format!("{realm}/{alarm}\u{1f}{:016}-", at.millis())
}

impl HistoryItem {
    /// What the keys of an alarm's items of a time begin with.
    pub fn prefix_of(alarm: &Alarm, at: Timestamp) -> String {
        prefix(&alarm.realm, &alarm.name, at)
    }
}

impl Record for HistoryItem {
    const TABLE: &'static str = "cloudwatch.history_item";
    fn key(&self) -> String {
        format!("{}{:06}", prefix(&self.realm, &self.alarm, self.at), self.number)
    }
}
