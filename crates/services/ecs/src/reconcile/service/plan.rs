//! What a service needs next, from what is wanted and what is there. Pure: the same records and the same time
//! always give the same plan.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>

mod progress;
mod shift;
mod task;

use crate::{
    api::DeploymentRolloutState,
    model::{
        Controller, Deployment, LastStatus, Launch, Reckoned, Service, ServiceDeployment,
        ServiceStatus, Task, TaskSet, TaskSetStatus,
    },
    surroundings::AlarmsSeen,
};
pub(super) use shift::Traffic;
use std::{cmp::Reverse, sync::Arc, time::Duration};
use task::{
    AFTER_CRASH, Outcome, fail, illness, is_healthy, is_protected, outcome, pause, place,
    reckoning, zone,
};
use world::Timestamp;

/// So many failures in a row are told as an event.
const TOLD: i32 = 3;

/// What is told when a deployment can neither start nor stop a task.
const BLOCKED: &str = "was unable to stop or start tasks during a deployment because of the service deployment \
                       configuration. Update the minimumHealthyPercent or maximumPercent value and try again.";

/// A task to be started.
#[derive(Debug, PartialEq)]
pub(super) struct Start {
    /// For which of the service's deployments.
    pub(super) deployment: String,
    /// Where.
    pub(super) launch: Launch,
    /// The one of the deployment's subnets.
    pub(super) subnet: String,
}

/// What is to be done, all of it in one transaction.
#[derive(Debug)]
pub(super) struct Plan {
    /// The service's record as it becomes.
    pub(super) service: Service,
    /// The service deployment that is, or with this plan was, under way.
    pub(super) ongoing: Option<ServiceDeployment>,
    /// Where requests are to go; listeners stay as they are where it says nothing.
    pub(super) traffic: Vec<Traffic>,
    /// What happened, in AWS's words, in order.
    pub(super) events: Vec<String>,
    pub(super) start: Vec<Start>,
    /// Ids of tasks, with the reason in AWS's words.
    pub(super) stop: Vec<(String, String)>,
    /// Ids of tasks that have been taken note of.
    pub(super) reckon: Vec<(String, Reckoned)>,
    /// When to look again though nothing changed.
    pub(super) wake_at: Option<Timestamp>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub(super) fn is_nothing(&self, seen: &Seen) -> bool {
        self.events.is_empty()
            && self.traffic.is_empty()
            && self.start.is_empty()
            && self.stop.is_empty()
            && self.reckon.is_empty()
            && self.service == *seen.service
            && self.ongoing.as_ref() == seen.ongoing
    }
}

/// What a plan is made from.
pub(super) struct Seen<'a> {
    pub(super) service: &'a Service,
    /// The service deployment that is under way.
    pub(super) ongoing: Option<&'a ServiceDeployment>,
    /// All of the service's group.
    pub(super) tasks: &'a [Arc<Task>],
    pub(super) now: Timestamp,
    /// How the alarms are that the service deployment names.
    pub(super) alarms: &'a AlarmsSeen,
    /// AWS's waiting times as they are here.
    pub(super) scaled: &'a (dyn Fn(Duration) -> Duration + Sync),
}

/// Plans a service's next step.
pub(super) fn plan(seen: &Seen) -> Plan {
    let mut round = Round {
        tasks: seen.tasks,
        now: seen.now,
        alarms: seen.alarms,
        scaled: seen.scaled,
        plan: Plan {
            service: seen.service.clone(),
            ongoing: seen.ongoing.cloned(),
            traffic: Vec::new(),
            events: Vec::new(),
            start: Vec::new(),
            stop: Vec::new(),
            reckon: Vec::new(),
            wake_at: None,
        },
    };
    match seen.service.status {
        ServiceStatus::Inactive => {}
        ServiceStatus::Draining => round.drain(),
        ServiceStatus::Active => {
            round.begin();
            round.reckon();
            round.break_circuit();
            round.heed_alarms();
            round.advance();
            round.stop_unhealthy();
            round.scale_in();
            round.retire();
            round.start();
            round.settle();
        }
    }
    round.plan
}

struct Round<'a> {
    tasks: &'a [Arc<Task>],
    now: Timestamp,
    alarms: &'a AlarmsSeen,
    scaled: &'a (dyn Fn(Duration) -> Duration + Sync),
    plan: Plan,
}

impl<'a> Round<'a> {
    /// Tasks of a deployment that neither end nor are told to.
    fn living(&self, deployment: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        let stop = &self.plan.stop;
        let of = deployment.to_owned();
        let mine = self.tasks.iter().filter(move |task| task.started_by.as_ref() == Some(&of));
        let alive = |task: &&Arc<Task>| !task.stopping && task.last_status <= LastStatus::Running;
        let stays: Vec<_> =
            mine.filter(alive).filter(|task| stop.iter().all(|(id, _)| *id != task.id)).collect();
        stays.into_iter()
    }

    fn all_living(&self) -> impl Iterator<Item = &'a Arc<Task>> {
        let ids: Vec<String> = self.plan.service.deployments.iter().map(|d| d.id.clone()).collect();
        let living: Vec<_> = ids.iter().flat_map(|id| self.living(id)).collect();
        living.into_iter()
    }

    fn is_unhealthy(&self, task: &Task) -> bool {
        let ran = task.started_at.map_or(Duration::ZERO, |at| self.now.since(at));
        illness(task).is_some() && ran >= self.plan.service.grace()
    }

    fn count_healthy<'b>(&self, tasks: impl Iterator<Item = &'b Arc<Task>>) -> i32 {
        count(tasks.filter(|task| is_healthy(task)))
    }

    /// Why tasks are stopped that are too many.
    fn scaling(&self) -> String {
        let primary = self.plan.service.deployments.first().map_or("", |d| d.id.as_str());
        format!("Scaling activity initiated by (deployment {primary})")
    }

    fn stop(&mut self, tasks: Vec<&Arc<Task>>, reason: &str) {
        if tasks.is_empty() {
            return;
        }
        let names: Vec<String> = tasks.iter().map(|task| format!("(task {})", task.id)).collect();
        let count = tasks.len();
        self.plan.events.push(format!("has stopped {count} running tasks: {}.", names.join(" ")));
        self.plan.stop.extend(tasks.iter().map(|task| (task.id.clone(), reason.to_owned())));
    }

    /// A deleted service is over when its last task is.
    fn drain(&mut self) {
        let living = self.all_living().collect();
        let reason = self.scaling();
        self.stop(living, &reason);
        self.stop_ongoing("The service was deleted.");
        if self.tasks.iter().all(|task| task.last_status == LastStatus::Stopped) {
            let service = &mut self.plan.service;
            service.status = ServiceStatus::Inactive;
            service.inactive_at = Some(self.now);
            service.deployments.clear();
        }
    }

    /// Takes note of each task that ran well or failed, once.
    fn reckon(&mut self) {
        for task in self.tasks {
            let of = |d: &&mut Deployment| task.started_by.as_ref() == Some(&d.id);
            let Some(deployment) = self.plan.service.deployments.iter_mut().find(of) else {
                continue;
            };
            let Some(becomes) = reckoning(task) else { continue };
            self.plan.reckon.push((task.id.clone(), becomes));
            match outcome(task) {
                Outcome::Ran => {
                    deployment.failed_tasks = 0;
                    if deployment.crashes == 0 {
                        deployment.next_start_at = None;
                    }
                }
                Outcome::Failed => {
                    fail(deployment, self.now);
                    if deployment.failed_tasks == TOLD {
                        let guide = "For more information, see the Troubleshooting section of the Amazon ECS \
                                     Developer Guide.";
                        let what = "is unable to consistently start tasks successfully.";
                        self.plan.events.push(format!("{what} {guide}"));
                    }
                }
                Outcome::Crashed => {
                    deployment.crashes = deployment.crashes.saturating_add(1);
                    deployment.next_start_at =
                        Some(self.now + pause(AFTER_CRASH, deployment.crashes));
                }
                Outcome::Ended => deployment.crashes = 0,
                Outcome::Stopped => {}
            }
        }
    }

    fn stop_unhealthy(&mut self) {
        let ill: Vec<_> = self.all_living().filter(|task| self.is_unhealthy(task)).collect();
        for task in ill {
            let of = |d: &&mut Deployment| task.started_by.as_ref() == Some(&d.id);
            if let Some(deployment) = self.plan.service.deployments.iter_mut().find(of) {
                fail(deployment, self.now);
            }
            let Some(illness) = illness(task) else { continue };
            self.plan.events.push(format!("(task {}) {}", task.id, illness.event));
            self.stop(vec![task], &illness.reason);
        }
        // While a grace period runs, nothing but time brings its end.
        let grace = self.plan.service.grace();
        let ill = self.all_living().filter(|task| illness(task).is_some());
        let ends = ill.filter_map(|task| task.started_at).map(|at| at + grace).min();
        self.wake(ends);
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.plan.wake_at = [self.plan.wake_at, at].into_iter().flatten().min();
    }

    /// How many tasks of each deployment are to run. The earlier ones of a rolling deployment are no part of it: they
    /// are retired as the new one grows.
    fn wants(&self) -> Vec<(String, i32)> {
        let deployments = &self.plan.service.deployments;
        if self.has_sets() {
            let desired = self.plan.service.desired_count;
            let wanted = |d: &Deployment| Some((d.id.clone(), d.set.as_ref()?.count(desired)));
            return deployments.iter().filter_map(wanted).collect();
        }
        match self.is_shifting() {
            true => deployments.iter().map(|d| (d.id.clone(), self.wanted(&d.id))).collect(),
            false => {
                let desired = self.plan.service.desired_count;
                deployments
                    .first()
                    .map(|primary| (primary.id.clone(), desired))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn scale_in(&mut self) {
        for (deployment, wanted) in self.wants() {
            self.shrink(&deployment, wanted);
        }
    }

    /// Stops what a deployment has too many of: those that do not run well (yet) first, then from the zone that has the
    /// most, the newest first.
    fn shrink(&mut self, deployment: &str, wanted: i32) {
        let mut living: Vec<_> = self.living(deployment).collect();
        let excess = count(living.iter().copied()) - wanted;
        let mut chosen = Vec::new();
        for _ in 0..excess {
            let crowd = |task: &Task| living.iter().filter(|t| zone(t) == zone(task)).count();
            let free = living.iter().filter(|task| !is_protected(task, self.now));
            let best = free.max_by_key(|task| {
                let order = (task.created_at, Reverse(&task.id));
                (!is_healthy(task), crowd(task), order)
            });
            let Some(best) = best.copied() else {
                let ends = living.iter().filter_map(|task| task.protected_until).min();
                self.wake(ends);
                break;
            };
            living.retain(|task| task.id != best.id);
            chosen.push(best);
        }
        let reason = self.scaling();
        self.stop(chosen, &reason);
    }

    /// Stops tasks of earlier deployments as far as enough healthy ones stay.
    fn retire(&mut self) {
        let service = &self.plan.service;
        let Some(primary) = service.deployments.first() else { return };
        let each = self.is_shifting() || self.has_sets();
        if each || primary.rollout == DeploymentRolloutState::Failed {
            return; // both revisions are wanted, or the earlier is all there is
        }
        let earlier = service.deployments[1..].iter().flat_map(|d| self.living(&d.id));
        let (healthy, other): (Vec<_>, Vec<_>) = earlier.partition(|task| is_healthy(task));
        let spare = self.count_healthy(self.all_living()) - service.fewest_healthy();
        let spare = usize::try_from(spare).unwrap_or(0);
        // Some that are not healthy run and may become it: they are spared while there are too few.
        let short = self.count_healthy(self.all_living()) < service.fewest_healthy();
        let runs = |task: &&Arc<Task>| short && task.last_status == LastStatus::Running;
        let other = other.into_iter().filter(|task| !runs(task));
        let gone = other.chain(healthy.into_iter().take(spare)).collect();
        let reason = self.scaling();
        self.stop(gone, &reason);
    }

    fn start(&mut self) {
        for (deployment, wanted) in self.wants() {
            self.grow(&deployment, wanted);
        }
    }

    /// Starts what a deployment lacks, as far as the most tasks at once allow it. They do not count where traffic is
    /// shifted: two whole revisions run then.
    fn grow(&mut self, deployment: &str, wanted: i32) {
        let service = &self.plan.service;
        let found = service.deployments.iter().find(|d| d.id == deployment);
        let Some(primary) = found.cloned() else { return };
        let mut living: Vec<_> = self.living(deployment).map(|task| place(task)).collect();
        let lack = wanted - i32::try_from(living.len()).unwrap_or(i32::MAX);
        let room = match self.is_shifting() || self.has_sets() {
            true => lack,
            false => service.most_tasks() - count(self.all_living()),
        };
        if lack <= 0 || primary.rollout == DeploymentRolloutState::Failed {
            return;
        }
        if let Some(at) = primary.next_start_at.filter(|at| *at > self.now) {
            return self.wake(Some(at));
        }
        let awsvpc = primary.revision.network.awsvpc_configuration.as_ref();
        let subnets = awsvpc.map_or(&[][..], |awsvpc| &awsvpc.subnets);
        // With so small a service the two shares may leave no room to go either way.
        if room <= 0
            && self.plan.stop.is_empty()
            && service.fewest_healthy() >= service.most_tasks()
        {
            let told = service.events.front().is_some_and(|event| event.message.contains(BLOCKED));
            let news = (!told).then(|| BLOCKED.to_owned());
            return self.plan.events.extend(news);
        }
        for _ in 0..lack.min(room) {
            let on = |name: &str| {
                let same = living.iter().filter(|(_, provider)| provider.as_deref() == Some(name));
                i32::try_from(same.count()).unwrap_or(i32::MAX)
            };
            let launch = primary.launch(on);
            let crowd = |subnet: &&String| living.iter().filter(|(at, _)| at == *subnet).count();
            let Some(subnet) = subnets.iter().min_by_key(crowd) else { return };
            let provider = match &launch {
                Launch::Fargate => None,
                Launch::CapacityProvider(name) => Some(name.clone()),
            };
            living.push((subnet.clone(), provider));
            let (deployment, subnet) = (primary.id.clone(), subnet.clone());
            self.plan.start.push(Start { deployment, launch, subnet });
        }
    }

    /// Whether somebody else deploys the service: each task set has its own count.
    fn has_sets(&self) -> bool {
        self.plan.service.controller != Controller::Ecs
    }

    /// Tells which task sets are as wanted, and forgets those that are deleted and gone.
    fn settle_sets(&mut self) {
        let mut steady = true;
        for place in 0..self.plan.service.deployments.len() {
            let deployment = &self.plan.service.deployments[place];
            let Some(set) = &deployment.set else { continue };
            let (id, wanted) = (deployment.id.clone(), set.count(self.plan.service.desired_count));
            let of = |task: &&Arc<Task>| task.started_by.as_ref() == Some(&id);
            let there =
                self.tasks.iter().filter(of).filter(|t| t.last_status != LastStatus::Stopped);
            let starts = self.plan.start.iter().any(|start| start.deployment == id);
            let still = count(there) == wanted && !starts;
            let is = still && self.count_healthy(self.living(&id)) == wanted;
            steady &= is;
            let now = self.now;
            let deployment = &mut self.plan.service.deployments[place];
            if deployment.desired_count != wanted {
                (deployment.desired_count, deployment.updated_at) = (wanted, now);
            }
            if let Some(set) = deployment.set.as_mut().filter(|set| set.steady != is) {
                (set.steady, set.stability_at) = (is, now);
            }
        }
        let service = &mut self.plan.service;
        let over = |set: &TaskSet| set.status == TaskSetStatus::Draining && set.steady;
        service.deployments.retain(|d| !d.set.as_ref().is_some_and(over));
        if steady && !service.steady {
            self.plan.events.push("has reached a steady state.".to_owned());
        }
        service.steady = steady;
    }

    /// Tells what has come to its end.
    fn settle(&mut self) {
        if self.has_sets() {
            return self.settle_sets();
        }
        let desired = self.plan.service.desired_count;
        let ids: Vec<String> = self.plan.service.deployments.iter().map(|d| d.id.clone()).collect();
        let Some(primary) = ids.first() else { return };
        let living = count(self.living(primary)) == desired;
        let healthy = self.count_healthy(self.living(primary)) == desired;
        let is_there = |id: &String| {
            let of = |task: &&Arc<Task>| task.started_by.as_ref() == Some(id);
            self.tasks.iter().filter(of).any(|task| task.last_status != LastStatus::Stopped)
        };
        let there: Vec<bool> = ids.iter().map(is_there).collect();
        let alone = !there[1..].contains(&true);
        let starts = i32::try_from(self.plan.start.len()).unwrap_or(i32::MAX);
        let shifting = self.is_shifting();
        let wanted = |(i, id): (usize, &String)| match (shifting, i) {
            (true, _) => self.wanted(id),
            (false, 0) => desired,
            (false, _) => count(self.living(id)),
        };
        let wants: Vec<i32> = ids.iter().enumerate().map(wanted).collect();
        let ripe = self.is_ripe();
        let baked = !(ripe && living && healthy && alone && starts == 0) || self.has_baked();
        let service = &mut self.plan.service;
        for (deployment, wanted) in service.deployments.iter_mut().zip(wants) {
            if deployment.desired_count != wanted {
                (deployment.desired_count, deployment.updated_at) = (wanted, self.now);
            }
        }
        let failed = service.deployments[0].rollout == DeploymentRolloutState::Failed;
        let steady = ripe && living && healthy && alone && starts == 0 && !failed && baked;
        // What was superseded before it was in place goes with its last task.
        let mut place = there.iter().enumerate();
        let source = self.plan.ongoing.as_ref().and_then(ServiceDeployment::source);
        service.deployments.retain(|deployment| {
            let good = deployment.rollout == DeploymentRolloutState::Completed
                || shifting && Some(deployment.id.as_str()) == source;
            place.next().is_none_or(|(i, there)| i == 0 || *there || good && !steady)
        });
        let primary = &mut service.deployments[0];
        if steady && primary.rollout == DeploymentRolloutState::InProgress {
            primary.rollout = DeploymentRolloutState::Completed;
            primary.reason = format!("ECS deployment {} completed.", primary.id);
            primary.updated_at = self.now;
            self.plan.events.push(format!("(deployment {}) deployment completed.", primary.id));
        }
        if steady && !service.steady {
            self.plan.events.push("has reached a steady state.".to_owned());
        }
        service.steady = steady;
        if steady {
            self.succeed();
        }
    }
}

fn count<'b>(tasks: impl Iterator<Item = &'b Arc<Task>>) -> i32 {
    i32::try_from(tasks.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
