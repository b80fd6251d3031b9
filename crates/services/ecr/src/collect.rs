//! Clearing away: layers that no image of their repository uses, blobs that no repository has, uploads that nobody came
//! back for.

use crate::{
    Ecr,
    model::{Image, Layer, Place},
};
use images::{Digest, blobs::Swept};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use wire::Fault;

/// So long a manifest may take to follow its layers, and an upload may rest.
const GRACE: Duration = Duration::from_secs(24 * 3600);
const ROUND: Duration = Duration::from_secs(3600);

pub(crate) async fn drive(ecr: Arc<Ecr>) {
    loop {
        match round(&ecr, GRACE).await {
            Ok(Swept { blobs: 0, .. }) => {}
            Ok(swept) => {
                tracing::info!(blobs = swept.blobs, bytes = swept.bytes, "cleared the registry")
            }
            Err(fault) => {
                tracing::warn!(fault = fault.message, "the registry could not be cleared")
            }
        }
        ecr.world.sleep(ROUND).await;
    }
}

/// One round; what is younger than `grace` stays.
pub(crate) async fn round(ecr: &Ecr, grace: Duration) -> Result<Swept, Fault> {
    let now = ecr.world.now();
    ecr.store
        .write(move |tx| {
            let mut used: HashMap<String, BTreeSet<Digest>> = HashMap::new();
            for image in tx.scan::<Image>() {
                used.entry(image.place.key()).or_default().extend(image.parts.iter().cloned());
            }
            let unused = |layer: &Arc<Layer>| {
                let used =
                    used.get(&layer.place.key()).is_some_and(|used| used.contains(&layer.digest));
                !used && now.since(layer.linked) >= grace
            };
            let keys: Vec<String> = tx
                .scan::<Layer>()
                .filter(unused)
                .map(|layer| layer.place.key_of(&layer.digest))
                .collect();
            for key in keys {
                tx.delete::<Layer>(&key);
            }
            Ok::<_, Fault>(())
        })
        .await?;
    let snapshot = ecr.store.read();
    let layers = snapshot.scan::<Layer>().map(|layer| layer.digest.clone());
    let images = snapshot.scan::<Image>().map(|image| image.digest.clone());
    let kept: HashSet<Digest> = layers.chain(images).collect();
    let nowhere = Place { realm: String::new(), name: String::new() };
    let told = |error| crate::faults::blob(&nowhere, error);
    ecr.blobs.expire_uploads(grace).await.map_err(told)?;
    ecr.blobs.sweep(move |digest| kept.contains(digest), grace).await.map_err(told)
}
