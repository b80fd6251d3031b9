//! The durable records of Parameter Store.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Record, Sealed};
use world::Timestamp;

/// Between a parameter's name and a version in a key: no name can hold it.
const BETWEEN: char = '\u{1}';

/// A parameter: what all of its versions share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parameter {
    /// `account/region`.
    pub realm: String,
    /// Its name, as it was put: `/app/db/host` or `host`.
    pub name: String,
    /// `String`, `StringList` or `SecureString`.
    pub kind: String,
    /// The newest version, from 1.
    pub latest: i64,
    /// When an Expiration policy deletes it.
    pub expires: Option<Timestamp>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Parameter {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// `arn:aws:ssm:REGION:ACCOUNT:parameter/NAME`, where a path's own slash is the one before it.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:ssm:{region}:{account}:{}", Self::resource(&self.name))
    }

    /// The last part of the ARN of a parameter with this name.
    pub fn resource(name: &str) -> String {
        format!("parameter/{}", name.strip_prefix('/').unwrap_or(name))
    }

    /// Whether it is over at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Record for Parameter {
    const TABLE: &'static str = "ssm.parameter";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// A value at rest. Its `Debug` shows none.
#[derive(Clone, Serialize, Deserialize)]
pub enum Value {
    /// As it was put (String and StringList).
    Plain(String),
    /// Sealed for [`Version::seal_context`] (SecureString).
    Sealed(Sealed),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => write!(f, "Plain({} bytes)", text.len()),
            Self::Sealed(sealed) => sealed.fmt(f),
        }
    }
}

/// A parameter policy, as it was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `Expiration`.
    pub kind: String,
    /// Its JSON.
    pub text: String,
}

/// One version of a parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// `account/region`.
    pub realm: String,
    /// The parameter's name.
    pub name: String,
    /// Its number, from 1.
    pub version: i64,
    /// Its value.
    pub value: Value,
    /// The key that AWS would seal it with, for SecureStrings.
    pub key_id: Option<String>,
    /// When it was put.
    pub modified: Timestamp,
    /// The ARN of who put it.
    pub modified_by: String,
    /// What it is for.
    pub description: Option<String>,
    /// What values must match.
    pub allowed_pattern: Option<String>,
    /// `Standard` or `Advanced`.
    pub tier: String,
    /// Its policies.
    pub policies: Vec<Policy>,
    /// `text`.
    pub data_type: String,
    /// Its labels, at most ten.
    pub labels: BTreeSet<String>,
}

impl Version {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str, version: i64) -> String {
        format!("{}{version:019}", Self::prefix_of(realm, name))
    }

    /// What the keys of a parameter's versions begin with.
    pub fn prefix_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}{BETWEEN}")
    }

    /// What its value is sealed for: the record that holds it and no other.
    pub fn seal_context(&self) -> String {
        format!("ssm.version {}", self.key())
    }
}

impl Record for Version {
    const TABLE: &'static str = "ssm.version";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name, self.version)
    }
}
