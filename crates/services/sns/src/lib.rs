//! Simple Notification Service: topics, and who is told of what is published to them.
//!
//! A message becomes a [`model::Letter`] for each subscription in the transaction that publishes it; letters are sent
//! until they arrive or are given up (`send`). Each is signed, so that who gets it can tell it from a stranger's.
//! <https://docs.aws.amazon.com/sns/latest/dg/welcome.html>

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod filter;
mod letter;
mod links;
pub mod model;
mod ops;
pub mod resources;
mod send;
mod sign;

pub use links::Links;

use iam::Iam;
use lambda::Lambda;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use store::{ReadError, Sealer, Store};
use tokio::sync::OnceCell;
use world::World;

/// The service's state.
pub struct Sns {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    lambda: Arc<Lambda>,
    sealer: Arc<Sealer>,
    /// Where the API, and with it what is linked to in messages, is reached.
    door: SocketAddr,
    /// Made when the first message is sent: it reads the system's authorities.
    client: OnceLock<reqwest::Client>,
    signer: OnceCell<sign::Signer>,
}

impl Sns {
    /// The service over `store`; its links lead to `door`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        lambda: Arc<Lambda>,
        sealer: Arc<Sealer>,
        door: SocketAddr,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::Topic>()?;
        store.declare::<model::Subscription>()?;
        store.declare::<model::Letter>()?;
        store.declare::<model::SigningKey>()?;
        let (client, signer) = (OnceLock::new(), OnceCell::new());
        Ok(Arc::new(Self { store, world, iam, lambda, sealer, door, client, signer }))
    }

    /// Begins to send what was published.
    pub fn start(self: &Arc<Self>) {
        let sns = self.clone();
        self.world.spawn("notifications", async move { send::drive(sns).await });
    }
}
