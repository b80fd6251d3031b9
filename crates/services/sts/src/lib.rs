//! Security Token Service: who am I, and sessions of roles and users. It keeps no records: sessions are sealed into
//! their tokens by [`iam`].

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
mod ops;

use iam::Iam;
use std::sync::Arc;

/// The service's state.
pub struct Sts {
    iam: Arc<Iam>,
}

impl Sts {
    /// The service over `iam`.
    pub fn new(iam: Arc<Iam>) -> Arc<Self> {
        Arc::new(Self { iam })
    }
}
