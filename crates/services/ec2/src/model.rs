//! The durable records of EC2.

use network::{Cidr, Group, Peer, Ports, Rule};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr};
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
}

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
}

impl Record for Subnet {
    const TABLE: &'static str = "ec2.subnet";
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
