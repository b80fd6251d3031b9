//! What pulling an image takes and gives.

use crate::config::{ConfigError, ImageConfig};
use crate::layers::Lease;
use crate::manifest::{ManifestError, Platform};
use crate::{Digest, DiskError, LayerError, Reference, SourceError};
use std::{path::PathBuf, sync::Arc};

/// When to ask the source for an image that is here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Every time; only what has changed is fetched.
    Always,
    /// Only if the image, as it was last pulled under that name, is not here whole.
    IfMissing,
}

/// Something that happened to one layer of a pull. Sizes are in bytes, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The layers of the image are known.
    Layers {
        /// Digest and size of each, lowest first.
        layers: Vec<(Digest, u64)>,
    },
    /// The layer is here from another pull.
    Present {
        /// The compressed layer.
        layer: Digest,
    },
    /// Bytes have come, in this pull or an interrupted one before it.
    Downloaded {
        /// The compressed layer.
        layer: Digest,
        /// How many there are.
        done: u64,
        /// How many it will be.
        total: u64,
    },
    /// The layer is unpacked and verified.
    Unpacked {
        /// The compressed layer.
        layer: Digest,
    },
}

/// Is told of every [`Event`], from any thread; must not block for long.
pub type Progress = Arc<dyn Fn(&Event) + Send + Sync>;

/// An image that is ready to be mounted. While it or a clone of it lives, nothing of it is
/// collected.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name it was pulled by.
    pub reference: Reference,
    /// The digest of the manifest for the platform.
    pub digest: Digest,
    /// The digest of the index that the name stands for, if it is one.
    pub index_digest: Option<Digest>,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// Directories for overlayfs, lowest first; none occurs twice.
    pub layers: Vec<PathBuf>,
    /// The compressed size of all layers, in bytes.
    pub size: u64,
    pub(crate) lease: Arc<Lease>,
}

impl Image {
    /// Keeps the layers from being collected for as long as it lives.
    pub fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }
}

/// A pull failed. Cheap to clone, as several may wait for the same pull.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The source does not give it.
    #[error("cannot get {reference}")]
    Source {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Arc<SourceError>,
    },
    /// The manifest cannot be used.
    #[error("the manifest of {reference} cannot be used")]
    Manifest {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Arc<ManifestError>,
    },
    /// The configuration cannot be used.
    #[error("the configuration of {reference} cannot be used")]
    Config {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Arc<ConfigError>,
    },
    /// The image is for another platform.
    #[error("{reference} is for {found}, not {wanted}")]
    Platform {
        /// The image.
        reference: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What it is.
        found: Box<Platform>,
    },
    /// What came is not what its digest says.
    #[error("{expected} came with digest {actual}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob is larger than the manifest says, or than is allowed.
    #[error("{digest} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The most it may have.
        limit_bytes: u64,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// The compressed layer.
        layer: Digest,
        /// Why.
        #[source]
        source: Arc<LayerError>,
    },
    /// The layers cannot be put on top of each other.
    #[error("cannot join the layers of {reference}")]
    Join {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Arc<LayerError>,
    },
    /// The disk.
    #[error("cannot keep the image on disk")]
    Disk(#[source] Arc<DiskError>),
    /// The process is ending.
    #[error("the pull was interrupted, as the process is ending")]
    Interrupted,
}

/// The kinds of failure that a caller may want to word differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No such image, or one of its blobs is missing.
    NotFound,
    /// Credentials are missing or wrong, or do not suffice.
    Unauthorised,
    /// The registry's name does not resolve.
    NameNotResolved,
    /// The registry's host refuses connections.
    ConnectionRefused,
    /// No answer in time.
    Timeout,
    /// The registry's certificate is not trusted.
    Tls,
    /// The connection broke, again and again.
    Network,
    /// Too many requests.
    RateLimited,
    /// The registry failed or answered nonsense.
    Registry,
    /// Not for this platform.
    Platform,
    /// Content does not have its digest.
    Digest,
    /// Manifest, configuration or layers are malformed or refused.
    Corrupt,
    /// No space left.
    DiskFull,
    /// `registries.conf` blocks it or is wrong.
    Configuration,
    /// This machine: its disk, privileges, or the process is ending.
    Local,
}

impl PullError {
    pub(crate) fn disk(source: DiskError) -> Self {
        PullError::Disk(Arc::new(source))
    }

    /// What kind of failure it is.
    pub fn failure(&self) -> Failure {
        let disk = |disk: &DiskError| match disk.is_full() {
            true => Failure::DiskFull,
            false => Failure::Local,
        };
        match self {
            PullError::Source { source, .. } => source_failure(source),
            PullError::Manifest { source, .. } => match **source {
                ManifestError::NoPlatform { .. } => Failure::Platform,
                _ => Failure::Corrupt,
            },
            PullError::Platform { .. } => Failure::Platform,
            PullError::Digest { .. } => Failure::Digest,
            PullError::Config { .. } | PullError::TooLarge { .. } => Failure::Corrupt,
            PullError::Layer { source, .. } | PullError::Join { source, .. } => match &**source {
                LayerError::Disk(failed) => disk(failed),
                LayerError::DiffId { .. } => Failure::Digest,
                _ => Failure::Corrupt,
            },
            PullError::Disk(failed) => disk(failed),
            PullError::Interrupted => Failure::Local,
        }
    }
}

fn source_failure(source: &SourceError) -> Failure {
    match source {
        SourceError::ManifestUnknown { .. } | SourceError::BlobUnknown { .. } => Failure::NotFound,
        SourceError::Unauthorised { .. } | SourceError::Denied { .. } => Failure::Unauthorised,
        SourceError::Blocked(_)
        | SourceError::Ambiguous(_)
        | SourceError::Rewritten { .. }
        | SourceError::Configuration(_) => Failure::Configuration,
        SourceError::NameNotResolved { .. } => Failure::NameNotResolved,
        SourceError::ConnectionRefused { .. } => Failure::ConnectionRefused,
        SourceError::Timeout { .. } => Failure::Timeout,
        SourceError::Tls { .. } => Failure::Tls,
        SourceError::Connection { .. } => Failure::Network,
        SourceError::RateLimited { .. } => Failure::RateLimited,
        SourceError::Server { .. } | SourceError::Protocol { .. } => Failure::Registry,
        SourceError::Digest { .. } => Failure::Digest,
        SourceError::Store(_) => Failure::Local,
    }
}
