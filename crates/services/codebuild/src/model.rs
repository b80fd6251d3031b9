//! The durable records of CodeBuild. What AWS describes of a project or a build is kept as AWS's own document.

use crate::{
    api::{self, LogsConfig, ProjectArtifacts, ReportStatusType, ReportType, StatusType},
    buildspec::{self, Output},
    report::{Case, Coverage},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// A project. No `Debug`: variables may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Project {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// As it is described.
    pub document: api::Project,
    /// How many builds of it were begun.
    pub builds: i64,
    /// Grows when what is cached of its builds is not to be used any more.
    pub cache: u32,
}

impl Project {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for Project {
    const TABLE: &'static str = "codebuild.project";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It waits for its turn.
    Queued,
    /// Its image is fetched.
    Provisioning,
    /// Its source is fetched, and its buildspec read.
    Source,
    /// Its container runs.
    Run,
    /// Its phases are over; what is kept of it is fetched from the container.
    Upload,
    /// It is over; its container and its files may still be there.
    Over,
    /// Nothing of it is left but this.
    Clean,
}

/// What a build keeps of its buildspec while it runs.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Its commands, by number.
    pub commands: Vec<String>,
    /// Where its source is in the container.
    pub source: String,
    /// Variables that it hands on.
    pub exported: Vec<String>,
    /// What is kept of it.
    pub artifacts: Option<Output>,
    /// By identifier.
    pub secondary: BTreeMap<String, Output>,
    /// The outputs whose names the shell works out, in their numbers' order; empty for the main one.
    pub names: Vec<String>,
    /// What of it is cached.
    pub cache: Vec<String>,
    /// Its reports, by their groups.
    #[serde(default)]
    pub reports: BTreeMap<String, buildspec::Report>,
}

/// A build. No `Debug`: variables may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Build {
    /// `account/region`.
    pub realm: String,
    /// Its project's name.
    pub project: String,
    /// A UUID.
    pub id: String,
    /// As it is described.
    pub document: api::Build,
    /// How its main output is to be kept.
    pub artifacts: ProjectArtifacts,
    /// How the others are to be kept.
    pub secondary_artifacts: Vec<ProjectArtifacts>,
    /// Where it is to be logged.
    pub logs: LogsConfig,
    /// Where it is.
    pub stage: Stage,
    /// The token that it was asked for with.
    pub token: Option<String>,
    /// Who asked for it: it is theirs to be told of by the token.
    pub asked_by: String,
    /// How many containers it had that were lost before they began.
    pub lost: u32,
    /// Whether it is to be stopped.
    pub stop: bool,
    /// The project's [`Project::cache`] when it began.
    pub cache: u32,
    /// Whether it has the layers that its project keeps: one build at a time.
    pub layers: bool,
    /// When its turn came.
    pub begun: Option<Timestamp>,
    /// What its buildspec says; known when its container runs.
    pub plan: Plan,
    /// How many lines its container has told that are in this record.
    pub heard: usize,
    /// Whether its commands all went well; known when they are over.
    pub succeeded: bool,
}

impl Build {
    /// The record's key.
    pub fn key_of(realm: &str, project: &str, id: &str) -> String {
        format!("{realm}/{project}/{id}")
    }

    /// `PROJECT:UUID`, as everybody else names it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.project, self.id)
    }

    /// The digits of its id.
    pub fn digits(&self) -> String {
        self.id.replace('-', "")
    }

    /// The id of its container.
    pub fn sandbox(&self) -> String {
        match self.lost {
            0 => self.digits(),
            lost => format!("{}-{lost}", self.digits()),
        }
    }

    /// Whether it is not over.
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Over | Stage::Clean)
    }

    /// Whether it has had its turn, and is not over.
    pub fn is_under_way(&self) -> bool {
        self.is_open() && self.stage != Stage::Queued
    }

    /// What it came to.
    pub fn status(&self) -> StatusType {
        self.document.build_status.unwrap_or(StatusType::InProgress)
    }
}

impl Record for Build {
    const TABLE: &'static str = "codebuild.build";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.project, &self.id)
    }
}

/// A group of reports of one kind.
#[derive(Clone, Serialize, Deserialize)]
pub struct ReportGroup {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// Whether they are of tests or of coverage.
    pub kind: ReportType,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
    /// Its tags.
    pub tags: Vec<api::Tag>,
}

impl ReportGroup {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// The ARN of the group with this name.
    pub fn arn_of(realm: &str, name: &str) -> String {
        let (account, region) = realm.split_once('/').unwrap_or_default();
        format!("arn:aws:codebuild:{region}:{account}:report-group/{name}")
    }
}

impl Record for ReportGroup {
    const TABLE: &'static str = "codebuild.report-group";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// What a build's tests, or their coverage, came to.
#[derive(Clone, Serialize, Deserialize)]
pub struct Report {
    /// `account/region`.
    pub realm: String,
    /// Its group's name.
    pub group: String,
    /// A UUID, its build's.
    pub id: String,
    /// What it is of.
    pub kind: ReportType,
    /// Its build's ARN.
    pub build: String,
    /// What came of it.
    pub status: ReportStatusType,
    /// When it was made.
    pub created: Timestamp,
    /// Whether there was more than is here.
    pub truncated: bool,
    /// The tests.
    pub cases: Vec<Case>,
    /// The files whose coverage is known.
    pub coverage: Vec<Coverage>,
}

impl Report {
    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("{}:{}", ReportGroup::arn_of(&self.realm, &self.group), self.id)
    }
}

impl Record for Report {
    const TABLE: &'static str = "codebuild.report";
    fn key(&self) -> String {
        format!("{}/{}", ReportGroup::key_of(&self.realm, &self.group), self.id)
    }
}
