//! The reconciler: every open deployment has someone who carries it out, phase by phase. Each phase looks at what is
//! there before it does anything, so that it can be begun again after a crash.

use crate::{
    CodeDeploy,
    api::{DeploymentStatus, ErrorCode, LifecycleEventStatus},
    model::{Deployment, Phase},
    start::{give_up, put},
    steps,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{DiskFault, Record};
use world::Timestamp;

/// The longest wait between two looks.
const ROUND: Duration = Duration::from_secs(60);
/// The wait after a disk that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a phase came to.
pub(crate) enum Flow {
    /// On to this one.
    On(Phase),
    /// It waits for this long at most, and is looked at again.
    Wait(Duration),
    /// All is done.
    Done,
}

pub(crate) async fn drive(service: Arc<CodeDeploy>) {
    let mut watch = service.store.watch::<Deployment>();
    let carried = Arc::new(Mutex::new(HashSet::<String>::new()));
    loop {
        for deployment in service.store.read().scan::<Deployment>().filter(|one| one.is_open()) {
            let key = deployment.key();
            let mut busy = carried.lock().expect("nothing panics with the lock held");
            if !busy.insert(key.clone()) {
                continue;
            }
            let (service, carried) = (service.clone(), carried.clone());
            service.world.clone().spawn("a deployment", async move {
                carry(&service, &key).await;
                carried.lock().expect("nothing panics with the lock held").remove(&key);
            });
        }
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = watch.changed() => {}
        }
    }
}

async fn carry(service: &Arc<CodeDeploy>, key: &str) {
    let mut watch = service.store.watch::<Deployment>();
    loop {
        let found = service.store.read().get::<Deployment>(key);
        let Some(deployment) = found.filter(|one| one.is_open()) else { return };
        // A rollback is not stopped: it ends on what was there before.
        let stop = deployment.stop.filter(|_| deployment.phase != Phase::Restore);
        let written = match stop {
            Some(rollback) => {
                let error =
                    (ErrorCode::ManualStop, "The deployment was stopped by its user.".to_owned());
                let stopped = DeploymentStatus::Stopped;
                end(service, key, stopped, error, rollback).await
            }
            None => match steps::step(service, &deployment).await {
                Ok(Flow::Wait(most)) => {
                    tokio::select! {
                        () = service.world.sleep(most.clamp(Duration::from_millis(1), ROUND)) => {}
                        () = watch.changed() => {}
                    }
                    Ok(())
                }
                Ok(Flow::On(phase)) => on(service, key, deployment.phase, phase).await,
                Ok(Flow::Done) => done(service, key).await,
                Err(steps::Failed { again: true, message, .. }) => {
                    tracing::warn!(
                        deployment = key,
                        why = message,
                        "a step failed; it is tried again"
                    );
                    service.world.sleep(PAUSE).await;
                    Ok(())
                }
                Err(failed) => {
                    let error = (failed.code, failed.message);
                    end(service, key, DeploymentStatus::Failed, error, false).await
                }
            },
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a deployment's step could not be written down");
            service.world.sleep(PAUSE).await;
        }
    }
}

/// The lifecycle events that a phase is, and those before it that nobody has a function for.
fn events_of(phase: Phase) -> (&'static [&'static str], &'static str) {
    match phase {
        Phase::Install => (&["BeforeInstall"], "Install"),
        Phase::Test => (&["AfterInstall"], "AllowTestTraffic"),
        Phase::Ready => (&["AfterAllowTestTraffic"], ""),
        Phase::Shift => (&["BeforeAllowTraffic"], "AllowTraffic"),
        Phase::Prepare | Phase::Primary | Phase::Restore => (&[], ""),
        Phase::Terminate => (&["AfterAllowTraffic"], ""),
    }
}

fn mark(deployment: &mut Deployment, name: &str, status: LifecycleEventStatus, now: Timestamp) {
    if let Some(event) = deployment.events.iter_mut().find(|event| event.name == name) {
        event.status = status;
        event.start.get_or_insert(now);
        if status != LifecycleEventStatus::InProgress {
            event.end = Some(now);
        }
    }
}

/// Enters a phase.
async fn on(service: &CodeDeploy, key: &str, from: Phase, to: Phase) -> Result<(), DiskFault> {
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let found = tx.get::<Deployment>(key).filter(|one| one.is_open() && one.phase == from);
            let Some(deployment) = found else { return Ok(()) };
            let mut deployment = Deployment::clone(&deployment);
            let (_, ends) = events_of(from);
            mark(&mut deployment, ends, LifecycleEventStatus::Succeeded, now);
            let (skipped, begins) = events_of(to);
            for name in skipped {
                mark(&mut deployment, name, LifecycleEventStatus::Skipped, now);
            }
            mark(&mut deployment, begins, LifecycleEventStatus::InProgress, now);
            deployment.status = match to {
                Phase::Ready => DeploymentStatus::Ready,
                _ => DeploymentStatus::InProgress,
            };
            (deployment.phase, deployment.since, deployment.let_on) = (to, now, false);
            put(tx, &world, deployment);
            Ok(())
        })
        .await
}

async fn done(service: &CodeDeploy, key: &str) -> Result<(), DiskFault> {
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let Some(deployment) = tx.get::<Deployment>(key).filter(|one| one.is_open()) else {
                return Ok(());
            };
            let mut deployment = Deployment::clone(&deployment);
            for event in deployment.events.iter_mut().filter(|event| event.end.is_none()) {
                (event.status, event.end) = (LifecycleEventStatus::Succeeded, Some(now));
                event.start.get_or_insert(now);
            }
            deployment.status = DeploymentStatus::Succeeded;
            deployment.completed = Some(now);
            put(tx, &world, deployment);
            Ok(())
        })
        .await
}

async fn end(
    service: &CodeDeploy,
    key: &str,
    status: DeploymentStatus,
    error: (ErrorCode, String),
    asked: bool,
) -> Result<(), DiskFault> {
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            if let Some(deployment) = tx.get::<Deployment>(key).filter(|one| one.is_open()) {
                let deployment = Deployment::clone(&deployment);
                give_up(tx, &world, deployment, status, error, asked, now);
            }
            Ok(())
        })
        .await
}
