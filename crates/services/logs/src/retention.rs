//! Drops events that are older than their group keeps them.

use crate::{
    Logs, faults,
    model::{LogGroup, LogStream},
};
use std::{sync::Arc, time::Duration};

/// How often. Reads hide what is too old at once; this gives the disk back.
const ROUND: Duration = Duration::from_secs(3600);

pub(crate) async fn drive(logs: Arc<Logs>) {
    loop {
        round(&logs).await;
        logs.world.sleep(ROUND).await;
    }
}

async fn round(logs: &Logs) {
    let now = logs.world.now();
    let snapshot = logs.store.read();
    for group in snapshot.scan::<LogGroup>() {
        let Some(horizon_ms) = group.horizon_ms(now) else { continue };
        for stream in
            snapshot.scan_prefix::<LogStream>(&LogStream::prefix_of(&group.realm, &group.name))
        {
            match logs.events.expire(&stream.id, horizon_ms).await {
                Ok(0) => {}
                Ok(events) => tracing::debug!(stream = stream.name, events, "old events are gone"),
                Err(error) => {
                    let error = faults::chain(&error);
                    tracing::warn!(stream = stream.name, error, "old events could not be dropped");
                }
            }
        }
    }
}
