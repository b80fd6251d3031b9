//! The part of EC2 that networks need: VPCs, subnets, security groups, interfaces. Records say what should be; the
//! [`network`] engine makes it so. Every account has a default VPC in every region, made when it is first needed.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod interfaces;
pub mod model;
mod ops;
pub mod resources;

pub use interfaces::{InterfaceError, InterfaceRequest};

use model::{NetworkInterface, SecurityGroup, Subnet, Vpc};
use network::Network;
use std::sync::Arc;
use store::{DiskFault, ReadError, Store, Tx};
use world::World;

/// The service's state.
pub struct Ec2 {
    store: Store,
    world: World,
    network: Arc<Network>,
    /// Held while a VPC is set up, so that nobody uses it half done.
    setting_up: tokio::sync::Mutex<()>,
}

/// The default VPC's block, as on AWS.
const DEFAULT_BLOCK: &str = "172.31.0.0/16";
/// The default VPC's subnets, one per zone, as on AWS.
const DEFAULT_SUBNETS: [(&str, &str); 3] =
    [("a", "172.31.0.0/20"), ("b", "172.31.16.0/20"), ("c", "172.31.32.0/20")];

impl Ec2 {
    /// The service over `store` and `network`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, network: Arc<Network>) -> Result<Arc<Self>, ReadError> {
        store.declare::<Vpc>()?;
        store.declare::<Subnet>()?;
        store.declare::<SecurityGroup>()?;
        store.declare::<NetworkInterface>()?;
        Ok(Arc::new(Self { store, world, network, setting_up: tokio::sync::Mutex::default() }))
    }

    /// The engine, for sockets inside VPCs.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.world.hex(17))
    }

    /// Makes sure that the account has its default VPC in the region.
    pub async fn ensure_default<E: From<DiskFault>>(&self, realm: &str) -> Result<(), E> {
        let prefix = format!("{realm}/");
        if self.store.read().scan_prefix::<Vpc>(&prefix).next().is_some() {
            return Ok(());
        }
        let region = realm.split_once('/').map_or("", |(_, region)| region).to_owned();
        let realm = realm.to_owned();
        let vpc_id = self.id("vpc");
        let group = SecurityGroup::default_of(&realm, &vpc_id, self.id("sg"), || self.id("sgr"));
        let subnets = DEFAULT_SUBNETS.map(|(letter, block)| Subnet {
            realm: realm.clone(),
            id: self.id("subnet"),
            vpc: vpc_id.clone(),
            block: block.parse().expect("a constant that is a block"),
            zone: format!("{region}{letter}"),
        });
        self.store
            .write(move |tx| {
                if tx.scan_prefix::<Vpc>(&prefix).next().is_some() {
                    return Ok(());
                }
                let number = free_number(tx);
                let block = DEFAULT_BLOCK.parse().expect("a constant that is a block");
                tx.put(Vpc { realm, id: vpc_id, block, number, default: true });
                subnets.into_iter().for_each(|subnet| tx.put(subnet));
                tx.put(group);
                Ok(())
            })
            .await
    }
}

/// The lowest number that no VPC has; it decides the VPC's uplink. There are 256, far above what one machine
/// runs; beyond them numbers are shared, and setting up the uplink then fails with the kernel's reason.
fn free_number(tx: &Tx) -> u8 {
    let taken: Vec<u8> = tx.scan::<Vpc>().map(|vpc| vpc.number).collect();
    (0..=u8::MAX).find(|number| !taken.contains(number)).unwrap_or(u8::MAX)
}
