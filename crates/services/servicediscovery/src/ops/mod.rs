//! Handlers: authorise, validate, commit, answer.

pub(crate) mod discovery;
mod find;
pub(crate) mod instance;
mod listing;
pub(crate) mod namespace;
pub(crate) mod operation;
pub(crate) mod service;
pub(crate) mod service_attribute;
pub(crate) mod tag;
