//! Tasks.

use super::Tags;
use crate::api::{
    NetworkConfiguration, TaskDefinition, TaskManagedEBSVolumeConfiguration, TaskOverride,
    TaskStopCode,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use store::Record;
use world::{Timestamp, World};

/// The platform version that this engine answers for `LATEST`.
pub const PLATFORM: &str = "1.4.0";

/// Where a task is in its life.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LastStatus {
    /// Getting its network interface.
    Provisioning,
    /// Getting its images and secrets.
    Pending,
    /// Its containers start.
    Activating,
    /// They run.
    Running,
    /// It leaves what it was registered with.
    Deactivating,
    /// Its containers stop.
    Stopping,
    /// Its network interface goes.
    Deprovisioning,
    /// It is over.
    Stopped,
}

impl LastStatus {
    /// As AWS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// How a task came to its capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// `launchType: FARGATE`.
    Fargate,
    /// A capacity provider, `FARGATE` or `FARGATE_SPOT`.
    CapacityProvider(String),
}

/// A task's network interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Interface {
    /// The attachment's id, a UUID.
    pub attachment_id: String,
    /// `eni-…`, once there is one.
    pub eni: Option<String>,
    /// The subnet it is in.
    pub subnet: Option<String>,
    /// Its MAC address.
    pub mac: Option<String>,
    /// Its address.
    pub private_ip: Option<String>,
    /// The address that the host reaches.
    pub public_ip: Option<String>,
    /// `true` when it is gone again.
    pub deleted: bool,
}

/// A container of a task.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the task definition.
    pub name: String,
    /// The UUID in its ARN.
    pub id: String,
    /// The image as the task definition names it.
    pub image: String,
    /// The digest of what that was.
    pub image_digest: Option<String>,
    /// The id that metadata and logs know it by.
    pub runtime_id: Option<String>,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub status: ContainerStatus,
    /// What its process ended with.
    pub exit_code: Option<i32>,
    /// Why it did not start, or what killed it.
    pub reason: Option<String>,
    /// What its health check says.
    pub health: Option<Health>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerStatus {
    /// Not started.
    #[default]
    Pending,
    /// Runs.
    Running,
    /// Ended, or never started.
    Stopped,
}

impl ContainerStatus {
    /// As AWS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// What a health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Not known yet.
    Unknown,
    /// Passed.
    Healthy,
    /// Failed too often.
    Unhealthy,
}

/// What a service has taken note of, so that each task counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reckoned {
    /// Nothing yet.
    #[default]
    Not,
    /// That it runs well.
    Ran,
    /// That it is over.
    Over,
}

/// What a target group says of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetState {
    /// It does not know it: the task does not run yet.
    Awaited,
    /// Its health is not known yet.
    Initial,
    /// It gets requests.
    Healthy,
    /// It fails its health checks, for this reason.
    Unhealthy(String),
}

/// A target group that a task is to be registered with, as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTarget {
    /// The target group's ARN.
    pub group_arn: String,
    /// The port of the task.
    pub port: u16,
    /// What the target group says.
    pub state: TargetState,
}

/// A service of Cloud Map that a task is to be registered with, as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRegistry {
    /// The Cloud Map service's id.
    pub service: String,
    /// The port of the task that SRV records name.
    pub port: Option<u16>,
    /// How it was told to be when it was told last; none before it is registered.
    pub told: Option<bool>,
    /// Whether it is for Service Connect.
    #[serde(default)]
    pub connect: bool,
}

/// A service that runs its own work in tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxOwner {
    /// Builds.
    CodeBuild,
}

impl SandboxOwner {
    /// The cluster of its tasks: a name with a character that no cluster's name has.
    pub fn cluster(self) -> &'static str {
        match self {
            Self::CodeBuild => "@codebuild",
        }
    }

    /// Who assumes its roles, as their trust policies say.
    pub fn principal(self) -> &'static str {
        match self {
            Self::CodeBuild => "codebuild.amazonaws.com",
        }
    }
}

/// What is special about a task that is none of ECS's users': another service runs its own work in it (a build). Its
/// cluster has a name that no cluster can have, so no operation finds it, and nobody is told of it. No `Debug`:
/// environments may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// Whose work it is.
    pub owner: SandboxOwner,
    /// Its own definition, which no family has; its first container is what the rest here is about.
    pub definition: super::TaskDefinition,
    /// 1024 are one CPU.
    pub cpu_units: u32,
    /// In MiB.
    pub memory_mib: u32,
    /// Directories that lie over the image's layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// [`runtime::ContainerSpec::privileged`].
    pub privileged: bool,
    /// Disks that outlive it, and where they appear.
    pub disks: Vec<(PathBuf, String)>,
    /// The log stream that the output goes to, in the group that the definition names.
    pub log_stream: String,
    /// The port at which its own loopback address leads to the API, as the host's does.
    pub api_port: u16,
}

/// An EBS volume of a task.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaskVolume {
    /// Its name in the task definition.
    pub name: String,
    /// What was asked for.
    pub configuration: TaskManagedEBSVolumeConfiguration,
    /// The tags that it gets.
    pub tags: Tags,
    /// `vol-…`.
    pub id: String,
    /// The UUID of its attachment.
    pub attachment_id: String,
}

impl TaskVolume {
    /// Whether it ends with its task.
    pub fn ends(&self) -> bool {
        let policy = self.configuration.termination_policy.as_ref();
        policy.is_none_or(|policy| policy.delete_on_termination)
    }
}

/// A task. No `Debug`: overrides may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Task {
    /// `account/region`.
    pub realm: String,
    /// The cluster's name.
    pub cluster: String,
    /// 32 hexadecimal digits.
    pub id: String,
    /// The task definition's family.
    pub family: String,
    /// The task definition's revision.
    pub revision: i32,
    /// What RunTask changed of it.
    pub overrides: TaskOverride,
    /// `group` of RunTask, `family:NAME` by default.
    pub group: String,
    /// Who started it, in their words.
    pub started_by: Option<String>,
    /// How it came to its capacity.
    pub launch: Launch,
    /// `1.4.0`.
    pub platform_version: String,
    /// Whether commands may be run in it.
    pub execute_command: bool,
    /// Its subnets, security groups, and whether it gets a public address.
    pub network: NetworkConfiguration,
    /// The Availability Zone of its subnet.
    pub availability_zone: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// Where it is in its life.
    pub last_status: LastStatus,
    /// `true` from StopTask, an essential container's end, or a failure on.
    pub stopping: bool,
    /// The kind of that end.
    pub stop_code: Option<TaskStopCode>,
    /// Its words.
    pub stopped_reason: Option<String>,
    /// Its network interface.
    pub interface: Interface,
    /// Its containers, in the task definition's order.
    pub containers: Vec<Container>,
    /// Counts changes, from 1.
    pub version: i64,
    /// What its service has taken note of.
    #[serde(default)]
    pub reckoned: Reckoned,
    /// The target groups that its service has it in.
    #[serde(default)]
    pub targets: Vec<TaskTarget>,
    /// Where its service has it registered.
    #[serde(default)]
    pub registries: Vec<TaskRegistry>,
    /// The Cloud Map namespace whose services it can call through Service Connect.
    #[serde(default)]
    pub connect: Option<String>,
    /// Its EBS volumes.
    #[serde(default)]
    pub volumes: Vec<TaskVolume>,
    /// What befalls its network because its containers asked for it.
    #[serde(default)]
    pub faults: network::Faults,
    /// What it is if another service runs it for itself.
    #[serde(default)]
    pub sandbox: Option<Box<Sandbox>>,
    /// When it may be stopped by scale-in again; in the past when it is not protected.
    pub protected_until: Option<Timestamp>,
    /// Its idempotency token.
    pub client_token: Option<String>,
    /// The number of journal events that are in this record.
    pub journal_seq: u64,
    /// The UUID under which the task fetches its role's credentials.
    pub credentials_id: String,
    /// RunTask.
    pub created_at: Timestamp,
    /// Its containers' host became reachable.
    pub connectivity_at: Option<Timestamp>,
    /// The first image pull.
    pub pull_started_at: Option<Timestamp>,
    /// The last image pull's end.
    pub pull_stopped_at: Option<Timestamp>,
    /// RUNNING.
    pub started_at: Option<Timestamp>,
    /// The wish to stop.
    pub stopping_at: Option<Timestamp>,
    /// The last container's end.
    pub execution_stopped_at: Option<Timestamp>,
    /// STOPPED.
    pub stopped_at: Option<Timestamp>,
}

impl Task {
    /// A task of `definition` that is not started yet: without ids (see [`Task::number`]), overrides and tags.
    pub fn new(
        cluster: (&str, &str),
        definition: &super::TaskDefinition,
        launch: Launch,
        network: NetworkConfiguration,
        now: Timestamp,
    ) -> Self {
        let containers = definition.document.container_definitions.iter().flatten();
        let containers = containers.map(|container| Container {
            name: container.name.clone().unwrap_or_default(),
            image: container.image.clone().unwrap_or_default(),
            ..Container::default()
        });
        Self {
            realm: cluster.0.to_owned(),
            cluster: cluster.1.to_owned(),
            id: String::new(),
            family: definition.family.clone(),
            revision: definition.revision,
            overrides: TaskOverride::default(),
            group: format!("family:{}", definition.family),
            started_by: None,
            launch,
            platform_version: PLATFORM.to_owned(),
            execute_command: false,
            network,
            availability_zone: None,
            tags: Tags::new(),
            last_status: LastStatus::Provisioning,
            stopping: false,
            stop_code: None,
            stopped_reason: None,
            interface: Interface::default(),
            containers: containers.collect(),
            version: 1,
            reckoned: Reckoned::Not,
            targets: Vec::new(),
            registries: Vec::new(),
            connect: None,
            sandbox: None,
            volumes: Vec::new(),
            faults: network::Faults::default(),
            protected_until: None,
            client_token: None,
            journal_seq: 0,
            credentials_id: String::new(),
            created_at: now,
            connectivity_at: None,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
        }
    }

    /// Gives it and its parts ids of their own.
    pub fn number(&mut self, world: &World) {
        self.id = world.hex(32);
        self.interface.attachment_id = world.uuid();
        self.credentials_id = world.uuid();
        self.containers.iter_mut().for_each(|container| container.id = world.uuid());
        for volume in &mut self.volumes {
            volume.id = format!("vol-{}", world.hex(17));
            volume.attachment_id = world.uuid();
        }
    }

    /// What its health checks say together; `None` when it has none.
    pub fn health(&self) -> Option<Health> {
        let mut checked = self.containers.iter().filter_map(|container| container.health);
        let first = checked.next()?;
        Some(checked.fold(first, |all, one| match (all, one) {
            (Health::Unhealthy, _) | (_, Health::Unhealthy) => Health::Unhealthy,
            (Health::Unknown, _) | (_, Health::Unknown) => Health::Unknown,
            _ => Health::Healthy,
        }))
    }

    /// How large its disk is, in GiB: as overridden, as `document` (its definition) says, or 20.
    pub fn storage_gib(&self, document: Option<&TaskDefinition>) -> i32 {
        let defined = document.and_then(|document| document.ephemeral_storage.as_ref());
        let storage = self.overrides.ephemeral_storage.as_ref().or(defined);
        storage.map_or(20, |storage| storage.size_in_gi_b)
    }

    /// The record's key.
    pub fn key_of(realm: &str, cluster: &str, id: &str) -> String {
        format!("{realm}/{cluster}/{id}")
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:KIND/CLUSTER/…`.
    fn arn_of(&self, kind: &str, rest: &str) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:ecs:{region}:{account}:{kind}/{}{rest}", self.cluster)
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        self.arn_of("task", &format!("/{}", self.id))
    }

    /// Its cluster's ARN.
    pub fn cluster_arn(&self) -> String {
        self.arn_of("cluster", "")
    }

    /// The ARN of one of its containers.
    pub fn container_arn(&self, container: &Container) -> String {
        self.arn_of("container", &format!("/{}/{}", self.id, container.id))
    }

    /// Its task definition's ARN.
    pub fn definition_arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:ecs:{region}:{account}:task-definition/{}:{}", self.family, self.revision)
    }

    /// The key of its task definition's record.
    pub fn definition_key(&self) -> String {
        super::TaskDefinition::key_of(&self.realm, &self.family, self.revision)
    }

    /// Who assumes its roles, as their trust policies say.
    pub fn principal(&self) -> &'static str {
        let owner = self.sandbox.as_ref().map(|sandbox| sandbox.owner);
        owner.map_or("ecs-tasks.amazonaws.com", SandboxOwner::principal)
    }

    /// Moves to `next`, which must lie ahead: a task never goes back.
    pub fn advance(&mut self, next: LastStatus, now: Timestamp) {
        if next <= self.last_status {
            return;
        }
        self.last_status = next;
        self.version += 1;
        match next {
            LastStatus::Running => self.started_at = Some(now),
            LastStatus::Stopped => self.stopped_at = Some(now),
            _ => {}
        }
    }

    /// Wishes it to stop, once: the first reason stays.
    pub fn stop(&mut self, code: TaskStopCode, reason: &str, now: Timestamp) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.to_owned());
        self.stopping_at = Some(now);
        self.version += 1;
    }
}

impl Record for Task {
    const TABLE: &'static str = "ecs.task";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.cluster, &self.id)
    }
}
