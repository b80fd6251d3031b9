//! Handlers: authorise, validate, commit, answer.

pub(crate) mod access_key;
pub(crate) mod attachment;
mod holder;
pub(crate) mod inline_policy;
pub(crate) mod instance_profile;
mod listing;
pub(crate) mod policy;
pub(crate) mod role;
pub(crate) mod service_specific_credential;
pub(crate) mod user;
