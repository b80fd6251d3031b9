//! Deletes parameters whose Expiration policy is due.

use crate::{Ssm, model::Parameter, ops::remove};
use std::{sync::Arc, time::Duration};
use store::WriteError;

/// The longest wait between two looks, so that a wall clock that was set does not matter for long.
const ROUND: Duration = Duration::from_secs(60);

pub(crate) async fn drive(ssm: Arc<Ssm>) {
    let mut watch = ssm.store.watch::<Parameter>();
    loop {
        round(&ssm).await;
        let now = ssm.world.now();
        let snapshot = ssm.store.read();
        let next = snapshot.scan::<Parameter>().filter_map(|parameter| parameter.expires).min();
        // A deletion that failed is tried again, but not at once.
        let wait = next.map_or(ROUND, |next| next.since(now).clamp(Duration::from_secs(1), ROUND));
        tokio::select! {
            () = ssm.world.sleep(wait) => {}
            () = watch.changed() => {}
        }
    }
}

async fn round(ssm: &Ssm) {
    let now = ssm.world.now();
    let due: Vec<Arc<Parameter>> =
        ssm.store.read().scan::<Parameter>().filter(|parameter| parameter.is_over(now)).collect();
    for parameter in due {
        let deleted = ssm.store.try_write({
            let parameter = parameter.clone();
            move |tx| {
                let key = Parameter::key_of(&parameter.realm, &parameter.name);
                // It may have been put anew meanwhile.
                if tx.get::<Parameter>(&key).is_some_and(|newest| newest.is_over(now)) {
                    remove(tx, &parameter.realm, &parameter.name);
                }
                Ok::<_, std::convert::Infallible>(())
            }
        });
        match deleted.await {
            Ok(()) => tracing::info!(name = parameter.name, "a parameter expired"),
            Err(WriteError::Refused(never)) => match never {},
            Err(error) => tracing::warn!(
                name = parameter.name,
                error = &error as &dyn std::error::Error,
                "an expired parameter could not be deleted"
            ),
        }
    }
}
