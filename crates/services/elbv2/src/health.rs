//! What the data plane says of targets' health, and how AWS words it.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>

use balancer::{
    Report,
    config::{Cause, Health, TargetReport},
};
use std::{
    collections::HashMap,
    net::SocketAddrV4,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// A target's health as DescribeTargetHealth words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetHealth {
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining` or `unavailable`.
    pub state: &'static str,
    /// `Target.ResponseCodeMismatch` and the like; none when it is healthy.
    pub reason: Option<&'static str>,
    /// For people; none when it is healthy.
    pub description: Option<String>,
}

/// What was heard last, by target group id and address. Not durable: the data plane checks on, and tells again.
pub(crate) struct Healths {
    known: Mutex<HashMap<(String, SocketAddrV4), TargetHealth>>,
    changed: watch::Sender<()>,
}

impl Default for Healths {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Healths {
    /// What was heard of a target that is in use; none before the first word of it.
    pub(crate) fn of(&self, group: &str, target: SocketAddrV4) -> Option<TargetHealth> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(group.to_owned(), target)).cloned()
    }

    /// Takes note of a report.
    pub(crate) fn hear(&self, report: &Report) {
        let told = |target: &TargetReport| ((target.group.clone(), target.address), words(target));
        let new: HashMap<_, _> = report.targets.iter().map(told).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != new {
            *known = new;
            self.changed.send_replace(());
        }
    }

    /// Is told whenever some target's health is another.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn words(target: &TargetReport) -> TargetHealth {
    let state = match target.health {
        Health::Healthy => {
            return TargetHealth { state: "healthy", reason: None, description: None };
        }
        Health::Initial => {
            return TargetHealth {
                state: "initial",
                reason: Some("Elb.InitialHealthChecking"),
                description: Some("Initial health checks in progress".to_owned()),
            };
        }
        Health::Unhealthy => "unhealthy",
    };
    let (reason, description) = match &target.cause {
        Some(Cause::Status(status)) => (
            "Target.ResponseCodeMismatch",
            format!("Health checks failed with these codes: [{status}]"),
        ),
        Some(Cause::Timeout) => ("Target.Timeout", "Request timed out".to_owned()),
        // Well again, but not often enough yet.
        Some(Cause::Failed) | None => {
            ("Target.FailedHealthChecks", "Health checks failed".to_owned())
        }
    };
    TargetHealth { state, reason: Some(reason), description: Some(description) }
}
