//! Elastic Container Service: clusters, task definitions, and tasks that really run.
//!
//! Handlers write what is wanted; `reconcile::task` makes it so: it gives a task its network interface, pulls its
//! images, reads its secrets, hands it to a shim, and follows what the shim's journal tells until the task has
//! stopped and nothing of it is left.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod endpoints;
mod faults;
pub mod model;
mod ops;
mod reconcile;
mod surroundings;
mod validate;

pub use surroundings::{
    ImageSources, LogSink, LogSinks, LogTarget, Pending, Secrets, ServeApi, Surroundings,
};

use ec2::Ec2;
use iam::Iam;
use images::Images;
use runtime::Engine;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};
use store::{ReadError, Store};
use tokio::sync::Mutex;
use world::World;

/// The service's state.
pub struct Ecs {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    ec2: Arc<Ec2>,
    images: Images,
    engine: Engine,
    /// Set once, before the first task is driven: the rest of the house depends on this crate being there.
    surroundings: OnceLock<Surroundings>,
    /// The VPCs whose link-local services are served, by realm and id.
    served: Mutex<HashMap<String, ()>>,
}

impl Ecs {
    /// The service over `store` and the engines. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        ec2: Arc<Ec2>,
        images: Images,
        engine: Engine,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::Cluster>()?;
        store.declare::<model::Family>()?;
        store.declare::<model::TaskDefinition>()?;
        store.declare::<model::Task>()?;
        store.declare::<model::AccountSetting>()?;
        let (surroundings, served) = (OnceLock::new(), Mutex::default());
        Ok(Arc::new(Self { store, world, iam, ec2, images, engine, surroundings, served }))
    }

    /// Connects the rest of the house and begins to drive tasks: those that outlived the last control plane are taken up
    /// where they are.
    pub async fn start(
        self: &Arc<Self>,
        surroundings: Surroundings,
    ) -> Result<(), runtime::EngineError> {
        assert!(self.surroundings.set(surroundings).is_ok(), "started once");
        reconcile::start(self).await
    }

    fn surroundings(&self) -> &Surroundings {
        self.surroundings.get().expect("tasks are driven only after the start")
    }
}
