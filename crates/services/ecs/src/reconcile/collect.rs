//! Clears images away that no task has been started from for long, or, when the disk fills, that no task uses now.

use super::chain;
use crate::Ecs;
use std::{sync::Arc, time::Duration};

/// How often it is looked whether there is something to clear.
const ROUND: Duration = Duration::from_secs(600);
/// How long an image is kept that nobody uses: the next task of it starts without a download.
const KEEP_UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How full the disk may be before all images go that no task uses.
const FULL: f64 = 0.85;

pub(super) async fn drive(ecs: Arc<Ecs>) {
    loop {
        ecs.world.sleep(ROUND).await;
        let keep = match ecs.images.disk_use() {
            Ok(full) if full > FULL => Duration::ZERO,
            Ok(_) => KEEP_UNUSED,
            Err(error) => {
                tracing::warn!(error = chain(&error), "it cannot be told how full the disk is");
                KEEP_UNUSED
            }
        };
        let (now, engine) = (ecs.world.now(), ecs.engine.clone());
        let keep = move |image: &images::ImageRecord| now.since(image.pulled_at) < keep;
        let collected = ecs.images.gc(keep, move |layer| engine.uses(layer)).await;
        match collected {
            Ok(collected) if collected.layers + collected.images == 0 => {}
            Ok(collected) => {
                let (images, layers) = (collected.images, collected.layers);
                tracing::info!(images, layers, "images that no task uses were cleared away");
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "images could not be cleared away");
            }
        }
    }
}
