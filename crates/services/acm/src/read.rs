//! What a client imports, read and checked.
//! <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-prerequisites.html>

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use world::Timestamp;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::*, prelude::FromDer,
    public_key::PublicKey,
};

/// Why something cannot be imported. In AWS's words where they are known.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    #[error(
        "The certificate field contains more than one certificate. You can specify only one certificate in this field."
    )]
    Several,
    #[error("Could not parse certificate.")]
    Certificate,
    #[error("Could not parse certificate chain.")]
    Chain,
    #[error("The private key is not supported.")]
    Key,
    #[error("The private key does not match the public key in the certificate.")]
    Mismatch,
    #[error("The certificate chain is not valid: it does not begin with the certificate's issuer.")]
    Order,
    #[error("The certificate has expired, or is not yet valid.")]
    Time,
    #[error("The certificate names no domain.")]
    Nameless,
    #[error("The key algorithm of the certificate is not supported.")]
    Algorithm,
}

/// What is known of a certificate.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) domain: String,
    pub(crate) names: Vec<String>,
    pub(crate) serial: String,
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) key_algorithm: String,
    pub(crate) signature_algorithm: String,
}

fn all(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()
}

/// Reads a certificate, its key and what vouches for it, and checks that they belong together.
pub(crate) fn read(
    body: &[u8],
    key: &[u8],
    chain: Option<&[u8]>,
    now: Timestamp,
) -> Result<Known, Malformed> {
    let mut bodies = all(body).ok_or(Malformed::Certificate)?;
    let own = bodies.pop().ok_or(Malformed::Certificate)?;
    if !bodies.is_empty() {
        return Err(Malformed::Several);
    }
    let chain = match chain {
        Some(chain) => {
            let chain = all(chain).ok_or(Malformed::Chain)?;
            if chain.is_empty() {
                return Err(Malformed::Chain);
            }
            chain
        }
        None => Vec::new(),
    };
    let (_, parsed) = X509Certificate::from_der(&own).map_err(|_| Malformed::Certificate)?;
    if let Some(first) = chain.first() {
        let (_, issuer) = X509Certificate::from_der(first).map_err(|_| Malformed::Chain)?;
        if issuer.subject().as_raw() != parsed.issuer().as_raw() {
            return Err(Malformed::Order);
        }
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Malformed::Key)?;
    let signing = ring::sign::any_supported_type(&key).map_err(|_| Malformed::Key)?;
    CertifiedKey::new(vec![own.clone()], signing).keys_match().map_err(|_| Malformed::Mismatch)?;
    let known = known(&parsed)?;
    match known.not_before <= now && now < known.not_after {
        true => Ok(known),
        false => Err(Malformed::Time),
    }
}

fn known(parsed: &X509Certificate) -> Result<Known, Malformed> {
    let common = parsed.subject().iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok()).map(str::to_lowercase);
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let alternative = alternative.into_iter().flat_map(|names| names.value.general_names.iter());
    let mut names: Vec<String> = Vec::new();
    for name in alternative {
        match name {
            GeneralName::DNSName(name) if !names.contains(&name.to_lowercase()) => {
                names.push(name.to_lowercase());
            }
            _ => {}
        }
    }
    let domain = common.or_else(|| names.first().cloned()).ok_or(Malformed::Nameless)?;
    if names.is_empty() {
        names.push(domain.clone());
    }
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp() * 1000);
    let serial: Vec<String> =
        parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Known {
        domain,
        names,
        serial: serial.join(":"),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
        key_algorithm: key_algorithm(parsed).ok_or(Malformed::Algorithm)?.to_owned(),
        signature_algorithm: signature_algorithm(parsed).to_owned(),
    })
}

fn key_algorithm(parsed: &X509Certificate) -> Option<&'static str> {
    let key = parsed.public_key();
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => match rsa.key_size() {
            1024 => Some("RSA_1024"),
            2048 => Some("RSA_2048"),
            3072 => Some("RSA_3072"),
            4096 => Some("RSA_4096"),
            _ => None,
        },
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            match curve {
                oid if oid == OID_EC_P256 => Some("EC_prime256v1"),
                oid if oid == OID_NIST_EC_P384 => Some("EC_secp384r1"),
                oid if oid == OID_NIST_EC_P521 => Some("EC_secp521r1"),
                _ => None,
            }
        }
        _ => None,
    }
}

fn signature_algorithm(parsed: &X509Certificate) -> &'static str {
    let oid = &parsed.signature_algorithm.algorithm;
    [
        (OID_PKCS1_SHA256WITHRSA, "SHA256WITHRSA"),
        (OID_PKCS1_SHA384WITHRSA, "SHA384WITHRSA"),
        (OID_PKCS1_SHA512WITHRSA, "SHA512WITHRSA"),
        (OID_PKCS1_SHA1WITHRSA, "SHA1WITHRSA"),
        (OID_SIG_ECDSA_WITH_SHA256, "SHA256WITHECDSA"),
        (OID_SIG_ECDSA_WITH_SHA384, "SHA384WITHECDSA"),
        (OID_SIG_ECDSA_WITH_SHA512, "SHA512WITHECDSA"),
    ]
    .into_iter()
    .find(|(known, _)| known == oid)
    .map_or("UNKNOWN", |(_, name)| name)
}
