//! Makes what is wanted so. `service` decides which tasks there are; one worker drives one task; the driver starts a
//! worker for every task that is not over, at start and whenever the table of tasks changes. A wake carries no data:
//! the worker looks.

mod collect;
pub(crate) mod connect;
mod environment;
pub(crate) mod events;
mod firelens;
mod hooks;
mod output;
mod patience;
pub(crate) mod pull;
mod reach;
mod service;
mod spec;
mod splunk;
mod task;
mod volumes;

use crate::{
    Ecs,
    model::{LastStatus, Service, Task, TaskDefinition},
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::Record;

/// How long a stopped task is still described, as on AWS.
const KEEP_STOPPED: Duration = Duration::from_secs(3600);
/// How often what is old is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Takes up what an earlier control plane left, then drives.
pub(crate) async fn start(ecs: &Arc<Ecs>) -> Result<(), runtime::EngineError> {
    let adopted = ecs.engine.adopt().await?;
    let snapshot = ecs.store.read();
    for left in &adopted {
        let id = left.task.id();
        let known = snapshot
            .scan::<Task>()
            .any(|task| task.id == id && task.last_status != LastStatus::Stopped);
        if !known {
            tracing::info!(task = id, "a task without a record is removed");
            ecs.engine.remove(id).await?;
        }
    }
    let driver = ecs.clone();
    ecs.world.spawn("task driver", async move { drive(driver).await });
    let keeper = ecs.clone();
    ecs.world.spawn("service driver", async move { service::drive(keeper).await });
    let hooks = ecs.clone();
    ecs.world.spawn("lifecycle hooks", async move { hooks::drive(hooks).await });
    let sweeper = ecs.clone();
    ecs.world.spawn("task sweeper", async move { sweep(sweeper).await });
    let collector = ecs.clone();
    ecs.world.spawn("image collector", async move { collect::drive(collector).await });
    Ok(())
}

/// Starts a worker for every task that needs one and has none.
async fn drive(ecs: Arc<Ecs>) {
    let mut watch = ecs.store.watch::<Task>();
    let driven: Arc<Mutex<HashSet<String>>> = Arc::default();
    loop {
        let snapshot = ecs.store.read();
        for record in snapshot.scan::<Task>().filter(|task| task.last_status != LastStatus::Stopped)
        {
            let key = record.key();
            let mut set = driven.lock().expect("no holder of this lock can panic");
            if !set.insert(key.clone()) {
                continue;
            }
            let (worker, driven) = (ecs.clone(), driven.clone());
            ecs.world.spawn("task worker", async move {
                task::drive(&worker, &key).await;
                driven.lock().expect("no holder of this lock can panic").remove(&key);
            });
        }
        watch.changed().await;
    }
}

/// Forgets tasks and services that were over long ago, and deleted task definitions that nothing uses.
async fn sweep(ecs: Arc<Ecs>) {
    loop {
        ecs.world.sleep(SWEEP).await;
        let now = ecs.world.now();
        let swept = ecs.store.write(move |tx| {
            let old: Vec<String> = tx
                .scan::<Task>()
                .filter(|task| task.stopped_at.is_some_and(|at| now.since(at) > KEEP_STOPPED))
                .map(|task| task.key())
                .collect();
            for key in old {
                tx.delete::<Task>(&key);
            }
            let over = |service: &Service| {
                service.inactive_at.is_some_and(|at| now.since(at) > KEEP_STOPPED)
            };
            let old: Vec<String> =
                tx.scan::<Service>().filter(|service| over(service)).map(|s| s.key()).collect();
            for key in old {
                tx.delete::<Service>(&key);
            }
            let mut used: HashSet<String> =
                tx.scan::<Task>().map(|task| task.definition_arn()).collect();
            for service in tx.scan::<Service>() {
                let revisions = service.deployments.iter().map(|d| &d.revision);
                used.extend(revisions.map(|revision| service.definition_arn(revision)));
            }
            let gone: Vec<String> = tx
                .scan::<TaskDefinition>()
                .filter(|d| d.status() == crate::api::TaskDefinitionStatus::DeleteInProgress)
                .filter(|definition| !used.contains(definition.arn()))
                .map(|definition| definition.key())
                .collect();
            for key in gone {
                tx.delete::<TaskDefinition>(&key);
            }
            Ok::<_, store::DiskFault>(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(
                error = chain(&error),
                "old tasks could not be swept; the next round tries again"
            );
        }
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
