//! Image blobs, registries, layers: the container images of this machine.
//!
//! - [`blobs`]: a content-addressed store with resumable uploads and a careful sweep; a registry
//!   stands on it.
//! - [`manifest`], [`config`]: manifests, indexes and image configurations, bounded and validated.
//! - [`registry`]: the pulling side: names to endpoints by `registries.conf`, credentials, HTTP.
//! - [`layers`]: each layer unpacked once, in overlayfs form, whatever its tar tries.
//! - [`Images`]: all of it together: pull an image, get the directories to mount.
//!
//! Nothing here knows of AWS; errors are typed so that a caller can word them as AWS does.

pub mod blobs;
pub mod config;
mod digest;
mod disk;
mod download;
mod flight;
mod images;
pub mod layers;
pub mod manifest;
mod pull;
mod records;
mod reference;
pub mod registry;
mod source;
mod wanted;

pub use blobs::{BlobError, BlobStore};
pub use config::{Healthcheck, ImageConfig};
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use disk::DiskError;
pub use images::{Collected, Images, ImagesOptions};
pub use layers::{LayerError, LayerLimits, LayerStore};
pub use manifest::{Descriptor, Manifest, ManifestError, Platform};
pub use pull::{Event, Failure, Image, Policy, Progress, PullError};
pub use records::ImageRecord;
pub use reference::{InvalidReference, Reference};
pub use registry::{Registries, RegistrySource};
pub use source::{BlobBody, FetchedManifest, Source, SourceError, StoreSource};
