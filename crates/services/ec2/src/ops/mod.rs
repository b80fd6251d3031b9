//! Handlers: authorise, validate, commit, answer.

pub(crate) mod availability_zone;
mod filter;
mod listing;
pub(crate) mod network_interface;
pub(crate) mod security_group;
pub(crate) mod security_group_rule;
pub(crate) mod subnet;
pub(crate) mod vpc;
