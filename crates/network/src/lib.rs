//! VPCs on Linux. It knows nothing of AWS's API, only of networks: what a VPC is made of here, and the packets.
//!
//! ```text
//!   host ──veth── up0 [ VPC: a network namespace ] e0123… ──veth── eth1 [ task: a network namespace ]
//! ```
//!
//! - A VPC is a network namespace, so its addresses may overlap those of other VPCs and of the host.
//! - Every interface of a task hangs on a veth of its own, and all packets are *routed* between them, also within one
//!   subnet: there is no bridge. So security groups are enforced in one place (nftables' forward hook, with connection
//!   tracking), between neighbours as between subnets, without the host's bridge filter; and nobody can take
//!   another's address. Neighbour entries are fixed on both sides, so nothing waits for ARP.
//! - The link-local services (name service, credentials, metadata) are addresses of the VPC's own loopback; whoever
//!   serves them opens its sockets inside ([`Network::listen`], [`Network::bind`]).
//! - A public address is one of a pool that only this host knows. It is routed to the VPC and translated there.
//!
//! Everything here is idempotent: after a restart the caller says again what should be, and what is there is kept.

mod cidr;
mod docker;
mod error;
mod firewall;
mod host;
mod inside;
mod links;
mod namespace;
mod vpc;

pub use cidr::Cidr;
pub use error::NetworkError;
pub use firewall::{Group, Peer, Ports, Rule};
pub use host::Leak;
pub use inside::{BlackHole, Faults, Latency, Loss, Protocol, Proxy, block};
pub use vpc::{Attachment, Network, NetworkConfig, VpcSpec};

/// The address of the name service in every VPC.
pub const NAME_SERVICE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 253);
/// The address of credentials and metadata in every VPC.
pub const TASK_SERVICE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 170, 2);
/// The address of the registry in every VPC, to which the names that it has on AWS lead.
pub const REGISTRY_SERVICE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 170, 3);
