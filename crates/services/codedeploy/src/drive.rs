//! The reconciler: every open deployment has someone who carries it out, phase by phase. Each phase looks at what is
//! there before it does anything, so that it can be begun again after a crash.

use crate::{
    CodeDeploy,
    api::{DeploymentStatus, ErrorCode, LifecycleEventStatus},
    model::{Deployment, Event, Phase},
    start::{EVENTS, give_up, put},
    steps::{self, Failed},
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
/// The longest wait when alarms are to be looked at. They are in the same process: asking costs little.
const ALARMS: Duration = Duration::from_secs(1);
/// The wait after a disk that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a phase came to.
pub(crate) enum Flow {
    /// It is over; on to the next.
    On,
    /// It has moved within the phase, and goes on.
    Again,
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

async fn step(service: &Arc<CodeDeploy>, deployment: &Deployment) -> Result<Flow, Failed> {
    steps::alarms(service, deployment).await?;
    steps::step(service, deployment).await
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
                end(service, key, stopped, error, rollback, |_| {}).await
            }
            None => match step(service, &deployment).await {
                Ok(Flow::Wait(most)) => {
                    let longest = if deployment.alarms().is_some() { ALARMS } else { ROUND };
                    tokio::select! {
                        () = service.world.sleep(most.clamp(Duration::from_millis(1), longest)) => {}
                        () = watch.changed() => {}
                    }
                    Ok(())
                }
                Ok(Flow::Again) => Ok(()),
                Ok(Flow::On) => on(service, key, deployment.phase).await,
                Ok(Flow::Done) => done(service, key).await,
                Err(Failed { again: true, message, .. }) => {
                    tracing::warn!(
                        deployment = key,
                        why = message,
                        "a step failed; it is tried again"
                    );
                    service.world.sleep(PAUSE).await;
                    Ok(())
                }
                Err(failed) => fail(service, key, failed).await,
            },
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a deployment's step could not be written down");
            service.world.sleep(PAUSE).await;
        }
    }
}

/// The lifecycle event that a phase is, if it is one.
fn event_of(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Hook(event) => Some(event.name()),
        Phase::Install => Some("Install"),
        Phase::Test => Some("AllowTestTraffic"),
        Phase::Shift | Phase::Primary => Some("AllowTraffic"),
        Phase::Prepare | Phase::Ready | Phase::Terminate | Phase::Restore => None,
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

/// Leaves a phase for the next.
async fn on(service: &CodeDeploy, key: &str, from: Phase) -> Result<(), DiskFault> {
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let found = tx.get::<Deployment>(key).filter(|one| one.is_open() && one.phase == from);
            let Some(deployment) = found else { return Ok(()) };
            let mut deployment = Deployment::clone(&deployment);
            let Some(to) = deployment.after(from) else { return Ok(()) };
            let (ends, begins) = (event_of(from), event_of(to));
            if let Some(ends) = ends.filter(|_| ends != begins) {
                mark(&mut deployment, ends, LifecycleEventStatus::Succeeded, now);
            }
            if let Some(begins) = begins.filter(|_| ends != begins) {
                for skipped in EVENTS.into_iter().take_while(|name| *name != begins) {
                    let pending = |event: &Event| event.name == skipped && event.end.is_none();
                    if deployment.events.iter().any(pending) {
                        mark(&mut deployment, skipped, LifecycleEventStatus::Skipped, now);
                    }
                }
                mark(&mut deployment, begins, LifecycleEventStatus::InProgress, now);
            }
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
            let back = deployment.phase == Phase::Restore;
            for event in deployment.events.iter_mut().filter(|event| event.end.is_none()) {
                let begun = event.status == LifecycleEventStatus::InProgress;
                event.status = match begun || back {
                    true => LifecycleEventStatus::Succeeded,
                    false => LifecycleEventStatus::Skipped,
                };
                event.end = Some(now);
                event.start.get_or_insert(now);
            }
            deployment.status = DeploymentStatus::Succeeded;
            deployment.completed = Some(now);
            put(tx, &world, deployment);
            Ok(())
        })
        .await
}

async fn fail(service: &CodeDeploy, key: &str, failed: Failed) -> Result<(), DiskFault> {
    let Failed { code, message, diagnosis, .. } = failed;
    let diagnose = |deployment: &mut Deployment| {
        let name = event_of(deployment.phase);
        let event = deployment.events.iter_mut().find(|event| Some(event.name.as_str()) == name);
        if let Some(event) = event.filter(|_| diagnosis.is_some()) {
            event.diagnostics = diagnosis;
        }
    };
    let status = match code {
        ErrorCode::AlarmActive => DeploymentStatus::Stopped,
        _ => DeploymentStatus::Failed,
    };
    end(service, key, status, (code, message), false, diagnose).await
}

/// Ends a deployment that did not get where it was to get; `last` is the last change of it.
async fn end(
    service: &CodeDeploy,
    key: &str,
    status: DeploymentStatus,
    error: (ErrorCode, String),
    asked: bool,
    last: impl FnOnce(&mut Deployment),
) -> Result<(), DiskFault> {
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            if let Some(deployment) = tx.get::<Deployment>(key).filter(|one| one.is_open()) {
                let mut deployment = Deployment::clone(&deployment);
                last(&mut deployment);
                give_up(tx, &world, deployment, status, error, asked, now);
            }
            Ok(())
        })
        .await
}
