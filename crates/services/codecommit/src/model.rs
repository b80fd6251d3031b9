//! The durable records of CodeCommit. What is in a repository is git's, on disk; these say which there are, and what
//! of them the world was told.

use crate::api::{self, MergeOptionTypeEnum, RepositoryTrigger};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Who is told of its pushes.
    #[serde(default)]
    pub triggers: Triggers,
}

/// Who is told of pushes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Triggers {
    /// A UUID, another one for each configuration; empty before there was any.
    pub configuration: String,
    /// All of them.
    pub list: Vec<RepositoryTrigger>,
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

/// How many pull requests a realm has had: what numbers them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PullRequestCount {
    /// `account/region`.
    pub realm: String,
    /// The last number that was given.
    pub last: u64,
}

impl Record for PullRequestCount {
    const TABLE: &'static str = "codecommit.pull-request-count";
    fn key(&self) -> String {
        self.realm.clone()
    }
}

/// A pull request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PullRequest {
    /// `account/region`.
    pub realm: String,
    /// What it is called by.
    pub number: u64,
    /// Its repository's id.
    pub repository: String,
    /// What it is for.
    pub title: String,
    /// What it is for, at length.
    pub description: Option<String>,
    /// Who asked (an ARN).
    pub author: String,
    /// The token that it was asked for with.
    pub token: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When something was last done with it.
    pub active: Timestamp,
    /// Whether it waits.
    pub open: bool,
    /// The whole name (`refs/heads/feature`) of what is to be merged.
    pub source: String,
    /// The whole name of what it is to be merged into.
    pub destination: String,
    /// The source's tip.
    pub source_commit: String,
    /// The destination's tip; when it was closed, once it is.
    pub destination_commit: String,
    /// The best commit that both come from; when it was closed, once it is.
    pub base: Option<String>,
    /// Names what is reviewed: another one whenever the source changes.
    pub revision: String,
    /// Who approved this revision (ARNs).
    pub approvals: BTreeSet<String>,
    /// Who overrode the rules for this revision (an ARN).
    pub overridden: Option<String>,
    /// What is needed before it may be merged.
    pub rules: Vec<ApprovalRule>,
    /// How it was merged; while it is open, how it is being.
    pub merge: Option<Merge>,
}

impl PullRequest {
    /// The record's key; keys are in the order of the numbers.
    pub fn key_of(realm: &str, number: u64) -> String {
        format!("{realm}/{number:010}")
    }
}

impl Record for PullRequest {
    const TABLE: &'static str = "codecommit.pull-request";
    fn key(&self) -> String {
        Self::key_of(&self.realm, self.number)
    }
}

/// How a pull request is merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Who does it (an ARN), where that is known.
    pub by: Option<String>,
    /// What the destination moves to.
    pub commit: String,
    /// In which way.
    pub option: MergeOptionTypeEnum,
}

/// What is needed before a pull request may be merged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// Its id, a UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The rule, in JSON.
    pub content: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub modified: Timestamp,
    /// Who did (an ARN).
    pub modified_by: String,
    /// Id and name of the template that it was made of.
    pub template: Option<(String, String)>,
}

/// A rule for the pull requests of the repositories that it is associated with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalRuleTemplate {
    /// `account/region`.
    pub realm: String,
    /// The rule.
    pub rule: ApprovalRule,
    /// What it is for.
    pub description: Option<String>,
    /// The ids of its repositories.
    pub repositories: BTreeSet<String>,
}

impl ApprovalRuleTemplate {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for ApprovalRuleTemplate {
    const TABLE: &'static str = "codecommit.approval-rule-template";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.rule.name)
    }
}

/// Something that was done with a pull request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PullRequestEvent {
    /// The pull request's key.
    pub pull_request: String,
    /// How many there were before.
    pub index: u64,
    /// As it is told.
    pub document: api::PullRequestEvent,
}

impl PullRequestEvent {
    /// What the keys of a pull request's begin with.
    pub fn prefix_of(pull_request: &str) -> String {
        format!("{pull_request}/")
    }
}

impl Record for PullRequestEvent {
    const TABLE: &'static str = "codecommit.pull-request-event";
    fn key(&self) -> String {
        format!("{}{:010}", Self::prefix_of(&self.pull_request), self.index)
    }
}
