//! The durable records of ECS.

mod account_setting;
mod cluster;
mod connect;
mod service;
mod service_deployment;
mod task;
mod task_definition;
mod task_set;

pub use account_setting::AccountSetting;
pub use cluster::Cluster;
pub use connect::{Alias, Connect, Endpoint};
pub use service::{Deployment, Revision, Service, ServiceEvent, ServiceStatus};
pub use service_deployment::{
    AlarmsWatched, Breaker, Hook, RevisionInPlay, Rollback, ServiceDeployment, ServiceRevision,
    Shift, WHOLE, shifts,
};
pub use task::{
    Container, ContainerStatus, Health, Interface, LastStatus, Launch, PLATFORM, Reckoned, Sandbox,
    SandboxOwner, TargetState, Task, TaskRegistry, TaskTarget, TaskVolume,
};
pub use task_definition::{Family, TaskDefinition};
pub use task_set::{Controller, TaskSet, TaskSetStatus};

use crate::api::Tag;
use std::collections::BTreeMap;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// The ARN of something of ECS in a realm.
fn arn(realm: &str, rest: std::fmt::Arguments) -> String {
    let (account, region) = realm.split_once('/').expect("realms are account/region");
    format!("arn:aws:ecs:{region}:{account}:{rest}")
}

/// Tags as requests and answers hold them.
pub(crate) fn tags_out(tags: &Tags) -> Vec<Tag> {
    let tag = |(key, value): (&String, &String)| Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    tags.iter().map(tag).collect()
}
