//! Where images come from: a registry over HTTP ([`crate::RegistrySource`]), or a blob store on
//! this machine ([`StoreSource`]).

use crate::blobs::{Blob, BlobError, BlobStore};
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES};
use crate::registry::ConfError;
use crate::{Digest, InvalidReference, Reference};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use std::{error::Error, io, sync::Arc, time::Duration};

/// A source could not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such image there: no repository, tag or digest of that name.
    #[error("{reference} is not found")]
    ManifestUnknown {
        /// The image, as it was asked for.
        reference: String,
    },
    /// The manifest is there, one of its blobs is not.
    #[error("blob {digest} is not found in {repository}")]
    BlobUnknown {
        /// Where.
        repository: String,
        /// Which.
        digest: Digest,
    },
    /// Credentials are needed, or those given are not accepted.
    #[error("{host} asks for credentials: {detail}")]
    Unauthorised {
        /// The registry.
        host: String,
        /// Its words, or ours.
        detail: String,
    },
    /// The credentials do not allow it.
    #[error("{host} denies access to {repository}: {detail}")]
    Denied {
        /// The registry.
        host: String,
        /// Where.
        repository: String,
        /// Its words.
        detail: String,
    },
    /// The configuration forbids this registry.
    #[error("registries.conf blocks {0}")]
    Blocked(String),
    /// The configuration gives several registries for a short name, and nobody can be asked.
    #[error("the short name {0:?} fits several registries, and short-name-mode is enforcing")]
    Ambiguous(String),
    /// The configuration makes a name of it that is none.
    #[error("registries.conf rewrites the name to {name:?}, which is not valid")]
    Rewritten {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: InvalidReference,
    },
    /// The configuration itself.
    #[error("the registries' configuration cannot be used")]
    Configuration(#[from] ConfError),
    /// The host's name does not resolve.
    #[error("cannot resolve {host}")]
    NameNotResolved {
        /// The host.
        host: String,
        /// The resolver's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody listens there.
    #[error("{host} refuses connections")]
    ConnectionRefused {
        /// The host.
        host: String,
        /// The system's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{host} does not answer in time")]
    Timeout {
        /// The host.
        host: String,
    },
    /// The host's certificate or TLS version is not acceptable.
    #[error("no trusted connection to {host}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("the connection to {host} failed")]
    Connection {
        /// The host.
        host: String,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Too many requests, says the registry (429).
    #[error("{host} limits the rate of requests: {detail}")]
    RateLimited {
        /// The registry.
        host: String,
        /// Its words.
        detail: String,
        /// When to come back, if it says so.
        after: Option<Duration>,
    },
    /// The registry has trouble (5xx).
    #[error("{host} answers {status}: {detail}")]
    Server {
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// It answers, but not as a registry should.
    #[error("{host} answers against the protocol: {detail}")]
    Protocol {
        /// The registry.
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// The manifest is not the one that was asked for by digest.
    #[error("the manifest has digest {actual}, not {expected}")]
    Digest {
        /// Asked for.
        expected: Digest,
        /// Found.
        actual: Digest,
    },
    /// The blob store of this machine.
    #[error("the blob store failed")]
    Store(#[from] BlobError),
}

impl SourceError {
    /// True if trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            SourceError::NameNotResolved { .. }
                | SourceError::ConnectionRefused { .. }
                | SourceError::Timeout { .. }
                | SourceError::Connection { .. }
                | SourceError::RateLimited { .. }
                | SourceError::Server { .. }
        )
    }

    /// How long the source wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            SourceError::RateLimited { after, .. } => *after,
            _ => None,
        }
    }
}

/// A manifest as it came; its digest is that of its bytes.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// What the source says it is; may be empty.
    pub media_type: String,
    /// At most [`MAX_MANIFEST_BYTES`].
    pub bytes: Bytes,
}

/// The content of a blob.
pub enum BlobBody {
    /// It lies on this machine.
    File(Blob),
    /// It comes over the network, from `offset` on: the one asked for, or 0 if the source cannot do
    /// that.
    Stream {
        /// Where the stream begins.
        offset: u64,
        /// The bytes; not verified.
        stream: BoxStream<'static, Result<Bytes, SourceError>>,
    },
}

/// Where manifests and blobs come from.
pub trait Source: Send + Sync {
    /// The manifest or index of `reference`, which has been verified if the reference has a digest.
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<FetchedManifest, SourceError>>;

    /// A blob of the repository of `reference`, from `offset` on.
    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        offset: u64,
    ) -> BoxFuture<'a, Result<BlobBody, SourceError>>;
}

/// Finds the digest and media type that a name stands for.
pub type Lookup = Arc<dyn Fn(&Reference) -> Option<(Digest, String)> + Send + Sync>;

/// Images that are in a blob store of this machine: no HTTP, no copies.
#[derive(Clone)]
pub struct StoreSource {
    store: BlobStore,
    lookup: Lookup,
}

impl StoreSource {
    /// Over `store`; `lookup` says which manifest a reference (by tag or digest) names, and `None`
    /// if that repository has no such manifest.
    pub fn new(store: BlobStore, lookup: Lookup) -> Self {
        StoreSource { store, lookup }
    }
}

impl Source for StoreSource {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<FetchedManifest, SourceError>> {
        Box::pin(async move {
            let unknown = || SourceError::ManifestUnknown { reference: reference.to_string() };
            let (digest, media_type) = (self.lookup)(reference).ok_or_else(unknown)?;
            let bytes = match self.store.read(&digest, MAX_MANIFEST_BYTES).await {
                Err(BlobError::NotFound(_)) => return Err(unknown()),
                read => read?,
            };
            Ok(FetchedManifest { digest, media_type, bytes })
        })
    }

    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        _offset: u64, // the whole file is at hand
    ) -> BoxFuture<'a, Result<BlobBody, SourceError>> {
        Box::pin(async move {
            match self.store.get(&blob.digest).await {
                Ok(found) => Ok(BlobBody::File(found)),
                Err(BlobError::NotFound(digest)) => {
                    let repository = reference.name();
                    Err(SourceError::BlobUnknown { repository, digest })
                }
                Err(failed) => Err(failed.into()),
            }
        })
    }
}

/// An error for a connection to `host`, told apart by what lies beneath.
pub(crate) fn connection_error(host: &str, failed: reqwest::Error) -> SourceError {
    let host = host.to_string();
    if failed.is_timeout() {
        return SourceError::Timeout { host };
    }
    let (mut refused, mut unresolved, mut tls) = (false, false, false);
    let mut cause: Option<&(dyn Error + 'static)> = Some(&failed);
    while let Some(error) = cause {
        unresolved |= error.is::<crate::registry::Unresolved>();
        tls |= error.is::<rustls::Error>();
        if let Some(error) = error.downcast_ref::<io::Error>() {
            refused |= error.kind() == io::ErrorKind::ConnectionRefused;
            tls |= error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        }
        cause = error.source();
    }
    let source = Box::new(failed.without_url());
    match (unresolved, refused, tls) {
        (true, ..) => SourceError::NameNotResolved { host, source },
        (_, true, _) => SourceError::ConnectionRefused { host, source },
        (.., true) => SourceError::Tls { host, source },
        _ => SourceError::Connection { host, source },
    }
}
