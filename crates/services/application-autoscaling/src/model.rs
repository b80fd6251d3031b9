//! The durable records of Application Auto Scaling.

use crate::api::{StepScalingPolicyConfiguration, TargetTrackingScalingPolicyConfiguration};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// What may not happen to a target just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// Policies take nothing away.
    pub scaling_in: bool,
    /// Policies add nothing.
    pub scaling_out: bool,
    /// Scheduled actions do nothing.
    pub schedules: bool,
}

/// A resource whose capacity is scaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `account/region`.
    pub realm: String,
    /// `service/CLUSTER/NAME`.
    pub resource: String,
    /// 34 hexadecimal digits.
    pub id: String,
    /// Never fewer by our doing.
    pub min: i32,
    /// Never more by our doing.
    pub max: i32,
    /// What may not happen just now.
    pub suspended: Suspended,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// RegisterScalableTarget.
    pub created: Timestamp,
}

fn parts(realm: &str) -> (&str, &str) {
    realm.split_once('/').expect("realms are account/region")
}

impl Target {
    /// The record's key.
    pub fn key_of(realm: &str, resource: &str) -> String {
        format!("{realm}/{resource}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = parts(&self.realm);
        format!("arn:aws:application-autoscaling:{region}:{account}:scalable-target/{}", self.id)
    }
}

impl Record for Target {
    const TABLE: &'static str = "application-autoscaling.scalable_target";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.resource)
    }
}

/// What a policy did last in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// When.
    pub at: Timestamp,
    /// To how many.
    pub to: i32,
    /// How many there were.
    #[serde(default)]
    pub from: i32,
}

/// A policy: it keeps a figure near a value, or does what it says when an alarm tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// `account/region`.
    pub realm: String,
    /// Its target's resource.
    pub resource: String,
    /// Unique for its target.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// What is tracked, if it tracks.
    pub tracking: Option<TargetTrackingScalingPolicyConfiguration>,
    /// What is done when an alarm tells it, if it waits for one.
    #[serde(default)]
    pub step: Option<StepScalingPolicyConfiguration>,
    /// What it added last.
    pub last_out: Option<Scaling>,
    /// What it took away last.
    pub last_in: Option<Scaling>,
    /// PutScalingPolicy, the first time.
    pub created: Timestamp,
}

impl Policy {
    /// The record's key.
    pub fn key_of(realm: &str, resource: &str, name: &str) -> String {
        format!("{realm}/{resource}/{name}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = parts(&self.realm);
        let Self { id, resource, name, .. } = self;
        format!(
            "arn:aws:autoscaling:{region}:{account}:scalingPolicy:{id}:resource/ecs/{resource}:policyName/{name}"
        )
    }
}

impl Record for Policy {
    const TABLE: &'static str = "application-autoscaling.scaling_policy";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.resource, &self.name)
    }
}

/// Other limits, by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledAction {
    /// `account/region`.
    pub realm: String,
    /// Its target's resource.
    pub resource: String,
    /// Unique for its target.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// `at(…)`, `rate(…)` or `cron(…)`.
    pub schedule: String,
    /// The zone of `at` and `cron`.
    pub timezone: Option<String>,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
    /// The new minimum, if any.
    pub min: Option<i32>,
    /// The new maximum, if any.
    pub max: Option<i32>,
    /// PutScheduledAction, the last time: what `rate` counts from.
    pub put: Timestamp,
    /// PutScheduledAction, the first time.
    pub created: Timestamp,
    /// When it is due; none when it never is again.
    pub next: Option<Timestamp>,
}

impl ScheduledAction {
    /// The record's key.
    pub fn key_of(realm: &str, resource: &str, name: &str) -> String {
        format!("{realm}/{resource}/{name}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = parts(&self.realm);
        let Self { id, resource, name, .. } = self;
        format!(
            "arn:aws:autoscaling:{region}:{account}:scheduledAction:{id}:resource/ecs/{resource}\
             :scheduledActionName/{name}"
        )
    }
}

impl Record for ScheduledAction {
    const TABLE: &'static str = "application-autoscaling.scheduled_action";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.resource, &self.name)
    }
}

/// How far an activity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// The service is on its way there.
    InProgress,
    /// It is there.
    Successful,
    /// Something else is wanted meanwhile.
    Overridden,
    /// It could not be begun.
    Failed,
}

/// Something that was done to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// `account/region`.
    pub realm: String,
    /// Its target's resource.
    pub resource: String,
    /// A UUID.
    pub id: String,
    /// Counts activities, so that they are in order.
    pub number: u64,
    /// In AWS's words.
    pub description: String,
    /// In AWS's words.
    pub cause: String,
    /// How far it is.
    pub status: ActivityStatus,
    /// In AWS's words.
    pub message: String,
    /// How many are wanted, when that was set.
    pub to: Option<i32>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl Record for Activity {
    const TABLE: &'static str = "application-autoscaling.scaling_activity";
    fn key(&self) -> String {
        format!("{}/{}/{:020}", self.realm, self.resource, self.number)
    }
}
