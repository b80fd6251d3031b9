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
mod elsewhere;
mod faults;
mod follow;
pub mod model;
mod ops;
mod recover;
mod requests;
pub mod resources;
mod start;
mod tell;
mod triggers;
mod variables;

pub use elsewhere::Hook;

use codecommit::CodeCommit;
use codeconnections::CodeConnections;
use iam::Iam;
use model::{Execution, Followed, Notice, Pipeline, Version, Watched};
use s3::S3;
use std::sync::{Arc, OnceLock};
use store::{ReadError, Store};
use tokio::sync::{Notify, Semaphore};
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
    connections: Arc<CodeConnections>,
    s3: Arc<S3>,
    /// Told when a host says that something was pushed.
    hooked: Notify,
    /// Artifacts pass through memory: so many at once.
    artifacts: Semaphore,
    front: OnceLock<Arc<Front>>,
}

/// The services that pipelines are made of, besides those that they call as anybody does.
pub struct Neighbours {
    /// Roles.
    pub iam: Arc<Iam>,
    /// Repositories of this machine.
    pub codecommit: Arc<CodeCommit>,
    /// Repositories elsewhere.
    pub connections: Arc<CodeConnections>,
    /// Where artifacts are.
    pub s3: Arc<S3>,
}

impl CodePipeline {
    /// The service over `store`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, neighbours: Neighbours) -> Result<Arc<Self>, ReadError> {
        store.declare::<Pipeline>()?;
        store.declare::<Version>()?;
        store.declare::<Execution>()?;
        store.declare::<Followed>()?;
        store.declare::<Watched>()?;
        store.declare::<Notice>()?;
        events::declare(&store)?;
        let artifacts = Semaphore::new(MOST_ARTIFACTS);
        let Neighbours { iam, codecommit, connections, s3 } = neighbours;
        let (hooked, front) = (Notify::new(), OnceLock::new());
        Ok(Arc::new(Self {
            store,
            world,
            iam,
            codecommit,
            connections,
            s3,
            hooked,
            artifacts,
            front,
        }))
    }

    /// Begins to move executions on, by operations called through the front door.
    pub fn start(self: &Arc<Self>, front: Arc<Front>) {
        if self.front.set(front).is_ok() {
            let service = self.clone();
            self.world.spawn("pipelines", async move { drive::drive(service).await });
            let service = self.clone();
            self.world.spawn("sources elsewhere", async move { elsewhere::look(service).await });
        }
    }

    fn front(&self) -> &Front {
        self.front.get().expect("actions begin with the front door")
    }
}

#[cfg(test)]
mod tests;
