//! Handlers: authorise, validate, commit, answer.

pub(crate) mod access_key;
pub(crate) mod attachment;
mod holder;
pub(crate) mod inline_policy;
mod listing;
pub(crate) mod policy;
pub(crate) mod role;
pub(crate) mod service_specific_credential;
pub(crate) mod user;
