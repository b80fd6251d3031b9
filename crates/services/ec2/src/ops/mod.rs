//! Handlers, one file per resource.

pub(crate) mod address;
pub(crate) mod availability_zone;
mod filter;
pub(crate) mod internet_gateway;
mod listing;
pub(crate) mod nat_gateway;
pub(crate) mod network_interface;
pub(crate) mod route;
pub(crate) mod route_table;
pub(crate) mod security_group;
pub(crate) mod security_group_rule;
pub(crate) mod subnet;
pub(crate) mod tag;
pub(crate) mod volume;
pub(crate) mod vpc;
pub(crate) mod vpc_endpoint;
