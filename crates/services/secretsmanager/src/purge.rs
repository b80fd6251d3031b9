//! Deletes secrets whose recovery window is over.

use crate::{SecretsManager, model::Secret, ops::remove};
use std::{sync::Arc, time::Duration};
use store::WriteError;
use world::Timestamp;

/// The longest wait between two looks, so that a wall clock that was set does not matter for long.
const ROUND: Duration = Duration::from_secs(60);

fn is_due(secret: &Secret, now: Timestamp) -> bool {
    secret.deletion.is_some_and(|deletion| deletion.due <= now)
}

pub(crate) async fn drive(secrets: Arc<SecretsManager>) {
    let mut watch = secrets.store.watch::<Secret>();
    loop {
        round(&secrets).await;
        let now = secrets.world.now();
        let snapshot = secrets.store.read();
        let due = snapshot.scan::<Secret>().filter_map(|s| s.deletion.map(|d| d.due)).min();
        // A deletion that failed is tried again, but not at once.
        let wait = due.map_or(ROUND, |due| due.since(now).clamp(Duration::from_secs(1), ROUND));
        tokio::select! {
            () = secrets.world.sleep(wait) => {}
            () = watch.changed() => {}
        }
    }
}

async fn round(secrets: &SecretsManager) {
    let now = secrets.world.now();
    let due: Vec<Arc<Secret>> =
        secrets.store.read().scan::<Secret>().filter(|secret| is_due(secret, now)).collect();
    for secret in due {
        let key = Secret::key_of(&secret.realm, &secret.name);
        let deleted = secrets.store.try_write(move |tx| {
            // It may have been restored meanwhile.
            if let Some(newest) = tx.get::<Secret>(&key).filter(|newest| is_due(newest, now)) {
                remove(tx, &newest);
            }
            Ok::<_, std::convert::Infallible>(())
        });
        match deleted.await {
            Ok(()) => tracing::info!(name = secret.name, "a secret's recovery window is over"),
            Err(WriteError::Refused(never)) => match never {},
            Err(error) => tracing::warn!(
                name = secret.name,
                error = &error as &dyn std::error::Error,
                "a secret whose recovery window is over could not be deleted"
            ),
        }
    }
}
