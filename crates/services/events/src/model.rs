//! The durable records of EventBridge: rules with their targets, and what is on its way to one of them.

use crate::api::Target;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use store::{Due, Record};
use world::Timestamp;

/// A rule of the default bus.
#[derive(Clone, Serialize, Deserialize)]
pub struct Rule {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// Which events it asks for (JSON), as it was put.
    pub pattern: String,
    /// What it is for.
    pub description: Option<String>,
    /// The role that it was put with.
    pub role: Option<String>,
    /// Whether it is heeded.
    pub enabled: bool,
    /// Its targets, by id.
    pub targets: BTreeMap<String, Target>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Rule {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// `arn:aws:events:REGION:ACCOUNT:rule/NAME`.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:events:{region}:{account}:rule/{}", self.name)
    }
}

impl Record for Rule {
    const TABLE: &'static str = "events.rule";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// An event on its way to one target of one rule. It goes when it has arrived, or when it is given up.
#[derive(Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// A UUID. Targets that can tell a repetition by a token get it.
    pub id: String,
    /// `account/region`.
    pub realm: String,
    /// The rule's name.
    pub rule: String,
    /// The target, as it was when the event came.
    pub target: Target,
    /// The event, as targets get it.
    pub event: Json,
    /// When the event came.
    pub since: Timestamp,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it is tried (again).
    pub due: Timestamp,
}

impl Record for Delivery {
    const TABLE: &'static str = "events.delivery";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Due for Delivery {
    fn due(&self) -> Timestamp {
        self.due
    }
}
