//! The order of a task's life as a pure machine: events and the time go in, actions come out. It
//! starts containers in the order of their dependencies, judges health checks, restarts, and stops
//! everything in reverse order. Whoever applies the actions (the shim) holds no rules, and whoever
//! reads the rules meets no I/O.
//!
//! The rules are those of ECS: task definition parameters `dependsOn`, `essential`, `healthCheck`,
//! `restartPolicy`, `startTimeout` and `stopTimeout`.

mod unit;

#[cfg(test)]
mod tests;

use crate::{
    journal::{EventKind, Exit, Health, StartFailure, StopReason},
    spec::{Condition, TaskSpec},
};
use unit::{Phase, Readiness, Unit};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// The sandbox is ready and the network plugged in: begin.
    Start,
    /// A container's command runs.
    Started {
        /// Which.
        container: usize,
        /// Its process on the host.
        pid: i32,
    },
    /// A container could not be started.
    StartFailed {
        /// Which.
        container: usize,
        /// Why not.
        failure: StartFailure,
    },
    /// A container's command ended.
    Exited {
        /// Which.
        container: usize,
        /// How.
        exit: Exit,
    },
    /// A health check ended.
    Probed {
        /// Whose.
        container: usize,
        /// Whether it passed, in time.
        passed: bool,
    },
    /// The task is to stop.
    Stop {
        /// Why.
        reason: StopReason,
    },
    /// The task is to stop without grace.
    Kill {
        /// Why, should it not be stopping already.
        reason: StopReason,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Set a container up and run its command.
    Launch {
        /// Which.
        container: usize,
    },
    /// Send a signal to its first process.
    Signal {
        /// Which.
        container: usize,
        /// The signal's number.
        signal: i32,
    },
    /// Kill all its processes.
    Kill {
        /// Which.
        container: usize,
    },
    /// Run its health check once.
    Probe {
        /// Whose.
        container: usize,
    },
    /// Write this down.
    Record(EventKind),
    /// Everything has ended and is written down.
    Finish,
}

/// The machine. Times are milliseconds of a clock that never goes back.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    units: Vec<Unit>,
    begun: bool,
    stopping: Option<StopReason>,
    hard: bool,
    finished: bool,
}

impl Lifecycle {
    /// The machine of a task whose spec is valid.
    pub(crate) fn new(spec: &TaskSpec) -> Self {
        let index = |name: &str| {
            let found = spec.containers.iter().position(|c| c.name == name);
            found.expect("a valid spec names its own containers")
        };
        let unit = |container| Unit::new(container, &index);
        let units = spec.containers.iter().map(unit).collect();
        Self { units, begun: false, stopping: None, hard: false, finished: false }
    }

    /// Whether every container has ended and the task with them.
    #[cfg(test)]
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// When [`Input::Tick`] is due at the latest.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let own = self.units.iter().filter_map(Unit::deadline);
        let waiting = self.units.iter().filter(|u| matches!(u.phase, Phase::Waiting));
        let starts = waiting.flat_map(|u| &u.depends_on).filter_map(|(other, condition)| {
            let other = &self.units[*other];
            (*condition != Condition::Start).then(|| other.start_deadline())?
        });
        let starts = starts.filter(|_| self.begun && self.stopping.is_none());
        own.chain(starts).min()
    }

    /// Takes one event into account.
    pub(crate) fn step(&mut self, input: Input, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.finished {
            return actions;
        }
        match input {
            Input::Start => self.begun = true,
            Input::Started { container, pid } => self.started(container, pid, now, &mut actions),
            Input::StartFailed { container, failure } => {
                if self.units.get(container).is_some_and(|u| matches!(u.phase, Phase::Launching)) {
                    self.fail(container, failure, &mut actions);
                }
            }
            Input::Exited { container, exit } => self.exited(container, exit, now, &mut actions),
            Input::Probed { container, passed } => {
                if let Some(health) =
                    self.units.get_mut(container).and_then(|u| u.probed(passed, now))
                {
                    let container = self.units[container].name.clone();
                    actions.push(Action::Record(EventKind::ContainerHealth { container, health }));
                }
            }
            Input::Stop { reason } => self.begin_stop(reason, &mut actions),
            Input::Kill { reason } => self.kill(reason, &mut actions),
            Input::Tick => {}
        }
        self.launch_ready(now, &mut actions);
        self.stop_ready(now, &mut actions);
        self.run_timers(now, &mut actions);
        self.finish(&mut actions);
        actions
    }

    fn started(&mut self, container: usize, pid: i32, now: u64, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(container) else { return };
        if !matches!(unit.phase, Phase::Launching) {
            return;
        }
        unit.started(now);
        let (name, restarts) = (unit.name.clone(), unit.restarts);
        let kind = EventKind::ContainerStarted { container: name, pid, restarts };
        actions.push(Action::Record(kind));
        if self.hard {
            unit.kill();
            actions.push(Action::Kill { container });
        }
    }

    fn exited(&mut self, container: usize, exit: Exit, now: u64, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(container) else { return };
        let Phase::Running { since, .. } = unit.phase else { return };
        let restarting = self.stopping.is_none() && unit.restarts_after(exit, now - since.min(now));
        unit.exited(exit, restarting);
        let name = unit.name.clone();
        let essential = unit.essential;
        actions.push(Action::Record(EventKind::ContainerExited {
            container: name.clone(),
            exit,
            restarting,
        }));
        if restarting {
            actions.push(Action::Launch { container });
        } else if essential && self.stopping.is_none() {
            let reason = StopReason::EssentialContainerExited { container: name };
            self.begin_stop(reason, actions);
        }
    }

    fn fail(&mut self, container: usize, failure: StartFailure, actions: &mut Vec<Action>) {
        let unit = &mut self.units[container];
        unit.phase = Phase::Failed;
        let (name, essential) = (unit.name.clone(), unit.essential);
        let container = name.clone();
        actions.push(Action::Record(EventKind::ContainerFailed { container, failure }));
        if essential && self.stopping.is_none() {
            self.begin_stop(StopReason::ContainerFailedToStart { container: name }, actions);
        }
    }

    fn begin_stop(&mut self, reason: StopReason, actions: &mut Vec<Action>) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(reason.clone());
        actions.push(Action::Record(EventKind::TaskStopping { reason }));
        for container in 0..self.units.len() {
            if matches!(self.units[container].phase, Phase::Waiting) {
                self.fail(container, StartFailure::Stopped, actions);
            }
        }
    }

    fn kill(&mut self, reason: StopReason, actions: &mut Vec<Action>) {
        self.begin_stop(reason, actions);
        self.hard = true;
        for (container, unit) in self.units.iter_mut().enumerate() {
            if unit.kill() {
                actions.push(Action::Kill { container });
            }
        }
    }

    /// Launches what waits for nothing any more and fails what waits in vain, until neither is
    /// left.
    fn launch_ready(&mut self, now: u64, actions: &mut Vec<Action>) {
        let mut changed = self.begun;
        while changed && self.stopping.is_none() {
            changed = false;
            for container in 0..self.units.len() {
                if !matches!(self.units[container].phase, Phase::Waiting) {
                    continue;
                }
                match self.readiness(container, now) {
                    Readiness::Waiting => continue,
                    Readiness::Ready => {
                        self.units[container].phase = Phase::Launching;
                        let name = self.units[container].name.clone();
                        let kind = EventKind::ContainerCreated { container: name };
                        actions.extend([Action::Record(kind), Action::Launch { container }]);
                    }
                    Readiness::Never(failure) => self.fail(container, failure, actions),
                }
                changed = true;
            }
        }
    }

    fn readiness(&self, container: usize, now: u64) -> Readiness {
        let mut whole = Readiness::Ready;
        for (other, condition) in &self.units[container].depends_on {
            match self.units[*other].reached(*condition, now) {
                Readiness::Ready => {}
                Readiness::Waiting => whole = Readiness::Waiting,
                never => return never,
            }
        }
        whole
    }

    /// Signals what runs and is needed by nothing that has not ended.
    fn stop_ready(&mut self, now: u64, actions: &mut Vec<Action>) {
        if self.stopping.is_none() {
            return;
        }
        for container in 0..self.units.len() {
            let needs = |u: &Unit| u.depends_on.iter().any(|(other, _)| *other == container);
            if self.units.iter().any(|u| !u.has_ended() && needs(u)) {
                continue;
            }
            if let Some(signal) = self.units[container].begin_stop(now) {
                actions.push(Action::Signal { container, signal });
            }
        }
    }

    fn run_timers(&mut self, now: u64, actions: &mut Vec<Action>) {
        let stopping = self.stopping.is_some();
        for (container, unit) in self.units.iter_mut().enumerate() {
            if unit.kill_is_due(now) && unit.kill() {
                actions.push(Action::Kill { container });
            }
            if !stopping && unit.begin_probe(now) {
                actions.push(Action::Probe { container });
            }
        }
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        let over = self.begun || self.stopping.is_some();
        if over && self.units.iter().all(Unit::has_ended) {
            self.finished = true;
            let reason = self.stopping.clone().unwrap_or(StopReason::AllContainersExited);
            actions.extend([Action::Record(EventKind::TaskStopped { reason }), Action::Finish]);
        }
    }

    /// The health that was last recorded of `container`.
    #[cfg(test)]
    pub(crate) fn health(&self, container: usize) -> Health {
        self.units[container].health
    }
}

/// Health as it is judged, for the record.
pub(crate) type Judged = Option<Health>;
