//! The durable records of CodeCommit. What is in a repository is git's, on disk; these say which there are, and what
//! of them the world was told.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// A repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// Its id, a UUID that a new name does not change: what its directory is named by.
    pub id: String,
    /// What it is for.
    pub description: Option<String>,
    /// The branch that `HEAD` names, once it is there.
    pub default_branch: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it, or what is in it, was last changed.
    pub modified: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Repository {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// The account that it is in.
    pub fn account(&self) -> &str {
        self.realm.split_once('/').map_or(&*self.realm, |(account, _)| account)
    }

    /// The region that it is in.
    pub fn region(&self) -> &str {
        self.realm.split_once('/').map_or("", |(_, region)| region)
    }

    /// `arn:aws:codecommit:REGION:ACCOUNT:NAME`.
    pub fn arn(&self) -> String {
        format!("arn:aws:codecommit:{}:{}:{}", self.region(), self.account(), self.name)
    }
}

impl Record for Repository {
    const TABLE: &'static str = "codecommit.repository";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// A repository's references as of the last change of them that was told. Git's own are the truth; what they are more
/// or other after a crash is told at the next start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct References {
    /// The repository's id.
    pub repository: String,
    /// Full names (`refs/heads/main`) to object ids.
    pub told: BTreeMap<String, String>,
}

impl Record for References {
    const TABLE: &'static str = "codecommit.references";
    fn key(&self) -> String {
        self.repository.clone()
    }
}
