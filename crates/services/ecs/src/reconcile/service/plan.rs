//! What a service needs next, from what is wanted and what is there. Pure: the same records and the same time
//! always give the same plan.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>

use crate::{
    api::DeploymentRolloutState,
    model::{
        Deployment, Health, LastStatus, Launch, Reckoned, Service, ServiceStatus, TargetState, Task,
    },
};
use std::{cmp::Reverse, sync::Arc, time::Duration};
use world::Timestamp;

/// The pause after a task that did not start, doubled with each, and the longest.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The same after a task that started and soon ended by itself. AWS starts the next one at once, which takes it half a
/// minute; here it would be a busy loop.
const AFTER_CRASH: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A task that ran for so long did not crash.
const SOON: Duration = Duration::from_secs(60);
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
    pub(super) fn is_nothing(&self, service: &Service) -> bool {
        self.events.is_empty()
            && self.start.is_empty()
            && self.stop.is_empty()
            && self.reckon.is_empty()
            && self.service == *service
    }
}

/// Plans a service's next step; `tasks` are all of its group.
pub(super) fn plan(service: &Service, tasks: &[Arc<Task>], now: Timestamp) -> Plan {
    let mut round = Round {
        tasks,
        now,
        plan: Plan {
            service: service.clone(),
            events: Vec::new(),
            start: Vec::new(),
            stop: Vec::new(),
            reckon: Vec::new(),
            wake_at: None,
        },
    };
    match service.status {
        ServiceStatus::Inactive => {}
        ServiceStatus::Draining => round.drain(),
        ServiceStatus::Active => {
            round.reckon();
            round.break_circuit();
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

    /// The circuit breaker: too many failures in a row fail the deployment, and bring the last good one back.
    fn break_circuit(&mut self) {
        let service = &mut self.plan.service;
        let breaker = service.configuration.deployment_circuit_breaker.clone();
        let threshold = service.breaker_threshold();
        let Some(breaker) = breaker.filter(|breaker| breaker.enable) else { return };
        let Some(primary) = service.deployments.first_mut() else { return };
        let failed = primary.failed_tasks >= threshold;
        if !failed || primary.rollout != DeploymentRolloutState::InProgress {
            return;
        }
        primary.rollout = DeploymentRolloutState::Failed;
        primary.reason = "ECS deployment circuit breaker: tasks failed to start.".to_owned();
        primary.updated_at = self.now;
        let what = "deployment failed: tasks failed to start.";
        self.plan.events.push(format!("(deployment {}) {what}", primary.id));
        let good = |d: &Deployment| d.rollout == DeploymentRolloutState::Completed;
        let Some(last) = service.deployments.iter().position(good).filter(|_| breaker.rollback)
        else {
            return;
        };
        let mut back = service.deployments.remove(last);
        back.rollout = DeploymentRolloutState::InProgress;
        let id = &back.id;
        back.reason = format!("ECS deployment circuit breaker: rolling back to deploymentId {id}.");
        back.updated_at = self.now;
        self.plan.events.push(format!("rolling back to deployment {id}."));
        service.deployments.insert(0, back);
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

    /// Stops what the primary deployment has too many of: those that do not run well (yet) first, then from the zone
    /// that has the most, the newest first.
    fn scale_in(&mut self) {
        let Some(primary) = self.plan.service.deployments.first() else { return };
        let mut living: Vec<_> = self.living(&primary.id).collect();
        let excess = count(living.iter().copied()) - self.plan.service.desired_count;
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
        if primary.rollout == DeploymentRolloutState::Failed {
            return; // they are all there is
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

    /// Starts what the primary deployment lacks, as far as the most tasks at once allow it.
    fn start(&mut self) {
        let service = &self.plan.service;
        let Some(primary) = service.deployments.first().cloned() else { return };
        let room = service.most_tasks() - count(self.all_living());
        let mut living: Vec<_> = self.living(&primary.id).map(|task| place(task)).collect();
        let lack = service.desired_count - i32::try_from(living.len()).unwrap_or(i32::MAX);
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

    /// Tells what has come to its end.
    fn settle(&mut self) {
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
        let counts: Vec<i32> = ids.iter().map(|id| count(self.living(id))).collect();
        let service = &mut self.plan.service;
        for (i, deployment) in service.deployments.iter_mut().enumerate() {
            let wanted = if i == 0 { desired } else { counts[i] };
            if deployment.desired_count != wanted {
                (deployment.desired_count, deployment.updated_at) = (wanted, self.now);
            }
        }
        let failed = service.deployments[0].rollout == DeploymentRolloutState::Failed;
        let steady = living && healthy && alone && starts == 0 && !failed;
        // What was superseded before it was in place goes with its last task.
        let mut place = there.iter().enumerate();
        service.deployments.retain(|deployment| {
            let good = deployment.rollout == DeploymentRolloutState::Completed;
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
    }
}

fn count<'b>(tasks: impl Iterator<Item = &'b Arc<Task>>) -> i32 {
    i32::try_from(tasks.count()).unwrap_or(i32::MAX)
}

/// Whether it runs, and its health checks and those of its target groups pass, if it has any.
fn is_healthy(task: &Task) -> bool {
    task.last_status == LastStatus::Running
        && !task.stopping
        && matches!(task.health(), None | Some(Health::Healthy))
        && task.targets.iter().all(|target| target.state == TargetState::Healthy)
}

/// What is wrong with a task that runs, in AWS's words.
struct Illness {
    event: String,
    reason: String,
}

fn illness(task: &Task) -> Option<Illness> {
    if task.last_status != LastStatus::Running {
        return None;
    }
    if task.health() == Some(Health::Unhealthy) {
        return Some(Illness {
            event: "failed container health checks.".to_owned(),
            reason: "Task failed container health checks".to_owned(),
        });
    }
    task.targets.iter().find_map(|target| match &target.state {
        TargetState::Unhealthy(why) => Some(Illness {
            event: format!(
                "(port {}) is unhealthy in (target-group {}) due to (reason {why}).",
                target.port, target.group_arn
            ),
            reason: format!("Task failed ELB health checks in (target-group {})", target.group_arn),
        }),
        _ => None,
    })
}

fn is_protected(task: &Task, now: Timestamp) -> bool {
    task.protected_until.is_some_and(|until| until > now)
}

/// Where it is: the subnet that it was given.
fn zone(task: &Task) -> Option<&String> {
    task.network.awsvpc_configuration.as_ref().and_then(|awsvpc| awsvpc.subnets.first())
}

fn place(task: &Task) -> (String, Option<String>) {
    let provider = match &task.launch {
        Launch::Fargate => None,
        Launch::CapacityProvider(name) => Some(name.clone()),
    };
    (zone(task).cloned().unwrap_or_default(), provider)
}

/// What became of a task.
enum Outcome {
    /// It runs well.
    Ran,
    /// It did not start.
    Failed,
    /// It ended by itself soon after it ran.
    Crashed,
    /// It ended by itself after a while.
    Ended,
    /// Somebody stopped it.
    Stopped,
}

fn outcome(task: &Task) -> Outcome {
    use crate::api::TaskStopCode::{EssentialContainerExited, TaskFailedToStart};
    let by_itself = matches!(task.stop_code, Some(EssentialContainerExited | TaskFailedToStart));
    match (task.stopping, by_itself, task.started_at) {
        (false, ..) => Outcome::Ran,
        (true, false, _) => Outcome::Stopped,
        (true, true, None) => Outcome::Failed,
        (true, true, Some(ran)) => {
            let ended = task.stopping_at.unwrap_or(ran);
            if ended.since(ran) < SOON { Outcome::Crashed } else { Outcome::Ended }
        }
    }
}

/// What is to be noted about a task now, if anything is.
fn reckoning(task: &Task) -> Option<Reckoned> {
    match (task.stopping, task.reckoned) {
        (_, Reckoned::Over) | (false, Reckoned::Ran) => None,
        (true, _) => Some(Reckoned::Over),
        (false, Reckoned::Not) => is_healthy(task).then_some(Reckoned::Ran),
    }
}

fn fail(deployment: &mut Deployment, now: Timestamp) {
    deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    deployment.next_start_at = Some(now + pause(AFTER_FAILURE, deployment.failed_tasks));
}

fn pause((first, longest): (Duration, Duration), times: i32) -> Duration {
    let doublings = u32::try_from(times - 1).unwrap_or(0).min(16);
    (first * 2u32.pow(doublings)).min(longest)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
