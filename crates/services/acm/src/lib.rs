//! Certificate Manager: certificates for the listeners of load balancers, imported, or issued by an authority of this
//! machine's own (`issue`), which clients trust when they are given its certificate.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod issue;
pub mod model;
mod ops;
mod read;
pub mod resources;

use model::{Authority, Certificate};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use store::{ReadError, Sealer, Store};
use world::World;

/// Names the ARNs of what uses the certificate of an ARN.
pub type Users = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// The service's state.
pub struct Acm {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    /// Set once: those that use certificates depend on this crate being there.
    users: OnceLock<Users>,
}

/// What a listener needs of a certificate. No `Debug`: it holds a private key.
pub struct Served {
    /// The names that it is for, in lower case, wildcards among them.
    pub names: Vec<String>,
    /// It and those that vouch for it, PEM.
    pub chain_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl Acm {
    /// The service over `store`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, sealer: Arc<Sealer>) -> Result<Arc<Self>, ReadError> {
        store.declare::<Certificate>()?;
        store.declare::<Authority>()?;
        Ok(Arc::new(Self { store, world, sealer, users: OnceLock::new() }))
    }

    /// Begins to issue certificates anew before they end.
    pub fn start(self: &Arc<Self>) {
        let acm = self.clone();
        self.world.spawn("certificate renewal", async move {
            loop {
                ops::request::renew(&acm).await;
                acm.world.sleep(Duration::from_secs(86_400)).await;
            }
        });
    }

    /// Says who uses certificates.
    pub fn used_by(&self, users: Users) {
        assert!(self.users.set(users).is_ok(), "said once");
    }

    fn users(&self, arn: &str) -> Vec<String> {
        self.users.get().map_or_else(Vec::new, |users| users(arn))
    }

    /// The certificate of this ARN, as a listener serves it.
    pub fn served(&self, realm: &str, arn: &str) -> Option<Served> {
        let id = arn.rsplit('/').next().unwrap_or_default();
        let found = self.store.read().get::<Certificate>(&Certificate::key_of(realm, id))?;
        let certificate = (found.arn() == arn).then_some(found)?;
        let key = match self.sealer.open(&certificate.id, &certificate.key) {
            Ok(key) => String::from_utf8(key).ok()?,
            Err(error) => {
                tracing::error!(arn, %error, "a certificate's key cannot be unsealed");
                return None;
            }
        };
        let chain = certificate.chain.as_deref().unwrap_or_default();
        Some(Served {
            names: certificate.names.clone(),
            chain_pem: format!("{}\n{chain}", certificate.body),
            key_pem: key,
        })
    }
}
