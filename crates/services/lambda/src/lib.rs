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

use model::{Function, Invocation};
use std::sync::Arc;
use store::{ReadError, Sealer, Store, Tx};
use tokio::sync::Semaphore;
use world::World;

/// So many functions run at once; a payload and an answer of each are in memory.
const MOST_AT_ONCE: usize = 100;

/// What is said where no place was named.
pub(crate) const NOWHERE: &str = "Neargate does not run functions; --functions names who does.";

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

    /// Asks a function asynchronously, when the transaction is written, for another part of the house. The payload is
    /// JSON.
    pub fn ask(&self, tx: &mut Tx, function: Function, payload: &str) {
        let (id, now) = (self.world.uuid(), self.world.now());
        tx.put(Invocation {
            payload: self.sealer.seal(&id, payload.as_bytes()),
            id,
            function,
            since: now,
            failures: 0,
            misses: 0,
            due: now,
        });
    }

    /// Runs a function once, for another part of the house. Why it did not run well, otherwise.
    pub async fn run(&self, function: &Function, payload: String) -> Result<(), String> {
        drive::reach(self, function, payload.into()).await.map_err(|failed| failed.why)
    }

    /// The function of an ARN, when it is one of the account and region `realm`, and functions run anywhere.
    pub fn function(&self, realm: &str, arn: &str) -> Result<Function, String> {
        if self.endpoint.is_none() {
            return Err(NOWHERE.to_owned());
        }
        ops::invoke::function(realm, arn, None).map_err(|fault| fault.message)
    }

    /// Begins to carry out what was asked for asynchronously.
    pub fn start(self: &Arc<Self>) {
        let service = self.clone();
        self.world.spawn("invocations", async move { drive::drive(service).await });
    }
}
