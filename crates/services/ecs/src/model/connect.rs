//! Service Connect: what a service is called by others, and whom its tasks can call.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-connect.html>

use crate::api::ServiceConnectConfiguration;
use network::Cidr;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A service's part in a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// The Cloud Map namespace's id.
    pub namespace: String,
    /// What others can call. None for a service that only calls.
    pub endpoints: Vec<Endpoint>,
    /// As it was asked for.
    pub asked: ServiceConnectConfiguration,
}

/// A port of a service's tasks, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name in the namespace.
    pub discovery_name: String,
    /// The id of the Cloud Map service of that name.
    pub service: String,
    /// The tasks' port.
    pub port: u16,
    /// Whether HTTP is spoken on it: then each request goes to a task of its own.
    pub http: bool,
    /// Whether that is HTTP/2, gRPC included.
    #[serde(default)]
    pub http2: bool,
    /// A connection on which nothing is sent for so long is closed.
    pub idle_seconds: Option<i32>,
    /// What clients call.
    pub aliases: Vec<Alias>,
    /// Tells its address inside tasks from others' in the namespace; from 1.
    pub number: u16,
}

/// What clients call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// A name, in lower case.
    pub name: String,
    /// A port.
    pub port: u16,
}

impl Endpoint {
    /// Where it is called inside tasks: an address of the task's own, as on AWS.
    pub fn address(&self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(127, 255, high, low)
    }

    /// Where all such addresses are.
    pub fn block() -> Cidr {
        Cidr::new(Ipv4Addr::new(127, 255, 0, 0), 16)
    }
}
