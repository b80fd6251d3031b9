//! The front door. Bytes from any client come in here and leave as typed operations; typed answers and
//! faults go out in the protocol that the client spoke. Nothing behind this crate sees a protocol.
//!
//! ```text
//! server  one hyper connection: limits, slow clients, request ids
//! front   which service, which operation; verify; decode; run; encode
//! sigv4   signatures and every way in which they can be wrong
//! protocol/*  awsJson, awsQuery, ec2Query, restJson, rpcv2Cbor <-> Value
//! shape   what codegen writes: shapes, constraints, marks, operations
//! validate    AWS's constraints in AWS's words
//! compressed  bodies that clients compress
//! ```
//!
//! Decoding is led by tables ([`Shape`]) that `cargo xtask codegen` makes from AWS's published models. One
//! walk per protocol turns bytes into a [`Value`] whose form is known to fit the table, and generated
//! code turns that into the operation's request struct; so adding a protocol touches no service, and
//! adding a service touches no protocol.

mod compressed;
mod context;
mod fault;
mod front;
mod page;
mod protocol;
mod server;
mod shape;
pub mod sigv4;
mod validate;
mod value;

pub use context::{
    Context, Credential, Decision, Denial, Identity, Principal, PrincipalKind, ResourcePolicy,
};
pub use fault::{Detail, Fault};
pub use front::{Front, Handler, RawHandler, Service, decode_for_fuzzing};
pub use page::{Page, PageError};
pub use protocol::Protocol;
pub use server::{Body, Limits, Peer, full_body, serve_connection};
pub use shape::{
    Constraint, Family, Kind, Location, Mark, Member, Operation, Pattern, ServiceSpec, Shape,
    TimeFormat,
};
pub use value::{Fields, FromValue, IntoValue, Value};
