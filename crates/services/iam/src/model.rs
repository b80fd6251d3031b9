//! The durable records of IAM.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Record, Sealed};
use world::Timestamp;

/// What users and roles have in common: policies, in line and attached.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Grants {
    /// Policy name -> document.
    pub inline: BTreeMap<String, String>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
}

/// An IAM user.
#[derive(Clone, Serialize, Deserialize)]
pub struct User {
    /// The account, twelve digits.
    pub account: String,
    /// The name as it was given.
    pub name: String,
    /// The path, `/` or `/a/b/`.
    pub path: String,
    /// `AIDA…`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its policies.
    pub grants: Grants,
}

impl User {
    /// The record's key.
    pub fn key_of(account: &str, name: &str) -> String {
        format!("{account}/{}", name.to_lowercase())
    }

    /// `arn:aws:iam::ACCOUNT:user/PATH/NAME`.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:user{}{}", self.account, self.path, self.name)
    }
}

impl Record for User {
    const TABLE: &'static str = "iam.user";
    fn key(&self) -> String {
        Self::key_of(&self.account, &self.name)
    }
}

/// A long-lived access key of a user.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA…`, unique in the house.
    pub id: String,
    /// The account.
    pub account: String,
    /// The user that it belongs to.
    pub user: String,
    /// The secret, sealed with the key's id as context.
    pub secret: Sealed,
    /// Whether it may sign.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for AccessKey {
    const TABLE: &'static str = "iam.access_key";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// A user's name and password for one service: git's, for CodeCommit.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServiceCredential {
    /// `ACCA…`.
    pub id: String,
    /// The account.
    pub account: String,
    /// The user that it belongs to.
    pub user: String,
    /// `codecommit.amazonaws.com`.
    pub service: String,
    /// `NAME-at-ACCOUNT`, `NAME+1-at-ACCOUNT` for the second.
    pub service_user: String,
    /// The password, sealed with [`ServiceCredential::seal_context`].
    pub password: Sealed,
    /// Whether it may be used.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

impl ServiceCredential {
    /// What the password of the credential with this id is sealed for.
    pub fn seal_context(id: &str) -> String {
        format!("iam.service_credential {id}")
    }
}

impl Record for ServiceCredential {
    const TABLE: &'static str = "iam.service_credential";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// How EC2's machines would get a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceProfile {
    /// The account.
    pub account: String,
    /// The name as it was given.
    pub name: String,
    /// The path.
    pub path: String,
    /// `AIPA…`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// The role's name.
    pub role: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl InstanceProfile {
    /// The record's key.
    pub fn key_of(account: &str, name: &str) -> String {
        format!("{account}/{}", name.to_lowercase())
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:instance-profile{}{}", self.account, self.path, self.name)
    }
}

impl Record for InstanceProfile {
    const TABLE: &'static str = "iam.instance_profile";
    fn key(&self) -> String {
        Self::key_of(&self.account, &self.name)
    }
}

/// An IAM role.
#[derive(Clone, Serialize, Deserialize)]
pub struct Role {
    /// The account.
    pub account: String,
    /// The name as it was given.
    pub name: String,
    /// The path.
    pub path: String,
    /// `AROA…`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it is for, in its maker's words.
    pub description: Option<String>,
    /// Who may assume it.
    pub trust: String,
    /// The longest session, in seconds.
    pub max_session_s: i32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its policies.
    pub grants: Grants,
}

impl Role {
    /// The record's key.
    pub fn key_of(account: &str, name: &str) -> String {
        format!("{account}/{}", name.to_lowercase())
    }

    /// `arn:aws:iam::ACCOUNT:role/PATH/NAME`.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:role{}{}", self.account, self.path, self.name)
    }
}

impl Record for Role {
    const TABLE: &'static str = "iam.role";
    fn key(&self) -> String {
        Self::key_of(&self.account, &self.name)
    }
}

/// A customer managed policy.
#[derive(Clone, Serialize, Deserialize)]
pub struct Policy {
    /// The account.
    pub account: String,
    /// The name as it was given.
    pub name: String,
    /// The path.
    pub path: String,
    /// `ANPA…`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When its default version changed last.
    pub updated: Timestamp,
    /// What it is for, in its maker's words.
    pub description: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Up to five versions, oldest first.
    pub versions: Vec<PolicyVersion>,
    /// The number of the version that counts.
    pub default_version: u32,
    /// The number that the next version gets.
    pub next_version: u32,
}

/// A version of a customer managed policy.
#[derive(Clone, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Its number, `1` for `v1`.
    pub number: u32,
    /// The document.
    pub document: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Policy {
    /// The record's key.
    pub fn key_of(account: &str, name: &str) -> String {
        format!("{account}/{}", name.to_lowercase())
    }

    /// `arn:aws:iam::ACCOUNT:policy/PATH/NAME`.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:policy{}{}", self.account, self.path, self.name)
    }

    /// The version that counts.
    pub fn document(&self) -> &str {
        let mut versions = self.versions.iter();
        let version = versions.find(|version| version.number == self.default_version);
        &version.expect("the default version is never deleted").document
    }
}

impl Record for Policy {
    const TABLE: &'static str = "iam.policy";
    fn key(&self) -> String {
        Self::key_of(&self.account, &self.name)
    }
}
