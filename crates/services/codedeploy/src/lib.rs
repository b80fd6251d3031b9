//! CodeDeploy: new versions of ECS services, blue and green. Records are `codedeploy.*`.
//!
//! A deployment is a chain of phases, each of which calls ECS's and the load balancer's own operations as the group's
//! role and can be begun again after a crash. What goes wrong is rolled back by a deployment of its own.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod appspec;
mod config;
mod drive;
mod faults;
mod hooks;
pub mod model;
mod ops;
pub mod resources;
mod start;
mod steps;

use iam::Iam;
use model::{Application, Config, Deployment, Group};
use s3::S3;
use std::sync::{Arc, OnceLock};
use store::{ReadError, Store};
use wire::Front;
use world::World;

/// The service's state.
pub struct CodeDeploy {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    s3: Arc<S3>,
    front: OnceLock<Arc<Front>>,
}

impl CodeDeploy {
    /// The service over `store`; revisions may be in `s3`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        s3: Arc<S3>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Application>()?;
        store.declare::<Group>()?;
        store.declare::<Config>()?;
        store.declare::<Deployment>()?;
        events::declare(&store)?;
        Ok(Arc::new(Self { store, world, iam, s3, front: OnceLock::new() }))
    }

    /// Begins to carry deployments out, by operations called through the front door.
    pub fn start(self: &Arc<Self>, front: Arc<Front>) {
        if self.front.set(front).is_ok() {
            let service = self.clone();
            self.world.spawn("deployments", async move { drive::drive(service).await });
        }
    }

    fn front(&self) -> &Front {
        self.front.get().expect("deployments begin with the front door")
    }
}

#[cfg(test)]
mod tests;
