//! TLS towards clients, with certificates by the name that a client asks for; and towards targets.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html>

use crate::config::{Certificate, Tls, Version};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, ProtocolVersion, ServerConfig,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::{
    fmt, io,
    net::SocketAddrV4,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsConnector, client, server::TlsStream};

/// How long a client may take to agree.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener's certificates, ready to be served.
pub(crate) struct Secured {
    config: Arc<ServerConfig>,
    names: Vec<String>,
    certificates: Arc<ByName>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("names", &self.names).finish_non_exhaustive()
    }
}

struct ByName(Vec<Known>);

/// A certificate, the names that it is for, and what logs call it.
struct Known {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    label: String,
}

impl ByName {
    /// The certificate for the name that a client asks for, in lower case.
    fn find(&self, asked: Option<&str>) -> Option<&Known> {
        let named = asked.and_then(|asked| {
            // A name that is there in full goes before a wildcard.
            let exact = self.0.iter().find(|known| known.names.iter().any(|name| name == asked));
            let wild = |known: &&Known| known.names.iter().any(|name| fits(name, asked));
            exact.or_else(|| self.0.iter().find(wild))
        });
        named.or(self.0.first())
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|known| &known.names)).finish()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        self.find(asked.as_deref()).map(|known| known.key.clone())
    }
}

/// Whether a certificate's name is for a host; `*.` stands for one label.
fn fits(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => {
            host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && tail == rest)
        }
        None => name == host,
    }
}

fn certified(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes());
    let key = key.map_err(|error| error.to_string())?;
    let signing = ring::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(chain, signing))
}

impl Secured {
    /// Reads certificates and keys. The error is for people, and holds nothing of them.
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        let mut keys = Vec::new();
        for certificate in &tls.certificates {
            keys.push(Known {
                names: certificate.names.clone(),
                key: Arc::new(certified(certificate)?),
                label: certificate.label.clone(),
            });
        }
        let names = keys.iter().flat_map(|known| known.names.clone()).collect();
        let certificates = Arc::new(ByName(keys));
        let versions: &[_] = if tls.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        let mut config = config;
        config.alpn_protocols =
            tls.protocols.iter().map(|name| name.clone().into_bytes()).collect();
        // Clients that come back bring what they agreed on: it need not be kept here, however many they are.
        config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), names, certificates })
    }

    /// Whether one of its certificates is for this host.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| fits(name, host))
    }
}

/// What a client and this agreed on.
pub(crate) struct Agreed {
    /// The name that the client asked for; empty when it asked for none.
    pub(crate) domain: String,
    /// What logs call the certificate.
    pub(crate) certificate: String,
    /// In the names of OpenSSL.
    pub(crate) cipher: &'static str,
    pub(crate) protocol: &'static str,
}

impl Agreed {
    pub(crate) fn new(
        secured: &Secured,
        asked: Option<String>,
        stream: &TlsStream<TcpStream>,
    ) -> Self {
        let known = secured.certificates.find(asked.as_deref());
        let connection = stream.get_ref().1;
        Self {
            certificate: known.map_or_else(String::new, |known| known.label.clone()),
            domain: asked.unwrap_or_default(),
            cipher: connection.negotiated_cipher_suite().map_or("-", |suite| cipher(suite.suite())),
            protocol: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "-",
            },
        }
    }
}

fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        _ => "-",
    }
}

/// What a client said first, and who is to answer it.
pub(crate) struct Hello(StartHandshake<TcpStream>);

impl Hello {
    /// Reads a client's first words.
    pub(crate) async fn read(stream: TcpStream) -> io::Result<Self> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        match tokio::time::timeout(PATIENCE, acceptor).await {
            Ok(start) => start.map(Self),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The host that the client asks for, in lower case.
    pub(crate) fn host(&self) -> Option<String> {
        self.0.client_hello().server_name().map(str::to_ascii_lowercase)
    }

    /// Agrees with the client.
    pub(crate) async fn agree(self, secured: &Secured) -> io::Result<TlsStream<TcpStream>> {
        let agreed = self.0.into_stream(secured.config.clone());
        match tokio::time::timeout(PATIENCE, agreed).await {
            Ok(stream) => stream,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Takes targets' certificates as they are: self-signed and expired ones are good, as on AWS.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-target-groups.html>
#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

fn towards_targets(version: Version) -> io::Result<Arc<ClientConfig>> {
    static KNOWN: [OnceLock<Arc<ClientConfig>>; 2] = [OnceLock::new(), OnceLock::new()];
    let http2 = version != Version::Http1;
    let known = &KNOWN[usize::from(http2)];
    if let Some(config) = known.get() {
        return Ok(config.clone());
    }
    let provider = ring::default_provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(schemes)))
        .with_no_client_auth();
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(known.get_or_init(|| Arc::new(config)).clone())
}

/// Agrees with a target.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: SocketAddrV4,
    version: Version,
) -> io::Result<client::TlsStream<S>> {
    let connector = TlsConnector::from(towards_targets(version)?);
    let name = ServerName::IpAddress((*target.ip()).into());
    connector.connect(name, stream).await
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_one_label() {
        assert!(fits("a.example", "a.example") && fits("*.example", "a.example"));
        assert!(!fits("*.example", "a.b.example") && !fits("*.example", "example"));
        assert!(!fits("*.example", ".example") && !fits("a.example", "b.example"));
    }
}
