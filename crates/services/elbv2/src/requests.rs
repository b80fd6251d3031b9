//! How many requests went to target groups: what scaling by requests goes by.

use crate::{
    ElbV2,
    model::{LoadBalancer, Target, TargetGroup},
};
use balancer::Report;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Requests by target group id. They only ever grow while this process lives, also when the data plane starts anew.
#[derive(Default)]
pub(crate) struct Requests(Mutex<HashMap<String, Count>>);

#[derive(Clone, Copy, Default)]
struct Count {
    /// Of data planes that are gone.
    before: u64,
    /// What the present one said last.
    last: u64,
}

impl Requests {
    /// Takes note of a report.
    pub(crate) fn hear(&self, report: &Report) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, now) in &report.requests {
            let count = counts.entry(group.clone()).or_default();
            if *now < count.last {
                count.before += count.last;
            }
            count.last = *now;
        }
    }

    fn of(&self, group: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(group).map_or(0, |count| count.before + count.last)
    }
}

impl ElbV2 {
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
        Some((self.requests.of(id), u32::try_from(healthy).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow() {
        let requests = Requests::default();
        for (said, expected) in [(5, 5), (8, 8), (0, 8), (3, 11), (3, 11), (1, 12)] {
            let report = Report { requests: [("g".to_owned(), said)].into(), ..Report::default() };
            requests.hear(&report);
            assert_eq!(requests.of("g"), expected);
        }
    }
}
