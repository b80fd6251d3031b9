//! The durable records of Certificate Manager.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::{Record, Sealed};
use world::Timestamp;

/// A certificate.
#[derive(Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// `account/region`.
    pub realm: String,
    /// A UUID.
    pub id: String,
    /// PEM.
    pub body: String,
    /// Those that vouch for it, PEM.
    pub chain: Option<String>,
    /// Its private key, PEM, sealed for the id.
    pub key: Sealed,
    /// The name that it is for first of all.
    pub domain: String,
    /// All names that it is for, in lower case.
    pub names: Vec<String>,
    /// Hexadecimal digits with colons.
    pub serial: String,
    /// Who it is.
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// Not before.
    pub not_before: Timestamp,
    /// Not after.
    pub not_after: Timestamp,
    /// `RSA_2048`, `EC_prime256v1` and the like.
    pub key_algorithm: String,
    /// `SHA256WITHRSA` and the like.
    pub signature_algorithm: String,
    /// When it was imported or issued, the last time.
    pub imported: Timestamp,
    /// When it was imported or issued, the first time.
    pub created: Timestamp,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// How it was asked for; none when it was imported.
    #[serde(default)]
    pub request: Option<Request>,
}

/// RequestCertificate.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// The client's token, which makes the same request twice one certificate for an hour.
    pub token: Option<String>,
    /// By DNS; else by mail.
    pub by_dns: bool,
    /// The first label of the name in DNS that would prove whose the domain is.
    pub proof_name: String,
    /// The first label of what that name would have to lead to.
    pub proof_value: String,
}

/// The authority that issues certificates on this machine. There is one.
#[derive(Clone, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM, sealed for [`Authority::KEY`].
    pub key: Sealed,
}

impl Authority {
    /// The record's key.
    pub const KEY: &'static str = "authority";
}

impl Record for Authority {
    const TABLE: &'static str = "acm.authority";
    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

impl Certificate {
    /// The record's key.
    pub fn key_of(realm: &str, id: &str) -> String {
        format!("{realm}/{id}")
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        format!("arn:aws:acm:{region}:{account}:certificate/{}", self.id)
    }
}

impl Record for Certificate {
    const TABLE: &'static str = "acm.certificate";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.id)
    }
}
