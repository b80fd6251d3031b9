//! The durable records of EC2.

use network::{Cidr, Group, Peer, Ports, Rule};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};
use store::Record;
use world::Timestamp;

/// A VPC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vpc {
    /// `account/region`.
    pub realm: String,
    /// `vpc-…`.
    pub id: String,
    /// Its addresses.
    pub block: Cidr,
    /// Its number among all VPCs of this Neargate.
    pub number: u8,
    /// The one that an account has from the start.
    pub default: bool,
    /// Its instances get names; told, and nothing else.
    #[serde(default)]
    pub dns_hostnames: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

impl Record for Vpc {
    const TABLE: &'static str = "ec2.vpc";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A subnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// `account/region`.
    pub realm: String,
    /// `subnet-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its addresses.
    pub block: Cidr,
    /// Its Availability Zone.
    pub zone: String,
    /// Instances in it get a public address; told, and nothing else. Tasks say so themselves.
    #[serde(default = "yes")]
    pub map_public: bool,
    /// It is one of the default VPC's first ones.
    #[serde(default = "yes")]
    pub default: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// Subnets that were made before others could be made were the default VPC's.
fn yes() -> bool {
    true
}

impl Record for Subnet {
    const TABLE: &'static str = "ec2.subnet";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// An EBS volume of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// `account/region`.
    pub realm: String,
    /// `vol-…`.
    pub id: String,
    /// GiB.
    pub size_gib: i32,
    /// `gp3`, …; it is told, and one machine's disk performs as it does.
    pub kind: String,
    /// Operations a second that were asked for.
    pub iops: Option<i32>,
    /// MiB a second that were asked for.
    pub throughput: Option<i32>,
    /// Whether it was asked to be encrypted. It is told; encryption is the disk's affair.
    pub encrypted: bool,
    /// Its availability zone.
    pub zone: String,
    /// The ARN of the task that has it.
    pub task: Option<String>,
    /// Whether it ends with the task.
    pub delete_on_termination: bool,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for Volume {
    const TABLE: &'static str = "ec2.volume";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A gateway to the outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InternetGateway {
    /// `account/region`.
    pub realm: String,
    /// `igw-…`.
    pub id: String,
    /// The VPC that it is attached to.
    pub vpc: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Record for InternetGateway {
    const TABLE: &'static str = "ec2.internet_gateway";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// Where packets of subnets go. What is for the VPC itself stays in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteTable {
    /// `account/region`.
    pub realm: String,
    /// `rtb-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// The association by which it is that of all subnets without one of their own, `rtbassoc-…`.
    pub main: Option<String>,
    /// Where all other packets go: `igw-…` or `nat-…`.
    pub outside: Option<String>,
    /// Its subnets, by association.
    pub associations: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
}

impl Record for RouteTable {
    const TABLE: &'static str = "ec2.route_table";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// An address that an account keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Address {
    /// `account/region`.
    pub realm: String,
    /// `eipalloc-…`.
    pub id: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// Its tags.
    pub tags: Tags,
}

impl Record for Address {
    const TABLE: &'static str = "ec2.address";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A way out for interfaces without a public address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NatGateway {
    /// `account/region`.
    pub realm: String,
    /// `nat-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// The [`Address`] that it has outside.
    pub allocation: String,
    /// That address.
    pub public_ip: Ipv4Addr,
    /// Its interface.
    pub eni: String,
    /// Its address in the subnet.
    pub ip: Ipv4Addr,
    /// The client's token, by which the same request twice makes one.
    pub token: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was deleted: it is told of for an hour.
    pub deleted: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

impl Record for NatGateway {
    const TABLE: &'static str = "ec2.nat_gateway";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A way to one of AWS's services that needs no way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VpcEndpoint {
    /// `account/region`.
    pub realm: String,
    /// `vpce-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// The service, `ecr.dkr`.
    pub service: String,
    /// How it is reached.
    pub kind: EndpointKind,
    /// The client's token, by which the same request twice makes one.
    pub token: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Its tags.
    pub tags: Tags,
}

/// How a service is reached by an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum EndpointKind {
    /// By a route in these route tables.
    Gateway {
        /// `rtb-…`.
        tables: BTreeSet<String>,
    },
    /// By interfaces in subnets of the VPC.
    Interface {
        /// One in each of these.
        subnets: BTreeSet<String>,
        /// Their security groups.
        groups: Vec<String>,
        /// The service's own name leads to them.
        private_dns: bool,
    },
}

impl VpcEndpoint {
    /// Whether a route in this table leads to it.
    pub fn is_in(&self, table: &str) -> bool {
        matches!(&self.kind, EndpointKind::Gateway { tables } if tables.contains(table))
    }

    /// How its interfaces are described.
    pub fn description(&self) -> String {
        format!("VPC Endpoint Interface {}", self.id)
    }
}

impl Record for VpcEndpoint {
    const TABLE: &'static str = "ec2.vpc_endpoint";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A security group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// `account/region`.
    pub realm: String,
    /// `sg-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its name, unique in the VPC.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its rules.
    pub rules: Vec<GroupRule>,
}

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    /// `sgr-…`.
    pub id: String,
    /// Outwards.
    pub egress: bool,
    /// `tcp`, `udp`, `icmp`, a protocol's number, or `-1` for all.
    pub protocol: String,
    /// The first port or ICMP type, -1 for all.
    pub from: i32,
    /// The last port or ICMP code, -1 for all.
    pub to: i32,
    /// The other side.
    pub peer: Peer,
    /// What it is for.
    pub description: Option<String>,
}

impl GroupRule {
    /// Whether both let the same through.
    pub fn same_effect(&self, other: &Self) -> bool {
        (self.egress, &self.protocol, self.from, self.to, &self.peer)
            == (other.egress, &other.protocol, other.from, other.to, &other.peer)
    }

    fn engine(&self) -> Rule {
        let protocol = match self.protocol.as_str() {
            "-1" => None,
            "tcp" => Some(6),
            "udp" => Some(17),
            "icmp" => Some(1),
            number => number.parse().ok(),
        };
        let all = self.from == -1 && self.to == -1 || self.protocol == "-1";
        let ports = (!all).then_some(Ports { from: self.from, to: self.to });
        Rule { protocol, ports, peer: self.peer.clone() }
    }
}

impl SecurityGroup {
    /// The group that every VPC has: its members may talk to each other, and out to everywhere.
    pub fn default_of(
        realm: &str,
        vpc: &str,
        id: String,
        mut rule_id: impl FnMut() -> String,
    ) -> Self {
        let mut rule = |egress, peer| GroupRule {
            id: rule_id(),
            egress,
            protocol: "-1".to_owned(),
            from: -1,
            to: -1,
            peer,
            description: None,
        };
        Self {
            realm: realm.to_owned(),
            vpc: vpc.to_owned(),
            name: "default".to_owned(),
            description: "default VPC security group".to_owned(),
            tags: BTreeMap::new(),
            rules: vec![
                rule(false, Peer::Group(id.clone())),
                rule(true, Peer::Block(Cidr::new(Ipv4Addr::UNSPECIFIED, 0))),
            ],
            id,
        }
    }

    /// As the network engine takes it.
    pub fn engine(&self) -> Group {
        let rules = |egress: bool| {
            let rules = self.rules.iter().filter(|rule| rule.egress == egress);
            rules.map(GroupRule::engine).collect()
        };
        Group { id: self.id.clone(), ingress: rules(false), egress: rules(true) }
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:ec2:{region}:{account}:security-group/{}", self.id)
    }
}

impl Record for SecurityGroup {
    const TABLE: &'static str = "ec2.security_group";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A network interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// `account/region`.
    pub realm: String,
    /// `eni-…`.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// Its Availability Zone.
    pub zone: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The address that the host reaches it by.
    pub public_ip: Option<Ipv4Addr>,
    /// Its MAC address.
    pub mac: String,
    /// Its security groups.
    pub groups: Vec<String>,
    /// What it is for.
    pub description: String,
    /// `eni-attach-…`.
    pub attachment: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for NetworkInterface {
    const TABLE: &'static str = "ec2.network_interface";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}
