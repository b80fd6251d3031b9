//! Elastic Load Balancing v2: Application and Network Load Balancers whose data plane is the `balancer` process.
//!
//! Handlers write records. `reconcile` makes the balancers' interfaces, tells the data plane what the records say, and
//! keeps what it hears of targets' health.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod figures;
mod health;
mod mesh;
pub mod model;
mod ops;
mod reconcile;
pub mod resources;

pub use balancer::config as plane;
pub use figures::{Measured, MeasuredGroup};
pub use health::TargetHealth;
pub use mesh::Mesh;
pub use reconcile::{LogBuckets, Setting};

use acm::Acm;
use ec2::Ec2;
use figures::Figures;
use health::Healths;
use mesh::Traffic;
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use store::{DiskFault, ReadError, Store};
use tokio::sync::watch;
use world::World;

/// A load balancer, in short.
pub struct Overview {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub dns_name: String,
    /// Where it is in its life.
    pub state: model::LoadBalancerState,
    /// Where it listens.
    pub ports: Vec<u16>,
    /// What is wrong with it.
    pub troubles: Vec<String>,
    /// What passed through it since its data plane began.
    pub figures: plane::BalancerFigures,
    /// What its target groups' targets answered, one after the other.
    pub groups: Vec<(String, plane::GroupFigures)>,
}

/// The service's state.
pub struct ElbV2 {
    store: Store,
    world: World,
    ec2: Arc<Ec2>,
    acm: Arc<Acm>,
    /// What the data plane said of targets.
    healths: Healths,
    /// What DNS names of new load balancers end in.
    domain: String,
    /// Listeners' ids, and why they do not listen where they should: what the data plane said last.
    troubles: Mutex<Vec<(String, String)>>,
    /// What passed.
    figures: Figures,
    /// What the data plane does.
    traffic: Traffic,
    /// Set once: who asks for connections inside tasks.
    mesh: OnceLock<Arc<dyn Mesh>>,
    /// Set once, when the data plane is first driven.
    setting: OnceLock<Arc<Setting>>,
    /// Set when everything is to stop: the data plane must not be started again.
    closing: AtomicBool,
}

impl ElbV2 {
    /// The service over `store`; names of load balancers end in `domain`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        ec2: Arc<Ec2>,
        acm: Arc<Acm>,
        domain: &str,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::LoadBalancer>()?;
        store.declare::<model::Listener>()?;
        store.declare::<model::Rule>()?;
        store.declare::<model::TargetGroup>()?;
        store.declare::<model::Target>()?;
        store.declare::<model::CookieSecret>()?;
        Ok(Arc::new(Self {
            store,
            world,
            ec2,
            acm,
            healths: Healths::default(),
            domain: domain.to_owned(),
            troubles: Mutex::default(),
            figures: Figures::default(),
            traffic: Traffic::default(),
            mesh: OnceLock::new(),
            setting: OnceLock::new(),
            closing: AtomicBool::new(false),
        }))
    }

    fn id(&self) -> String {
        self.world.hex(16)
    }

    /// Begins to drive load balancers: a data plane that outlived the last control plane is taken up as it is.
    pub fn start(self: &Arc<Self>, setting: Setting) {
        let setting = Arc::new(setting);
        assert!(self.setting.set(setting.clone()).is_ok(), "started once");
        reconcile::start(self, setting);
    }

    /// Whether there is any load balancer.
    pub fn has_balancers(&self) -> bool {
        self.store.read().scan::<model::LoadBalancer>().next().is_some()
    }

    /// Ends the data plane, and takes the names on the host away. Load balancers stay as they are wanted, and are there
    /// again with the next control plane.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        if let Some(setting) = self.setting.get() {
            reconcile::close(self, setting).await;
        }
    }

    /// Why listeners of a load balancer do not listen where they should.
    pub(crate) fn troubles(&self, balancer: &model::LoadBalancer) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let snapshot = self.store.read();
        let own = |(id, reason): &(String, String)| {
            let key = format!("{}/{id}", balancer.realm);
            let listener = snapshot.get::<model::Listener>(&key)?;
            (listener.balancer == balancer.id)
                .then(|| format!("Listener on port {}: {reason}", listener.port))
        };
        troubles.iter().filter_map(own).collect()
    }

    /// All load balancers, for the person at the machine.
    pub fn overview(&self) -> Vec<Overview> {
        let snapshot = self.store.read();
        let told = |balancer: Arc<model::LoadBalancer>| {
            let listeners =
                snapshot.scan_prefix::<model::Listener>(&format!("{}/", balancer.realm));
            let own = listeners.filter(|listener| listener.balancer == balancer.id);
            let mut ports: Vec<u16> = own.map(|listener| listener.port).collect();
            ports.sort_unstable();
            Overview {
                arn: balancer.arn(),
                dns_name: balancer.dns_name(),
                state: balancer.state,
                ports,
                figures: self.figures.of_balancer(&balancer.id),
                groups: ops::groups_of(&snapshot, &balancer)
                    .into_iter()
                    .map(|group| (group.name.clone(), self.figures.of_group(&group.id)))
                    .collect(),
                troubles: balancer
                    .reason
                    .clone()
                    .into_iter()
                    .chain(self.troubles(&balancer))
                    .collect(),
            }
        };
        snapshot.scan::<model::LoadBalancer>().map(told).collect()
    }

    /// The ARNs of the load balancers that serve a certificate.
    pub fn certificate_users(&self, certificate: &str) -> Vec<String> {
        let snapshot = self.store.read();
        let serves = |listener: &Arc<model::Listener>| {
            listener.certificates.iter().any(|arn| arn == certificate)
        };
        let balancer = |listener: Arc<model::Listener>| {
            let key = format!("{}/{}", listener.realm, listener.balancer);
            snapshot.get::<model::LoadBalancer>(&key).map(|balancer| balancer.arn())
        };
        let users = snapshot.scan::<model::Listener>().filter(serves).filter_map(balancer);
        users.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The target group of this ARN.
    pub fn target_group(&self, realm: &str, arn: &str) -> Option<Arc<model::TargetGroup>> {
        let key = format!("{realm}/{}", reconcile::group_id(arn));
        self.store.read().get::<model::TargetGroup>(&key).filter(|group| group.arn() == arn)
    }

    /// Whether a listener sends to the target group.
    pub fn is_used(&self, realm: &str, arn: &str) -> bool {
        ops::is_used(&self.store.read(), realm, arn)
    }

    /// What was heard of a registered target; none before the first word of it.
    pub fn health(&self, group_id: &str, ip: Ipv4Addr, port: u16) -> Option<TargetHealth> {
        self.healths.of(group_id, SocketAddrV4::new(ip, port))
    }

    /// Is told whenever some target's health is another.
    pub fn watch_health(&self) -> watch::Receiver<()> {
        self.healths.watch()
    }

    /// The addresses that a load balancer's name stands for inside a VPC.
    pub fn addresses(&self, vpc: &str, name: &str) -> Vec<Ipv4Addr> {
        let snapshot = self.store.read();
        let mut own = snapshot.scan::<model::LoadBalancer>().filter(|b| b.vpc == vpc);
        let found = own.find(|balancer| balancer.dns_name() == name);
        found.map_or_else(Vec::new, |b| b.nodes.iter().filter_map(|node| node.ip).collect())
    }

    /// Sets a target group's targets' end in motion when their owner is gone: they drain at once.
    pub async fn deregister(
        &self,
        realm: &str,
        targets: Vec<(String, Ipv4Addr, u16)>,
    ) -> Result<(), DiskFault> {
        let (realm, now) = (realm.to_owned(), self.world.now());
        self.store
            .write(move |tx| {
                for (group, ip, port) in targets {
                    Self::deregister_target(tx, &realm, &group, ip, port, now);
                }
                Ok(())
            })
            .await
    }
}
