//! The images of this machine: pulled, unpacked, remembered, collected.

use crate::blobs::MAX_BLOB_BYTES;
use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::disk::{At, DiskError, blocking, discard, private_dir};
use crate::download::Download;
use crate::flight::{Audience, Flights, Role};
use crate::layers::{Layer, LayerLimits, LayerStore, Lease};
use crate::manifest::{Descriptor, Platform};
use crate::pull::{Event, Image, Policy, Progress, PullError};
use crate::records::{ImageRecord, Records};
use crate::registry::pause;
use crate::source::{BlobBody, Source};
use crate::wanted::{Wanted, check, choose, small_blob};
use crate::{Digest, Reference};
use futures_util::future;
use std::{
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;
use world::World;

const CONFIG_ATTEMPTS: u32 = 5;

/// How images are pulled and kept.
#[derive(Debug, Clone)]
pub struct ImagesOptions {
    /// Layers that are fetched and unpacked at the same time, over all pulls.
    pub parallel_layers: usize,
    /// What a layer may hold.
    pub limits: LayerLimits,
    /// How long the rest of an interrupted download is kept for another try.
    pub keep_partial: Duration,
}

impl Default for ImagesOptions {
    fn default() -> Self {
        let (limits, keep_partial) = (LayerLimits::default(), Duration::from_secs(7 * 86_400));
        ImagesOptions { parallel_layers: 4, limits, keep_partial }
    }
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images forgotten.
    pub images: u64,
    /// Layers removed.
    pub layers: u64,
    /// Rests of downloads removed.
    pub partials: u64,
}

/// How old the record of a pull may be before the next one renews it.
const TOUCH: Duration = Duration::from_secs(3600);

/// Name, platform, policy and the address of the source.
type PullKey = (String, String, Policy, usize);
/// The digests of a layer uncompressed and compressed.
type LayerKey = (Digest, Digest);

/// The images of this machine. Cheap to clone; clones are one set. One process at a time owns it.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    partials: PathBuf,
    world: World,
    options: ImagesOptions,
    records: Records,
    layers: LayerStore,
    pulls: Arc<Flights<PullKey, Result<Image, PullError>>>,
    unpacks: Arc<Flights<LayerKey, Result<Layer, PullError>>>,
    slots: Semaphore,
}

impl Images {
    /// Opens the images under `root`, creating the directory if need be.
    pub fn open(root: &Path, world: &World, options: ImagesOptions) -> Result<Self, DiskError> {
        let partials = root.join("partial");
        private_dir(&partials)?;
        let inner = Inner {
            partials,
            world: world.clone(),
            records: Records::open(root, world)?,
            layers: LayerStore::open(&root.join("layers"), world, options.limits)?,
            pulls: Flights::new(),
            unpacks: Flights::new(),
            slots: Semaphore::new(options.parallel_layers.max(1)),
            options,
        };
        Ok(Images { inner: Arc::new(inner) })
    }

    /// Makes an image ready to be mounted. Pulls of one image from one source share their work, and
    /// pulls of different images share that of common layers.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        policy: Policy,
        source: Arc<dyn Source>,
        progress: Progress,
    ) -> Result<Image, PullError> {
        let (reference, platform) = (reference.clone(), platform.clone());
        let wanted = Wanted { reference, platform, policy, source };
        // Another source may stand for other credentials, so it counts.
        let source = Arc::as_ptr(&wanted.source).cast::<()>() as usize;
        let names = (wanted.reference.to_string(), wanted.platform.to_string());
        let key = (names.0, names.1, policy, source);
        let images = self.clone();
        let work = |audience| async move { images.make_ready(&wanted, &audience).await };
        let joined = self.inner.pulls.join(&self.inner.world, key, progress, work).await;
        joined.map_or(Err(PullError::Interrupted), |(_, result)| result)
    }

    /// The image as it was last pulled, if it is here whole.
    pub async fn find(&self, reference: &Reference, platform: &Platform) -> Option<Image> {
        let images = self.clone();
        let (reference, platform) = (reference.clone(), platform.clone());
        blocking(move || {
            let record = images.inner.records.get(&reference, &platform)?;
            images.ready(&record)
        })
        .await
    }

    /// All images that have been pulled.
    pub async fn list(&self) -> Result<Vec<ImageRecord>, DiskError> {
        let images = self.clone();
        blocking(move || images.inner.records.list()).await
    }

    /// How full the disk with the images is, from 0 to 1.
    pub fn disk_use(&self) -> Result<f64, DiskError> {
        let path = &self.inner.partials;
        let disk = rustix::fs::statvfs(path).at("ask for the room of", path)?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        // What root alone may use is not room for others.
        Ok(used as f64 / (used + disk.f_bavail).max(1) as f64)
    }

    /// Forgets the images that `keep` does not want, and removes all layers that belong to no other
    /// image, to no [`Image`] that somebody holds, and whose directory nobody uses. `is_used` is asked
    /// of a layer after it was seen that nobody holds it: whoever says yes must do so before it lets
    /// its [`Image`] go.
    pub async fn gc<K, U>(&self, keep: K, is_used: U) -> Result<Collected, DiskError>
    where
        K: Fn(&ImageRecord) -> bool + Send + 'static,
        U: Fn(&Path) -> bool + Send + 'static,
    {
        let images = self.clone();
        let (mut collected, needed) = blocking(move || {
            let mut collected = Collected::default();
            let mut needed = std::collections::HashSet::new();
            for record in images.inner.records.list()? {
                if keep(&record) {
                    needed.extend(record.layer_ids());
                } else {
                    images.inner.records.remove(&record)?;
                    collected.images += 1;
                }
            }
            collected.partials = images.expire_partials()?;
            Ok::<_, DiskError>((collected, needed))
        })
        .await?;
        collected.layers =
            self.inner.layers.collect(move |id| needed.contains(id), is_used).await?;
        Ok(collected)
    }

    fn expire_partials(&self) -> Result<u64, DiskError> {
        let dir = &self.inner.partials;
        let mut expired = 0;
        for entry in std::fs::read_dir(dir).at("list", dir)? {
            let path = entry.at("list", dir)?.path();
            // Without it, it has been used up meanwhile.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let age = self.inner.world.now().millis() / 1000 - metadata.mtime();
            if u64::try_from(age).is_ok_and(|age| age > self.inner.options.keep_partial.as_secs()) {
                discard(&path);
                expired += 1;
            }
        }
        Ok(expired)
    }

    /// An image of a record whose layers are all here.
    fn ready(&self, record: &ImageRecord) -> Option<Image> {
        let ids = record.layer_ids();
        let lease = self.inner.layers.lease(ids.clone());
        let layers: Option<Vec<PathBuf>> =
            ids.iter().map(|id| Some(self.inner.layers.get(id)?.path)).collect();
        let config = ImageConfig::parse(record.config.as_bytes()).ok()?;
        Some(Image {
            reference: record.reference.clone(),
            digest: record.digest.clone(),
            index_digest: record.index_digest.clone(),
            config: Arc::new(config),
            layers: layers?,
            size: record.size,
            lease: Arc::new(lease),
        })
    }

    /// Records that an image was pulled again; not each time, as it may be often.
    async fn touch(&self, wanted: &Wanted) -> Result<(), PullError> {
        let (images, now) = (self.clone(), self.inner.world.now());
        let (reference, platform) = (wanted.reference.clone(), wanted.platform.clone());
        let touched = blocking(move || match images.inner.records.get(&reference, &platform) {
            Some(record) if now.since(record.pulled_at) > TOUCH => {
                images.inner.records.put(&ImageRecord { pulled_at: now, ..record })
            }
            _ => Ok(()),
        });
        touched.await.map_err(PullError::disk)
    }

    async fn make_ready(&self, wanted: &Wanted, audience: &Audience) -> Result<Image, PullError> {
        if wanted.policy == Policy::IfMissing
            && let Some(image) = self.find(&wanted.reference, &wanted.platform).await
        {
            return Ok(image);
        }
        let (index_digest, digest, manifest) = choose(wanted).await?;
        if let Some(image) = self.find(&wanted.reference, &wanted.platform).await
            && (&image.digest, &image.index_digest) == (&digest, &index_digest)
        {
            self.touch(wanted).await?;
            return Ok(image); // nothing has changed
        }
        let config = self.config(wanted, &manifest.config).await?;
        let image_config = check(wanted, &manifest, &config)?;
        let diff_ids = image_config.diff_ids.clone();
        let sizes = manifest.layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
        audience.tell(&Event::Layers { layers: sizes });
        let lease = self.inner.layers.lease(diff_ids.clone());
        let layers = diff_ids.iter().zip(&manifest.layers);
        let layers = layers.map(|(diff_id, blob)| self.layer(wanted, diff_id, blob, audience));
        let layers = future::try_join_all(layers).await?;
        let seam = self.seam(wanted, layers).await?;
        let record = ImageRecord {
            reference: wanted.reference.clone(),
            platform: wanted.platform.clone(),
            digest,
            index_digest,
            diff_ids,
            seam,
            size: manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
            pulled_at: self.inner.world.now(),
            config,
        };
        let image = self.remember(record).await?;
        drop(lease); // the image has its own
        Ok(image)
    }

    async fn seam(&self, wanted: &Wanted, layers: Vec<Layer>) -> Result<Option<Digest>, PullError> {
        let store = self.inner.layers.clone();
        let seam = blocking(move || store.seam(&layers)).await;
        let reference = wanted.reference.to_string();
        let failed = |source| PullError::Join { reference, source: Arc::new(source) };
        Ok(seam.map_err(failed)?.map(|layer| layer.id))
    }

    /// Writes the record, gives the image, and has everything flushed to the disk behind its back.
    async fn remember(&self, record: ImageRecord) -> Result<Image, PullError> {
        let images = self.clone();
        let image = blocking(move || {
            images.inner.records.put(&record)?;
            Ok(images.ready(&record))
        });
        let image = image.await.map_err(PullError::disk)?;
        let layers = self.inner.layers.clone();
        self.inner.world.spawn("settle layers", async move {
            if let Err(failed) = layers.settle().await {
                let error = &failed as &dyn std::error::Error;
                tracing::warn!(error, "layers may have to be unpacked again after a power cut");
            }
        });
        let path = Path::new("the layers of an image just pulled");
        let missing = || DiskError::new("find", path, io::Error::from(io::ErrorKind::NotFound));
        image.ok_or_else(|| PullError::disk(missing()))
    }

    /// The configuration's text, verified.
    async fn config(&self, wanted: &Wanted, blob: &Descriptor) -> Result<String, PullError> {
        let limit_bytes = MAX_CONFIG_BYTES as u64;
        if blob.size > limit_bytes {
            return Err(PullError::TooLarge { digest: blob.digest.clone(), limit_bytes });
        }
        let mut attempt = 0;
        let bytes = loop {
            attempt += 1;
            match small_blob(wanted, blob).await {
                Ok(bytes) => break bytes,
                Err(failed) if failed.is_transient() && attempt < CONFIG_ATTEMPTS => {
                    let pause = pause(&self.inner.world, attempt, failed.retry_after());
                    self.inner.world.sleep(pause).await;
                }
                Err(failed) => return Err(wanted.source_error(failed)),
            }
        };
        let (expected, actual) = (blob.digest.clone(), blob.digest.alike(&bytes));
        if expected != actual {
            return Err(PullError::Digest { expected, actual });
        }
        String::from_utf8(bytes.to_vec()).map_err(|bad| {
            let source = serde::de::Error::custom(bad);
            wanted.config_error(crate::config::ConfigError::Json(source))
        })
    }

    /// One layer, from disk or from the source.
    async fn layer(
        &self,
        wanted: &Wanted,
        diff_id: &Digest,
        blob: &Descriptor,
        audience: &Audience,
    ) -> Result<Layer, PullError> {
        loop {
            if let Some(layer) = self.inner.layers.get(diff_id) {
                audience.tell(&Event::Present { layer: blob.digest.clone() });
                return Ok(layer);
            }
            let key = (diff_id.clone(), blob.digest.clone());
            let listener = audience.clone();
            let listener: Progress = Arc::new(move |event: &Event| listener.tell(event));
            let (images, wanted, k) = (self.clone(), wanted.clone(), key.clone());
            let blob = blob.clone();
            let work =
                |a: Audience| async move { images.make_layer(&wanted, &k.0, &blob, &a).await };
            let joined = self.inner.unpacks.join(&self.inner.world, key, listener, work).await;
            match joined.ok_or(PullError::Interrupted)? {
                // It was another's source that failed; ours may do better.
                (Role::Joiner, Err(PullError::Source { .. })) => {}
                (_, result) => return result,
            }
        }
    }

    async fn make_layer(
        &self,
        wanted: &Wanted,
        diff_id: &Digest,
        blob: &Descriptor,
        audience: &Audience,
    ) -> Result<Layer, PullError> {
        let slot = self.inner.slots.acquire().await.expect("the semaphore is never closed");
        if blob.size > MAX_BLOB_BYTES {
            let (digest, limit_bytes) = (blob.digest.clone(), MAX_BLOB_BYTES);
            return Err(PullError::TooLarge { digest, limit_bytes });
        }
        // The diff id is part of the name, so that a lying configuration cannot have one file
        // written by two.
        let name = format!("{}-{}", blob.digest.hex(), diff_id.hex());
        let path = self.inner.partials.join(name);
        let mut fresh = false;
        let layer = loop {
            let download = Download::open(path.clone(), blob.clone()).await;
            let download = download.map_err(PullError::disk)?;
            let resumed = download.resumed;
            match self.fetch(wanted, diff_id, blob, download, audience).await {
                // What an earlier process left may have been torn by a power cut: once more, from
                // zero.
                Err(PullError::Digest { .. }) if resumed && !fresh => fresh = true,
                result => break result?,
            }
        };
        drop(slot);
        audience.tell(&Event::Unpacked { layer: blob.digest.clone() });
        Ok(layer)
    }

    /// Fetches and unpacks at the same time.
    async fn fetch(
        &self,
        wanted: &Wanted,
        diff_id: &Digest,
        blob: &Descriptor,
        mut download: Download,
        audience: &Audience,
    ) -> Result<Layer, PullError> {
        let mut first = None;
        if download.written() < blob.size {
            let body = wanted.source.blob(&wanted.reference, blob, download.written()).await;
            match body {
                Ok(BlobBody::Stream { offset, stream }) => first = Some((offset, stream)),
                Ok(BlobBody::File(file)) => {
                    download.remove();
                    return self.unpack(diff_id, blob, FileReader { file, position: 0 }).await;
                }
                // The download knows which failures are worth another try.
                Err(failed) if failed.is_transient() => {}
                Err(failed) => {
                    if download.written() == 0 {
                        download.remove();
                    }
                    return Err(wanted.source_error(failed));
                }
            }
        }
        let (store, id, reader) = (self.inner.layers.clone(), diff_id.clone(), download.reader());
        let prepared = blocking(move || store.prepare(&id, reader));
        let (world, source) = (&self.inner.world, &*wanted.source);
        let running = download.run(world, source, &wanted.reference, first, audience);
        let (downloaded, prepared) = future::join(running, prepared).await;
        // Wrong bytes are the reason if unpacking failed, too.
        downloaded?;
        let layer = prepared.map_err(|source| layer_error(blob, source));
        let published = layer.and_then(|layer| layer.publish().map_err(PullError::disk));
        download.remove();
        published
    }

    async fn unpack(
        &self,
        diff_id: &Digest,
        blob: &Descriptor,
        reader: impl Read + Send + 'static,
    ) -> Result<Layer, PullError> {
        let (store, id) = (self.inner.layers.clone(), diff_id.clone());
        let prepared = blocking(move || store.prepare(&id, reader)).await;
        let prepared = prepared.map_err(|source| layer_error(blob, source))?;
        prepared.publish().map_err(PullError::disk)
    }

    /// Keeps layers by their diff ids, for a caller that knows them from a record.
    pub fn lease(&self, record: &ImageRecord) -> Lease {
        self.inner.layers.lease(record.layer_ids())
    }
}

fn layer_error(blob: &Descriptor, source: crate::LayerError) -> PullError {
    PullError::Layer { layer: blob.digest.clone(), source: Arc::new(source) }
}

/// Reads a blob of the local store from its beginning.
struct FileReader {
    file: crate::blobs::Blob,
    position: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.file().read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
