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

use crate::{
    model::{LoadBalancer, TargetGroup},
    reconcile::group_id,
};
use std::sync::Arc;
use store::Snapshot;

/// Whether a listener sends to the target group.
pub(crate) fn is_used(snapshot: &Snapshot, realm: &str, group_arn: &str) -> bool {
    find::uses(snapshot, realm).contains_key(group_arn)
}

/// The target groups that a load balancer sends to.
pub(crate) fn groups_of(snapshot: &Snapshot, balancer: &LoadBalancer) -> Vec<Arc<TargetGroup>> {
    let uses = find::uses(snapshot, &balancer.realm);
    let own = uses.iter().filter(|(_, balancers)| balancers.contains(&balancer.id));
    let key = |arn: &str| format!("{}/{}", balancer.realm, group_id(arn));
    own.filter_map(|(arn, _)| snapshot.get::<TargetGroup>(&key(arn))).collect()
}
