//! Cloud Map: namespaces, services and instances. What is registered is found through DiscoverInstances, and in the VPC
//! of a private DNS namespace by name; [`ServiceDiscovery::resolve`] is what the VPC's name service asks.
//!
//! Everything is done when an operation is answered: the operations that AWS carries out later are records of work that
//! is over.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod dns;
mod faults;
pub mod model;
mod ops;
pub mod resources;

pub use dns::{DnsAnswer, DnsData, Resolved};

use std::sync::Arc;
use store::{ReadError, Store};
use world::World;

/// The service's state.
pub struct ServiceDiscovery {
    store: Store,
    world: World,
}

impl ServiceDiscovery {
    /// The service over `store`, in which EC2 keeps the VPCs. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::Namespace>()?;
        store.declare::<model::Service>()?;
        store.declare::<model::Instance>()?;
        store.declare::<model::Operation>()?;
        Ok(Arc::new(Self { store, world }))
    }

    /// An id with AWS's prefix for its kind: `ns` or `srv`.
    fn id(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.world.text(16, b"0123456789abcdefghijklmnopqrstuvwxyz"))
    }
}
