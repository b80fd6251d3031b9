//! The default image of builds, which AWS's names for its own (`aws/codebuild/…`) lead to: put together from Debian
//! packages when it is first needed, and again when what it is made of here is another.

mod make;

use images::{BlobStore, Digest, DiskError, Reference, Source, StoreSource};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use thiserror::Error;
use tokio::sync::oneshot;
use world::World;

/// Where AWS's names for its images of builds begin, read as docker reads them.
const CURATED: &str = "docker.io/aws/codebuild/";
/// The media type of its manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why there is no default image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// mmdebstrap is not there.
    #[error(
        "mmdebstrap, which puts the image together from Debian packages, cannot be run: install mmdebstrap and \
         debian-archive-keyring"
    )]
    Program(#[source] io::Error),
    /// mmdebstrap says that it failed.
    #[error("mmdebstrap failed: {0}")]
    Failed(String),
    /// What it made cannot be kept.
    #[error("the image cannot be kept")]
    Keep(#[from] images::BlobError),
    /// A file of ours.
    #[error("the image cannot be kept in {0}")]
    File(PathBuf, #[source] io::Error),
}

/// Whether an image's name is one that AWS has for builds.
pub(crate) fn is_curated(reference: &Reference) -> bool {
    reference.name().starts_with(CURATED)
}

/// The image, or what there will be.
pub(crate) struct BuildImage {
    directory: PathBuf,
    blobs: BlobStore,
    world: World,
    /// Its manifest, once it is there.
    made: Arc<Mutex<Option<Digest>>>,
    /// One puts it together; others wait.
    turn: tokio::sync::Mutex<()>,
}

impl BuildImage {
    pub(crate) fn open(directory: &Path, world: &World) -> Result<Self, DiskError> {
        Ok(Self {
            directory: directory.to_owned(),
            blobs: BlobStore::open(&directory.join("blobs"), world)?,
            world: world.clone(),
            made: Arc::new(Mutex::new(make::known(directory))),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn made(&self) -> Option<Digest> {
        self.made.lock().expect("nothing panics with the lock held").clone()
    }

    /// Sees that the image is there; `tell` hears how far it is. Who stops waiting does not stop the work.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<(), ImageError> {
        if self.made().is_some() {
            return Ok(());
        }
        let (this, (done, wait)) = (self.clone(), oneshot::channel());
        self.world.spawn("the image of builds", async move {
            let made = this.make(tell).await;
            let _ = done.send(made); // nobody may be waiting any more
        });
        let ended = |_| {
            let error = io::Error::other("the work ended");
            Err(ImageError::File(self.directory.clone(), error))
        };
        wait.await.unwrap_or_else(ended)
    }

    async fn make(&self, tell: impl Fn(String) + Send + Sync + 'static) -> Result<(), ImageError> {
        let _turn = self.turn.lock().await;
        if self.made().is_some() {
            return Ok(());
        }
        let digest = make::make(&self.directory, &self.blobs, tell).await?;
        *self.made.lock().expect("nothing panics with the lock held") = Some(digest);
        Ok(())
    }

    /// Where its manifest and layers come from.
    pub(crate) fn source(&self) -> Arc<dyn Source> {
        let made = self.made.clone();
        let lookup = move |_: &Reference| {
            let made = made.lock().expect("nothing panics with the lock held").clone();
            made.map(|digest| (digest, MANIFEST.to_owned()))
        };
        Arc::new(StoreSource::new(self.blobs.clone(), Arc::new(lookup)))
    }
}
