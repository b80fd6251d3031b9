//! From a name to a manifest and a configuration that fit each other and the platform.

use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::disk::At;
use crate::manifest::{Descriptor, ImageManifest, Manifest, Platform};
use crate::pull::{Policy, PullError};
use crate::source::{BlobBody, FetchedManifest, Source, SourceError};
use crate::{Digest, Reference};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::{path::Path, sync::Arc};

/// What a pull is about.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) reference: Reference,
    pub(crate) platform: Platform,
    pub(crate) policy: Policy,
    pub(crate) source: Arc<dyn Source>,
}

impl Wanted {
    pub(crate) fn source_error(&self, source: SourceError) -> PullError {
        PullError::Source { reference: self.reference.to_string(), source: Arc::new(source) }
    }

    fn manifest_error(&self, source: crate::ManifestError) -> PullError {
        PullError::Manifest { reference: self.reference.to_string(), source: Arc::new(source) }
    }

    pub(crate) fn config_error(&self, source: crate::config::ConfigError) -> PullError {
        PullError::Config { reference: self.reference.to_string(), source: Arc::new(source) }
    }

    async fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, PullError> {
        let found = self.source.manifest(reference).await;
        let found = found.map_err(|failed| self.source_error(failed))?;
        // Sources have checked this, but it is what everything else hangs on.
        let expected = reference.digest().unwrap_or(&found.digest).clone();
        let actual = expected.alike(&found.bytes);
        match expected == actual {
            true => Ok(found),
            false => Err(PullError::Digest { expected, actual }),
        }
    }
}

/// The manifest for the platform: the digest of the index, if there is one, its own, and itself.
pub(crate) async fn choose(
    wanted: &Wanted,
) -> Result<(Option<Digest>, Digest, ImageManifest), PullError> {
    let bad = |source| wanted.manifest_error(source);
    let parse = |found: &FetchedManifest| Manifest::parse(&found.bytes, &found.media_type);
    let top = wanted.manifest(&wanted.reference).await?;
    let (index_digest, found, manifest) = match parse(&top).map_err(bad)? {
        Manifest::Image(image) => (None, top, image),
        Manifest::Index(index) => {
            let entry = index.select(&wanted.platform).map_err(bad)?;
            let child = wanted.manifest(&wanted.reference.at_digest(&entry.digest)).await?;
            match parse(&child).map_err(bad)? {
                Manifest::Image(image) => (Some(top.digest), child, image),
                Manifest::Index(_) => {
                    let kind = "an index within an index".to_string();
                    return Err(bad(crate::ManifestError::NotAnImage(kind)));
                }
            }
        }
    };
    manifest.check_runnable().map_err(bad)?;
    Ok((index_digest, found.digest, manifest))
}

/// Parses the configuration and sees that it fits the manifest and the platform.
pub(crate) fn check(
    wanted: &Wanted,
    manifest: &ImageManifest,
    config: &str,
) -> Result<ImageConfig, PullError> {
    let config = ImageConfig::parse(config.as_bytes()).map_err(|bad| wanted.config_error(bad))?;
    config.check_layers(manifest.layers.len()).map_err(|bad| wanted.config_error(bad))?;
    let (found, asked) = (&config.platform, &wanted.platform);
    // Variants are the index's business; builders leave them out of configurations.
    if found.os != asked.os || found.architecture != asked.architecture {
        let reference = wanted.reference.to_string();
        let (wanted, found) = (Box::new(asked.clone()), Box::new(found.clone()));
        return Err(PullError::Platform { reference, wanted, found });
    }
    Ok(config)
}

/// A blob of at most [`MAX_CONFIG_BYTES`]; not verified.
pub(crate) async fn small_blob(wanted: &Wanted, blob: &Descriptor) -> Result<Bytes, SourceError> {
    let limit = usize::try_from(blob.size).unwrap_or(MAX_CONFIG_BYTES).min(MAX_CONFIG_BYTES);
    match wanted.source.blob(&wanted.reference, blob, 0).await? {
        BlobBody::File(file) => {
            let path = Path::new("a blob of the local store");
            let read = file.read_at(0, limit + 1).await.at("read", path);
            read.map_err(|failed| SourceError::Store(failed.into()))
        }
        BlobBody::Stream { mut stream, .. } => {
            let mut bytes = BytesMut::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() > limit {
                    break; // its digest will be wrong
                }
            }
            Ok(bytes.freeze())
        }
    }
}
