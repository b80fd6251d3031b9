//! The durable records of CodeConnections.

use crate::api::ProviderType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::Record;

/// A connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// `account/region`.
    pub realm: String,
    /// `arn:aws:codeconnections:REGION:ACCOUNT:connection/ID`.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Whose host it leads to.
    pub provider: ProviderType,
    /// The ARN of the host, where it is not the provider's own.
    pub host: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Record for Connection {
    const TABLE: &'static str = "codeconnections.connection";
    fn key(&self) -> String {
        self.arn.clone()
    }
}

/// A host of one's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// `account/region`.
    pub realm: String,
    /// `arn:aws:codeconnections:REGION:ACCOUNT:host/NAME/ID`.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// What it runs.
    pub provider: ProviderType,
    /// The URL that its repositories' paths go behind.
    pub endpoint: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Record for Host {
    const TABLE: &'static str = "codeconnections.host";
    fn key(&self) -> String {
        self.arn.clone()
    }
}
