//! The durable records of CodeDeploy.

use crate::api::{
    AlarmConfiguration, AutoRollbackConfiguration, BlueGreenDeploymentConfiguration,
    DeploymentCreator, DeploymentReadyAction, DeploymentStatus, DeploymentStyle, ErrorCode,
    LastDeploymentInfo, LifecycleErrorCode, LifecycleEventStatus, LoadBalancerInfo,
    RevisionLocation, TrafficRoutingConfig,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// An application: a name for deployment groups.
#[derive(Clone, Serialize, Deserialize)]
pub struct Application {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Application {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for Application {
    const TABLE: &'static str = "codedeploy.application";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// How and where an application is deployed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Group {
    /// `account/region`.
    pub realm: String,
    /// The application's name.
    pub application: String,
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// The name of the configuration that traffic is shifted by.
    pub config: String,
    /// The role that deployments are carried out as.
    pub role: String,
    /// When deployments are rolled back by themselves.
    pub rollback: Option<AutoRollbackConfiguration>,
    /// The alarms that stop deployments.
    #[serde(default)]
    pub alarms: Option<AlarmConfiguration>,
    /// Blue and green, with traffic control.
    pub style: DeploymentStyle,
    /// What happens before traffic is shifted, and to what had it before.
    pub blue_green: BlueGreenDeploymentConfiguration,
    /// The pair of target groups, and the listeners.
    pub load_balancer: LoadBalancerInfo,
    /// The ECS cluster's name.
    pub cluster: String,
    /// The ECS service's name.
    pub service: String,
    /// The last deployment that succeeded.
    pub succeeded: Option<LastDeploymentInfo>,
    /// What that deployed.
    pub revision: Option<RevisionLocation>,
    /// The last deployment.
    pub attempted: Option<LastDeploymentInfo>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Group {
    /// The record's key. Names hold no slash.
    pub fn key_of(realm: &str, application: &str, name: &str) -> String {
        format!("{realm}/{application}/{name}")
    }
}

impl Record for Group {
    const TABLE: &'static str = "codedeploy.group";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.application, &self.name)
    }
}

/// A configuration of one's own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Config {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// How traffic is shifted.
    pub routing: TrafficRoutingConfig,
    /// When it was made.
    pub created: Timestamp,
}

impl Config {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for Config {
    const TABLE: &'static str = "codedeploy.config";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

/// A lifecycle event that is a function's, if the revision names one.
/// <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum HookEvent {
    BeforeInstall,
    AfterInstall,
    AfterAllowTestTraffic,
    BeforeAllowTraffic,
    AfterAllowTraffic,
}

impl HookEvent {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::BeforeInstall,
        Self::AfterInstall,
        Self::AfterAllowTestTraffic,
        Self::BeforeAllowTraffic,
        Self::AfterAllowTraffic,
    ];

    /// AWS's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeInstall => "BeforeInstall",
            Self::AfterInstall => "AfterInstall",
            Self::AfterAllowTestTraffic => "AfterAllowTestTraffic",
            Self::BeforeAllowTraffic => "BeforeAllowTraffic",
            Self::AfterAllowTraffic => "AfterAllowTraffic",
        }
    }
}

/// A function that a lifecycle event waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// A UUID: the lifecycle event hook's execution.
    pub id: String,
    /// Which event it is.
    pub event: HookEvent,
    /// Whether the function has been asked.
    pub invoked: bool,
    /// What it says of the deployment, once it says something: whether that is well.
    pub result: Option<bool>,
}

/// Where a deployment stands. Each phase can be begun again after a crash: it looks at what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The revision is read and the service looked at.
    Prepare,
    /// A function looks, and says whether it may go on.
    Hook(HookEvent),
    /// The green task set comes up.
    Install,
    /// The test listener leads to it.
    Test,
    /// It waits to be let on.
    Ready,
    /// Traffic is shifted, step by step.
    Shift,
    /// The green task set becomes the primary one.
    Primary,
    /// The blue one is kept for a while, and goes.
    Terminate,
    /// A rollback: traffic comes back, and the green one goes.
    Restore,
}

/// One of a deployment's lifecycle events.
#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    /// `AllowTraffic`.
    pub name: String,
    /// Where it stands.
    pub status: LifecycleEventStatus,
    /// When it began.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub end: Option<Timestamp>,
    /// What went wrong in its function.
    #[serde(default)]
    pub diagnostics: Option<Diagnosis>,
}

/// What went wrong in a lifecycle event's function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How it failed.
    pub code: LifecycleErrorCode,
    /// The function, as the AppSpec file names it.
    pub function: String,
    /// What is to be said of it.
    pub message: String,
}

/// What is deployed, and between what it moves.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The id of the task set that had the traffic before.
    pub blue: String,
    /// Its target group's ARN.
    pub blue_group: String,
    /// The other target group's ARN.
    pub green_group: String,
    /// The functions of lifecycle events.
    #[serde(default)]
    pub hooks: BTreeMap<HookEvent, String>,
}

/// A deployment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Deployment {
    /// `account/region`.
    pub realm: String,
    /// `d-…`.
    pub id: String,
    /// The group as it was when the deployment began.
    pub group: Group,
    /// The name of its configuration.
    pub config: String,
    /// How traffic is shifted.
    pub routing: TrafficRoutingConfig,
    /// What is deployed.
    pub revision: RevisionLocation,
    /// What is said of it.
    pub description: Option<String>,
    /// Who began it.
    pub creator: DeploymentCreator,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it was over.
    pub completed: Option<Timestamp>,
    /// Where it stands.
    pub status: DeploymentStatus,
    /// What went wrong.
    pub error: Option<(ErrorCode, String)>,
    /// When it is rolled back by itself.
    pub rollback: Option<AutoRollbackConfiguration>,
    /// The alarms that stop it, when they are others than its group's.
    #[serde(default)]
    pub own_alarms: Option<AlarmConfiguration>,
    /// The deployment that rolled this one back.
    pub rolled_back_by: Option<String>,
    /// The deployment that this one rolls back.
    pub rolls_back: Option<String>,
    /// Where it stands, in detail.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// What it moves between, once that is known.
    pub plan: Plan,
    /// The green task set's id, once it is there.
    pub green: Option<String>,
    /// Percent of the traffic that green has.
    pub weight: i32,
    /// Whether ContinueDeployment was called in this phase.
    pub let_on: bool,
    /// Whether it is to stop, and then whether it is rolled back.
    pub stop: Option<bool>,
    /// Its lifecycle events.
    pub events: Vec<Event>,
    /// The functions that were asked so far, the last being asked last.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

impl Deployment {
    /// The record's key.
    pub fn key_of(realm: &str, id: &str) -> String {
        format!("{realm}/{id}")
    }

    /// The names of the alarms that stop it, and whether it goes on when they cannot be looked at. None when none does.
    pub fn alarms(&self) -> Option<(Vec<String>, bool)> {
        let given = self.own_alarms.as_ref().or(self.group.alarms.as_ref())?;
        let names: Vec<_> =
            given.alarms.iter().flatten().filter_map(|alarm| alarm.name.clone()).collect();
        // A rollback is not stopped: it ends on what was there before.
        let watched = given.enabled == Some(true) && self.phase != Phase::Restore;
        (watched && !names.is_empty())
            .then(|| (names, given.ignore_poll_alarm_failure == Some(true)))
    }

    /// Whether traffic is shifted only when somebody says so.
    pub fn waits(&self) -> bool {
        let option = self.group.blue_green.deployment_ready_option.as_ref();
        option.and_then(|option| option.action_on_timeout)
            == Some(DeploymentReadyAction::StopDeployment)
    }

    /// The phase after `phase`; none after the last. Events that nobody has a function for are passed over.
    pub fn after(&self, phase: Phase) -> Option<Phase> {
        use HookEvent::*;
        let next = match phase {
            Phase::Prepare => Phase::Hook(BeforeInstall),
            Phase::Hook(BeforeInstall) => Phase::Install,
            Phase::Install => Phase::Hook(AfterInstall),
            Phase::Hook(AfterInstall) => Phase::Test,
            Phase::Test => Phase::Hook(AfterAllowTestTraffic),
            Phase::Hook(AfterAllowTestTraffic) if self.waits() => Phase::Ready,
            Phase::Hook(AfterAllowTestTraffic) | Phase::Ready => Phase::Hook(BeforeAllowTraffic),
            Phase::Hook(BeforeAllowTraffic) => Phase::Shift,
            Phase::Shift => Phase::Primary,
            Phase::Primary => Phase::Hook(AfterAllowTraffic),
            Phase::Hook(AfterAllowTraffic) => Phase::Terminate,
            Phase::Terminate | Phase::Restore => return None,
        };
        match next {
            Phase::Hook(event) if !self.plan.hooks.contains_key(&event) => self.after(next),
            next => Some(next),
        }
    }

    /// Whether it is under way.
    pub fn is_open(&self) -> bool {
        use DeploymentStatus::{Baking, Created, InProgress, Queued, Ready};
        matches!(self.status, Created | Queued | InProgress | Baking | Ready)
    }
}

impl Record for Deployment {
    const TABLE: &'static str = "codedeploy.deployment";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.id)
    }
}
