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
mod faults;
pub mod model;
mod ops;
mod validate;

use iam::Iam;
use std::sync::Arc;
use store::{ReadError, Store};
use world::World;

/// The service's state.
pub struct Ecs {
    store: Store,
    world: World,
    iam: Arc<Iam>,
}

impl Ecs {
    /// The service over `store`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, iam: Arc<Iam>) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::Cluster>()?;
        store.declare::<model::Family>()?;
        store.declare::<model::TaskDefinition>()?;
        store.declare::<model::Task>()?;
        store.declare::<model::AccountSetting>()?;
        Ok(Arc::new(Self { store, world, iam }))
    }
}
