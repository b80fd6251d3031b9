//! The durable records of CodePipeline.

use crate::api::{
    ActionDeclaration, ActionExecutionStatus, ExecutionMode, GitPullRequestEventType,
    PipelineDeclaration, PipelineExecutionStatus, SourceRevisionOverride, StageDeclaration,
    StageExecutionStatus, TriggerType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Between a pipeline's name and what is of it in a key: no name can hold it.
const BETWEEN: char = '\u{1}';

/// A pipeline.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pipeline {
    /// `account/region`.
    pub realm: String,
    /// Its stages as they are now; its number of changes is in it.
    pub declaration: PipelineDeclaration,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Stages that nothing may enter.
    pub disabled: BTreeMap<String, Disabled>,
    /// How many executions were begun.
    pub begun: u64,
    /// What sources that are followed had when it was last looked, by action: none, where there was nothing.
    pub seen: BTreeMap<String, Option<String>>,
}

/// Why nothing may enter a stage.
#[derive(Clone, Serialize, Deserialize)]
pub struct Disabled {
    /// In the words of who disabled it.
    pub reason: String,
    /// Their ARN.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Pipeline {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.declaration.name
    }

    /// Its version, from 1.
    pub fn version(&self) -> i32 {
        self.declaration.version.unwrap_or(1)
    }

    /// `arn:aws:codepipeline:REGION:ACCOUNT:NAME`.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:codepipeline:{region}:{account}:{}", self.name())
    }

    /// How its executions get on with each other.
    pub fn mode(&self) -> ExecutionMode {
        self.declaration.execution_mode.unwrap_or(ExecutionMode::Superseded)
    }
}

impl Record for Pipeline {
    const TABLE: &'static str = "codepipeline.pipeline";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.declaration.name)
    }
}

/// What a pipeline was in one of its versions.
#[derive(Clone, Serialize, Deserialize)]
pub struct Version {
    /// `account/region`.
    pub realm: String,
    /// The pipeline, its version in it.
    pub declaration: PipelineDeclaration,
}

impl Version {
    /// What the keys of a pipeline's versions begin with.
    pub fn prefix_of(realm: &str, pipeline: &str) -> String {
        format!("{realm}/{pipeline}{BETWEEN}")
    }

    /// The record's key.
    pub fn key_of(realm: &str, pipeline: &str, version: i32) -> String {
        format!("{}{version:010}", Self::prefix_of(realm, pipeline))
    }
}

impl Record for Version {
    const TABLE: &'static str = "codepipeline.version";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.declaration.name, self.declaration.version.unwrap_or(1))
    }
}

/// One run of a pipeline.
#[derive(Clone, Serialize, Deserialize)]
pub struct Execution {
    /// `account/region`.
    pub realm: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The version of the pipeline that it runs.
    pub version: i32,
    /// Its number among the pipeline's, from 1.
    pub number: u64,
    /// Its id, a UUID.
    pub id: String,
    /// How it gets on with others.
    pub mode: ExecutionMode,
    /// Where it stands.
    pub status: PipelineExecutionStatus,
    /// What began it.
    pub trigger: TriggerType,
    /// Who or what that was.
    pub trigger_detail: String,
    /// The token that it was begun with.
    pub token: Option<String>,
    /// When it was begun.
    pub started: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Whether, and how, it is to stop.
    pub stop: Option<Stop>,
    /// The pipeline's variables.
    pub variables: BTreeMap<String, String>,
    /// Actions' output variables, by their namespaces.
    pub outputs: BTreeMap<String, BTreeMap<String, String>>,
    /// Where artifacts are, by name.
    pub artifacts: BTreeMap<String, Artifact>,
    /// What its sources gave.
    pub revisions: Vec<Revision>,
    /// What its sources are to give.
    pub overrides: Vec<SourceRevisionOverride>,
    /// The branch that was pushed to and began it, when that is another than its source's.
    #[serde(default)]
    pub branch: Option<String>,
    /// The stage that it is in, or that it waits to enter.
    pub at: usize,
    /// Whether it waits to enter that stage.
    pub waiting: bool,
    /// Its stages.
    pub stages: Vec<StageRun>,
    /// The id of the execution that it takes one stage back to, if that is what it is for.
    #[serde(default)]
    pub rollback: Option<String>,
}

/// How an execution is to stop.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stop {
    /// At once, whatever its actions do.
    pub abandon: bool,
    /// Why.
    pub reason: Option<String>,
}

/// An object of S3.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
}

/// What a source gave.
#[derive(Clone, Serialize, Deserialize)]
pub struct Revision {
    /// The source action's name.
    pub action: String,
    /// The artifact's name.
    pub artifact: String,
    /// A commit, a digest.
    pub id: String,
    /// What it says of itself.
    pub summary: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A stage of an execution.
#[derive(Clone, Serialize, Deserialize)]
pub struct StageRun {
    /// Its name.
    pub name: String,
    /// Where it stands; none before it is entered.
    pub status: Option<StageExecutionStatus>,
    /// When it was last entered, as a number that grows with every entry into any stage of the pipeline.
    pub entered: u64,
    /// Its actions.
    pub actions: Vec<ActionRun>,
    /// Actions of attempts before the last.
    pub before: Vec<ActionRun>,
    /// How often it was tried again.
    #[serde(default)]
    pub retries: Retries,
}

/// How often a stage was tried again.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Retries {
    /// By itself.
    pub automatic: u32,
    /// Because somebody asked for it.
    pub manual: u32,
    /// Whether the last time was by itself.
    pub last_automatic: bool,
}

/// An action of an execution.
#[derive(Clone, Serialize, Deserialize)]
pub struct ActionRun {
    /// What it is.
    pub declaration: ActionDeclaration,
    /// The id of this run of it, a UUID; empty before it began.
    pub id: String,
    /// Where it stands; none before it began.
    pub status: Option<ActionExecutionStatus>,
    /// When it began.
    pub started: Timestamp,
    /// When its status last changed.
    pub changed: Timestamp,
    /// Its configuration with all variables in place.
    pub resolved: BTreeMap<String, String>,
    /// What an approval is given with.
    pub token: Option<String>,
    /// How far it is, in its provider's own terms: what lets it go on after a crash.
    pub progress: Json,
    /// What came of it, for people.
    pub summary: Option<String>,
    /// Who decided it.
    pub by: Option<String>,
    /// What its provider calls what it did.
    pub external: Option<String>,
    /// Code and message of what went wrong.
    pub error: Option<(String, String)>,
    /// Its output variables.
    pub outputs: BTreeMap<String, String>,
}

/// The progress of an action that is a function's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// A UUID.
    pub id: String,
    /// Whether the function has been asked.
    pub invoked: bool,
    /// What the function said to go on with.
    pub continuation: Option<String>,
    /// How much of it is done, in percent, as the function said when it last went on.
    pub percent: Option<i32>,
    /// What came of it.
    pub result: Option<JobResult>,
}

/// What a function says came of its job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum JobResult {
    Succeeded {
        summary: Option<String>,
        external: Option<String>,
        outputs: BTreeMap<String, String>,
    },
    Failed {
        code: String,
        message: String,
        external: Option<String>,
    },
}

impl Job {
    /// A job that nobody has been asked to do yet.
    pub fn new(id: String) -> Self {
        Self { id, invoked: false, continuation: None, percent: None, result: None }
    }
}

impl From<Job> for Json {
    fn from(job: Job) -> Self {
        serde_json::to_value(job).expect("a job is plain data")
    }
}

impl ActionRun {
    /// Its job, if it is a function's.
    pub fn job(&self) -> Option<Job> {
        Job::deserialize(&self.progress).ok()
    }

    /// One that has not begun.
    pub fn new(declaration: ActionDeclaration) -> Self {
        let never = Timestamp::from_millis(0);
        Self {
            declaration,
            id: String::new(),
            status: None,
            started: never,
            changed: never,
            resolved: BTreeMap::new(),
            token: None,
            progress: Json::Null,
            summary: None,
            by: None,
            external: None,
            error: None,
            outputs: BTreeMap::new(),
        }
    }

    /// Actions of lower order come first.
    pub fn order(&self) -> i32 {
        self.declaration.run_order.unwrap_or(1)
    }

    /// Whether it is under way.
    pub fn is_under_way(&self) -> bool {
        self.status == Some(ActionExecutionStatus::InProgress)
    }
}

impl StageRun {
    /// One of this stage that has not been entered.
    pub fn new(declaration: &StageDeclaration) -> Self {
        Self {
            name: declaration.name.clone(),
            status: None,
            entered: 0,
            actions: declaration.actions.iter().cloned().map(ActionRun::new).collect(),
            before: Vec::new(),
            retries: Retries::default(),
        }
    }

    /// Tries it again, all of it or what has not succeeded, as the entry of this number.
    pub fn retry(&mut self, all: bool, entry: u64) {
        for action in &mut self.actions {
            if all || action.status != Some(ActionExecutionStatus::Succeeded) {
                let fresh = ActionRun::new(action.declaration.clone());
                let old = std::mem::replace(action, fresh);
                if old.status.is_some() {
                    self.before.push(old);
                }
            }
        }
        self.status = Some(StageExecutionStatus::InProgress);
        self.entered = entry;
    }
}

impl Execution {
    /// What the keys of a pipeline's executions begin with.
    pub fn prefix_of(realm: &str, pipeline: &str) -> String {
        format!("{realm}/{pipeline}{BETWEEN}")
    }

    /// Whether something may still happen to it.
    pub fn is_open(&self) -> bool {
        matches!(
            self.status,
            PipelineExecutionStatus::InProgress | PipelineExecutionStatus::Stopping
        )
    }
}

impl Record for Execution {
    const TABLE: &'static str = "codepipeline.execution";
    fn key(&self) -> String {
        format!("{}{:020}", Self::prefix_of(&self.realm, &self.pipeline), self.number)
    }
}

/// A source elsewhere, and what was last seen of it. There is none before it was looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Followed {
    /// `account/region`.
    pub realm: String,
    /// The connection's ARN.
    pub connection: String,
    /// The repository, as the connection knows it.
    pub repository: String,
    /// The branch.
    pub branch: String,
    /// The commit that it is at; none when there is no such branch.
    pub commit: Option<String>,
}

impl Followed {
    /// The record's key. Neither a repository's name nor a branch's has a space.
    pub fn key_of(realm: &str, [connection, repository, branch]: [&str; 3]) -> String {
        format!("{realm} {connection} {repository} {branch}")
    }
}

impl Record for Followed {
    const TABLE: &'static str = "codepipeline.followed";
    fn key(&self) -> String {
        Self::key_of(&self.realm, [&self.connection, &self.repository, &self.branch])
    }
}

/// A repository elsewhere whose pushes begin executions by triggers, and what it had when it was last looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// `account/region`.
    pub realm: String,
    /// The connection's ARN.
    pub connection: String,
    /// The repository, as the connection knows it.
    pub repository: String,
    /// The commits of its branches and tags, by their whole names.
    pub references: BTreeMap<String, String>,
}

impl Record for Watched {
    const TABLE: &'static str = "codepipeline.watched";
    fn key(&self) -> String {
        format!("{} {} {}", self.realm, self.connection, self.repository)
    }
}

/// A pull request elsewhere that a webhook told of, and that has not been looked at yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// A UUID.
    pub id: String,
    /// The repository, by its host's name for it.
    pub repository: String,
    /// The pull request's number.
    pub number: u64,
    /// What became of it.
    pub happened: GitPullRequestEventType,
    /// The branch that it is for.
    pub base: String,
    /// The branch that it is of.
    pub head: String,
    /// The commit that it is at, or its first digits.
    pub commit: String,
    /// How often it was tried in vain.
    pub tries: u32,
}

impl Record for Notice {
    const TABLE: &'static str = "codepipeline.notice";
    fn key(&self) -> String {
        self.id.clone()
    }
}
