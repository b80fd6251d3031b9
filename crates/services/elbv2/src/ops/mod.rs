//! Handlers: authorise, validate, commit, answer.

mod action;
mod attribute;
mod condition;
mod find;
mod health_check;
pub(crate) mod listener;
pub(crate) mod listener_certificate;
mod listing;
pub(crate) mod load_balancer;
pub(crate) mod load_balancer_attribute;
pub(crate) mod rule;
mod split;
pub(crate) mod ssl_policy;
pub(crate) mod tag;
pub(crate) mod target;
pub(crate) mod target_group;
pub(crate) mod target_group_attribute;

/// Whether a listener sends to the target group.
pub(crate) fn is_used(snapshot: &store::Snapshot, realm: &str, group_arn: &str) -> bool {
    find::uses(snapshot, realm).contains_key(group_arn)
}
