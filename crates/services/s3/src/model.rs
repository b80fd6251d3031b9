//! The durable records of S3.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

/// A bucket. Names are unique in all accounts and regions, as on AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Whose it is, twelve digits.
    pub account: String,
    /// Where it is.
    pub region: String,
    /// CreateBucket.
    pub created: Timestamp,
    /// Its tags.
    pub tags: Tags,
    /// Its policy, JSON.
    pub policy: Option<String>,
    /// Whether what is replaced or deleted is kept.
    #[serde(default)]
    pub versioning: Versioning,
    /// Objects are put as with `aws:kms` where their client says nothing of encryption.
    #[serde(default)]
    pub kms: bool,
    /// What is done against public access.
    #[serde(default)]
    pub public_access: Option<PublicAccess>,
    /// What becomes of objects by and by.
    #[serde(default)]
    pub lifecycle: Vec<Rule>,
    /// Whether EventBridge is told of its objects.
    #[serde(default)]
    pub event_bridge: bool,
}

/// What is done against public access: of a bucket's two policies, since no access control lists are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAccess {
    /// Told, and nothing else.
    pub block_acls: bool,
    /// Told, and nothing else.
    pub ignore_acls: bool,
    /// Public policies are not taken.
    pub block_policy: bool,
    /// A public policy lets no other account in.
    pub restrict: bool,
}

impl PublicAccess {
    /// What new buckets have.
    pub const ALL: Self =
        Self { block_acls: true, ignore_acls: true, block_policy: true, restrict: true };
}

/// A rule of what becomes of objects by and by. Days are whole, and are over at midnight UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// It is followed.
    pub enabled: bool,
    /// What the keys begin with that it is for.
    pub prefix: String,
    /// The rule has a filter, as newer ones do.
    pub filtered: bool,
    /// The tags that the objects have that it is for.
    pub tags: Tags,
    /// Those objects are larger, in bytes.
    pub larger: Option<i64>,
    /// Those objects are smaller, in bytes.
    pub smaller: Option<i64>,
    /// After so many days objects are deleted.
    pub days: Option<i32>,
    /// On that day objects are deleted.
    pub date: Option<Timestamp>,
    /// Markers are deleted that have no version before them.
    pub markers: bool,
    /// So many days after they were replaced, versions are deleted.
    pub noncurrent_days: Option<i32>,
    /// But for so many of the newest.
    pub noncurrent_kept: Option<i32>,
    /// Uploads are aborted so many days after they were started.
    pub abort_days: Option<i32>,
}

/// Whether what is replaced or deleted is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// It never was.
    #[default]
    Never,
    /// It is.
    Enabled,
    /// It was: what is put now has the version `null`.
    Suspended,
}

impl Record for Bucket {
    const TABLE: &'static str = "s3.bucket";
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A file that holds (a part of) an object's content. It is never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its name among the content files.
    pub id: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What a client may say of an object's content, and is told again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Expires.
    pub expires: Option<Timestamp>,
    /// x-amz-meta-*, by name.
    pub metadata: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// It was put as with `aws:kms`.
    #[serde(default)]
    pub kms: bool,
}

/// Algorithms of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// CRC-32 as in zlib.
    Crc32,
    /// CRC-32C.
    Crc32c,
    /// CRC-64/NVME, S3's own default.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// A checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it is made.
    pub algorithm: Algorithm,
    /// In base64; of parts' checksums when [`Checksum::composite`], then followed by `-` and their number.
    pub value: String,
    /// Made of the parts' checksums.
    pub composite: bool,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its bucket's name.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its content, in order.
    pub pieces: Vec<Piece>,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was put.
    pub modified: Timestamp,
    /// Its checksum.
    pub checksum: Checksum,
    /// What its client said of it.
    pub about: About,
    /// Its version; none for the version `null`.
    #[serde(default)]
    pub version: Option<String>,
}

/// What was an object before it was replaced or deleted, or a marker that says that it is deleted. The newest object is
/// an [`Object`], unless the newest of these is a marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// Its version; none for the version `null`.
    pub version: Option<String>,
    /// Later ones have greater numbers.
    pub order: u64,
    /// When it was replaced, deleted, or made as a marker.
    pub since: Timestamp,
    /// The object; none for a marker.
    pub object: Option<Object>,
}

impl Version {
    /// What the keys of all versions of a key begin with.
    pub fn prefix_of(bucket: &str, key: &str) -> String {
        // No key has this character: XML cannot name it.
        format!("{bucket}/{key}\0")
    }
}

impl Record for Version {
    const TABLE: &'static str = "s3.version";
    fn key(&self) -> String {
        // The newest first.
        format!("{}{:020}", Self::prefix_of(&self.bucket, &self.key), u64::MAX - self.order)
    }
}

impl Object {
    /// The record's key.
    pub fn key_of(bucket: &str, key: &str) -> String {
        format!("{bucket}/{key}")
    }

    /// What names its version: `null` where versions were not kept when it was put.
    pub fn version_name(&self) -> &str {
        self.version.as_deref().unwrap_or("null")
    }

    /// Whether it was put in parts.
    pub fn is_multipart(&self) -> bool {
        self.etag.contains('-')
    }
}

impl Record for Object {
    const TABLE: &'static str = "s3.object";
    fn key(&self) -> String {
        Self::key_of(&self.bucket, &self.key)
    }
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Its bucket's name.
    pub bucket: String,
    /// The key of the object that it becomes.
    pub key: String,
    /// Its id.
    pub id: String,
    /// CreateMultipartUpload.
    pub started: Timestamp,
    /// The ARN of whoever started it.
    pub initiator: String,
    /// How parts' checksums are made.
    pub algorithm: Algorithm,
    /// Whether the object's checksum is made of the parts' ones.
    pub composite: bool,
    /// What becomes the object's.
    pub about: About,
}

impl Upload {
    /// The record's key: uploads are listed by their objects' keys.
    pub fn key_of(bucket: &str, key: &str, id: &str) -> String {
        format!("{bucket}/{key}/{id}")
    }
}

impl Record for Upload {
    const TABLE: &'static str = "s3.upload";
    fn key(&self) -> String {
        Self::key_of(&self.bucket, &self.key, &self.id)
    }
}

/// A part of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its upload's id.
    pub upload: String,
    /// From 1 to 10,000.
    pub number: i32,
    /// Its content.
    pub piece: Piece,
    /// The hexadecimal MD5 of its content.
    pub md5: String,
    /// When it was put.
    pub modified: Timestamp,
    /// Its checksum.
    pub checksum: Checksum,
}

impl Part {
    /// The record's key.
    pub fn key_of(upload: &str, number: i32) -> String {
        format!("{upload}/{number:05}")
    }
}

impl Record for Part {
    const TABLE: &'static str = "s3.part";
    fn key(&self) -> String {
        Self::key_of(&self.upload, self.number)
    }
}
