//! CloudWatch Logs: groups and streams as records, events in the [`logstore`]. Tasks' output comes in by [`Logs::sink`],
//! everybody else's by PutLogEvents.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
pub mod model;
mod ops;
mod retention;
mod sink;

pub use sink::{Sink, SinkError};

use logstore::LogStore;
use model::{LogGroup, LogStream};
use std::sync::Arc;
use store::{ReadError, Store};
use wire::Identity;
use world::World;

/// The service's state.
pub struct Logs {
    store: Store,
    world: World,
    events: LogStore,
    identity: Arc<dyn Identity>,
}

impl Logs {
    /// The service over `store` and `events`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        events: LogStore,
        identity: Arc<dyn Identity>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<LogGroup>()?;
        store.declare::<LogStream>()?;
        Ok(Arc::new(Self { store, world, events, identity }))
    }

    /// Begins to drop what is older than its group keeps it.
    pub fn start(self: &Arc<Self>) {
        let logs = self.clone();
        self.world.spawn("log retention", async move { retention::drive(logs).await });
    }
}
