//! Application Auto Scaling of ECS services: scalable targets, target tracking, schedules. It stands alone:
//! what it needs of services and their figures it names itself ([`Scaled`]), and the binary connects it.
//!
//! - `plan`: what a policy that tracks wants, from figures alone. Pure.
//! - `step`: what a policy wants when an alarm tells it. Pure, but for carrying it out.
//! - `schedule`: when a scheduled action is due. Pure.
//! - `reconcile`: samples figures, runs what is due, and follows what was begun.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
pub mod model;
mod ops;
mod plan;
mod reconcile;
pub mod resources;
mod schedule;
mod step;

pub use step::Breach;

use model::{Activity, Policy, ScheduledAction, Target};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
};
use store::{ReadError, Store};
use world::World;

/// A boxed future.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How many copies a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// So many are wanted.
    pub desired: i32,
    /// So many run.
    pub running: i32,
}

/// What a copy of a service has used since it began.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Its id.
    pub id: String,
    /// CPU time, in ns.
    pub cpu_ns: u64,
    /// The CPU time that it may use per second, in ns.
    pub cpu_ns_per_s: u64,
    /// Memory in use now, in bytes, without what can be given up at once.
    pub memory_bytes: u64,
    /// The memory that it may use, in bytes.
    pub memory_limit_bytes: u64,
}

/// What is scaled, and its figures. Resources are named `service/CLUSTER/NAME`.
pub trait Scaled: Send + Sync + 'static {
    /// How many copies there are; none when there is no such resource.
    fn capacity(&self, realm: &str, resource: &str) -> Option<Capacity>;
    /// Wants another number of copies. The error is for people.
    fn set<'a>(
        &'a self,
        realm: &'a str,
        resource: &'a str,
        desired: i32,
    ) -> Pending<'a, Result<(), String>>;
    /// What the copies that run have used.
    fn usage<'a>(&'a self, realm: &'a str, resource: &'a str) -> Pending<'a, Vec<Usage>>;
    /// How many requests a load balancer has sent to a target group so far, and how many targets are well;
    /// none when there is no such group. `label` is `app/NAME/ID/targetgroup/NAME/ID`.
    fn requests(&self, realm: &str, label: &str) -> Option<(u64, u32)>;
    /// A metric's figure of the last whole minute; none when nothing was measured.
    fn metric<'a>(
        &'a self,
        realm: &'a str,
        metric: &'a api::CustomizedMetricSpecification,
    ) -> Pending<'a, Option<f64>>;
}

/// The service's state.
pub struct AutoScaling {
    store: Store,
    world: World,
    /// Set once, when scaling begins.
    scaled: OnceLock<Arc<dyn Scaled>>,
}

impl AutoScaling {
    /// The service over `store`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World) -> Result<Arc<Self>, ReadError> {
        store.declare::<Target>()?;
        store.declare::<Policy>()?;
        store.declare::<ScheduledAction>()?;
        store.declare::<Activity>()?;
        Ok(Arc::new(Self { store, world, scaled: OnceLock::new() }))
    }

    /// Begins to scale.
    pub fn start(self: &Arc<Self>, scaled: Arc<dyn Scaled>) {
        assert!(self.scaled.set(scaled).is_ok(), "started once");
        let scaling = self.clone();
        self.world.spawn("auto scaling", async move { reconcile::drive(scaling).await });
    }

    fn scaled(&self) -> &Arc<dyn Scaled> {
        self.scaled.get().expect("scaling begins before the first request comes in")
    }
}
