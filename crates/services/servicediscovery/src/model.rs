//! The durable records of Cloud Map.

use crate::api::{CustomHealthStatus, DnsConfig, OperationTargetType, OperationType, RecordType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

fn arn(realm: &str, rest: std::fmt::Arguments) -> String {
    let (account, region) = realm.split_once('/').expect("realms are account/region");
    format!("arn:aws:servicediscovery:{region}:{account}:{rest}")
}

/// The ARN of a service.
pub(crate) fn service_arn(realm: &str, id: &str) -> String {
    arn(realm, format_args!("service/{id}"))
}

/// Where a namespace's names are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The VPC's id.
    pub vpc: String,
    /// The id of the hosted zone, as Route 53 would have it.
    pub hosted_zone: String,
    /// How long it holds that a name does not exist, in seconds.
    pub soa_ttl: i64,
}

/// A namespace: HTTP only, or a private DNS one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `account/region`.
    pub realm: String,
    /// `ns-` and 16 letters and digits.
    pub id: String,
    /// A domain name, where it is a DNS namespace.
    pub name: String,
    /// What DiscoverInstances calls it: its name, unless that was taken.
    pub http_name: String,
    /// None for an HTTP namespace.
    pub zone: Option<Zone>,
    /// For people.
    pub description: Option<String>,
    /// What the request that made it called itself. One that is sent again finds what is there.
    pub creator_request_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Timestamp,
}

impl Namespace {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("namespace/{}", self.id))
    }
}

impl Record for Namespace {
    const TABLE: &'static str = "servicediscovery.namespace";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A service: a name under which instances are registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `account/region`.
    pub realm: String,
    /// `srv-` and 16 letters and digits.
    pub id: String,
    /// Its name in its namespace.
    pub name: String,
    /// Its namespace's id.
    pub namespace: String,
    /// For people.
    pub description: Option<String>,
    /// The records that its instances get; none where it is found through DiscoverInstances alone.
    pub dns: Option<DnsConfig>,
    /// Whether somebody tells how its instances are.
    pub has_health: bool,
    /// What GetServiceAttributes answers.
    pub attributes: BTreeMap<String, String>,
    /// What the request that made it called itself. One that is sent again finds what is there.
    pub creator_request_id: Option<String>,
    /// Counts how often instances came or went.
    pub revision: i64,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Timestamp,
}

impl Service {
    /// Its ARN.
    pub fn arn(&self) -> String {
        service_arn(&self.realm, &self.id)
    }

    /// Whether its instances get SRV records.
    pub fn has_srv(&self) -> bool {
        self.dns.iter().flat_map(|dns| &dns.dns_records).any(|r| r.r#type == RecordType::Srv)
    }

    /// What the keys of its instances begin with.
    pub fn instances_prefix(&self) -> String {
        format!("{}/{}/", self.realm, self.id)
    }
}

impl Record for Service {
    const TABLE: &'static str = "servicediscovery.service";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// Something that is found under a service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `account/region`.
    pub realm: String,
    /// Its service's id.
    pub service: String,
    /// Its id in the service.
    pub id: String,
    /// Address and port among them, under AWS's keys.
    pub attributes: BTreeMap<String, String>,
    /// How it was told to be, where its service has health.
    pub health: Option<CustomHealthStatus>,
    /// What the request that made it called itself. One that is sent again finds what is there.
    pub creator_request_id: Option<String>,
}

impl Instance {
    /// The record's key.
    pub fn key_of(realm: &str, service: &str, id: &str) -> String {
        format!("{realm}/{service}/{id}")
    }

    /// Whether it is well, as far as anybody told.
    pub fn is_healthy(&self) -> bool {
        self.health != Some(CustomHealthStatus::Unhealthy)
    }
}

impl Record for Instance {
    const TABLE: &'static str = "servicediscovery.instance";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.service, &self.id)
    }
}

/// Work that was asked for, and is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `account/region`.
    pub realm: String,
    /// 32 and 8 letters and digits.
    pub id: String,
    /// What it did.
    pub kind: OperationType,
    /// What it did it to.
    pub targets: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
}

impl Operation {
    /// What it did it to, of this type.
    pub fn target(&self, of: OperationTargetType) -> Option<&String> {
        self.targets.get(of.as_str())
    }
}

impl Record for Operation {
    const TABLE: &'static str = "servicediscovery.operation";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}
