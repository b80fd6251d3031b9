//! The durable records of CloudWatch Logs.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use store::Record;
use world::Timestamp;

/// Between a group's name and a stream's in a key: no name can hold it.
const BETWEEN: char = '\u{1}';

/// A log group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogGroup {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// After how many days events go; never when absent.
    pub retention_days: Option<i32>,
    /// `STANDARD` or `INFREQUENT_ACCESS`.
    pub class: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl LogGroup {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// `arn:aws:logs:REGION:ACCOUNT:log-group:NAME`.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:logs:{region}:{account}:log-group:{}", self.name)
    }

    /// The time before which its events are gone, in ms since the epoch.
    pub fn horizon_ms(&self, now: Timestamp) -> Option<i64> {
        let days = u64::try_from(self.retention_days?).ok()?;
        let kept = Duration::from_secs(days * 86_400).as_millis();
        Some(now.millis().saturating_sub(i64::try_from(kept).ok()?))
    }
}

impl Record for LogGroup {
    const TABLE: &'static str = "logs.group";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// What a metric filter makes of an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transformation {
    /// The metric's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// A number, or what names a field of the event: `$.size`, `$size`.
    pub value: String,
    /// What a minute counts that has events of which none matches.
    pub default: Option<f64>,
    /// Dimensions by name, and what names their fields.
    pub dimensions: BTreeMap<String, String>,
    /// The metric's unit.
    pub unit: String,
}

/// A metric filter: events that match it are counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricFilter {
    /// `account/region`.
    pub realm: String,
    /// Its group's name.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Which events.
    pub pattern: String,
    /// What they count.
    pub transformation: Transformation,
    /// PutMetricFilter, the last time.
    pub created: Timestamp,
}

impl MetricFilter {
    /// What the keys of a group's filters begin with.
    pub fn prefix_of(realm: &str, group: &str) -> String {
        LogStream::prefix_of(realm, group)
    }
}

impl Record for MetricFilter {
    const TABLE: &'static str = "logs.metric_filter";
    fn key(&self) -> String {
        Self::prefix_of(&self.realm, &self.group) + &self.name
    }
}

/// A subscription filter: events that match it are handed on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubscriptionFilter {
    /// `account/region`.
    pub realm: String,
    /// Its group's name.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Which events.
    pub pattern: String,
    /// The ARN of the function that they are handed on to.
    pub destination: String,
    /// `ByLogStream` or `Random`; it is one function either way.
    pub distribution: String,
    /// PutSubscriptionFilter, the last time.
    pub created: Timestamp,
}

impl SubscriptionFilter {
    /// What the keys of a group's filters begin with.
    pub fn prefix_of(realm: &str, group: &str) -> String {
        LogStream::prefix_of(realm, group)
    }
}

impl Record for SubscriptionFilter {
    const TABLE: &'static str = "logs.subscription_filter";
    fn key(&self) -> String {
        Self::prefix_of(&self.realm, &self.group) + &self.name
    }
}

/// A log stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogStream {
    /// `account/region`.
    pub realm: String,
    /// Its group's name.
    pub group: String,
    /// Its name.
    pub name: String,
    /// What the log store calls it: a UUID, so that a stream of the same name made later begins empty.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
}

impl LogStream {
    /// The record's key.
    pub fn key_of(realm: &str, group: &str, name: &str) -> String {
        format!("{}{name}", Self::prefix_of(realm, group))
    }

    /// What the keys of a group's streams begin with.
    pub fn prefix_of(realm: &str, group: &str) -> String {
        format!("{realm}/{group}{BETWEEN}")
    }

    /// `arn:aws:logs:REGION:ACCOUNT:log-group:GROUP:log-stream:NAME`.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:logs:{region}:{account}:log-group:{}:log-stream:{}", self.group, self.name)
    }
}

impl Record for LogStream {
    const TABLE: &'static str = "logs.stream";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.group, &self.name)
    }
}
