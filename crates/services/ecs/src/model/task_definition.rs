//! Task definitions and their families.

use super::Tags;
use crate::api;
use serde::{Deserialize, Serialize};
use store::Record;

/// A family: the source of revision numbers, which are never used twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Family {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// The newest revision's number.
    pub revision: i32,
}

impl Family {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for Family {
    const TABLE: &'static str = "ecs.task_definition_family";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// One revision of a family. The document is AWS's own, whole: a copy of its sixty shapes in a form of ours could only
/// drift from it. No `Debug`: environments may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// `account/region`.
    pub realm: String,
    /// The family's name.
    pub family: String,
    /// The revision's number.
    pub revision: i32,
    /// The document, with ARN, revision and status in it.
    pub document: api::TaskDefinition,
    /// Its tags.
    pub tags: Tags,
}

impl TaskDefinition {
    /// The record's key: revisions of a family sort by number.
    pub fn key_of(realm: &str, family: &str, revision: i32) -> String {
        format!("{realm}/{family}/{revision:010}")
    }

    /// Its ARN.
    pub fn arn(&self) -> &str {
        self.document.task_definition_arn.as_deref().unwrap_or_default()
    }

    /// Its status; every stored document has one.
    pub fn status(&self) -> api::TaskDefinitionStatus {
        self.document.status.unwrap_or(api::TaskDefinitionStatus::Active)
    }
}

impl Record for TaskDefinition {
    const TABLE: &'static str = "ecs.task_definition";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.family, self.revision)
    }
}
