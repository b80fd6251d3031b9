//! The data plane of load balancers: listeners, rules, target groups, health checks, draining. It knows
//! nothing of AWS's API, only of connections.
//!
//! It is a process of its own ([`run`]), so that it goes on when the control plane does not: that tells it over a unix
//! socket what should be ([`Config`], whole each time), and hears what is ([`Report`]). The last configuration
//! is on disk.
//!
//! ```text
//!   control plane ──Config──> process ──Table──> workers, one per core: accept, decide, pass on
//!                 <──Report──         <──health── one task per target
//! ```
//!
//! A worker is one thread, and a connection stays with it; there are no locks on a request's way, but an access log's
//! where one is wanted. Sockets are made in the network namespace of the load balancer's own interface, on both sides,
//! so that the firewall of its network holds.
//!
//! Time and tasks are tokio's own here: what can be simulated is decided by the control plane.
#![allow(clippy::disallowed_methods)]

pub mod access_log;
mod answer;
mod client;
pub mod config;
mod cookie;
mod exchange;
mod group;
mod hand_over;
mod health;
mod http;
mod matching;
mod meter;
mod pool;
mod process;
mod reply;
mod socket;
mod table;
mod tcp;
mod tls;
mod tunnel;
mod udp;
mod worker;

pub use client::{Connection, ConnectionError, Orders, Reports};
pub use config::{Config, Report};
pub use process::{ProcessError, build, run};

/// The word after the directory that makes a process take over from the one that runs there.
pub const TAKE_OVER: &str = "take-over";

/// The unix socket in the process's directory.
const SOCKET: &str = "control";
