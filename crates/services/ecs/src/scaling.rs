//! What Application Auto Scaling needs of services: how many tasks, another number of them, and what they use.

use crate::{
    Ecs,
    model::{LastStatus, Service, ServiceStatus, Task, TaskDefinition},
};
use std::sync::Arc;
use store::DiskFault;

/// What a task of a service has used since it began.
pub struct TaskUsage {
    /// Its id.
    pub id: String,
    /// CPU time, in ns.
    pub cpu_ns: u64,
    /// What it may use: 1024 are one core.
    pub cpu_units: u32,
    /// Memory in use now, in bytes, without page cache that can be given up at once.
    pub memory_bytes: u64,
    /// What it may use, in bytes.
    pub memory_limit_bytes: u64,
}

impl Ecs {
    fn active_service(&self, realm: &str, cluster: &str, name: &str) -> Option<Arc<Service>> {
        let found = self.store.read().get::<Service>(&Service::key_of(realm, cluster, name));
        found.filter(|service| service.status == ServiceStatus::Active)
    }

    fn running_tasks(&self, service: &Service) -> Vec<Arc<Task>> {
        let (snapshot, group) = (self.store.read(), service.group());
        let prefix = format!("{}/{}/", service.realm, service.cluster);
        let runs = |task: &Arc<Task>| {
            task.group == group && task.last_status == LastStatus::Running && !task.stopping
        };
        snapshot.scan_prefix::<Task>(&prefix).filter(runs).collect()
    }

    /// How many tasks a service wants, and how many run; none when there is no such service.
    pub fn task_counts(&self, realm: &str, cluster: &str, name: &str) -> Option<(i32, i32)> {
        let service = self.active_service(realm, cluster, name)?;
        let running = i32::try_from(self.running_tasks(&service).len()).unwrap_or(i32::MAX);
        Some((service.desired_count, running))
    }

    /// Wants another number of tasks. Whether there is such a service.
    pub async fn set_desired_count(
        &self,
        realm: &str,
        cluster: &str,
        name: &str,
        desired: i32,
    ) -> Result<bool, DiskFault> {
        let key = Service::key_of(realm, cluster, name);
        self.store
            .write(move |tx| {
                let known = tx.get::<Service>(&key);
                if known.is_none_or(|service| service.status != ServiceStatus::Active) {
                    return Ok(false);
                }
                tx.update::<Service>(&key, |service| service.desired_count = desired);
                Ok(true)
            })
            .await
    }

    /// The services that there are: account and region, cluster and name.
    pub fn service_names(&self) -> Vec<(String, String, String)> {
        let active = |service: &Arc<Service>| service.status == ServiceStatus::Active;
        let name = |service: Arc<Service>| {
            (service.realm.clone(), service.cluster.clone(), service.name.clone())
        };
        self.store.read().scan::<Service>().filter(active).map(name).collect()
    }

    /// What the running tasks of a service have used. Those that cannot be measured just now are left out.
    pub async fn task_usage(&self, realm: &str, cluster: &str, name: &str) -> Vec<TaskUsage> {
        let Some(service) = self.active_service(realm, cluster, name) else { return Vec::new() };
        let mut all = Vec::new();
        for task in self.running_tasks(&service) {
            let Some(running) = self.engine.task(&task.id) else { continue };
            let Some(size) = self.size_of(&task) else { continue };
            let measured = match running.stats().await {
                Ok(measured) => measured.task,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(task = task.id, error, "a task could not be measured");
                    continue;
                }
            };
            let (Some(cpu_ns), Some(memory)) = (measured.cpu_ns, measured.memory_bytes) else {
                continue;
            };
            all.push(TaskUsage {
                id: task.id.clone(),
                cpu_ns,
                cpu_units: size.0,
                memory_bytes: memory.saturating_sub(measured.inactive_file_bytes.unwrap_or(0)),
                memory_limit_bytes: u64::from(size.1) << 20,
            });
        }
        all
    }

    /// CPU units and MiB that a task has.
    fn size_of(&self, task: &Task) -> Option<(u32, u32)> {
        let key = TaskDefinition::key_of(&task.realm, &task.family, task.revision);
        let definition = self.store.read().get::<TaskDefinition>(&key)?;
        let document = &definition.document;
        let cpu = task.overrides.cpu.as_deref().or(document.cpu.as_deref());
        let memory = task.overrides.memory.as_deref().or(document.memory.as_deref());
        let size = crate::validate::size(cpu, memory).ok()?;
        Some((size.cpu_units, size.memory_mib))
    }
}
