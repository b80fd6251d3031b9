//! Identity and Access Management: users, keys, roles, policies; and the one answer to "may this principal do that?"
//! ([`wire::Identity`]). It depends on no other service; every service depends on it through `ctx.authorise`.
//!
//! Records are `iam.*`; names are not case-sensitive on AWS, so keys hold them in lower case.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod aws_managed;
mod faults;
mod identity;
pub mod model;
mod ops;
pub mod policy;
pub mod resources;
mod session;

pub use session::{Session, SessionError, SessionKind};

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use store::{ReadError, Sealer, Store};
use world::World;

/// The service's state.
pub struct Iam {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    /// Documents that were read before, by their text: evaluation parses none twice.
    documents: Mutex<HashMap<String, Arc<policy::Document>>>,
}

impl Iam {
    /// The service over `store`; `sealer` keeps secret keys at rest. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, sealer: Arc<Sealer>) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::User>()?;
        store.declare::<model::AccessKey>()?;
        store.declare::<model::ServiceCredential>()?;
        store.declare::<model::Role>()?;
        store.declare::<model::InstanceProfile>()?;
        store.declare::<model::Policy>()?;
        Ok(Arc::new(Self { store, world, sealer, documents: Mutex::default() }))
    }
}
