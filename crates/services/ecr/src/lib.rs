//! Elastic Container Registry. Records are `ecr.*`; what they name lies in a blob store.
//!
//! - `ops`: ECR's API.
//! - [`Registry`]: the OCI distribution API under `/v2/`, which docker, podman, buildah and skopeo speak.
//! - `content`: what both do to repositories: link layers, put and delete images.
//! - `lifecycle`, `collect`: what happens by itself: expiry, and clearing away what nothing refers to.
//!
//! A repository is pushed to by `HOST:PORT/ACCOUNT/REGION/NAME`: a name that needs no DNS and no certificate. Tasks may
//! name it like that, or as on AWS, `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod access;
mod collect;
mod content;
mod distribution;
mod faults;
mod lifecycle;
pub mod model;
mod name;
mod ops;
pub mod resources;
mod source;

pub use distribution::Registry;

use iam::Iam;
use images::BlobStore;
use model::{Image, Layer, Repository, Tag};
use std::{net::SocketAddr, sync::Arc};
use store::{ReadError, Sealer, Store};
use world::World;

/// The service's state.
pub struct Ecr {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    iam: Arc<Iam>,
    blobs: BlobStore,
    /// Where the registry is reached, `127.0.0.1:4566`: the first part of repository URIs.
    host: String,
    port: u16,
}

impl Ecr {
    /// The service over `store` and `blobs`, which is its alone; `listens` is where the front door listens. Fails
    /// when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        sealer: Arc<Sealer>,
        iam: Arc<Iam>,
        blobs: BlobStore,
        listens: SocketAddr,
    ) -> Result<Arc<Self>, ReadError> {
        events::declare(&store)?;
        store.declare::<Repository>()?;
        store.declare::<Image>()?;
        store.declare::<Tag>()?;
        store.declare::<Layer>()?;
        let mut reached = listens;
        if listens.ip().is_unspecified() {
            reached.set_ip([127, 0, 0, 1].into());
        }
        let (host, port) = (reached.to_string(), listens.port());
        Ok(Arc::new(Self { store, world, sealer, iam, blobs, host, port }))
    }

    /// Begins to apply lifecycle policies and to clear away what nothing refers to.
    pub fn start(self: &Arc<Self>) {
        let ecr = self.clone();
        self.world.spawn("image expiry", async move { lifecycle::drive(ecr).await });
        let ecr = self.clone();
        self.world.spawn("image layer collection", async move { collect::drive(ecr).await });
    }
}
