//! What S3 Files remembers.

use crate::api::{ExpirationDataRule, ImportDataRule, PosixUser, RootDirectory};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

/// A bucket, or what begins with a prefix in it, as a file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileSystem {
    /// `account/region`.
    pub realm: String,
    /// `fs-…`.
    pub id: String,
    /// What makes asking for it again harmless.
    pub token: String,
    /// The bucket's name.
    pub bucket: String,
    /// What the keys begin with; it ends with `/`, or is empty.
    pub prefix: String,
    /// The role that S3 Files acts as.
    pub role: String,
    /// Who may mount it (JSON); whom IAM lets when there is none.
    pub policy: Option<String>,
    /// What was asked for of synchronization, and its version.
    pub synchronization: Synchronization,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Timestamp,
}

/// When data would come to the file system, and leave it. It is told; everything is here, always.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synchronization {
    /// How often it was put.
    pub version: i32,
    /// What would be imported.
    pub import: Vec<ImportDataRule>,
    /// What would expire.
    pub expiration: Vec<ExpirationDataRule>,
}

impl FileSystem {
    /// The ARN of the file system with this id.
    pub fn arn_of(realm: &str, id: &str) -> String {
        let (account, region) = realm.split_once('/').unwrap_or_default();
        format!("arn:aws:s3files:{region}:{account}:file-system/{id}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        Self::arn_of(&self.realm, &self.id)
    }
}

impl Record for FileSystem {
    const TABLE: &'static str = "s3files.file_system";
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

impl Record for MountTarget {
    const TABLE: &'static str = "s3files.mount_target";
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
    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("{}/access-point/{}", FileSystem::arn_of(&self.realm, &self.file_system), self.id)
    }
}

impl Record for AccessPoint {
    const TABLE: &'static str = "s3files.access_point";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// What a file or directory looks like from outside. While it is the same, so is the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The inode's number.
    pub inode: u64,
    /// The length in bytes; 0 of directories.
    pub size: u64,
    /// When the content was changed last, in nanoseconds since 1970; 0 of directories.
    pub modified: i64,
    /// When anything was changed last, likewise.
    pub changed: i64,
    /// The permissions, without the type.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A file or directory that is the same here and in the bucket, when this was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key of the file system's record.
    pub file_system: String,
    /// Where it is, without a slash before or after.
    pub path: String,
    /// It is a directory.
    pub directory: bool,
    /// The object's version; none of a directory that has no object, but others below it.
    pub version: Option<String>,
    /// What it looked like here.
    pub stamp: Stamp,
}

impl Entry {
    /// What the keys of all entries of a file system begin with.
    pub fn prefix_of(file_system: &str) -> String {
        format!("{file_system}/")
    }
}

impl Record for Entry {
    const TABLE: &'static str = "s3files.entry";
    fn key(&self) -> String {
        format!("{}{}", Self::prefix_of(&self.file_system), self.path)
    }
}
