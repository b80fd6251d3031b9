//! The durable records of ECR.

use images::{Digest, manifest::Descriptor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;
use world::Timestamp;

/// Between a repository's name and what is in it, in keys: no name can hold it.
const BETWEEN: char = '\u{1}';

/// Which repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// `account/region`.
    pub realm: String,
    /// The repository's name, `team/app`.
    pub name: String,
}

impl Place {
    /// The repository's key.
    pub fn key(&self) -> String {
        format!("{}/{}", self.realm, self.name)
    }

    /// What the keys of everything in it begin with.
    pub fn prefix(&self) -> String {
        format!("{}{BETWEEN}", self.key())
    }

    /// The key of what is called `what` in it.
    pub fn key_of(&self, what: impl std::fmt::Display) -> String {
        format!("{}{what}", self.prefix())
    }

    /// Its registry's id: the account.
    pub fn account(&self) -> &str {
        self.realm.split_once('/').map_or(&self.realm, |(account, _)| account)
    }

    /// Its region.
    pub fn region(&self) -> &str {
        self.realm.split_once('/').map_or("", |(_, region)| region)
    }

    /// `arn:aws:ecr:REGION:ACCOUNT:repository/NAME`.
    pub fn arn(&self) -> String {
        format!("arn:aws:ecr:{}:{}:repository/{}", self.region(), self.account(), self.name)
    }
}

/// Which tags may be moved to another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutability {
    /// All, but for those that an exclusion names.
    Mutable,
    /// None, but for those that an exclusion names.
    Immutable,
}

/// A repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// Where.
    pub place: Place,
    /// When it was made.
    pub created: Timestamp,
    /// Which tags may be moved.
    pub mutability: Mutability,
    /// Tags (with `*`) of which the opposite holds.
    pub exclusions: Vec<String>,
    /// Its tags in AWS's sense.
    pub tags: BTreeMap<String, String>,
    /// Its policy (JSON), as it was set.
    pub policy: Option<String>,
    /// Its lifecycle policy (JSON), as it was put.
    pub lifecycle: Option<String>,
    /// When the lifecycle policy was last applied.
    pub evaluated: Option<Timestamp>,
}

impl Repository {
    /// Whether `tag` stays with its image for good.
    pub fn pins(&self, tag: &str) -> bool {
        let excluded = self.exclusions.iter().any(|filter| iam::policy::matches(filter, tag));
        (self.mutability == Mutability::Immutable) != excluded
    }
}

impl Record for Repository {
    const TABLE: &'static str = "ecr.repository";
    fn key(&self) -> String {
        self.place.key()
    }
}

/// A manifest or an index in a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Where.
    pub place: Place,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The length of the manifest in bytes.
    pub manifest_bytes: u64,
    /// What it is, for artifacts: the manifest's `artifactType`, else its configuration's media type.
    pub artifact_type: Option<String>,
    /// What AWS calls the image's size, in bytes: its parts together; of an index, its largest image.
    pub size: u64,
    /// When it was pushed.
    pub pushed: Timestamp,
    /// When a pull of it was last recorded; not every one is.
    pub pulled: Option<Timestamp>,
    /// The image that it says something about (a signature's image).
    pub subject: Option<Digest>,
    /// Its configuration and layers.
    pub parts: Vec<Digest>,
    /// Of an index, its images.
    pub images: Vec<Digest>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Image {
    /// What an index would say of it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.manifest_bytes,
            platform: None,
            artifact_type: self.artifact_type.clone(),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
        }
    }
}

impl Record for Image {
    const TABLE: &'static str = "ecr.image";
    fn key(&self) -> String {
        self.place.key_of(&self.digest)
    }
}

/// A name of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tag {
    /// Where.
    pub place: Place,
    /// The name, `latest`.
    pub tag: String,
    /// Whose it is.
    pub digest: Digest,
}

impl Record for Tag {
    const TABLE: &'static str = "ecr.tag";
    fn key(&self) -> String {
        self.place.key_of(&self.tag)
    }
}

/// A blob that a repository has: one that another repository has is not found in this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// Where.
    pub place: Place,
    /// Which.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When the repository got it.
    pub linked: Timestamp,
}

impl Record for Layer {
    const TABLE: &'static str = "ecr.layer";
    fn key(&self) -> String {
        self.place.key_of(&self.digest)
    }
}
