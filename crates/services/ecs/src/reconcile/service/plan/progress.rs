//! How a service deployment begins, fails, goes back and ends.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>

use super::Round;
use crate::{
    api::{DeploymentAlarms, DeploymentRolloutState, ServiceDeploymentStatus},
    model::{Deployment, LastStatus, RevisionInPlay, Rollback, ServiceDeployment},
};

/// Why a service deployment went back.
const BY_BREAKER: &str =
    "Service deployment rolled back because the circuit breaker threshold was exceeded.";
const BY_ALARM: &str =
    "Service deployment rolled back because a CloudWatch alarm was in the ALARM state.";
const BY_REQUEST: &str = "Service deployment rolled back because it was requested.";

impl Round<'_> {
    /// The service deployment that is under way.
    pub(super) fn ongoing(&self) -> Option<&ServiceDeployment> {
        self.plan.ongoing.as_ref().filter(|ongoing| ongoing.is_ongoing())
    }

    /// The same, to change it.
    pub(super) fn change_ongoing(&mut self, change: impl FnOnce(&mut ServiceDeployment)) {
        if let Some(ongoing) = self.plan.ongoing.as_mut().filter(|ongoing| ongoing.is_ongoing()) {
            change(ongoing);
            ongoing.updated_at = self.now;
        }
    }

    /// Begins what was made, and goes back where that was asked for.
    pub(super) fn begin(&mut self) {
        let now = self.now;
        match self.ongoing().map(|ongoing| ongoing.status) {
            Some(ServiceDeploymentStatus::Pending) => {
                self.change_ongoing(|ongoing| {
                    ongoing.status = ServiceDeploymentStatus::InProgress;
                    ongoing.started_at = Some(now);
                });
                // What is wrong before may be what is to be mended.
                let on = !self.alarms.on.is_empty();
                self.change_ongoing(|ongoing| ongoing.alarms.passed_over = on);
                // The one before may have left it anywhere.
                if self.is_reconciling() {
                    self.return_traffic();
                }
            }
            Some(ServiceDeploymentStatus::RollbackRequested) => {
                let reason = self.ongoing().and_then(|ongoing| ongoing.reason.clone());
                self.roll_back(&reason.unwrap_or_else(|| BY_REQUEST.to_owned()), "");
            }
            _ => {}
        }
    }

    /// The circuit breaker: too many failures in a row fail the deployment, and bring the last good one back.
    pub(super) fn break_circuit(&mut self) {
        let service = &mut self.plan.service;
        let threshold = service.breaker_threshold();
        let breaker = service.configuration.deployment_circuit_breaker.clone();
        let Some(primary) = service.deployments.first_mut() else { return };
        let failures = primary.failed_tasks;
        let seen = self
            .plan
            .ongoing
            .as_mut()
            .filter(|ongoing| ongoing.is_ongoing() && ongoing.target.deployment == primary.id);
        if let Some(ongoing) = seen {
            (ongoing.breaker.failures, ongoing.breaker.threshold) = (failures, threshold);
        }
        let Some(breaker) = breaker.filter(|breaker| breaker.enable) else { return };
        if failures < threshold || primary.rollout != DeploymentRolloutState::InProgress {
            return;
        }
        primary.rollout = DeploymentRolloutState::Failed;
        primary.reason = "ECS deployment circuit breaker: tasks failed to start.".to_owned();
        primary.updated_at = self.now;
        let what = "deployment failed: tasks failed to start.";
        self.plan.events.push(format!("(deployment {}) {what}", primary.id));
        self.change_ongoing(|ongoing| ongoing.breaker.triggered = true);
        // Traffic is never left between two revisions of which one cannot run.
        match breaker.rollback || self.is_shifting() {
            true => self.roll_back(BY_BREAKER, " circuit breaker:"),
            false => self.stop_ongoing("The circuit breaker threshold was exceeded."),
        }
    }

    /// Alarms that go on fail the deployment, and bring the last good one back.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html>
    pub(super) fn heed_alarms(&mut self) {
        let on = self.alarms.on.clone();
        let Some(alarms) = self.watched().filter(|_| !on.is_empty()) else { return };
        let rolls_back = alarms.rollback || self.is_shifting();
        let Some(primary) = self.plan.service.deployments.first_mut() else { return };
        primary.rollout = DeploymentRolloutState::Failed;
        primary.reason = "ECS deployment failed: alarm detected.".to_owned();
        primary.updated_at = self.now;
        let what = "deployment failed: alarm detected.";
        self.plan.events.push(format!("(deployment {}) {what}", primary.id));
        self.change_ongoing(|ongoing| ongoing.alarms.triggered = on);
        match rolls_back {
            true => self.roll_back(BY_ALARM, ""),
            false => self.stop_ongoing("A CloudWatch alarm was in the ALARM state."),
        }
    }

    /// The alarms that the deployment heeds now.
    fn watched(&self) -> Option<&DeploymentAlarms> {
        let ongoing = self.ongoing().filter(|ongoing| !ongoing.is_going_back())?;
        ongoing.alarms().filter(|_| !ongoing.alarms.passed_over)
    }

    /// Whether alarms have had the time to see what is in place now. Strategies that shift traffic have a time of
    /// their own for that.
    pub(super) fn has_baked(&mut self) -> bool {
        if self.watched().is_none() || self.is_shifting() {
            return true;
        }
        let (now, takes) = (self.now, (self.scaled)(self.alarms.takes));
        let since = self.ongoing().and_then(|ongoing| ongoing.alarms.bakes);
        if since.is_none() {
            self.change_ongoing(|ongoing| ongoing.alarms.bakes = Some(now));
        }
        let over = since.unwrap_or(now) + takes;
        if now < over {
            self.wake(Some(over));
        }
        now >= over
    }

    /// Brings the revision back that was in place, if there was one. `by` says in the rollout's reason who did.
    pub(super) fn roll_back(&mut self, reason: &str, by: &str) {
        let now = self.now;
        if self.ongoing().is_some_and(|o| o.status == ServiceDeploymentStatus::RollbackInProgress) {
            return self.end(ServiceDeploymentStatus::RollbackFailed, Some(reason));
        }
        let shifting = self.is_shifting();
        let source = self.ongoing().and_then(ServiceDeployment::source).map(str::to_owned);
        let deployments = &mut self.plan.service.deployments;
        let is_back = |d: &Deployment| match shifting {
            true => Some(&d.id) == source.as_ref(),
            false => d.rollout == DeploymentRolloutState::Completed,
        };
        let Some(last) = deployments.iter().position(is_back).filter(|last| *last > 0) else {
            return self.stop_ongoing(reason);
        };
        let given_up = &mut deployments[0];
        if given_up.rollout != DeploymentRolloutState::Failed {
            given_up.rollout = DeploymentRolloutState::Failed;
            (given_up.reason, given_up.updated_at) = (reason.to_owned(), now);
        }
        let mut back = deployments.remove(last);
        let id = back.id.clone();
        back.rollout = DeploymentRolloutState::InProgress;
        back.reason = format!("ECS deployment{by} rolling back to deploymentId {id}.");
        back.updated_at = now;
        self.plan.events.push(format!("rolling back to deployment {id}."));
        deployments.insert(0, back);
        self.change_ongoing(|ongoing| {
            ongoing.status = ServiceDeploymentStatus::RollbackInProgress;
            ongoing.reason = Some(reason.to_owned());
            ongoing.rollback =
                Some(Rollback { reason: reason.to_owned(), started_at: now, to: id });
        });
        self.return_traffic();
    }

    /// Ends what is under way as it is; nothing is brought back.
    pub(super) fn stop_ongoing(&mut self, reason: &str) {
        if let Some(primary) = self.plan.service.deployments.first_mut() {
            primary.rollout = DeploymentRolloutState::Failed;
        }
        let now = self.now;
        self.change_ongoing(|ongoing| ongoing.stopped_at = Some(now));
        self.end(ServiceDeploymentStatus::Stopped, Some(reason));
    }

    /// All is as it is wanted.
    pub(super) fn succeed(&mut self) {
        match self.ongoing().is_some_and(ServiceDeployment::is_going_back) {
            true => self.end(ServiceDeploymentStatus::RollbackSuccessful, None),
            false => self.end(ServiceDeploymentStatus::Successful, None),
        }
    }

    fn end(&mut self, status: ServiceDeploymentStatus, reason: Option<&str>) {
        let (now, tasks) = (self.now, self.tasks);
        self.change_ongoing(|ongoing| {
            ongoing.status = status;
            ongoing.finished_at = Some(now);
            ongoing.reason = reason.map(str::to_owned).or(ongoing.reason.take());
            let count = |revision: &mut RevisionInPlay| {
                let own = tasks.iter().filter(|task| {
                    !task.stopping && task.started_by.as_ref() == Some(&revision.deployment)
                });
                let (mut running, mut pending) = (0, 0);
                own.for_each(|task| match task.last_status {
                    LastStatus::Running => running += 1,
                    status if status < LastStatus::Running => pending += 1,
                    _ => {}
                });
                (revision.running, revision.pending) = (running, pending);
            };
            count(&mut ongoing.target);
            ongoing.sources.iter_mut().for_each(count);
        });
        self.plan.service.ongoing = None;
    }
}
