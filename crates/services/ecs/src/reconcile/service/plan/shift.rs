//! Strategies that shift traffic: the new revision is started beside the old one, in the target groups that the old one
//! is not in, and requests are sent to it at once (BLUE_GREEN), in equal steps (LINEAR), or a few first (CANARY).
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html>

use super::{Round, task::is_healthy};
use crate::{
    api::{
        DeploymentLifecycleHook, DeploymentLifecycleHookAction, DeploymentLifecycleHookStage,
        DeploymentLifecycleHookStatus, DeploymentStrategy, LoadBalancer,
        ServiceDeploymentLifecycleStage as Stage,
    },
    model::{Deployment, Hook, LastStatus, ServiceDeployment, Shift, WHOLE},
};
use std::time::Duration;

/// How long a hook waits when it does not say.
const HOOK_MINUTES: i32 = 1440;

/// How a listener's rule, or its default action, is to divide requests.
#[derive(Debug, PartialEq)]
pub(in crate::reconcile) struct Traffic {
    /// The rule's ARN, or the listener's.
    pub(in crate::reconcile) rule: String,
    /// Target groups' ARNs and weights.
    pub(in crate::reconcile) shares: Vec<(String, i32)>,
}

fn minutes(minutes: i32) -> Duration {
    Duration::from_secs(60 * u64::from(minutes.unsigned_abs()))
}

fn tenths(percent: f64) -> i32 {
    (percent * 10.0).round() as i32
}

fn after(stage: Stage) -> Option<Stage> {
    use Stage::*;
    Some(match stage {
        ReconcileService => PreScaleUp,
        PreScaleUp => ScaleUp,
        ScaleUp => PostScaleUp,
        PostScaleUp => TestTrafficShift,
        TestTrafficShift => PostTestTrafficShift,
        PostTestTrafficShift => ProductionTrafficShift,
        ProductionTrafficShift => PostProductionTrafficShift,
        PostProductionTrafficShift => BakeTime,
        BakeTime => CleanUp,
        CleanUp => return None,
    })
}

/// Whether a hook is for a stage. The time before production traffic is shifted is no stage of its own.
fn is_for(hook: &DeploymentLifecycleHook, stage: Stage) -> bool {
    use DeploymentLifecycleHookStage as At;
    let at = |at: &At| match at {
        At::ReconcileService => stage == Stage::ReconcileService,
        At::PreScaleUp => stage == Stage::PreScaleUp,
        At::PostScaleUp => stage == Stage::PostScaleUp,
        At::TestTrafficShift => stage == Stage::TestTrafficShift,
        At::PostTestTrafficShift | At::PreProductionTrafficShift => {
            stage == Stage::PostTestTrafficShift
        }
        At::ProductionTrafficShift => stage == Stage::ProductionTrafficShift,
        At::PostProductionTrafficShift => stage == Stage::PostProductionTrafficShift,
    };
    hook.lifecycle_stages.iter().flatten().any(at)
}

/// The target group of a load balancer that a deployment is not in.
fn other_group<'a>(balancer: &'a LoadBalancer, own: &str) -> Option<&'a str> {
    let advanced = balancer.advanced_configuration.as_ref()?;
    let pair = [&balancer.target_group_arn, &advanced.alternate_target_group_arn];
    pair.into_iter().flatten().map(String::as_str).find(|group| *group != own)
}

impl Round<'_> {
    /// Whether the deployment that is under way shifts traffic.
    pub(super) fn is_shifting(&self) -> bool {
        self.ongoing().is_some_and(|ongoing| ongoing.shift.is_some())
    }

    fn shift(&self) -> Option<(&ServiceDeployment, &Shift)> {
        let ongoing = self.ongoing().filter(|ongoing| !ongoing.is_going_back())?;
        Some((ongoing, ongoing.shift.as_ref()?))
    }

    /// Whether it has yet to bring the service back to one revision.
    pub(super) fn is_reconciling(&self) -> bool {
        self.shift().is_some_and(|(_, shift)| shift.stage == Stage::ReconcileService)
    }

    fn change_shift(&mut self, change: impl FnOnce(&mut Shift)) {
        self.change_ongoing(|ongoing| {
            if let Some(shift) = &mut ongoing.shift {
                change(shift);
            }
        });
    }

    /// How many tasks of a deployment are to run while traffic is shifted.
    pub(super) fn wanted(&self, deployment: &str) -> i32 {
        let Some(ongoing) = self.ongoing() else { return 0 };
        let stage = ongoing.shift.as_ref().map_or(Stage::CleanUp, |shift| shift.stage);
        let going_back = ongoing.is_going_back();
        let runs = match deployment {
            id if id == ongoing.target.deployment => !going_back && stage >= Stage::ScaleUp,
            id if Some(id) == ongoing.source() => going_back || stage < Stage::CleanUp,
            _ => false,
        };
        if runs { self.plan.service.desired_count } else { 0 }
    }

    /// Whether what is under way may end once its tasks are as they are wanted.
    pub(super) fn is_ripe(&self) -> bool {
        self.shift().is_none_or(|(_, shift)| shift.stage == Stage::CleanUp)
    }

    /// Goes on, as far as it goes now.
    pub(super) fn advance(&mut self) {
        while let Some((_, shift)) = self.shift() {
            let stage = shift.stage;
            if !self.is_let_on() || !self.work(stage) {
                return;
            }
            let (Some(next), now) = (after(stage), self.now) else { return };
            self.change_shift(|shift| (shift.stage, shift.since) = (next, now));
        }
    }

    /// What is to be done in a stage; answers whether it is.
    fn work(&mut self, stage: Stage) -> bool {
        match stage {
            Stage::ReconcileService => {
                let source = self.shift().and_then(|(ongoing, _)| ongoing.source());
                let other = |started_by: Option<&str>| started_by.is_some() && started_by != source;
                !self.tasks.iter().any(|task| {
                    other(task.started_by.as_deref()) && task.last_status != LastStatus::Stopped
                })
            }
            Stage::ScaleUp => self.is_target_well(),
            Stage::TestTrafficShift => {
                let well = self.is_target_well();
                let production = self.shift().map_or(0, |(_, shift)| shift.production);
                if well {
                    self.direct(WHOLE, production);
                }
                well
            }
            Stage::ProductionTrafficShift => self.step(),
            Stage::BakeTime => {
                let Some((ongoing, _)) = self.shift() else { return false };
                let bake = ongoing.configuration.bake_time_in_minutes.unwrap_or(0);
                // There is nothing to go back to when there was nothing before.
                ongoing.source().is_none() || self.has_waited(minutes(bake))
            }
            Stage::CleanUp => false,
            Stage::PreScaleUp
            | Stage::PostScaleUp
            | Stage::PostTestTrafficShift
            | Stage::PostProductionTrafficShift => true,
        }
    }

    /// Whether the target runs as many tasks as are wanted, and all are well.
    fn is_target_well(&self) -> bool {
        let Some((ongoing, _)) = self.shift() else { return false };
        let well = self.living(&ongoing.target.deployment).filter(|task| is_healthy(task)).count();
        i32::try_from(well).is_ok_and(|well| well >= self.plan.service.desired_count)
    }

    /// The next of the steps by which production traffic is shifted; answers whether all of it is.
    fn step(&mut self) -> bool {
        loop {
            let Some((ongoing, shift)) = self.shift() else { return false };
            // The defaults have been filled in.
            let (configuration, done) = (&ongoing.configuration, shift.production);
            let linear = configuration.linear_configuration.as_ref();
            let canary = configuration.canary_configuration.as_ref();
            let (next, bake) = match configuration.strategy {
                // Where nothing was before, nothing else could answer.
                _ if ongoing.source().is_none() => (WHOLE, 0),
                Some(DeploymentStrategy::Linear) => (
                    done + tenths(linear.and_then(|l| l.step_percent).unwrap_or(100.0)),
                    linear.and_then(|l| l.step_bake_time_in_minutes).unwrap_or(0),
                ),
                Some(DeploymentStrategy::Canary) if done == 0 => {
                    (tenths(canary.and_then(|c| c.canary_percent).unwrap_or(100.0)), 0)
                }
                Some(DeploymentStrategy::Canary) => {
                    (WHOLE, canary.and_then(|c| c.canary_bake_time_in_minutes).unwrap_or(0))
                }
                _ => (WHOLE, 0),
            };
            if done >= WHOLE {
                return true;
            }
            if done > 0 && !self.has_waited(minutes(bake)) || !self.is_let_on() {
                return false;
            }
            // Whatever happened since it was started: requests are sent only to what is well.
            if !self.is_target_well() {
                return false;
            }
            let (test, now) = (self.shift().map_or(0, |(_, shift)| shift.test), self.now);
            self.direct(test, next.min(WHOLE));
            self.change_shift(|shift| shift.since = now);
        }
    }

    /// Whether it is in its stage, or at its step, for so long; wakes when it will be.
    fn has_waited(&mut self, wait: Duration) -> bool {
        let Some((_, shift)) = self.shift() else { return false };
        let at = shift.since + (self.scaled)(wait);
        let waited = at <= self.now;
        if !waited {
            self.wake(Some(at));
        }
        waited
    }

    /// Whether every hook of the stage that it is in lets it go on. Those that it comes to now begin to wait.
    fn is_let_on(&mut self) -> bool {
        let Some((ongoing, shift)) = self.shift() else { return false };
        let (id, stage, production) = (ongoing.id.clone(), shift.stage, shift.production);
        let hooks = ongoing.configuration.lifecycle_hooks.clone().unwrap_or_default();
        let mut open = false;
        for (index, hook) in hooks.iter().enumerate().filter(|(_, hook)| is_for(hook, stage)) {
            let Some((_, shift)) = self.shift() else { return false };
            let is_here = |hook: &Hook| {
                (hook.index, hook.stage, hook.production) == (index, stage, production)
            };
            match shift.hooks.iter().position(is_here) {
                None => {
                    let (timeout, now) = (hook.timeout_configuration.as_ref(), self.now);
                    let wait = timeout.and_then(|t| t.timeout_in_minutes).unwrap_or(HOOK_MINUTES);
                    let expires_at = now + (self.scaled)(minutes(wait));
                    let action = timeout.and_then(|t| t.action);
                    let function = hook.hook_target_arn.clone();
                    let (kind, status) = match function {
                        Some(_) => ("lambda", DeploymentLifecycleHookStatus::InProgress),
                        None => ("pause", DeploymentLifecycleHookStatus::AwaitingAction),
                    };
                    let hook = Hook {
                        id: format!("ecs-{kind}-{id}-{}", shift.hooks.len()),
                        index,
                        stage,
                        production,
                        status,
                        expires_at,
                        action: action.unwrap_or(DeploymentLifecycleHookAction::Rollback),
                        due: function.as_ref().map(|_| now),
                        function,
                        reason: None,
                    };
                    self.change_shift(|shift| shift.hooks.push(hook));
                    self.wake(Some(expires_at));
                    open = true;
                }
                Some(at) => open |= !self.is_hook_over(at),
            }
        }
        !open
    }

    /// Whether a hook lets the deployment go on; one whose time is over does what it is to do then.
    fn is_hook_over(&mut self, at: usize) -> bool {
        let Some((_, shift)) = self.shift() else { return false };
        let hook = shift.hooks[at].clone();
        use DeploymentLifecycleHookStatus::{AwaitingAction, Failed, InProgress};
        match hook.status {
            AwaitingAction | InProgress if hook.expires_at > self.now => {
                self.wake(Some(hook.expires_at));
                false
            }
            AwaitingAction | InProgress => {
                let over = DeploymentLifecycleHookStatus::TimedOut;
                self.change_shift(|shift| shift.hooks[at].status = over);
                if hook.action == DeploymentLifecycleHookAction::Rollback {
                    let reason =
                        "Service deployment rolled back because a lifecycle hook timed out.";
                    self.roll_back(reason, "");
                    return false;
                }
                true
            }
            Failed => {
                if let Some(function) = &hook.function {
                    let why = hook.reason.as_deref().unwrap_or("it failed");
                    let reason = format!(
                        "Service deployment rolled back because the lifecycle hook {function} failed at {}: {why}.",
                        hook.stage.as_str()
                    );
                    self.roll_back(&reason, "");
                }
                false
            }
            _ => true,
        }
    }

    /// Sends all requests to the source, where the strategy shifts them.
    pub(super) fn return_traffic(&mut self) {
        if self.is_shifting() {
            self.direct(0, 0);
        }
    }

    /// Sends shares of the test and production traffic to the target, and the rest to the source.
    fn direct(&mut self, test: i32, production: i32) {
        self.change_shift(|shift| (shift.test, shift.production) = (test, production));
        let Some(ongoing) = self.ongoing() else { return };
        let serving = match production {
            WHOLE => Some(ongoing.target.deployment.clone()),
            0 => ongoing.source().map(str::to_owned),
            _ => self.plan.service.serving.clone(),
        };
        // Without a source, a deployment's own groups are all that can get requests.
        let is_target = |d: &&Deployment| d.id == ongoing.target.deployment;
        let Some(target) = self.plan.service.deployments.iter().find(is_target) else { return };
        let mut traffic = Vec::new();
        for (balancer, own) in target.balancers() {
            let Some(advanced) = &balancer.advanced_configuration else { continue };
            let Some(other) = other_group(balancer, own) else { continue };
            let rules = [
                (&advanced.production_listener_rule, production),
                (&advanced.test_listener_rule, test),
            ];
            for (rule, share) in rules {
                let Some(rule) = rule.clone() else { continue };
                // Weights are whole numbers below 1000.
                let (a, b) = match share % 10 {
                    0 => (share / 10, (WHOLE - share) / 10),
                    _ => (share, WHOLE - share),
                };
                let shares = vec![(own.to_owned(), a), (other.to_owned(), b)];
                traffic.push(Traffic { rule, shares });
            }
        }
        self.plan.traffic = traffic;
        self.plan.service.serving = serving;
    }
}
