//! EventBridge: what happens, told to those whose rules ask for it. Records are `events.*`.
//!
//! Services [`tell`] what happens within the transaction in which it happens; rules turn it into deliveries there and
//! then, and each delivery is carried to its target until it arrives.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod deliver;
mod faults;
mod input;
pub mod model;
mod ops;
pub mod pattern;
pub mod resources;
mod target;
mod tell;

pub use target::SERVICE;
pub use tell::{Event, is_heeded, tell};

use iam::Iam;
use model::{Delivery, Rule};
use std::sync::{Arc, OnceLock};
use store::{ReadError, Store};
use wire::Front;
use world::World;

/// The service's state.
pub struct Events {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    front: OnceLock<Arc<Front>>,
}

impl Events {
    /// The service over `store`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, iam: Arc<Iam>) -> Result<Arc<Self>, ReadError> {
        declare(&store)?;
        Ok(Arc::new(Self { store, world, iam, front: OnceLock::new() }))
    }

    /// Begins to carry events to their targets, through the front door.
    pub fn start(self: &Arc<Self>, front: Arc<Front>) {
        if self.front.set(front).is_ok() {
            let events = self.clone();
            self.world.spawn("events' deliveries", async move { deliver::drive(events).await });
        }
    }

    fn front(&self) -> &Front {
        self.front.get().expect("deliveries begin with the front door")
    }
}

/// Makes the tables known to `store`, which a service that [`tell`]s needs.
pub fn declare(store: &Store) -> Result<(), ReadError> {
    store.declare::<Rule>()?;
    store.declare::<Delivery>()
}
