//! Simple Storage Service: buckets and objects. Records are `s3.*`; contents are files that the records name.
//!
//! - [`Door`]: S3's own protocol, by the s3s crate, which also checks signatures and the checksums of signed chunks.
//! - `access`: which permission each operation needs.
//! - `ops`: the operations.
//! - `content`: the files.
//!
//! There are no access control lists (buckets are owner-enforced, as AWS makes them today), no keys of the customer's.

mod access;
mod checksum;
mod content;
mod delivery;
mod door;
mod environment;
mod faults;
mod mirror;
pub mod model;
mod ops;
pub mod resources;

pub use content::ContentError;
pub use door::Door;
pub use mirror::MirrorError;

use content::Contents;
use iam::Iam;
use model::{Bucket, Object, Part, Upload, Version};
use std::{path::Path, sync::Arc, time::Duration};
use store::{ReadError, Store};
use thiserror::Error;
use world::World;

/// The service's state.
pub struct S3 {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    contents: Contents,
}

/// Why the service does not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A stored record.
    #[error("a record of S3 cannot be read")]
    Record(#[from] ReadError),
    /// A content file.
    #[error("the contents of objects cannot be opened")]
    Content(#[from] ContentError),
}

impl S3 {
    /// The service over `store`, with objects' contents in `directory`, which is its alone.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        directory: &Path,
    ) -> Result<Arc<Self>, OpenError> {
        store.declare::<Bucket>()?;
        store.declare::<Object>()?;
        store.declare::<Version>()?;
        store.declare::<Upload>()?;
        store.declare::<Part>()?;
        events::declare(&store)?;
        let contents = Contents::open(directory, world.clone(), &store.read())?;
        Ok(Arc::new(Self { store, world, iam, contents }))
    }

    /// Begins to follow the buckets' lifecycle rules.
    pub fn start(self: &Arc<Self>) {
        let s3 = self.clone();
        self.world.spawn("lifecycle rules", async move {
            loop {
                ops::lifecycle::follow(&s3).await;
                s3.world.sleep(Duration::from_secs(3600)).await;
            }
        });
    }
}
