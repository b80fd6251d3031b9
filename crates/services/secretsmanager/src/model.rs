//! The durable records of Secrets Manager.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Record, Sealed};
use world::Timestamp;

/// Between a secret and a version in a key: no name can hold it.
const BETWEEN: char = '\u{1}';

/// What is known of a version besides its value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionState {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When its value was last read, to the day.
    pub accessed: Option<Timestamp>,
    /// Its staging labels; a version without any is deprecated.
    pub stages: BTreeSet<String>,
}

/// A deletion that can still be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for.
    pub asked: Timestamp,
    /// When the secret goes for good.
    pub due: Timestamp,
}

/// A secret: all but the values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// The six random characters that its ARN ends with.
    pub suffix: String,
    /// What it is for.
    pub description: Option<String>,
    /// The key that AWS would seal it with, if one was named.
    pub kms_key_id: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
    /// When a value was last read, to the day.
    pub accessed: Option<Timestamp>,
    /// Set while it waits for its deletion.
    pub deletion: Option<Deletion>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its versions, oldest first.
    pub versions: Vec<VersionState>,
}

impl Secret {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX`.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        let Self { name, suffix, .. } = self;
        format!("arn:aws:secretsmanager:{region}:{account}:secret:{name}-{suffix}")
    }

    /// The version with this id.
    pub fn version(&self, id: &str) -> Option<&VersionState> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The version with this staging label.
    pub fn staged(&self, stage: &str) -> Option<&VersionState> {
        self.versions.iter().find(|version| version.stages.contains(stage))
    }

    /// The key of the record with a version's value.
    pub fn version_key(&self, id: &str) -> String {
        format!("{}/{}-{}{BETWEEN}{id}", self.realm, self.name, self.suffix)
    }
}

impl Record for Secret {
    const TABLE: &'static str = "secretsmanager.secret";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// The value of one version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// [`Secret::version_key`].
    pub key: String,
    /// Whether it is bytes; text otherwise.
    pub binary: bool,
    /// The value, sealed for [`Version::seal_context`].
    pub value: Sealed,
}

impl Version {
    /// What the value under `key` is sealed for.
    pub fn seal_context(key: &str, binary: bool) -> String {
        format!("secretsmanager.version {} {key}", if binary { "binary" } else { "text" })
    }
}

impl Record for Version {
    const TABLE: &'static str = "secretsmanager.version";
    fn key(&self) -> String {
        self.key.clone()
    }
}
