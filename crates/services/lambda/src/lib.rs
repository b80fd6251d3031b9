//! Lambda as far as others invoke functions: hooks of deployments, actions of pipelines, clients. Records: `lambda.*`.
//!
//! Neargate does not run functions yet. It invokes them where they run, which is whatever answers Lambda's Invoke under
//! the URL that `--functions` names (`sam local start-lambda` does). Who may invoke what, what of asynchronous
//! invocations becomes after a crash, and how often they are tried is decided here.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod drive;
mod elsewhere;
pub mod model;
mod ops;

pub use elsewhere::Endpoint;

use model::Invocation;
use std::sync::Arc;
use store::{ReadError, Sealer, Store};
use tokio::sync::Semaphore;
use world::World;

/// So many functions run at once; a payload and an answer of each are in memory.
const MOST_AT_ONCE: usize = 100;

/// The service's state.
pub struct Lambda {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    endpoint: Option<Endpoint>,
    turns: Semaphore,
}

impl Lambda {
    /// The service over `store`; functions run at `endpoint`, or there are none. Fails when a stored record cannot be
    /// read.
    pub fn new(
        store: Store,
        world: World,
        sealer: Arc<Sealer>,
        endpoint: Option<Endpoint>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Invocation>()?;
        let turns = Semaphore::new(MOST_AT_ONCE);
        Ok(Arc::new(Self { store, world, sealer, endpoint, turns }))
    }

    /// Begins to carry out what was asked for asynchronously.
    pub fn start(self: &Arc<Self>) {
        let service = self.clone();
        self.world.spawn("invocations", async move { drive::drive(service).await });
    }
}
