//! The pulling side of registries: which hosts to ask for a name ([`Registries`]), with which
//! credentials ([`AuthFiles`], [`CredentialsFor`]), and asking them ([`RegistrySource`]).
//!
//! The HTTP client is a small one over reqwest, with rustls and ring. The oci-client crate was
//! looked at: it has no retries, follows no `registries.conf`, does not bound manifests, and leaves
//! the verification of resumed downloads to its caller, so nearly all of this would stand around it
//! anyway.

mod answer;
mod auth;
mod challenge;
mod client;
mod conf;
mod http;
mod token;

pub use auth::{AuthFileError, AuthFiles, Credentials, CredentialsFor};
pub use client::RegistrySource;
pub(crate) use client::pause;
pub use conf::{ConfError, Endpoint, Registries};
pub(crate) use http::Unresolved;
pub use http::outside;
