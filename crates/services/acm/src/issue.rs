//! Certificates that are issued here, by an authority that this machine makes when it is first needed. Clients that
//! are to trust them are given its certificate, which GetCertificate tells as the chain.
//!
//! Keys are of P-256: RSA keys cannot be made with ring, and every client since 2012 knows these.

use crate::{Acm, model::Authority};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use std::time::Duration;
use thiserror::Error;
use time::OffsetDateTime;
use world::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a certificate is good.
/// <https://docs.aws.amazon.com/acm/latest/userguide/acm-certificate-characteristics.html>
pub(crate) const VALID: Duration = Duration::from_secs(395 * 86_400);
/// A certificate that ends within this time is issued anew, as on AWS.
pub(crate) const RENEWED: Duration = Duration::from_secs(60 * 86_400);
const AUTHORITY_VALID: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Why nothing was issued.
#[derive(Debug, Error)]
pub(crate) enum IssueError {
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("the authority's key cannot be unsealed")]
    Seal(#[from] store::SealError),
    #[error("the authority's key is not text")]
    Key(#[from] std::string::FromUtf8Error),
    #[error("the time is out of a certificate's range")]
    Time(#[from] time::error::ComponentRange),
}

/// A certificate with its key, PEM. No `Debug`: it holds a private key.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority that vouches for itself.
pub(crate) fn authority(now: Timestamp) -> Result<Issued, IssueError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("Neargate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, AUTHORITY_VALID)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Issued { certificate, key: key.serialize_pem() })
}

/// A certificate for `names`, the first of which is its subject.
pub(crate) fn issue(
    acm: &Acm,
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<Issued, IssueError> {
    let key = String::from_utf8(acm.sealer.open(Authority::KEY, &authority.key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&key)?)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = name(&names[0]);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = validity(now, VALID)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Issued { certificate, key: key.serialize_pem() })
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From a day ago, for clients whose clocks are late.
fn validity(
    now: Timestamp,
    long: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
    let seconds = |time: Timestamp| OffsetDateTime::from_unix_timestamp(time.millis() / 1000);
    let day = i64::try_from(DAY.as_millis()).expect("a day in ms fits");
    Ok((seconds(Timestamp::from_millis(now.millis() - day))?, seconds(now + long)?))
}
