//! Services and their deployments.

use super::{Connect, Controller, Launch, Tags, TaskDefinition, TaskSet, arn};
use crate::api::{
    AvailabilityZoneRebalancing, CapacityProviderStrategyItem, DeploymentConfiguration,
    DeploymentRolloutState, LaunchType, LoadBalancer, NetworkConfiguration, PropagateTags,
    ServiceRegistry, ServiceVolumeConfiguration,
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};
use store::Record;
use world::Timestamp;

/// So many of a service's events are kept, as on AWS.
const MOST_EVENTS: usize = 100;
/// The fewest and the most failed tasks that the circuit breaker waits for.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>
const BREAKER: std::ops::RangeInclusive<i32> = 3..=200;

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceStatus {
    /// Kept as wanted.
    Active,
    /// Deleted; its tasks stop.
    Draining,
    /// Deleted, with no task left; it is still described for a while.
    Inactive,
}

impl ServiceStatus {
    /// As AWS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// Everything about a service's tasks that makes another deployment when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// The task definition's family.
    pub family: String,
    /// The task definition's revision.
    pub revision: i32,
    /// `FARGATE`, unless a strategy is given.
    pub launch_type: Option<LaunchType>,
    /// How tasks are spread over capacity providers.
    pub strategy: Vec<CapacityProviderStrategyItem>,
    /// `1.4.0`.
    pub platform_version: String,
    /// Subnets, security groups, public address.
    pub network: NetworkConfiguration,
    /// The target groups that its tasks are registered with.
    #[serde(default)]
    pub load_balancers: Vec<LoadBalancer>,
    /// The Cloud Map services that its tasks are registered with.
    #[serde(default)]
    pub registries: Vec<ServiceRegistry>,
    /// Its part in Service Connect.
    #[serde(default)]
    pub connect: Option<Connect>,
    /// The volumes that each of its tasks gets.
    #[serde(default)]
    pub volumes: Vec<ServiceVolumeConfiguration>,
}

/// A version of a service on its way in, in place, or on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// `ecs-svc/` and digits; its tasks carry it as `startedBy`.
    pub id: String,
    /// What its tasks are made from.
    pub revision: Revision,
    /// The target group that each of its load balancers' targets are in: the one that is named first, or the alternate
    /// one. Records that are older than this have none; their targets are in those that are named first.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What it is beyond a deployment, when it is a task set.
    #[serde(default)]
    pub set: Option<TaskSet>,
    /// How many tasks of it are wanted.
    pub desired_count: i32,
    /// How it goes.
    pub rollout: DeploymentRolloutState,
    /// The same in AWS's words.
    pub reason: String,
    /// Tasks that failed one after the other.
    pub failed_tasks: i32,
    /// Tasks that ended by themselves soon after they ran, one after the other.
    pub crashes: i32,
    /// After failures, when the next task may be started.
    pub next_start_at: Option<Timestamp>,
    /// CreateService or UpdateService.
    pub created_at: Timestamp,
    /// The last change.
    pub updated_at: Timestamp,
}

/// Something that happened to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// A UUID.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// In AWS's words.
    pub message: String,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `account/region`.
    pub realm: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub status: ServiceStatus,
    /// Who deploys it. Where that is not ECS, its deployments are task sets.
    #[serde(default)]
    pub controller: Controller,
    /// How many tasks are wanted.
    pub desired_count: i32,
    /// The PRIMARY one first, then those that are still ACTIVE, newest first. None once it is inactive.
    pub deployments: Vec<Deployment>,
    /// The id of the service deployment that is under way.
    #[serde(default)]
    pub ongoing: Option<String>,
    /// Where traffic has been shifted: the id of the deployment that all the production requests went to last.
    #[serde(default)]
    pub serving: Option<String>,
    /// How deployments go, with the defaults filled in.
    pub configuration: DeploymentConfiguration,
    /// For so long after a task runs its health does not matter, in seconds.
    pub grace_seconds: Option<i32>,
    /// Whether tasks are spread over zones again when they are not.
    pub rebalancing: AvailabilityZoneRebalancing,
    /// Where its tasks' tags come from.
    pub propagate_tags: PropagateTags,
    /// Whether its tasks are tagged with its name and cluster.
    pub managed_tags: bool,
    /// Whether commands may be run in its tasks.
    pub execute_command: bool,
    /// Its tags.
    pub tags: Tags,
    /// Whether all is as wanted, and has been told so.
    pub steady: bool,
    /// Newest first.
    pub events: VecDeque<ServiceEvent>,
    /// The principal that made it.
    pub created_by: String,
    /// CreateService.
    pub created_at: Timestamp,
    /// When the last of its tasks was gone.
    pub inactive_at: Option<Timestamp>,
}

impl Service {
    /// The record's key.
    pub fn key_of(realm: &str, cluster: &str, name: &str) -> String {
        format!("{realm}/{cluster}/{name}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("service/{}/{}", self.cluster, self.name))
    }

    /// The ARN of one of its task sets.
    pub fn task_set_arn(&self, id: &str) -> String {
        arn(&self.realm, format_args!("task-set/{}/{}/{id}", self.cluster, self.name))
    }

    /// Its cluster's ARN.
    pub fn cluster_arn(&self) -> String {
        arn(&self.realm, format_args!("cluster/{}", self.cluster))
    }

    /// The ARN of a task definition of its account and region.
    pub fn definition_arn(&self, revision: &Revision) -> String {
        revision.definition_arn(&self.realm)
    }

    /// The `group` of its tasks.
    pub fn group(&self) -> String {
        format!("service:{}", self.name)
    }

    /// The most tasks that may be started or running at once.
    pub fn most_tasks(&self) -> i32 {
        self.share(self.configuration.maximum_percent.unwrap_or(200), 0)
    }

    /// The fewest tasks that must stay healthy while others are replaced.
    pub fn fewest_healthy(&self) -> i32 {
        self.share(self.configuration.minimum_healthy_percent.unwrap_or(100), 99)
    }

    fn share(&self, percent: i32, round: i64) -> i32 {
        let tasks = (i64::from(self.desired_count) * i64::from(percent) + round) / 100;
        i32::try_from(tasks).unwrap_or(i32::MAX)
    }

    /// The failed tasks in a row at which the circuit breaker opens: half the desired count, within bounds.
    pub fn breaker_threshold(&self) -> i32 {
        let half = self.desired_count / 2 + self.desired_count % 2;
        half.clamp(*BREAKER.start(), *BREAKER.end())
    }

    /// How long after its start a task's health does not matter.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.grace_seconds.unwrap_or(0).unsigned_abs()))
    }

    /// Tells what happened, after the service's name.
    pub fn tell(&mut self, id: String, at: Timestamp, message: &str) {
        let message = format!("(service {}) {message}", self.name);
        self.events.push_front(ServiceEvent { id, at, message });
        self.events.truncate(MOST_EVENTS);
    }
}

impl Record for Service {
    const TABLE: &'static str = "ecs.service";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.cluster, &self.name)
    }
}

impl Deployment {
    /// A deployment that begins, of which no task has been started.
    pub fn new(id: String, revision: Revision, desired_count: i32, now: Timestamp) -> Self {
        let reason = format!("ECS deployment {id} in progress.");
        Self {
            id,
            groups: revision.first_groups(),
            set: None,
            revision,
            desired_count,
            rollout: DeploymentRolloutState::InProgress,
            reason,
            failed_tasks: 0,
            crashes: 0,
            next_start_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Its load balancers, each with the target group that its targets are in.
    pub fn balancers(&self) -> impl Iterator<Item = (&LoadBalancer, &str)> {
        self.revision.load_balancers.iter().enumerate().filter_map(|(i, balancer)| {
            let group = self.groups.get(i).or(balancer.target_group_arn.as_ref())?;
            Some((balancer, group.as_str()))
        })
    }

    /// Whether its targets are in this target group.
    pub fn is_in(&self, group: &str) -> bool {
        self.balancers().any(|(_, own)| own == group)
    }

    /// Where its next task goes, when it has so many on each provider: bases first, then by weight.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-capacity-providers.html>
    pub fn launch(&self, tasks_on: impl Fn(&str) -> i32) -> Launch {
        let strategy = &self.revision.strategy;
        let base = strategy.iter().find(|i| tasks_on(&i.capacity_provider) < i.base.unwrap_or(0));
        let weight = |item: &CapacityProviderStrategyItem| item.weight.unwrap_or(0);
        let beyond = |item: &CapacityProviderStrategyItem| {
            i64::from(tasks_on(&item.capacity_provider) - item.base.unwrap_or(0))
        };
        // The one that is furthest behind its weight; (a + 1) / v < (b + 1) / w without division.
        let lightest = strategy.iter().filter(|item| weight(item) > 0).reduce(|best, item| {
            let (a, b) = (beyond(item) + 1, beyond(best) + 1);
            let less = a * i64::from(weight(best)) < b * i64::from(weight(item));
            if less { item } else { best }
        });
        let item = base.or(lightest).or(strategy.first());
        item.map_or(Launch::Fargate, |i| Launch::CapacityProvider(i.capacity_provider.clone()))
    }
}

impl Revision {
    /// The target groups that are named first.
    fn first_groups(&self) -> Vec<String> {
        self.load_balancers.iter().filter_map(|b| b.target_group_arn.clone()).collect()
    }

    /// The ARN of its task definition, in a realm.
    pub fn definition_arn(&self, realm: &str) -> String {
        arn(realm, format_args!("task-definition/{}:{}", self.family, self.revision))
    }

    /// Whether `definition` is what its tasks are made from.
    pub fn is_of(&self, definition: &TaskDefinition) -> bool {
        self.family == definition.family && self.revision == definition.revision
    }
}
