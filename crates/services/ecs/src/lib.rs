//! Elastic Container Service: clusters, task definitions, tasks that really run, and services that keep them.
//!
//! Handlers write what is wanted. `reconcile::service` writes the tasks that services lack, and stops those that are
//! too many; `reconcile::task` makes a task so: it gives a task its network interface, pulls its
//! images, reads its secrets, hands it to a shim, and follows what the shim's journal tells until the task has
//! stopped and nothing of it is left.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod endpoints;
mod faults;
pub mod model;
mod operator;
mod ops;
mod overview;
mod reconcile;
pub mod resources;
mod sandbox;
mod scaling;
mod surroundings;
mod tell;
mod validate;

pub use operator::{ExecError, InterruptError};
pub use overview::{ServiceLine, TaskLine};
pub use sandbox::{SandboxRequest, SandboxState};
pub use scaling::TaskUsage;
pub use surroundings::{
    Alarms, AlarmsSeen, EnvironmentFiles, Functions, ImageSources, LogSink, LogSinks, LogTarget,
    Pending, Secrets, ServeApi, Surroundings,
};

use ec2::Ec2;
use efs::Efs;
use elbv2::ElbV2;
use iam::Iam;
use images::Images;
pub use reconcile::pull::Pulling;
use reconcile::pull::Pulls;
use runtime::Engine;
use s3files::S3Files;
use servicediscovery::ServiceDiscovery;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use store::{ReadError, Store};
use tokio::sync::Mutex;
use world::World;

/// The services whose records ECS reads and writes together with its own.
pub struct Neighbours {
    /// Roles of tasks.
    pub iam: Arc<Iam>,
    /// Networks.
    pub ec2: Arc<Ec2>,
    /// Target groups.
    pub elb: Arc<ElbV2>,
    /// Cloud Map.
    pub discovery: Arc<ServiceDiscovery>,
    /// Files that tasks share.
    pub efs: Arc<Efs>,
    /// Buckets as files that tasks share.
    pub s3files: Arc<S3Files>,
}

/// The service's state.
pub struct Ecs {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    ec2: Arc<Ec2>,
    elb: Arc<ElbV2>,
    discovery: Arc<ServiceDiscovery>,
    efs: Arc<Efs>,
    s3files: Arc<S3Files>,
    images: Images,
    engine: Engine,
    /// Set once, before the first task is driven: the rest of the house depends on this crate being there.
    surroundings: OnceLock<Surroundings>,
    /// The VPCs whose link-local services are served, by realm and id.
    served: Mutex<HashMap<String, ()>>,
    /// Held while the faults of a task change.
    injecting: Mutex<()>,
    pulls: Arc<Pulls>,
    /// Set when everything is to stop: services must not start again what stops.
    closing: AtomicBool,
}

impl Ecs {
    /// The service over `store` and the engines. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        neighbours: Neighbours,
        images: Images,
        engine: Engine,
    ) -> Result<Arc<Self>, ReadError> {
        events::declare(&store)?;
        store.declare::<model::Cluster>()?;
        store.declare::<model::Family>()?;
        store.declare::<model::TaskDefinition>()?;
        store.declare::<model::Task>()?;
        store.declare::<model::Service>()?;
        store.declare::<model::ServiceDeployment>()?;
        store.declare::<model::ServiceRevision>()?;
        store.declare::<model::AccountSetting>()?;
        let Neighbours { iam, ec2, elb, discovery, efs, s3files } = neighbours;
        Ok(Arc::new(Self {
            store,
            world,
            iam,
            ec2,
            elb,
            discovery,
            efs,
            s3files,
            images,
            engine,
            surroundings: OnceLock::new(),
            served: Mutex::default(),
            injecting: Mutex::default(),
            pulls: Arc::default(),
            closing: AtomicBool::new(false),
        }))
    }

    /// Connects the rest of the house and begins to drive tasks: those that outlived the last control plane are
    /// taken up where they are.
    pub async fn start(
        self: &Arc<Self>,
        surroundings: Surroundings,
    ) -> Result<(), runtime::EngineError> {
        assert!(self.surroundings.set(surroundings).is_ok(), "started once");
        let connections = reconcile::connect::Connections(Arc::downgrade(self));
        self.elb.attach(Arc::new(connections));
        reconcile::start(self).await
    }

    fn surroundings(&self) -> &Surroundings {
        self.surroundings.get().expect("tasks are driven only after the start")
    }
}

impl Ecs {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Wishes every task to stop, with this reason; they are over when [`Ecs::tasks`] is empty. Services stay as they
    /// are wanted, and start their tasks again with the next control plane.
    pub async fn stop_all(&self, reason: &str) -> Result<(), store::DiskFault> {
        self.closing.store(true, Ordering::Release);
        let (now, reason) = (self.world.now(), reason.to_owned());
        self.store
            .write(move |tx| {
                let keys: Vec<String> = tx
                    .scan::<model::Task>()
                    .filter(|task| task.last_status != model::LastStatus::Stopped)
                    .map(|task| store::Record::key(&*task))
                    .collect();
                for key in keys {
                    tx.update::<model::Task>(&key, |task| {
                        task.stop(api::TaskStopCode::UserInitiated, &reason, now);
                    });
                }
                Ok(())
            })
            .await
    }

    /// What this machine can do for containers, and what earlier crashes left that belongs to no task.
    pub async fn examine(
        &self,
    ) -> Result<(runtime::Capabilities, Vec<runtime::Leak>), runtime::EngineError> {
        let capabilities = self.engine.capabilities().await?.clone();
        Ok((capabilities, self.engine.leaks().await?))
    }

    /// Removes what [`Ecs::examine`] found.
    pub async fn mend(&self, leaks: &[runtime::Leak]) -> Result<(), runtime::EngineError> {
        self.engine.mend(leaks).await
    }
}
