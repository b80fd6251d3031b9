//! Secrets Manager. Records are `secretsmanager.*`; values are sealed at rest and opened only for
//! those who may read them.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod filter;
pub mod model;
mod ops;
mod purge;
pub mod resources;
mod stages;
mod task_value;

use model::{Secret, Version};
use std::sync::Arc;
use store::{ReadError, Sealer, Store};
use wire::{Context, Fault, Identity, Principal};
use world::World;

/// The service's state.
pub struct SecretsManager {
    store: Store,
    world: World,
    sealer: Arc<Sealer>,
    identity: Arc<dyn Identity>,
}

impl SecretsManager {
    /// The service over `store`; `sealer` keeps values at rest. Fails when a stored record cannot be
    /// read.
    pub fn new(
        store: Store,
        world: World,
        sealer: Arc<Sealer>,
        identity: Arc<dyn Identity>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Secret>()?;
        store.declare::<Version>()?;
        Ok(Arc::new(Self { store, world, sealer, identity }))
    }

    /// Begins to delete secrets whose recovery window is over.
    pub fn start(self: &Arc<Self>) {
        let secrets = self.clone();
        self.world.spawn("secret deletion", async move { purge::drive(secrets).await });
    }

    /// The value that a task's definition names by `value_from`
    /// (`ARN[:json-key[:version-stage[:version-id]]]`, where parts may be empty), read as
    /// `principal`, who must be allowed `secretsmanager:GetSecretValue` on it. `realm` is
    /// `account/region`; the ARN's own region counts. Faults never hold a value.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>
    pub async fn value_for_task(
        &self,
        principal: &Principal,
        realm: &str,
        value_from: &str,
    ) -> Result<String, Fault> {
        let wanted = task_value::Wanted::read(value_from)?;
        let here = realm.split_once('/').map_or(realm, |(_, region)| region);
        let region = if wanted.region.is_empty() { here } else { &wanted.region };
        let identity = self.identity.clone();
        let ctx = Context::internal(principal.clone(), region, self.world.now(), identity);
        task_value::get(self, &ctx, wanted).await
    }
}
