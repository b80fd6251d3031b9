//! The durable records of CloudFormation.

use crate::{
    api::{ChangeSetStatus, ExecutionStatus, OnFailure, StackStatus},
    template::Policy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use store::{Due, Record, Sealed};
use world::Timestamp;

/// A stack, also one that was deleted.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stack {
    /// `account/region`.
    pub realm: String,
    /// Its name, which one stack has at a time.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// How it is doing.
    pub status: StackStatus,
    /// Why.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its last update began.
    pub updated: Option<Timestamp>,
    /// When it was deleted.
    pub deleted: Option<Timestamp>,
    /// What it is to be, or is.
    pub settings: Settings,
    /// What it was before the update that is under way or whose rollback failed.
    pub previous: Option<Settings>,
    /// The operation that is or was the last.
    pub operation: Operation,
    /// What becomes of it when it cannot be made.
    pub on_failure: OnFailure,
    /// How long making it may take.
    pub timeout_minutes: Option<i32>,
    /// It cannot be deleted.
    pub protected: bool,
    /// What of it may be updated, JSON.
    #[serde(default)]
    pub policy: Option<String>,
    /// What its template puts out.
    pub outputs: Vec<Output>,
    /// The exports of others that it uses.
    pub imports: BTreeSet<String>,
    /// The change set that it was last made or changed by.
    pub change_set: Option<String>,
    /// The stack whose resource it is, an ARN.
    pub parent: Option<String>,
    /// How many events it has had.
    pub events: u64,
}

/// What a stack is made of.
#[derive(Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The [`Template`]'s id.
    pub template: String,
    /// What the template says of itself.
    pub description: Option<String>,
    /// The parameters' [`crate::template::Value`]s by name.
    pub values: Sealed,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What the caller has acknowledged.
    pub capabilities: Vec<String>,
    /// The role that it acts as.
    pub role: Option<String>,
    /// The topics that are told of its events.
    #[serde(default)]
    pub notify: Vec<String>,
    /// Who asked for it, and whom it acts as without a role.
    pub principal: Principal,
}

/// [`wire::Principal`], kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Principal {
    account: String,
    arn: String,
    user_id: String,
    policies: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Serialize, Deserialize)]
enum Kind {
    Root,
    User(String),
    Role(String, String),
}

impl Principal {
    /// `None` for services, which own no stacks.
    pub(crate) fn new(principal: &wire::Principal) -> Option<Self> {
        let kind = match &principal.kind {
            wire::PrincipalKind::Root => Kind::Root,
            wire::PrincipalKind::User { name } => Kind::User(name.clone()),
            wire::PrincipalKind::AssumedRole { role, session } => {
                Kind::Role(role.clone(), session.clone())
            }
            wire::PrincipalKind::Service { .. } => return None,
        };
        Some(Self {
            account: principal.account.clone(),
            arn: principal.arn.clone(),
            user_id: principal.user_id.clone(),
            policies: principal.session_policies.clone(),
            kind,
        })
    }

    pub(crate) fn restored(&self) -> wire::Principal {
        wire::Principal {
            account: self.account.clone(),
            arn: self.arn.clone(),
            user_id: self.user_id.clone(),
            session_policies: self.policies.clone(),
            kind: match &self.kind {
                Kind::Root => wire::PrincipalKind::Root,
                Kind::User(name) => wire::PrincipalKind::User { name: name.clone() },
                Kind::Role(role, session) => wire::PrincipalKind::AssumedRole {
                    role: role.clone(),
                    session: session.clone(),
                },
            },
        }
    }
}

/// What is or was done with a stack.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Operation {
    /// A UUID.
    pub id: String,
    /// The client's token, which its events carry.
    pub token: Option<String>,
    /// When it fails, what was done stays.
    pub no_rollback: bool,
    /// What the template names and is there already becomes the stack's, if it is to be retained.
    #[serde(default)]
    pub import: bool,
    /// What may be updated in this operation, in place of the stack's policy.
    #[serde(default)]
    pub policy: Option<String>,
    /// Resources that are not deleted, by logical id.
    pub retain: BTreeSet<String>,
    /// Resources that a rollback leaves as they are, by logical id.
    pub skip: BTreeSet<String>,
}

/// An output.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Its name in the template.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What the template says of it.
    pub description: Option<String>,
    /// Its name for other stacks.
    pub export: Option<String>,
}

impl Stack {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str, id: &str) -> String {
        format!("{realm}/{name}/{id}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:cloudformation:{region}:{account}:stack/{}/{}", self.name, self.id)
    }

    /// Something is being done with it.
    pub fn is_busy(&self) -> bool {
        self.status.as_str().ends_with("_IN_PROGRESS")
            && self.status != StackStatus::ReviewInProgress
    }

    /// It is there.
    pub fn is_live(&self) -> bool {
        self.status != StackStatus::DeleteComplete
    }
}

impl Record for Stack {
    const TABLE: &'static str = "cloudformation.stack";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name, &self.id)
    }
}

/// A template's text as it was given.
#[derive(Clone, Serialize, Deserialize)]
pub struct Template {
    /// A UUID.
    pub id: String,
    /// JSON or YAML; what the transforms made of it, when there are any.
    pub body: String,
    /// As it was given, when that is not the body.
    #[serde(default)]
    pub original: Option<String>,
}

impl Template {
    /// As it was given.
    pub fn given(&self) -> &str {
        self.original.as_deref().unwrap_or(&self.body)
    }
}

impl Record for Template {
    const TABLE: &'static str = "cloudformation.template";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// How far a resource's making or changing has come.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing is under way.
    Idle,
    /// It is being made; whether it is there is not known.
    Making,
    /// It is there, and not ready yet.
    Waiting,
}

/// A stack's resource.
#[derive(Clone, Serialize, Deserialize)]
pub struct Resource {
    /// The stack's UUID.
    pub stack: String,
    /// Its name in the template.
    pub logical: String,
    /// Its type.
    pub kind: String,
    /// How it is doing.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// When the status was last changed.
    pub changed: Timestamp,
    /// What is there now.
    pub now: Physical,
    /// How far its making or changing has come.
    pub stage: Stage,
    /// The properties of a change that was begun and not completed.
    pub attempted: Option<Sealed>,
    /// What it was before it was replaced; deleted in the end.
    pub before: Vec<Physical>,
    /// The resources that it refers to, by logical id.
    pub dependencies: BTreeSet<String>,
    /// What becomes of it when the stack no longer has it.
    pub deletion: Policy,
    /// What becomes of the replaced one.
    pub update_replace: Policy,
    /// The template's metadata of it, JSON.
    pub metadata: Option<String>,
    /// The part of an operation that has dealt with it.
    pub settled: String,
    /// The part of an operation that made it; [`IMPORTED`] when it was there before.
    pub made_by: String,
}

/// An address at which somebody answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mailbox {
    /// What nobody else knows of the address.
    pub secret: String,
    /// The stack's UUID.
    pub stack: String,
    /// What was put there, in order.
    pub letters: Vec<Sealed>,
}

impl Record for Mailbox {
    const TABLE: &'static str = "cloudformation.mailbox";
    fn key(&self) -> String {
        self.secret.clone()
    }
}

/// A resource that a function makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Custom {
    /// The token of [`Physical`].
    pub token: String,
    /// The stack's UUID.
    pub stack: String,
    /// What the function was asked last.
    pub asked: Option<Asked>,
    /// The id that it gave the resource.
    pub id: Option<String>,
    /// What `Fn::GetAtt` gives.
    pub data: Option<Sealed>,
}

impl Record for Custom {
    const TABLE: &'static str = "cloudformation.custom";
    fn key(&self) -> String {
        self.token.clone()
    }
}

/// What a function was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Names what it was.
    pub what: String,
    /// The secret of the address at which it answers.
    pub mailbox: String,
    /// A UUID.
    pub request_id: String,
    /// When.
    pub at: Timestamp,
    /// Whether the function was invoked.
    pub invoked: bool,
    /// Whether its answer was taken.
    pub told: bool,
}

/// The resource was not made by the stack.
pub const IMPORTED: &str = "imported";

/// What a stack's resource is outside of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Physical {
    /// The physical id, once it is known.
    pub id: Option<String>,
    /// The properties that it was made with, or last changed to.
    pub properties: Sealed,
    /// What `Fn::GetAtt` gives.
    pub attributes: Map<String, Json>,
    /// What its name ends with where the template gives none.
    pub suffix: String,
    /// A UUID for operations that take a client's token.
    pub token: String,
    /// It stays when it is replaced.
    pub retain: bool,
    /// It may be there without an id: the machine stopped before that was written down, and nobody went on with it.
    #[serde(default)]
    pub unsure: bool,
}

impl Resource {
    /// The record's key.
    pub fn key_of(stack: &str, logical: &str) -> String {
        format!("{stack}/{logical}")
    }
}

impl Record for Resource {
    const TABLE: &'static str = "cloudformation.resource";
    fn key(&self) -> String {
        Self::key_of(&self.stack, &self.logical)
    }
}

/// Something that happened to a stack or to a resource of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    /// The stack's UUID.
    pub stack: String,
    /// It was the stack's so-manyeth event.
    pub number: u64,
    /// AWS's id of it.
    pub id: String,
    /// The resource's name in the template, or the stack's name.
    pub logical: String,
    /// The resource's physical id, if it is known, or the stack's ARN.
    pub physical: Option<String>,
    /// The resource's type.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// The resource's properties, JSON, without what is not to be shown.
    pub properties: Option<String>,
    /// The token of the request that led to it.
    pub token: Option<String>,
}

impl Record for Event {
    const TABLE: &'static str = "cloudformation.event";
    fn key(&self) -> String {
        format!("{}/{:020}", self.stack, self.number)
    }
}

/// An event that topics are yet to be told of.
#[derive(Clone, Serialize, Deserialize)]
pub struct Notice {
    /// The event's key, and this record's.
    pub event: String,
    /// The stack's region.
    pub region: String,
    /// The topics' ARNs.
    pub topics: Vec<String>,
    /// What they are told.
    pub message: String,
    /// Who asked for the stack.
    pub principal: Principal,
    /// So often were they told in vain.
    pub attempts: u32,
    /// When they are told.
    pub due: Timestamp,
}

impl Record for Notice {
    const TABLE: &'static str = "cloudformation.notice";
    fn key(&self) -> String {
        self.event.clone()
    }
}

impl Due for Notice {
    fn due(&self) -> Timestamp {
        self.due
    }
}

/// What an update would do.
#[derive(Clone, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The stack's record's key.
    pub stack: String,
    /// Its name, one at a time in its stack.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// What it says of itself.
    pub description: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// How it is doing.
    pub status: ChangeSetStatus,
    /// Why.
    pub reason: Option<String>,
    /// Whether it can be executed.
    pub execution: ExecutionStatus,
    /// What the stack would be made of.
    pub settings: Settings,
    /// What the template names and is there already would become the stack's.
    pub import: bool,
    /// What becomes of a new stack that fails.
    pub on_failure: Option<OnFailure>,
    /// It was to tell what becomes of nested stacks, too: each is told as one change of its own.
    pub nested: bool,
    /// What would be done.
    pub changes: Vec<Change>,
}

/// What would be done with a resource.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `Add`, `Modify` or `Remove`.
    pub action: String,
    /// The resource's name in the template.
    pub logical: String,
    /// Its physical id, if it has one.
    pub physical: Option<String>,
    /// Its type.
    pub kind: String,
    /// `True`, `False` or `Conditional`.
    pub replacement: Option<String>,
    /// `Properties`, `Tags` and the like.
    pub scope: Vec<String>,
    /// The properties that differ.
    pub details: Vec<Detail>,
    /// What it is now, JSON, without what is not to be shown.
    pub before: Option<String>,
    /// What it would be.
    pub after: Option<String>,
}

/// A property that differs.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// `Properties`, `Tags`, …
    pub attribute: String,
    /// The property's name.
    pub name: Option<String>,
    /// `Never`, `Conditionally` or `Always`.
    pub recreation: Option<String>,
    /// Its value is known before; else only when another resource is made.
    pub is_static: bool,
}

impl Record for ChangeSet {
    const TABLE: &'static str = "cloudformation.change-set";
    fn key(&self) -> String {
        format!("{}/{}", self.stack, self.name)
    }
}
