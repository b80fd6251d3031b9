//! Systems Manager Parameter Store. Records are `ssm.*`; the values of SecureStrings are sealed at rest and opened only
//! for those who may read them and ask for the plain text.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod expiry;
mod faults;
mod filter;
pub mod model;
mod ops;
mod policy;
pub mod resources;
mod rules;

use model::{Parameter, Version};
use std::sync::Arc;
use store::{ReadError, Sealer, Store};
use wire::{Context, Fault, Identity, Principal};
use world::World;

/// The service's state.
pub struct Ssm {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    identity: Arc<dyn Identity>,
}

impl Ssm {
    /// The service over `store`; `sealer` keeps SecureStrings at rest. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        sealer: Arc<Sealer>,
        identity: Arc<dyn Identity>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Parameter>()?;
        store.declare::<Version>()?;
        Ok(Arc::new(Self { store, world, sealer, identity }))
    }

    /// Begins to delete parameters whose Expiration policy is due. Reads hide them from that moment on anyway.
    pub fn start(self: &Arc<Self>) {
        let ssm = self.clone();
        self.world.spawn("parameter expiry", async move { expiry::drive(ssm).await });
    }

    /// The plain value that a task's definition names by `name_or_arn` (with `:version` or `:label` if need be), read
    /// in `realm` (`account/region`) as `principal`, who must be allowed `ssm:GetParameters` on it. An ARN's own region
    /// counts. Faults never hold a value.
    pub fn value_for_task(
        &self,
        principal: &Principal,
        realm: &str,
        name_or_arn: &str,
    ) -> Result<String, Fault> {
        let here = realm.split_once('/').map_or(realm, |(_, region)| region);
        let region = match name_or_arn.strip_prefix("arn:aws:ssm:") {
            Some(rest) => rest.split(':').next().unwrap_or(here),
            None => here,
        };
        let identity = self.identity.clone();
        let ctx = Context::internal(principal.clone(), region, self.world.now(), identity);
        ops::value::plain_value(self, &ctx, name_or_arn)
    }
}
