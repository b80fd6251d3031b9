//! Interfaces of tasks: what ECS asks of EC2.

use crate::{
    Ec2,
    model::{Address, NetworkInterface, SecurityGroup, Subnet, Vpc},
};
use network::{Attachment, Group, NetworkError, VpcSpec};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{DiskFault, Snapshot};
use thiserror::Error;

/// The first four addresses of a subnet and its last are AWS's.
const RESERVED: u64 = 4;

/// What an interface should be.
pub struct InterfaceRequest {
    /// `account/region`.
    pub realm: String,
    /// The subnets that it may be in; the one with the most free addresses is taken.
    pub subnets: Vec<String>,
    /// Its security groups; the VPC's default group when there are none.
    pub groups: Vec<String>,
    /// Whether the host reaches it.
    pub public: bool,
    /// What it is for.
    pub description: String,
}

/// Why there is no interface.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// A subnet that is not there.
    #[error("The subnet ID '{0}' does not exist")]
    NoSubnet(String),
    /// A group that is not there, or in another VPC than the subnet.
    #[error("The security group '{0}' does not exist")]
    NoGroup(String),
    /// All subnets are full.
    #[error("The specified subnets have not enough free addresses to satisfy the request.")]
    Full,
    /// The host's pool of public addresses is empty.
    #[error("The maximum number of public addresses has been reached.")]
    NoPublicAddress,
    /// The record could not be written.
    #[error("the interface could not be stored")]
    Disk(#[from] DiskFault),
    /// The kernel did not do it.
    #[error("the network could not be set up")]
    Network(#[from] NetworkError),
}

impl Ec2 {
    /// Checks that the subnets and groups of a request exist, before anything is made.
    pub fn check_network(
        &self,
        realm: &str,
        subnets: &[String],
        groups: &[String],
    ) -> Result<(), InterfaceError> {
        let snapshot = self.store.read();
        for subnet in subnets {
            let known = snapshot.get::<Subnet>(&format!("{realm}/{subnet}"));
            known.ok_or_else(|| InterfaceError::NoSubnet(subnet.clone()))?;
        }
        for group in groups {
            let known = snapshot.get::<SecurityGroup>(&format!("{realm}/{group}"));
            known.ok_or_else(|| InterfaceError::NoGroup(group.clone()))?;
        }
        Ok(())
    }

    /// Makes an interface: a record with addresses that nobody else has. Nothing is plugged in yet.
    pub async fn create_interface(
        &self,
        request: InterfaceRequest,
    ) -> Result<NetworkInterface, InterfaceError> {
        let (id, attachment) = (self.id("eni"), self.id("eni-attach"));
        let mac: Vec<String> = (0..5).map(|_| self.world.hex(2)).collect();
        let mac = format!("02:{}", mac.join(":"));
        let created = self.world.now();
        let pool = self.network.public_addresses();
        self.store
            .write(move |tx| {
                let taken: Vec<Arc<NetworkInterface>> = tx.scan::<NetworkInterface>().collect();
                let subnet = request.subnets.iter().map(|id| {
                    let subnet = tx.get::<Subnet>(&format!("{}/{id}", request.realm));
                    subnet.ok_or_else(|| InterfaceError::NoSubnet(id.clone()))
                });
                let subnets = subnet.collect::<Result<Vec<_>, _>>()?;
                let used =
                    |subnet: &Subnet| taken.iter().filter(|i| i.subnet == subnet.id).count() as u64;
                let free = |subnet: &Subnet| {
                    subnet.block.size().saturating_sub(RESERVED + 1 + used(subnet))
                };
                let subnet = subnets.iter().rev().max_by_key(|subnet| free(subnet));
                let subnet =
                    subnet.filter(|subnet| free(subnet) > 0).ok_or(InterfaceError::Full)?;
                let mut groups = request.groups.clone();
                if groups.is_empty() {
                    let own = tx.scan_prefix::<SecurityGroup>(&format!("{}/", request.realm));
                    let mut default = own.filter(|g| g.vpc == subnet.vpc && g.name == "default");
                    groups.extend(default.next().map(|group| group.id.clone()));
                }
                for group in &groups {
                    let known = tx.get::<SecurityGroup>(&format!("{}/{group}", request.realm));
                    known
                        .filter(|known| known.vpc == subnet.vpc)
                        .ok_or_else(|| InterfaceError::NoGroup(group.clone()))?;
                }
                let in_vpc: BTreeSet<Ipv4Addr> =
                    taken.iter().filter(|i| i.vpc == subnet.vpc).map(|i| i.ip).collect();
                let ip = next_address(subnet, &taken, &in_vpc).ok_or(InterfaceError::Full)?;
                let mut public_taken: BTreeSet<Ipv4Addr> =
                    taken.iter().filter_map(|i| i.public_ip).collect();
                public_taken.extend(tx.scan::<Address>().map(|address| address.ip));
                let public_ip = match request.public {
                    false => None,
                    true => {
                        let mut free = pool.filter(|address| !public_taken.contains(address));
                        Some(free.next().ok_or(InterfaceError::NoPublicAddress)?)
                    }
                };
                let interface = NetworkInterface {
                    realm: request.realm.clone(),
                    id,
                    vpc: subnet.vpc.clone(),
                    subnet: subnet.id.clone(),
                    zone: subnet.zone.clone(),
                    ip,
                    public_ip,
                    mac,
                    groups,
                    description: request.description,
                    attachment,
                    created,
                };
                tx.put(interface.clone());
                Ok(interface)
            })
            .await
    }

    /// Plugs an interface into a task's network namespace. Doing it again changes nothing.
    pub async fn attach_interface(
        &self,
        interface: &NetworkInterface,
        netns: &Path,
    ) -> Result<(), InterfaceError> {
        self.ensure_network(&interface.realm, &interface.vpc).await?;
        let key = format!("{}/{}", interface.realm, interface.subnet);
        let subnet = self.store.read().get::<Subnet>(&key);
        let subnet = subnet.ok_or_else(|| InterfaceError::NoSubnet(interface.subnet.clone()))?;
        let attachment = attachment(&self.store.read(), interface, &subnet, netns);
        self.network.attach(&attachment).await.map_err(InterfaceError::from)
    }

    /// Makes TCP connections to a block of addresses, made in a network namespace, arrive at one port of the address
    /// that they are for. Doing it again changes nothing.
    pub async fn divert(
        &self,
        netns: &Path,
        block: network::Cidr,
        port: u16,
    ) -> Result<(), InterfaceError> {
        self.network.divert(netns, block, port).await.map_err(InterfaceError::from)
    }

    /// Plugs an interface that is no task's into a network namespace of its own, and answers where that is pinned.
    /// Doing it again changes nothing.
    pub async fn host_interface(
        &self,
        interface: &NetworkInterface,
    ) -> Result<PathBuf, InterfaceError> {
        let netns = self.network.make_host(&interface.id).await?;
        self.attach_interface(interface, &netns).await?;
        Ok(netns)
    }

    /// Gives an interface other security groups. Doing it again changes nothing.
    pub async fn set_interface_groups(
        &self,
        interface: &NetworkInterface,
        groups: &[String],
    ) -> Result<Arc<NetworkInterface>, InterfaceError> {
        let key = store::Record::key(interface);
        let mut changed = interface.clone();
        changed.groups = groups.to_vec();
        let changed = Arc::new(changed);
        let groups = groups.to_vec();
        self.store
            .write(move |tx| {
                tx.update::<NetworkInterface>(&key, |interface| interface.groups = groups);
                Ok::<_, DiskFault>(())
            })
            .await?;
        Ok(changed)
    }

    /// The interfaces whose descriptions begin so, of all accounts and regions.
    pub fn interfaces_described(&self, prefix: &str) -> Vec<Arc<NetworkInterface>> {
        let snapshot = self.store.read();
        let all = snapshot.scan::<NetworkInterface>();
        all.filter(|interface| interface.description.starts_with(prefix)).collect()
    }

    /// Sets the VPC up, with its groups and the interfaces that it has on record.
    pub async fn ensure_network(&self, realm: &str, vpc: &str) -> Result<(), InterfaceError> {
        let _setting_up = self.setting_up.lock().await;
        let snapshot = self.store.read();
        let Some(record) = snapshot.get::<Vpc>(&format!("{realm}/{vpc}")) else {
            return Err(NetworkError::NoVpc { vpc: vpc.to_owned() }.into());
        };
        if self.network.has_vpc(vpc).await {
            return Ok(());
        }
        let interfaces = snapshot.scan_prefix::<NetworkInterface>(&format!("{realm}/"));
        let attachments: Vec<Attachment> = interfaces
            .filter(|interface| interface.vpc == vpc)
            .filter_map(|interface| {
                let subnet = snapshot.get::<Subnet>(&format!("{realm}/{}", interface.subnet))?;
                Some(attachment(&snapshot, &interface, &subnet, Path::new("")))
            })
            .collect();
        let spec = VpcSpec {
            id: vpc.to_owned(),
            blocks: vec![record.block],
            number: record.number,
            groups: groups(&snapshot, realm, vpc),
            attachments,
        };
        self.network.set_up_vpc(spec).await?;
        for address in crate::ways::nat_addresses(&snapshot, realm, vpc) {
            self.network.route_address(vpc, address).await?;
        }
        Ok(())
    }

    /// Tells the network what the VPC's groups are now.
    pub async fn push_groups(&self, realm: &str, vpc: &str) -> Result<(), InterfaceError> {
        // So that a VPC that is being set up from an older snapshot is told, too.
        let _setting_up = self.setting_up.lock().await;
        match self.network.set_groups(vpc, groups(&self.store.read(), realm, vpc)).await {
            // A VPC without interfaces is not set up yet; it gets its groups when it is.
            Err(NetworkError::NoVpc { .. }) => Ok(()),
            other => other.map_err(InterfaceError::from),
        }
    }

    /// Unplugs an interface and forgets it. Doing it again changes nothing.
    pub async fn delete_interface(&self, realm: &str, id: &str) -> Result<(), InterfaceError> {
        let key = format!("{realm}/{id}");
        let Some(interface) = self.store.read().get::<NetworkInterface>(&key) else {
            return Ok(());
        };
        self.ensure_network(realm, &interface.vpc).await?;
        self.network.detach(&interface.vpc, id).await?;
        self.store
            .write(move |tx| {
                tx.delete::<NetworkInterface>(&key);
                Ok(())
            })
            .await
    }

    /// The interface of this id.
    pub fn interface(&self, realm: &str, id: &str) -> Option<Arc<NetworkInterface>> {
        self.store.read().get::<NetworkInterface>(&format!("{realm}/{id}"))
    }
}

fn attachment(
    snapshot: &Snapshot,
    interface: &NetworkInterface,
    subnet: &Subnet,
    netns: &Path,
) -> Attachment {
    let (public_ip, outward) = crate::ways::way(snapshot, subnet).of(interface);
    Attachment {
        eni: interface.id.clone(),
        vpc: interface.vpc.clone(),
        mac: interface.mac.clone(),
        ip: interface.ip,
        subnet: subnet.block,
        public_ip,
        outward,
        groups: interface.groups.clone(),
        netns: netns.to_owned(),
    }
}

/// The free address after the one that was given last, so that an address rests before it is used again.
fn next_address(
    subnet: &Subnet,
    taken: &[Arc<NetworkInterface>],
    in_vpc: &BTreeSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let own = taken.iter().filter(|interface| interface.subnet == subnet.id);
    let newest = own.max_by_key(|interface| (interface.created, interface.ip));
    let usable = subnet.block.size().checked_sub(RESERVED + 1)?;
    let base = u64::from(subnet.block.base().to_bits());
    let start =
        newest.map_or(0, |i| (u64::from(i.ip.to_bits()) - base + 1).saturating_sub(RESERVED));
    (0..usable)
        .map(|step| subnet.block.nth(RESERVED + (start + step) % usable))
        .find(|address| !in_vpc.contains(address))
}

/// A VPC's security groups, as the network knows them.
fn groups(snapshot: &Snapshot, realm: &str, vpc: &str) -> Vec<Group> {
    let groups = snapshot.scan_prefix::<SecurityGroup>(&format!("{realm}/"));
    groups.filter(|group| group.vpc == vpc).map(|group| group.engine()).collect()
}
