//! What EFS remembers.

use crate::api::{LifecyclePolicy, PerformanceMode, PosixUser, RootDirectory, ThroughputMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

fn arn(realm: &str, resource: &str) -> String {
    let (account, region) = realm.split_once('/').unwrap_or_default();
    format!("arn:aws:elasticfilesystem:{region}:{account}:{resource}")
}

/// A file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileSystem {
    /// `account/region`.
    pub realm: String,
    /// `fs-…`.
    pub id: String,
    /// What makes asking for it again harmless.
    pub token: String,
    /// How it should perform. It is told; one machine's disk performs as it does.
    pub performance: PerformanceMode,
    /// How its throughput is bounded. It is told; nothing bounds it.
    pub throughput: ThroughputMode,
    /// MiB a second that were asked for.
    pub provisioned: Option<f64>,
    /// The one availability zone of a One Zone file system.
    pub zone: Option<String>,
    /// Whether it was asked to be encrypted. It is told; encryption is the disk's affair.
    pub encrypted: bool,
    /// When its files would change their storage class. They are told; there is one.
    pub lifecycle: Vec<LifecyclePolicy>,
    /// Who may mount it (JSON); everybody who reaches it when there is none.
    pub policy: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Timestamp,
}

impl FileSystem {
    /// The ARN of the file system with this id.
    pub fn arn_of(realm: &str, id: &str) -> String {
        arn(realm, &format!("file-system/{id}"))
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        Self::arn_of(&self.realm, &self.id)
    }
}

impl Record for FileSystem {
    const TABLE: &'static str = "efs.file_system";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// Where a VPC's tasks of an availability zone find a file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountTarget {
    /// `account/region`.
    pub realm: String,
    /// `fsmt-…`.
    pub id: String,
    /// The file system's id.
    pub file_system: String,
    /// Its subnet.
    pub subnet: String,
    /// The subnet's VPC.
    pub vpc: String,
    /// The subnet's availability zone.
    pub zone: String,
    /// Its network interface, which has its address and its security groups.
    pub interface: String,
    /// The address.
    pub ip: String,
}

impl MountTarget {
    /// The ARN of the mount target with this id.
    pub fn arn_of(realm: &str, id: &str) -> String {
        arn(realm, &format!("mount-target/{id}"))
    }
}

impl Record for MountTarget {
    const TABLE: &'static str = "efs.mount_target";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A way into a file system: a part of it, and who one is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessPoint {
    /// `account/region`.
    pub realm: String,
    /// `fsap-…`.
    pub id: String,
    /// What makes asking for it again harmless.
    pub token: String,
    /// The file system's id.
    pub file_system: String,
    /// Who everybody is, who comes this way.
    pub user: Option<PosixUser>,
    /// What they see as `/`.
    pub root: RootDirectory,
    /// Its tags.
    pub tags: Tags,
}

impl AccessPoint {
    /// The ARN of the access point with this id.
    pub fn arn_of(realm: &str, id: &str) -> String {
        arn(realm, &format!("access-point/{id}"))
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        Self::arn_of(&self.realm, &self.id)
    }
}

impl Record for AccessPoint {
    const TABLE: &'static str = "efs.access_point";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}
