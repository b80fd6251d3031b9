//! The data plane with real connections.
#![allow(clippy::disallowed_methods)]

mod accounts;
mod bytes;
mod harness;
mod hostile;
mod http2;
mod traffic;
