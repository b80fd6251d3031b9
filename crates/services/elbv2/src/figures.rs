//! What passed through load balancers and to target groups: what scaling by requests goes by, and what people see.

use crate::{
    ElbV2,
    api::LoadBalancerTypeEnum,
    model::{LoadBalancer, Target, TargetGroup},
    ops::groups_of,
    plane::{self, BalancerFigures, GroupFigures},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use store::Snapshot;

/// What the data plane said last, and how many requests there were before it began.
#[derive(Default)]
pub(crate) struct Figures(Mutex<Known>);

#[derive(Default)]
struct Known {
    last: plane::Figures,
    /// Requests to groups, of data planes that are gone.
    before: HashMap<String, u64>,
}

impl Figures {
    /// Takes note of what the data plane says.
    pub(crate) fn hear(&self, said: plane::Figures) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { last, before } = &mut *known;
        for (id, then) in &last.groups {
            let now = said.groups.get(id).map_or(0, |group| group.requests);
            if now < then.requests {
                *before.entry(id.clone()).or_default() += then.requests;
            }
        }
        *last = said;
    }

    /// Requests to a group: they only ever grow while this process lives, also when the data plane starts anew.
    fn requests(&self, group: &str) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.last.groups.get(group).map_or(0, |group| group.requests);
        known.before.get(group).copied().unwrap_or(0) + last
    }

    pub(crate) fn of_balancer(&self, id: &str) -> BalancerFigures {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.last.balancers.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn of_group(&self, id: &str) -> GroupFigures {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.last.groups.get(id).cloned().unwrap_or_default()
    }
}

/// A load balancer and what passed through it so far.
pub struct Measured {
    /// `account/region`.
    pub realm: String,
    /// `app/NAME/ID`, or `net/NAME/ID`.
    pub path: String,
    /// Whether it is an Application Load Balancer, not a Network Load Balancer.
    pub application: bool,
    /// What passed through it.
    pub figures: BalancerFigures,
    /// The target groups that it sends to.
    pub groups: Vec<MeasuredGroup>,
}

/// A target group and what was sent to it so far.
pub struct MeasuredGroup {
    /// `targetgroup/NAME/ID`.
    pub path: String,
    /// What was sent to it.
    pub figures: GroupFigures,
    /// How many of its targets are well.
    pub healthy: usize,
    /// How many are not.
    pub unhealthy: usize,
}

impl ElbV2 {
    /// What passed through all load balancers so far. Counts begin anew with the data plane.
    pub fn measured(&self) -> Vec<Measured> {
        let snapshot = self.store.read();
        let measured = |balancer: Arc<LoadBalancer>| {
            let groups = groups_of(&snapshot, &balancer);
            Measured {
                realm: balancer.realm.clone(),
                path: balancer.path(),
                application: balancer.kind == LoadBalancerTypeEnum::Application,
                figures: self.figures.of_balancer(&balancer.id),
                groups: groups.iter().map(|group| self.measured_group(&snapshot, group)).collect(),
            }
        };
        snapshot.scan::<LoadBalancer>().map(measured).collect()
    }

    fn measured_group(&self, snapshot: &Snapshot, group: &TargetGroup) -> MeasuredGroup {
        let (mut healthy, mut unhealthy) = (0, 0);
        for target in snapshot.scan_prefix::<Target>(&format!("{}/{}/", group.realm, group.id)) {
            let heard = self.health(&group.id, target.ip, target.port);
            match heard.map(|heard| heard.state).filter(|_| target.draining_since.is_none()) {
                Some("healthy") => healthy += 1,
                Some("unhealthy") => unhealthy += 1,
                _ => {}
            }
        }
        MeasuredGroup {
            path: format!("targetgroup/{}/{}", group.name, group.id),
            figures: self.figures.of_group(&group.id),
            healthy,
            unhealthy,
        }
    }

    /// How many requests went to a target group so far, and how many of its targets are well. `label` names it
    /// with a load balancer that sends to it, as CloudWatch's dimensions do: `app/NAME/ID/targetgroup/NAME/ID`.
    /// None when it does not.
    pub fn request_count(&self, realm: &str, label: &str) -> Option<(u64, u32)> {
        let (balancer, group) = label.split_once("/targetgroup/")?;
        let (name, id) = group.split_once('/')?;
        let snapshot = self.store.read();
        let group = snapshot.get::<TargetGroup>(&format!("{realm}/{id}"))?;
        let mut own = snapshot.scan_prefix::<LoadBalancer>(&format!("{realm}/"));
        let sends = own.any(|known| known.path() == balancer);
        if group.name != name || !sends || !self.is_used(realm, &group.arn()) {
            return None;
        }
        let prefix = format!("{realm}/{id}/");
        let healthy = |target: &std::sync::Arc<Target>| {
            let heard = self.health(id, target.ip, target.port);
            target.draining_since.is_none() && heard.is_some_and(|heard| heard.state == "healthy")
        };
        let healthy = snapshot.scan_prefix::<Target>(&prefix).filter(healthy).count();
        Some((self.figures.requests(id), u32::try_from(healthy).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow() {
        let figures = Figures::default();
        for (said, expected) in [(5, 5), (8, 8), (0, 8), (3, 11), (3, 11), (1, 12)] {
            let group = GroupFigures { requests: said, ..GroupFigures::default() };
            let groups = [("g".to_owned(), group)].into();
            figures.hear(plane::Figures { groups, ..plane::Figures::default() });
            assert_eq!(figures.requests("g"), expected);
        }
    }
}
