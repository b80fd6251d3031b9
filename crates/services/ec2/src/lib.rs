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
mod volumes;
mod ways;

pub use interfaces::{InterfaceError, InterfaceRequest};
pub use ops::availability_zone::zone_id;
pub use volumes::{VolumeError, managed_tags};
pub use ways::Destination;

use model::{
    Address, InternetGateway, NatGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet,
    Tags, Volume, Vpc,
};
use network::Network;
use std::{path::PathBuf, sync::Arc};
use store::{DiskFault, ReadError, Store, Tx};
use world::World;

/// The service's state.
pub struct Ec2 {
    store: Store,
    world: World,
    network: Arc<Network>,
    /// The directory of volumes' files.
    volumes: PathBuf,
    /// Held while a VPC is set up, so that nobody uses it half done.
    setting_up: tokio::sync::Mutex<()>,
}

/// The default VPC's block, as on AWS.
const DEFAULT_BLOCK: &str = "172.31.0.0/16";
/// The default VPC's subnets, one per zone, as on AWS.
const DEFAULT_SUBNETS: [(&str, &str); 3] =
    [("a", "172.31.0.0/20"), ("b", "172.31.16.0/20"), ("c", "172.31.32.0/20")];

impl Ec2 {
    /// The service over `store` and `network`, with volumes' files in `volumes`. Fails when a stored record cannot be
    /// read.
    pub fn new(
        store: Store,
        world: World,
        network: Arc<Network>,
        volumes: PathBuf,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<Vpc>()?;
        store.declare::<Volume>()?;
        store.declare::<Subnet>()?;
        store.declare::<SecurityGroup>()?;
        store.declare::<NetworkInterface>()?;
        store.declare::<InternetGateway>()?;
        store.declare::<RouteTable>()?;
        store.declare::<Address>()?;
        store.declare::<NatGateway>()?;
        let setting_up = tokio::sync::Mutex::default();
        Ok(Arc::new(Self { store, world, network, volumes, setting_up }))
    }

    /// The engine, for sockets inside VPCs.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.world.hex(17))
    }

    /// The ids of the default VPC's default subnets, one for each zone.
    pub fn default_subnets(&self, realm: &str) -> Vec<String> {
        let snapshot = self.store.read();
        let subnets = snapshot.scan_prefix::<model::Subnet>(&format!("{realm}/"));
        subnets.filter(|subnet| subnet.default).map(|subnet| subnet.id.clone()).collect()
    }

    /// Makes sure that the account has its default VPC in the region, with a gateway and a way to it.
    pub async fn ensure_default<E: From<DiskFault>>(&self, realm: &str) -> Result<(), E> {
        let prefix = format!("{realm}/");
        let whole = {
            let snapshot = self.store.read();
            let default = snapshot.scan_prefix::<Vpc>(&prefix).find(|vpc| vpc.default);
            default.is_some_and(|vpc| {
                snapshot.scan_prefix::<RouteTable>(&prefix).any(|table| table.vpc == vpc.id)
            })
        };
        if whole {
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
            map_public: true,
            default: true,
            tags: Tags::new(),
        });
        let (gateway, table) = (self.id("igw"), self.main_table(&realm, &vpc_id));
        self.store
            .write(move |tx| {
                // One that was made when there was no other way has none of these yet.
                let known = tx.scan_prefix::<Vpc>(&prefix).find(|vpc| vpc.default);
                let vpc = known.as_ref().map_or(vpc_id.clone(), |vpc| vpc.id.clone());
                if tx.scan_prefix::<RouteTable>(&prefix).any(|table| table.vpc == vpc) {
                    return Ok(());
                }
                tx.put(RouteTable { vpc: vpc.clone(), outside: Some(gateway.clone()), ..table });
                let (attached, tags) = (Some(vpc), Tags::new());
                tx.put(InternetGateway { realm: realm.clone(), id: gateway, vpc: attached, tags });
                if known.is_some() {
                    return Ok(());
                }
                // The first of all has a number; others may have taken all.
                let number = free_number(tx).unwrap_or(u8::MAX);
                let block = DEFAULT_BLOCK.parse().expect("a constant that is a block");
                let tags = Tags::new();
                tx.put(Vpc {
                    realm,
                    id: vpc_id,
                    block,
                    number,
                    default: true,
                    dns_hostnames: true,
                    tags,
                });
                subnets.into_iter().for_each(|subnet| tx.put(subnet));
                tx.put(group);
                Ok(())
            })
            .await
    }

    /// The route table that a VPC has from the start.
    fn main_table(&self, realm: &str, vpc: &str) -> RouteTable {
        RouteTable {
            realm: realm.to_owned(),
            id: self.id("rtb"),
            vpc: vpc.to_owned(),
            main: Some(self.id("rtbassoc")),
            outside: None,
            associations: std::collections::BTreeMap::new(),
            tags: Tags::new(),
        }
    }
}

/// The lowest number that no VPC has; it decides the VPC's uplink. There are 256, far above what one machine runs.
fn free_number(tx: &Tx) -> Option<u8> {
    let taken: Vec<u8> = tx.scan::<Vpc>().map(|vpc| vpc.number).collect();
    (0..=u8::MAX).find(|number| !taken.contains(number))
}
