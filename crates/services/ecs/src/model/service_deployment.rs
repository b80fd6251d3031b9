//! Service deployments, the ways from one revision of a service to the next, and the revisions.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>

use super::{Revision, arn};
use crate::api::{
    DeploymentAlarms, DeploymentConfiguration, DeploymentLifecycleHookAction,
    DeploymentLifecycleHookStatus, DeploymentStrategy, ServiceDeploymentLifecycleStage,
    ServiceDeploymentStatus,
};
use serde::{Deserialize, Serialize};
use store::Record;
use world::Timestamp;

/// A whole, where shares of traffic are counted in tenths of a percent: AWS takes multiples of 0.1 %.
pub const WHOLE: i32 = 1000;

/// A way from what is in place to another revision. It is kept when it has ended, as its service's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDeployment {
    /// `account/region`.
    pub realm: String,
    /// The cluster's name.
    pub cluster: String,
    /// The service's name.
    pub service: String,
    /// 21 letters and digits.
    pub id: String,
    /// What is deployed.
    pub target: RevisionInPlay,
    /// What was in place when it began. Where traffic is shifted, the first is the one that has it.
    pub sources: Vec<RevisionInPlay>,
    /// How it goes.
    pub status: ServiceDeploymentStatus,
    /// The same for people.
    pub reason: Option<String>,
    /// How it was wanted when it began; later changes of the service are for later deployments.
    pub configuration: DeploymentConfiguration,
    /// How far the traffic has been shifted, under strategies that do so.
    pub shift: Option<Shift>,
    /// What made it go back.
    pub rollback: Option<Rollback>,
    /// What the circuit breaker counted.
    pub breaker: Breaker,
    /// What its alarms said.
    #[serde(default)]
    pub alarms: AlarmsWatched,
    /// CreateService or UpdateService.
    pub created_at: Timestamp,
    /// When it was first worked on.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it was ended before it came to an end.
    pub stopped_at: Option<Timestamp>,
    /// The last change.
    pub updated_at: Timestamp,
}

/// A revision's part in a service deployment. The counts are those of the deployment's end; before, the tasks say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionInPlay {
    /// The id of its [`super::Deployment`].
    pub deployment: String,
    /// Tasks wanted.
    pub requested: i32,
    /// Tasks that ran.
    pub running: i32,
    /// Tasks that were about to.
    pub pending: i32,
}

/// How far traffic has been shifted from the source to the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Where it is.
    pub stage: ServiceDeploymentLifecycleStage,
    /// Since when it is there, or since the last of the stage's steps.
    pub since: Timestamp,
    /// The target's share of the test traffic, of [`WHOLE`].
    pub test: i32,
    /// The target's share of the production traffic, of [`WHOLE`].
    pub production: i32,
    /// Every hook that it came to, in order.
    pub hooks: Vec<Hook>,
}

/// A place at which a deployment waits until somebody lets it go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// `ecs-pause-`, or `ecs-lambda-`, and more.
    pub id: String,
    /// Its place in the configuration.
    pub index: usize,
    /// Where the deployment was.
    pub stage: ServiceDeploymentLifecycleStage,
    /// The target's share of the production traffic then: a stage of several steps comes to its hooks with each.
    pub production: i32,
    /// Whether it is let go on.
    pub status: DeploymentLifecycleHookStatus,
    /// When its time is over.
    pub expires_at: Timestamp,
    /// What then happens.
    pub action: DeploymentLifecycleHookAction,
    /// The ARN of the function that lets it go on; somebody who asks, where there is none.
    #[serde(default)]
    pub function: Option<String>,
    /// When the function is asked next.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Why the function did not let it go on.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A deployment's way back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub started_at: Timestamp,
    /// The id of the [`super::Deployment`] that it goes back to.
    pub to: String,
}

/// What the circuit breaker counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// The target's tasks that failed, one after the other.
    pub failures: i32,
    /// At so many it opens.
    pub threshold: i32,
    /// Whether it did.
    pub triggered: bool,
}

/// What a deployment's alarms said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlarmsWatched {
    /// One was on when it began: none is looked at.
    pub passed_over: bool,
    /// Those that ended it.
    pub triggered: Vec<String>,
    /// Since when all is in place, and only the alarms are waited for.
    pub bakes: Option<Timestamp>,
}

/// The part of an ARN that is a revision's.
fn digits(deployment: &str) -> &str {
    deployment.rsplit('/').next().unwrap_or_default()
}

impl ServiceDeployment {
    /// The record's key.
    pub fn key_of(realm: &str, cluster: &str, service: &str, id: &str) -> String {
        format!("{realm}/{cluster}/{service}/{id}")
    }

    /// The alarms that end it, if any do.
    pub fn alarms(&self) -> Option<&DeploymentAlarms> {
        let alarms = self.configuration.alarms.as_ref()?;
        (alarms.enable && !alarms.alarm_names.is_empty()).then_some(alarms)
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (cluster, service, id) = (&self.cluster, &self.service, &self.id);
        arn(&self.realm, format_args!("service-deployment/{cluster}/{service}/{id}"))
    }

    /// Its service's ARN.
    pub fn service_arn(&self) -> String {
        arn(&self.realm, format_args!("service/{}/{}", self.cluster, self.service))
    }

    /// Its cluster's ARN.
    pub fn cluster_arn(&self) -> String {
        arn(&self.realm, format_args!("cluster/{}", self.cluster))
    }

    /// The ARN of one of its revisions, by the id of the revision's deployment.
    pub fn revision_arn(&self, deployment: &str) -> String {
        let (cluster, service, id) = (&self.cluster, &self.service, digits(deployment));
        arn(&self.realm, format_args!("service-revision/{cluster}/{service}/{id}"))
    }

    /// Whether it is still under way.
    pub fn is_ongoing(&self) -> bool {
        use ServiceDeploymentStatus::*;
        matches!(
            self.status,
            Pending | InProgress | StopRequested | RollbackRequested | RollbackInProgress
        )
    }

    /// Whether it goes, or is to go, back.
    pub fn is_going_back(&self) -> bool {
        use ServiceDeploymentStatus::{RollbackInProgress, RollbackRequested};
        matches!(self.status, RollbackInProgress | RollbackRequested)
    }

    /// The id of the deployment that has the production traffic until it is shifted.
    pub fn source(&self) -> Option<&str> {
        self.sources.first().map(|source| source.deployment.as_str())
    }

    /// The share of the production traffic, of [`WHOLE`], that a revision of it has.
    pub fn production(&self, deployment: &str) -> i32 {
        self.share(deployment, |shift| shift.production)
    }

    /// The same of the test traffic.
    pub fn test(&self, deployment: &str) -> i32 {
        self.share(deployment, |shift| shift.test)
    }

    fn share(&self, deployment: &str, of: fn(&Shift) -> i32) -> i32 {
        let Some(shift) = &self.shift else { return 0 };
        match deployment {
            id if id == self.target.deployment => of(shift),
            id if Some(id) == self.source() => WHOLE - of(shift),
            _ => 0,
        }
    }
}

impl Record for ServiceDeployment {
    const TABLE: &'static str = "ecs.service_deployment";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.cluster, &self.service, &self.id)
    }
}

/// Whether a strategy shifts traffic from one target group to another.
pub fn shifts(configuration: &DeploymentConfiguration) -> bool {
    configuration.strategy.is_some_and(|strategy| strategy != DeploymentStrategy::Rolling)
}

/// A revision as DescribeServiceRevisions tells of it, kept when nothing runs of it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRevision {
    /// `account/region`.
    pub realm: String,
    /// The cluster's name.
    pub cluster: String,
    /// The service's name.
    pub service: String,
    /// The digits in the id of its deployment.
    pub id: String,
    /// What its tasks are made from.
    pub revision: Revision,
    /// The target group that each of its load balancers' targets are in.
    pub groups: Vec<String>,
    /// Each container's name, image, and, once a task had it, the image's digest.
    pub images: Vec<(String, String, Option<String>)>,
    /// CreateService or UpdateService.
    pub created_at: Timestamp,
}

impl ServiceRevision {
    /// The record's key, by the id of its deployment or its digits.
    pub fn key_of(realm: &str, cluster: &str, service: &str, id: &str) -> String {
        format!("{realm}/{cluster}/{service}/{}", digits(id))
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (cluster, service, id) = (&self.cluster, &self.service, &self.id);
        arn(&self.realm, format_args!("service-revision/{cluster}/{service}/{id}"))
    }

    /// Its service's ARN.
    pub fn service_arn(&self) -> String {
        arn(&self.realm, format_args!("service/{}/{}", self.cluster, self.service))
    }

    /// Its cluster's ARN.
    pub fn cluster_arn(&self) -> String {
        arn(&self.realm, format_args!("cluster/{}", self.cluster))
    }
}

impl Record for ServiceRevision {
    const TABLE: &'static str = "ecs.service_revision";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.cluster, &self.service, &self.id)
    }
}
