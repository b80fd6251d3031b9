//! CloudFormation: templates, and the stacks that are made of them.
//!
//! ```text
//! template  text -> tree -> Template; parameters, conditions, functions: all that needs no resource
//! engine    brings stacks to what their templates say, one operation at a time, through crashes
//! ops       handlers
//! ```
//!
//! What a resource is, its service's crate knows (`resource::ResourceType`); the engine calls it.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod engine;
mod faults;
mod mailbox;
pub mod model;
mod notices;
mod ops;
mod policy;
mod prune;
pub mod resources;
pub mod template;

pub use mailbox::Answers;

use iam::Iam;
use resource::Catalog;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use store::{ReadError, Sealed, Sealer, Store};
use tokio::sync::watch;
use wire::{Context, Front};
use world::World;

/// Reads templates that lie in S3.
pub trait TemplateBucket: Send + Sync {
    /// The text of the object at `arn`, if the principal of `context` may read it.
    fn text<'a>(
        &'a self,
        context: &'a Context,
        arn: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;
}

/// What the service works with, given when it is started.
pub struct Surroundings {
    /// All services, this one among them.
    pub front: Arc<Front>,
    /// All types of resources.
    pub catalog: Catalog,
    /// S3.
    pub bucket: Arc<dyn TemplateBucket>,
}

/// The service's state.
pub struct CloudFormation {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    iam: Arc<Iam>,
    /// Where those answer who are asked.
    door: SocketAddr,
    surroundings: OnceLock<Surroundings>,
    /// Stacks that are worked on, by key: what makes the work stop.
    working: Mutex<BTreeMap<String, watch::Sender<bool>>>,
}

impl CloudFormation {
    /// The service over `store`, behind the front door at `door`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        sealer: Arc<Sealer>,
        iam: Arc<Iam>,
        door: SocketAddr,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::Stack>()?;
        store.declare::<model::Template>()?;
        store.declare::<model::Resource>()?;
        store.declare::<model::Event>()?;
        store.declare::<model::Notice>()?;
        store.declare::<model::ChangeSet>()?;
        store.declare::<model::Mailbox>()?;
        store.declare::<model::Custom>()?;
        let (surroundings, working) = (OnceLock::new(), Mutex::default());
        Ok(Arc::new(Self { store, world, sealer, iam, door, surroundings, working }))
    }

    /// Goes on with what was under way when the machine stopped.
    pub fn start(self: &Arc<Self>, surroundings: Surroundings) {
        assert!(self.surroundings.set(surroundings).is_ok(), "started once");
        let busy: Vec<_> =
            self.store.read().scan::<model::Stack>().filter(|stack| stack.is_busy()).collect();
        for stack in busy {
            self.work_on(&store::Record::key(stack.as_ref()));
        }
        let house = self.clone();
        self.world.spawn("stacks' notices", async move { notices::drive(house).await });
        let house = self.clone();
        self.world.spawn("stack history", async move {
            while house.prune().await.is_ok() {
                house.world.sleep(Duration::from_secs(86_400)).await;
            }
        });
    }

    fn surroundings(&self) -> &Surroundings {
        self.surroundings.get().expect("requests come in after the start")
    }

    /// Seals what may hold secrets, for the stack of this UUID.
    fn seal(&self, stack: &str, value: &impl Serialize) -> Sealed {
        let json = serde_json::to_vec(value).expect("it is plain data");
        self.sealer.seal(&format!("cloudformation/{stack}"), &json)
    }

    fn unseal<T: DeserializeOwned>(&self, stack: &str, sealed: &Sealed) -> Result<T, wire::Fault> {
        let opened = self.sealer.open(&format!("cloudformation/{stack}"), sealed);
        let opened = opened.map_err(|error| {
            tracing::error!(
                stack,
                error = &error as &dyn std::error::Error,
                "a stack's values cannot be unsealed"
            );
            wire::Fault::internal(wire::Family::Query)
        })?;
        Ok(serde_json::from_slice(&opened).expect("it was written by this service"))
    }
}
