//! CodePipeline: from a change to what runs, stage by stage. Records are `codepipeline.*`.
//!
//! What comes next is decided by `advance`, which is pure; `drive` lets it decide whenever something changed, and finds
//! someone to carry out every action that is under way. An action calls other services as the pipeline's role, through
//! the same door as everybody.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod actions;
mod advance;
mod artifacts;
mod check;
mod drive;
mod faults;
mod follow;
pub mod model;
mod ops;
pub mod resources;
mod start;
mod tell;
mod variables;

use codecommit::CodeCommit;
use iam::Iam;
use model::{Execution, Pipeline, Version};
use s3::S3;
use std::sync::{Arc, OnceLock};
use store::{ReadError, Store};
use tokio::sync::Semaphore;
use wire::Front;
use world::World;

/// So many artifacts are in memory at once.
const MOST_ARTIFACTS: usize = 4;

/// The service's state.
pub struct CodePipeline {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    codecommit: Arc<CodeCommit>,
    s3: Arc<S3>,
    /// Artifacts pass through memory: so many at once.
    artifacts: Semaphore,
    front: OnceLock<Arc<Front>>,
}

impl CodePipeline {
    /// The service over `store`; sources' archives come from `codecommit`, artifacts are in `s3`. Fails when a stored
    /// record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        codecommit: Arc<CodeCommit>,
        s3: Arc<S3>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Pipeline>()?;
        store.declare::<Version>()?;
        store.declare::<Execution>()?;
        events::declare(&store)?;
        let artifacts = Semaphore::new(MOST_ARTIFACTS);
        Ok(Arc::new(Self { store, world, iam, codecommit, s3, artifacts, front: OnceLock::new() }))
    }

    /// Begins to move executions on, by operations called through the front door.
    pub fn start(self: &Arc<Self>, front: Arc<Front>) {
        if self.front.set(front).is_ok() {
            let service = self.clone();
            self.world.spawn("pipelines", async move { drive::drive(service).await });
        }
    }

    fn front(&self) -> &Front {
        self.front.get().expect("actions begin with the front door")
    }
}
