//! What runs, for the person at the machine: `neargate status`.

use crate::{
    Ecs, Pulling,
    model::{LastStatus, Service, ServiceStatus, Task},
};
use std::sync::Arc;
use store::Record;

/// A task that is not over.
pub struct TaskLine {
    /// `account/region`.
    pub realm: String,
    /// Its ARN.
    pub arn: String,
    /// `family:revision`.
    pub definition: String,
    /// Where it is in its life.
    pub status: &'static str,
    /// Its address in its VPC.
    pub private_ip: Option<String>,
    /// The address that the host reaches.
    pub public_ip: Option<String>,
    /// How far its image is, while it is pulled.
    pub pulling: Option<Pulling>,
}

/// A service that is not gone.
pub struct ServiceLine {
    /// `account/region`.
    pub realm: String,
    /// Its ARN.
    pub arn: String,
    /// `family:revision`.
    pub definition: String,
    /// How many tasks are wanted.
    pub desired: i32,
    /// How many run.
    pub running: i32,
    /// How many are on their way.
    pub pending: i32,
    /// What it told last.
    pub event: Option<String>,
}

impl Ecs {
    /// All tasks that are not over, of all accounts and regions.
    pub fn tasks(&self) -> Vec<TaskLine> {
        let snapshot = self.store.read();
        let living = snapshot.scan::<Task>().filter(|task| task.last_status != LastStatus::Stopped);
        let line = |task: Arc<Task>| TaskLine {
            realm: task.realm.clone(),
            arn: task.arn(),
            definition: match &task.sandbox {
                Some(_) => "a build".to_owned(),
                None => format!("{}:{}", task.family, task.revision),
            },
            status: task.last_status.as_str(),
            private_ip: task.interface.private_ip.clone(),
            public_ip: task.interface.public_ip.clone(),
            pulling: self.pulls.of(&task.key()),
        };
        living.map(line).collect()
    }

    /// All services that are not gone, of all accounts and regions.
    pub fn services(&self) -> Vec<ServiceLine> {
        let snapshot = self.store.read();
        let there =
            snapshot.scan::<Service>().filter(|service| service.status != ServiceStatus::Inactive);
        let line = |service: Arc<Service>| {
            let prefix = format!("{}/{}/", service.realm, service.cluster);
            let group = service.group();
            let own = snapshot.scan_prefix::<Task>(&prefix).filter(|task| task.group == group);
            let (mut running, mut pending) = (0, 0);
            for task in own.filter(|task| !task.stopping) {
                running += i32::from(task.last_status == LastStatus::Running);
                pending += i32::from(task.last_status < LastStatus::Running);
            }
            let revision = service.deployments.first().map(|deployment| &deployment.revision);
            ServiceLine {
                realm: service.realm.clone(),
                arn: service.arn(),
                definition: revision
                    .map(|revision| format!("{}:{}", revision.family, revision.revision))
                    .unwrap_or_default(),
                desired: service.desired_count,
                running,
                pending,
                event: service.events.front().map(|event| event.message.clone()),
            }
        };
        there.map(line).collect()
    }
}
