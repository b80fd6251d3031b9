//! One container of the machine.

use super::Judged;
use crate::{
    journal::{Exit, Health, StartFailure},
    spec::{Condition, ContainerSpec, HealthCheck, RestartPolicy},
};

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// For its dependencies.
    Waiting,
    /// Being set up, for the first time or again.
    Launching,
    /// Its command runs.
    Running {
        /// Since when.
        since: u64,
        /// How far stopping it has come.
        stop: Stop,
    },
    /// Its command ended, for good.
    Exited(Exit),
    /// It was not started, and never will be.
    Failed,
}

/// How far stopping a running container has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stop {
    Not,
    Signalled { kill_at: u64 },
    Killed,
}

/// Whether a condition is met.
pub(super) enum Readiness {
    Ready,
    Waiting,
    Never(StartFailure),
}

#[derive(Debug)]
struct Prober {
    check: HealthCheck,
    failures: u32,
    passed: bool,
    running: bool,
    next_at: u64,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) essential: bool,
    pub(super) depends_on: Vec<(usize, Condition)>,
    pub(super) phase: Phase,
    pub(super) restarts: u32,
    pub(super) health: Health,
    first_start: Option<u64>,
    start_timeout: Option<u64>,
    stop_timeout: u64,
    stop_signal: i32,
    restart: Option<RestartPolicy>,
    prober: Option<Prober>,
}

impl Unit {
    pub(super) fn new(spec: &ContainerSpec, index: &impl Fn(&str) -> usize) -> Self {
        let depends_on =
            spec.depends_on.iter().map(|d| (index(&d.container), d.condition)).collect();
        let prober = |check: &HealthCheck| Prober {
            check: check.clone(),
            failures: 0,
            passed: false,
            running: false,
            next_at: 0,
        };
        Self {
            name: spec.name.clone(),
            essential: spec.essential,
            depends_on,
            phase: Phase::Waiting,
            restarts: 0,
            health: Health::Unknown,
            first_start: None,
            start_timeout: spec.start_timeout_ms,
            stop_timeout: spec.stop_timeout_ms,
            stop_signal: spec.stop_signal,
            restart: spec.restart.clone(),
            prober: spec.health.as_ref().map(prober),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Exited(_) | Phase::Failed)
    }

    pub(super) fn started(&mut self, now: u64) {
        self.phase = Phase::Running { since: now, stop: Stop::Not };
        self.first_start.get_or_insert(now);
        if let Some(prober) = &mut self.prober {
            (prober.failures, prober.passed, prober.running) = (0, false, false);
            prober.next_at = now.saturating_add(prober.check.interval_ms);
        }
    }

    pub(super) fn restarts_after(&self, exit: Exit, ran_ms: u64) -> bool {
        self.restart.as_ref().is_some_and(|policy| {
            ran_ms >= policy.attempt_period_ms && !policy.ignored_exit_codes.contains(&exit.code)
        })
    }

    pub(super) fn exited(&mut self, exit: Exit, restarting: bool) {
        self.phase = if restarting { Phase::Launching } else { Phase::Exited(exit) };
        self.restarts += u32::from(restarting);
        if restarting {
            self.health = Health::Unknown;
        }
    }

    /// By when dependants give up on it.
    pub(super) fn start_deadline(&self) -> Option<u64> {
        Some(self.first_start?.saturating_add(self.start_timeout?))
    }

    pub(super) fn reached(&self, condition: Condition, now: u64) -> Readiness {
        let never = |message: &str| {
            let (dependency, message) = (self.name.clone(), message.to_owned());
            Readiness::Never(StartFailure::Dependency { dependency, message })
        };
        match (condition, &self.phase) {
            (_, Phase::Failed) => return never("could not be started"),
            (Condition::Start, _) if self.first_start.is_some() => return Readiness::Ready,
            (Condition::Complete, Phase::Exited(_)) => return Readiness::Ready,
            (Condition::Success, Phase::Exited(exit)) if exit.code == 0 => {
                return Readiness::Ready;
            }
            (Condition::Success, Phase::Exited(_)) => return never("did not exit with code 0"),
            (Condition::Healthy, Phase::Running { .. }) if self.health == Health::Healthy => {
                return Readiness::Ready;
            }
            (Condition::Healthy, Phase::Exited(_)) => return never("ended before it was healthy"),
            _ => {}
        }
        let late = self.start_deadline().is_some_and(|deadline| now >= deadline);
        match late && condition != Condition::Start {
            true => never("did not reach its condition within its start timeout"),
            false => Readiness::Waiting,
        }
    }

    /// The stop signal, when it runs and was not sent one.
    pub(super) fn begin_stop(&mut self, now: u64) -> Option<i32> {
        match &mut self.phase {
            Phase::Running { stop: stop @ Stop::Not, .. } => {
                *stop = Stop::Signalled { kill_at: now.saturating_add(self.stop_timeout) };
                Some(self.stop_signal)
            }
            _ => None,
        }
    }

    pub(super) fn kill_is_due(&self, now: u64) -> bool {
        match self.phase {
            Phase::Running { stop: Stop::Signalled { kill_at }, .. } => now >= kill_at,
            _ => false,
        }
    }

    /// Whether it runs and was not killed yet.
    pub(super) fn kill(&mut self) -> bool {
        match &mut self.phase {
            Phase::Running { stop, .. } if *stop != Stop::Killed => {
                *stop = Stop::Killed;
                true
            }
            _ => false,
        }
    }

    pub(super) fn begin_probe(&mut self, now: u64) -> bool {
        let running = matches!(self.phase, Phase::Running { stop: Stop::Not, .. });
        let Some(prober) = self.prober.as_mut().filter(|_| running) else { return false };
        let due = !prober.running && now >= prober.next_at;
        prober.running |= due;
        due
    }

    /// Judges a check that ended; answers with the health when it changed.
    pub(super) fn probed(&mut self, passed: bool, now: u64) -> Judged {
        let Phase::Running { since, .. } = self.phase else { return None };
        let prober = self.prober.as_mut().filter(|p| p.running)?;
        prober.running = false;
        prober.next_at = now.saturating_add(prober.check.interval_ms);
        let health = if passed {
            (prober.failures, prober.passed) = (0, true);
            Health::Healthy
        } else {
            // Within the start period failures do not count, unless a check has passed already.
            let grace = !prober.passed && now - since.min(now) < prober.check.start_period_ms;
            prober.failures = prober.failures.saturating_add(u32::from(!grace));
            match prober.failures >= prober.check.retries {
                true => Health::Unhealthy,
                false => self.health,
            }
        };
        let changed = health != self.health;
        self.health = health;
        changed.then_some(health)
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Running { stop: Stop::Signalled { kill_at }, .. } => Some(kill_at),
            Phase::Running { stop: Stop::Not, .. } => {
                self.prober.as_ref().filter(|p| !p.running).map(|p| p.next_at)
            }
            _ => None,
        }
    }
}
