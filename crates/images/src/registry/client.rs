//! Asking registries: the pulling half of the OCI distribution specification, with Docker's token
//! authentication <https://distribution.github.io/distribution/spec/auth/token/>.

use super::answer::{expect, header_text, transient, words};
use super::challenge::{self, Challenge};
use super::http::Clients;
use super::token::{Token, basic};
use super::{Credentials, CredentialsFor, Endpoint, Registries};
use crate::manifest::{ACCEPT, Descriptor, MAX_MANIFEST_BYTES};
use crate::source::{BlobBody, FetchedManifest, Source, SourceError, connection_error};
use crate::{Digest, Reference};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture};
use reqwest::{Response, StatusCode, Url, header};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use world::{Timestamp, World};

const MAX_REDIRECTS: usize = 6;
/// For a whole manifest or token, however slowly it drips.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Registries, asked over HTTP. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct RegistrySource {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) world: World,
    registries: Registries,
    credentials: CredentialsFor,
    /// Made when first needed: the system's certificate authorities take time and memory.
    clients: OnceLock<Clients>,
    /// The `Authorization` header that works for a host and repository, and when it ends.
    proofs: Mutex<HashMap<Place, Proof>>,
    /// The scheme an insecure host has been found to speak.
    schemes: Mutex<HashMap<String, &'static str>>,
    /// The endpoint that last gave a manifest of a name: its blobs are most likely there too.
    good: Mutex<HashMap<String, Endpoint>>,
}

/// A host and a repository.
type Place = (String, String);
/// A header's value, and when it ends.
type Proof = (String, Option<Timestamp>);

/// What a request is for.
struct Request<'a> {
    endpoint: &'a Endpoint,
    /// After `/v2/<repository>`.
    path: String,
    accept: &'static str,
    offset: u64,
}

impl RegistrySource {
    /// Asks where `registries` says, with what `credentials` gives.
    pub fn new(world: &World, registries: Registries, credentials: CredentialsFor) -> Self {
        let inner = Inner {
            world: world.clone(),
            registries,
            credentials,
            clients: OnceLock::new(),
            proofs: Mutex::default(),
            schemes: Mutex::default(),
            good: Mutex::default(),
        };
        RegistrySource { inner: Arc::new(inner) }
    }

    /// The HTTP client for a host; an insecure one may have any certificate.
    pub(super) fn client(&self, insecure: bool) -> &reqwest::Client {
        let clients = self.inner.clients.get_or_init(Clients::new);
        if insecure { &clients.trusting } else { &clients.strict }
    }

    async fn manifest_from(&self, endpoint: &Endpoint) -> Result<FetchedManifest, SourceError> {
        let reference = &endpoint.reference;
        let path = format!("/manifests/{}", reference.selector());
        let request = Request { endpoint, path, accept: ACCEPT, offset: 0 };
        let response = self.send(&request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(SourceError::ManifestUnknown { reference: reference.to_string() });
        }
        let response = expect(response, reference, &[StatusCode::OK]).await?;
        let media_type = header_text(&response, header::CONTENT_TYPE).unwrap_or_default();
        let host = reference.registry();
        let bytes = match self.body(response, host, MAX_MANIFEST_BYTES).await? {
            Some(bytes) => bytes,
            None => {
                let detail = format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes");
                return Err(SourceError::Protocol { host: host.into(), detail });
            }
        };
        let digest = match reference.digest() {
            Some(expected) => {
                let (expected, actual) = (expected.clone(), expected.alike(&bytes));
                if expected != actual {
                    return Err(SourceError::Digest { expected, actual });
                }
                actual
            }
            None => Digest::of(&bytes),
        };
        Ok(FetchedManifest { digest, media_type, bytes })
    }

    async fn blob_from(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<BlobBody, SourceError> {
        let reference = &endpoint.reference;
        let path = format!("/blobs/{}", blob.digest);
        let response = self.send(&Request { endpoint, path, accept: "*/*", offset }).await?;
        if response.status() == StatusCode::NOT_FOUND {
            let (repository, digest) = (reference.name(), blob.digest.clone());
            return Err(SourceError::BlobUnknown { repository, digest });
        }
        let good = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let response = expect(response, reference, &good).await?;
        let host = reference.registry().to_string();
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header_text(&response, header::CONTENT_RANGE).unwrap_or_default();
                let start = range.strip_prefix("bytes ").and_then(|r| r.split('-').next());
                let start = start.and_then(|start| start.parse().ok());
                if start != Some(offset) {
                    let detail = format!("asked from byte {offset} on, it sends range {range:?}");
                    return Err(SourceError::Protocol { host, detail });
                }
                offset
            }
            _ => 0,
        };
        let stream = response.bytes_stream();
        let stream = stream.map(move |piece| piece.map_err(|e| connection_error(&host, e)));
        Ok(BlobBody::Stream { offset: start, stream: stream.boxed() })
    }

    /// One request, with authentication if it is asked for, and with another try where that may
    /// help.
    async fn send(&self, request: &Request<'_>) -> Result<Response, SourceError> {
        let mut attempt = 0;
        loop {
            let failed = match self.attempt(request).await {
                Ok(response) => match transient(response, &request.endpoint.reference).await {
                    Ok(response) => return Ok(response),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            attempt += 1;
            if !failed.is_transient() || attempt == ATTEMPTS {
                return Err(failed);
            }
            let pause = pause(&self.inner.world, attempt, failed.retry_after());
            let host = request.endpoint.reference.registry();
            tracing::info!(host, error = %failed, ?pause, "will ask again");
            self.inner.world.sleep(pause).await;
        }
    }

    async fn attempt(&self, request: &Request<'_>) -> Result<Response, SourceError> {
        let reference = &request.endpoint.reference;
        let key = (reference.registry().to_string(), reference.repository().to_string());
        let known = self.proof(&key);
        let response = self.exchange(request, known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.lock(&self.inner.proofs).remove(&key);
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = headers.filter_map(|h| challenge::parse(h.to_str().ok()?));
        let refused =
            |detail: &str| SourceError::Unauthorised { host: key.0.clone(), detail: detail.into() };
        let challenge = challenges.max_by_key(|c| matches!(c, Challenge::Bearer { .. }));
        let challenge = challenge.ok_or_else(|| refused("it names no way that we know"))?;
        let credentials = (self.inner.credentials)(&key.0, &key.1);
        let (proof, until) = match challenge {
            Challenge::Basic => match credentials {
                Some(Credentials::Basic { user, password }) => (basic(&user, &password), None),
                Some(Credentials::IdentityToken(_)) => {
                    return Err(refused("it wants a user and password, but a token is configured"));
                }
                None => return Err(refused("no credentials are configured for it")),
            },
            Challenge::Bearer { realm, service, scope } => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", reference.repository()));
                let token = Token { realm, service, scope, credentials };
                let (token, life) = self.token(request.endpoint, token).await?;
                (format!("Bearer {token}"), Some(self.inner.world.now() + life))
            }
        };
        let response = self.exchange(request, Some(&proof)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let detail = words(response).await;
            return Err(SourceError::Unauthorised { host: key.0, detail });
        }
        let now = self.inner.world.now();
        let mut proofs = self.lock(&self.inner.proofs);
        proofs.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        proofs.insert(key, (proof, until));
        drop(proofs);
        Ok(response)
    }

    fn proof(&self, key: &Place) -> Option<String> {
        let now = self.inner.world.now();
        let mut proofs = self.lock(&self.inner.proofs);
        match proofs.get(key) {
            Some((_, Some(until))) if *until <= now => {
                proofs.remove(key);
                None
            }
            found => found.map(|(proof, _)| proof.clone()),
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().expect("no panic while held")
    }

    /// Sends it over the schemes that the endpoint allows, and follows redirects.
    async fn exchange(
        &self,
        request: &Request<'_>,
        proof: Option<&str>,
    ) -> Result<Response, SourceError> {
        let Endpoint { reference, insecure } = request.endpoint;
        // Like docker, we take it that nobody sits between us and ourselves.
        let insecure = *insecure || is_loopback(reference.registry());
        let host = physical_host(reference.registry());
        let known = self.lock(&self.inner.schemes).get(host).copied();
        let schemes: &[&'static str] = match (insecure, known) {
            (false, _) => &["https"],
            (true, Some("http")) => &["http"],
            (true, Some(_)) => &["https"],
            (true, None) => &["https", "http"],
        };
        let mut failed = None;
        for scheme in schemes {
            let url = format!("{scheme}://{host}/v2/{}{}", reference.repository(), request.path);
            let url = Url::parse(&url).map_err(|bad| SourceError::Protocol {
                host: host.into(),
                detail: format!("{url} is not a URL: {bad}"),
            })?;
            match self.follow(request, url, proof, insecure).await {
                Ok(response) => {
                    if insecure {
                        self.lock(&self.inner.schemes).insert(host.to_string(), scheme);
                    }
                    return Ok(response);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("there is at least one scheme"))
    }

    async fn follow(
        &self,
        request: &Request<'_>,
        start: Url,
        proof: Option<&str>,
        insecure: bool,
    ) -> Result<Response, SourceError> {
        let client = self.client(insecure);
        let mut url = start.clone();
        for _ in 0..MAX_REDIRECTS {
            let host = url.host_str().unwrap_or_default().to_string();
            let mut builder = client.get(url.clone()).header(header::ACCEPT, request.accept);
            if request.offset > 0 {
                builder = builder.header(header::RANGE, format!("bytes={}-", request.offset));
            }
            // What proves us to the registry is none of the business of where it sends us.
            if let Some(proof) = proof
                && url.origin() == start.origin()
            {
                builder = builder.header(header::AUTHORIZATION, proof);
            }
            let response = builder.send().await.map_err(|e| connection_error(&host, e))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let bad =
                |detail: &str| SourceError::Protocol { host: host.clone(), detail: detail.into() };
            let location = header_text(&response, header::LOCATION);
            let location = location.ok_or_else(|| bad("it redirects to nowhere"))?;
            let next = url.join(&location).map_err(|_| bad("it redirects to no URL"))?;
            let secure = next.scheme() == "https";
            if !(secure || insecure && next.scheme() == "http") {
                return Err(bad("it redirects from TLS to something else"));
            }
            url = next;
        }
        let (host, detail) =
            (start.host_str().unwrap_or_default().into(), "it redirects in circles");
        Err(SourceError::Protocol { host, detail: detail.into() })
    }

    /// A whole small body; `None` if it is larger than `limit` bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        host: &str,
        limit: usize,
    ) -> Result<Option<Bytes>, SourceError> {
        let read = async {
            let mut body = BytesMut::new();
            while let Some(piece) =
                response.chunk().await.map_err(|failed| connection_error(host, failed))?
            {
                if body.len() + piece.len() > limit {
                    return Ok(None);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Some(body.freeze()))
        };
        let late = SourceError::Timeout { host: host.to_string() };
        self.inner.world.timeout(ANSWER_TIMEOUT, read).await.unwrap_or(Err(late))
    }

    /// Endpoints for a name, the one that served it last before the others.
    fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, SourceError> {
        let mut endpoints = self.inner.registries.endpoints(reference)?;
        if let Some(good) = self.lock(&self.inner.good).get(&reference.name()) {
            let same = |e: &Endpoint| e.reference.name() == good.reference.name();
            if let Some(at) = endpoints.iter().position(same) {
                endpoints[..=at].rotate_right(1);
            }
        }
        Ok(endpoints)
    }
}

impl Source for RegistrySource {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<FetchedManifest, SourceError>> {
        Box::pin(async move {
            let mut failed = None;
            // A tag is asked for in the configured order each time, so that a mirror that was down
            // once is used again.
            for endpoint in self.inner.registries.endpoints(reference)? {
                match self.manifest_from(&endpoint).await {
                    Ok(manifest) => {
                        let mut good = self.lock(&self.inner.good);
                        good.insert(reference.name(), endpoint);
                        return Ok(manifest);
                    }
                    Err(error) => {
                        let image = endpoint.reference.to_string();
                        tracing::info!(
                            image,
                            error = &error as &dyn std::error::Error,
                            "not there"
                        );
                        failed = Some(error);
                    }
                }
            }
            Err(failed.expect("a name has at least one endpoint"))
        })
    }

    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        blob: &'a Descriptor,
        offset: u64,
    ) -> BoxFuture<'a, Result<BlobBody, SourceError>> {
        Box::pin(async move {
            let mut failed = None;
            for endpoint in self.endpoints(reference)? {
                match self.blob_from(&endpoint, blob, offset).await {
                    Ok(body) => return Ok(body),
                    Err(error) => failed = Some(error),
                }
            }
            Err(failed.expect("a name has at least one endpoint"))
        })
    }
}

/// How long to wait before attempt number `attempt` + 1: what the other side wants, or a random
/// part of a span that doubles each time, so that many clients do not come back together.
pub(crate) fn pause(world: &World, attempt: u32, wanted: Option<Duration>) -> Duration {
    let span = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    let mut random = [0];
    world.fill(&mut random);
    let backoff = span / 2 + span / 2 * u32::from(random[0]) / 255;
    wanted.map_or(backoff, |wanted| wanted.min(LONGEST_PAUSE).max(backoff))
}

/// The host that serves docker.io's images has another name.
fn physical_host(registry: &str) -> &str {
    match registry {
        crate::reference::DEFAULT_REGISTRY => "registry-1.docker.io",
        other => other,
    }
}

pub(super) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
