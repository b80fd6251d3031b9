//! What can go wrong, a variant per step.

use std::path::PathBuf;

/// Why the network is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file of our own could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A namespace could not be made, entered or pinned.
    #[error("cannot {step} the network namespace {}", path.display())]
    Namespace {
        /// What was tried.
        step: &'static str,
        /// Where the namespace is pinned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The thread of a namespace could not be started, or is gone.
    #[error("the thread of the network namespace {} is gone", path.display())]
    Thread {
        /// Where the namespace is pinned.
        path: PathBuf,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("the kernel refused to {step} {name}")]
    Netlink {
        /// What was tried.
        step: &'static str,
        /// On what.
        name: String,
        /// The cause.
        #[source]
        source: rtnetlink::Error,
    },
    /// A link that was just made is not there.
    #[error("there is no link {name}")]
    NoLink {
        /// The link's name.
        name: String,
    },
    /// A socket could not be opened inside a VPC.
    #[error("cannot open a socket on {address}")]
    Socket {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The `iptables` program could not be run.
    #[error("cannot run iptables")]
    Iptables(#[source] std::io::Error),
    /// nft could not be run.
    #[error("cannot run nft (install nftables)")]
    Nft(#[source] std::io::Error),
    /// nft refused our rules.
    #[error("nft refused the rules: {message}")]
    Rules {
        /// What it said.
        message: String,
    },
    /// tc could not be run.
    #[error("cannot run tc (install iproute2)")]
    Tc(#[source] std::io::Error),
    /// The kernel does not delay packets.
    #[error("packets cannot be delayed on this machine, whose kernel must have netem: {message}")]
    Traffic {
        /// What tc said.
        message: String,
    },
    /// The host's pool of public addresses overlaps with everything.
    #[error("no free block of public addresses is left in {pool}; choose another pool")]
    NoBlock {
        /// The pool.
        pool: String,
    },
    /// No such VPC was set up.
    #[error("the VPC {vpc} is not set up")]
    NoVpc {
        /// The VPC's id.
        vpc: String,
    },
}
