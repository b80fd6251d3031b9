//! Handlers: authorise, validate, commit, answer.

pub(crate) mod account_setting;
pub(crate) mod answer;
pub(crate) mod capacity_provider;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod deployment;
mod listing;
mod named;
pub(crate) mod service;
pub(crate) mod service_deployment;
pub(crate) mod tag;
pub(crate) mod task;
pub(crate) mod task_definition;
pub(crate) mod task_protection;
pub(crate) mod task_set;
pub(crate) mod volumes;
