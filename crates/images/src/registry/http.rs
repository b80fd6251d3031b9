//! HTTP and TLS beneath the registry client.

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Two clients: one that trusts only the system's authorities, one that trusts anybody.
pub(super) struct Clients {
    pub(super) strict: reqwest::Client,
    pub(super) trusting: reqwest::Client,
}

impl Clients {
    pub(super) fn new() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for failed in &system.errors {
            tracing::warn!(error = %failed, "some certificate authorities cannot be loaded");
        }
        // Authorities that rustls cannot read sign nothing that it could verify.
        roots.add_parsable_certificates(system.certs);
        let versions = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        };
        let strict = versions().with_root_certificates(roots).with_no_client_auth();
        let anybody = Arc::new(Anybody(provider.clone()));
        let trusting =
            versions().dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
        Clients { strict: client(strict), trusting: client(trusting) }
    }
}

/// A client for other places, like those for registries: it follows no redirects. `strict`: it trusts only the system's
/// authorities, and nobody else.
pub fn outside(strict: bool) -> reqwest::Client {
    let Clients { strict: careful, trusting } = Clients::new();
    if strict { careful } else { trusting }
}

fn client(tls: ClientConfig) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(Names))
        // Redirects are followed by hand, to keep credentials from strangers.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .user_agent(concat!("neargate/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("a client of constant settings")
}

/// A host's name does not resolve. Its own type, to be found in a chain of causes.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
pub(crate) struct Unresolved(#[source] io::Error);

struct Names;

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let addresses: Vec<SocketAddr> = found.map_err(Unresolved)?.collect();
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Accepts every certificate, for registries that are configured as insecure.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
