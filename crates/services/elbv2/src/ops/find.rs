//! Records by ARN, in a transaction or out of one; and who uses which target group.

use super::action::forwarded;
use crate::{
    faults,
    model::{Listener, LoadBalancer, Rule, Tags, TargetGroup},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Record, View};
use wire::Fault;

/// What has an ARN and tags.
pub(super) trait Resource: Record + Clone {
    /// What stands before the name in its ARN.
    const KIND: &'static str;
    /// What AWS calls it in messages.
    const NAME: &'static str;
    /// Its ARN.
    fn own_arn(&self) -> String;
    /// Its tags.
    fn tags(&self) -> &Tags;
    /// Its tags, to change them.
    fn tags_mut(&mut self) -> &mut Tags;
    /// There is none.
    fn missing() -> Fault;
}

macro_rules! resource {
    ($type:ident, $kind:literal, $name:literal, $missing:ident) => {
        impl Resource for $type {
            const KIND: &'static str = $kind;
            const NAME: &'static str = $name;
            fn own_arn(&self) -> String {
                self.arn()
            }
            fn tags(&self) -> &Tags {
                &self.tags
            }
            fn tags_mut(&mut self) -> &mut Tags {
                &mut self.tags
            }
            fn missing() -> Fault {
                faults::$missing()
            }
        }
    };
}

resource!(LoadBalancer, "loadbalancer", "load balancer", no_balancer);
resource!(Listener, "listener", "listener", no_listener);
resource!(Rule, "listener-rule", "listener rule", no_rule);
resource!(TargetGroup, "targetgroup", "target group", no_target_group);

/// The kind of resource that an ARN names.
pub(super) fn kind_of(arn: &str) -> Option<&str> {
    let rest = arn.strip_prefix("arn:aws:elasticloadbalancing:")?;
    let (kind, _) = rest.splitn(3, ':').nth(2)?.split_once('/')?;
    Some(kind)
}

/// The parts of a name in an ARN of `kind`; what it is the ARN of, `what`, is for the fault.
fn parts<'a>(arn: &'a str, kind: &str, what: &str) -> Result<Vec<&'a str>, Fault> {
    match kind_of(arn) == Some(kind) {
        true => Ok(arn.split('/').skip(1).collect()),
        false => Err(faults::bad_arn(arn, what)),
    }
}

/// The record that an ARN names.
pub(super) fn find<T: Resource>(view: &impl View, realm: &str, arn: &str) -> Result<Arc<T>, Fault> {
    let id = parts(arn, T::KIND, T::NAME)?.pop().unwrap_or_default();
    let found = view.record::<T>(&format!("{realm}/{id}"));
    found.filter(|found| found.own_arn() == arn).ok_or_else(T::missing)
}

/// A rule, or the default one that a listener is itself.
pub(super) enum FoundRule {
    /// A rule of its own.
    Own(Arc<Rule>),
    /// The listener's default one.
    Default(Arc<Listener>),
}

/// The id of a listener's default rule: nothing else is known of it that could be kept.
pub(super) fn default_rule_arn(listener: &Listener) -> String {
    let id: String = listener.id.chars().rev().collect();
    let arn = listener.arn().replacen(":listener/", ":listener-rule/", 1);
    format!("{arn}/{id}")
}

/// The rule that an ARN names.
pub(super) fn find_rule(view: &impl View, realm: &str, arn: &str) -> Result<FoundRule, Fault> {
    if let Ok(rule) = find::<Rule>(view, realm, arn) {
        return Ok(FoundRule::Own(rule));
    }
    let parts = parts(arn, Rule::KIND, Rule::NAME)?;
    let listener = parts.iter().nth_back(1).copied().unwrap_or_default();
    let listener = view.record::<Listener>(&format!("{realm}/{listener}"));
    let listener = listener.filter(|listener| default_rule_arn(listener) == arn);
    listener.map(FoundRule::Default).ok_or_else(faults::no_rule)
}

/// The load balancer of a listener.
pub(super) fn balancer_of(
    view: &impl View,
    listener: &Listener,
) -> Result<Arc<LoadBalancer>, Fault> {
    let balancer = view.record(&format!("{}/{}", listener.realm, listener.balancer));
    balancer.ok_or_else(faults::no_balancer)
}

/// The rules of a listener, in the order of their priorities.
pub(super) fn rules_of(view: &impl View, listener: &Listener) -> Vec<Arc<Rule>> {
    let mut rules = view.records::<Rule>(&format!("{}/", listener.realm));
    rules.retain(|rule| rule.listener == listener.id);
    rules.sort_by_key(|rule| rule.priority);
    rules
}

/// The listeners of a load balancer.
pub(super) fn listeners_of(view: &impl View, balancer: &LoadBalancer) -> Vec<Arc<Listener>> {
    let mut listeners = view.records::<Listener>(&format!("{}/", balancer.realm));
    listeners.retain(|listener| listener.balancer == balancer.id);
    listeners
}

/// The ids of the load balancers that send to each target group, by the group's ARN.
pub(super) fn uses(view: &impl View, realm: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let prefix = format!("{realm}/");
    let mut balancers = BTreeMap::new();
    for listener in view.records::<Listener>(&prefix) {
        for group in forwarded(&listener.default_actions) {
            uses.entry(group.to_owned()).or_default().insert(listener.balancer.clone());
        }
        balancers.insert(listener.id.clone(), listener.balancer.clone());
    }
    for rule in view.records::<Rule>(&prefix) {
        let Some(balancer) = balancers.get(&rule.listener) else { continue };
        for group in forwarded(&rule.actions) {
            uses.entry(group.to_owned()).or_default().insert(balancer.clone());
        }
    }
    uses
}
