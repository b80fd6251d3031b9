//! The reconciler: executions move as far as they go, and every action under way has someone who carries it out. All of
//! it is in the records, so that after a crash it goes on where it was.

use crate::{
    CodePipeline, actions,
    advance::advance,
    follow,
    model::{Execution, Followed, Pipeline},
    recover, tell,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{DiskFault, Record};

/// The longest wait between two looks.
const ROUND: Duration = Duration::from_secs(60);
/// The wait after a disk that failed.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn drive(service: Arc<CodePipeline>) {
    let mut watch = service.store.watch_tables(&[
        Pipeline::TABLE,
        Execution::TABLE,
        // What followed sources have.
        codecommit::model::References::TABLE,
        Followed::TABLE,
    ]);
    let carried = Arc::new(Mutex::new(HashSet::<String>::new()));
    loop {
        if let Err(error) = round(&service).await {
            tracing::warn!(%error, "pipelines could not be moved on; it is tried again");
            service.world.sleep(PAUSE).await;
            continue;
        }
        carry(&service, &carried);
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = watch.changed() => {}
        }
    }
}

/// Moves every pipeline on that has something to move.
async fn round(service: &CodePipeline) -> Result<(), DiskFault> {
    let snapshot = service.store.read();
    for pipeline in snapshot.scan::<Pipeline>() {
        if let Some(starts) = follow::due(service, &pipeline) {
            follow::start(service, &pipeline, starts).await?;
        }
        let prefix = Execution::prefix_of(&pipeline.realm, pipeline.name());
        let open = service.store.read().scan_prefix::<Execution>(&prefix).any(|one| one.is_open());
        if open {
            move_on(service, &pipeline).await?;
        }
    }
    Ok(())
}

async fn move_on(service: &CodePipeline, pipeline: &Pipeline) -> Result<(), DiskFault> {
    let (key, prefix) = (pipeline.key(), Execution::prefix_of(&pipeline.realm, pipeline.name()));
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let Some(pipeline) = tx.get::<Pipeline>(&key) else { return Ok(()) };
            let all: Vec<Arc<Execution>> = tx.scan_prefix::<Execution>(&prefix).collect();
            let mut entries = entries(&all);
            let open = all.iter().filter(|execution| execution.is_open());
            let mut open: Vec<Execution> = open.map(|one| Execution::clone(one)).collect();
            let mut after_failure = |failed: &mut Execution, entries: &mut u64| {
                tell::put(tx, &world, failed.clone());
                recover::after_failure(tx, &world, &pipeline, failed, entries)
            };
            let id = || world.uuid();
            if advance(&pipeline, &mut open, &mut entries, now, &id, &mut after_failure) {
                for execution in open.into_iter().filter(|execution| execution.updated == now) {
                    tell::put(tx, &world, execution);
                }
            }
            Ok(())
        })
        .await
}

/// How often stages of a pipeline were entered so far.
pub(crate) fn entries(executions: &[Arc<Execution>]) -> u64 {
    let stages = executions.iter().flat_map(|execution| &execution.stages);
    stages.map(|stage| stage.entered).max().unwrap_or(0)
}

/// Finds someone for every action under way that has nobody.
fn carry(service: &Arc<CodePipeline>, carried: &Arc<Mutex<HashSet<String>>>) {
    for execution in service.store.read().scan::<Execution>().filter(|one| one.is_open()) {
        if execution.waiting {
            continue;
        }
        let Some(stage) = execution.stages.get(execution.at) else { continue };
        for action in stage.actions.iter().filter(|action| action.is_under_way()) {
            let mut busy = carried.lock().expect("nothing panics with the lock held");
            if !busy.insert(action.id.clone()) {
                continue;
            }
            let (service, carried) = (service.clone(), carried.clone());
            let (key, id) = (execution.key(), action.id.clone());
            service.world.clone().spawn("a pipeline's action", async move {
                actions::carry_out(&service, &key, &id).await;
                carried.lock().expect("nothing panics with the lock held").remove(&id);
            });
        }
    }
}
