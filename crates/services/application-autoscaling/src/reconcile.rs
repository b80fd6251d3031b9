//! Samples figures every minute and runs policies on them; runs scheduled actions when they are due; follows
//! what was begun.
//!
//! Figures are kept in memory: after a restart a policy waits until it knows enough again, as one that was
//! just put does.

use crate::{
    AutoScaling, Usage,
    api::{MetricType, TargetTrackingScalingPolicyConfiguration},
    model::{Activity, ActivityStatus, Policy, Scaling, ScheduledAction, Target},
    plan::{self, Decision, Series, Tracked},
    schedule::{self, Schedule},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use store::{DiskFault, Record, Tx};
use world::Timestamp;

/// How often figures are looked at.
const MINUTE: Duration = Duration::from_secs(60);
/// How often is looked whether what was begun is done.
const LOOK: Duration = Duration::from_secs(1);
/// The most activities of a target that are kept.
const MOST_ACTIVITIES: usize = 500;

/// What was seen last, for the difference.
#[derive(Default)]
struct Seen {
    at: Option<Timestamp>,
    cpu_ns: HashMap<String, u64>,
    requests: HashMap<String, u64>,
}

/// What the driver knows beside the records.
struct Driver {
    scaling: Arc<AutoScaling>,
    seen: BTreeMap<String, Seen>,
    figures: BTreeMap<String, Series>,
}

/// Drives until the world ends.
pub(crate) async fn drive(scaling: Arc<AutoScaling>) {
    let world = scaling.world.clone();
    let mut watch = scaling.store.watch_tables(&[ScheduledAction::TABLE, Activity::TABLE]);
    let mut driver = Driver { scaling, seen: BTreeMap::new(), figures: BTreeMap::new() };
    let minute = world.scaled(MINUTE);
    let mut at = world.now() + minute;
    loop {
        if world.now() >= at {
            // After a pause of the machine the minutes that were missed are not made up for.
            at = world.now().max(at) + minute;
            told(driver.minute().await);
        }
        told(driver.run_due().await);
        told(driver.follow().await);
        let now = world.now();
        let wake =
            [Some(at), driver.next_due(now), driver.next_look(now)].into_iter().flatten().min();
        let rest = wake.map_or(minute, |wake| wake.since(now));
        tokio::select! {
            () = world.sleep(rest) => {}
            () = watch.changed() => {}
        }
    }
}

/// What failed is tried again with the next round.
fn told(result: Result<(), DiskFault>) {
    if let Err(error) = result {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "scaling could not be noted");
    }
}

impl Driver {
    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let snapshot = self.scaling.store.read();
        let next = snapshot.scan::<ScheduledAction>().filter_map(|action| action.next).min();
        // One that could not be run is tried again, but not at once.
        next.map(|next| if next > now { next } else { now + LOOK })
    }

    fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let snapshot = self.scaling.store.read();
        let mut all = snapshot.scan::<Activity>();
        all.any(|activity| activity.status == ActivityStatus::InProgress).then(|| now + LOOK)
    }

    /// A minute is over: its figures, and what follows from them.
    async fn minute(&mut self) -> Result<(), DiskFault> {
        let snapshot = self.scaling.store.read();
        let targets: Vec<Arc<Target>> = snapshot.scan::<Target>().collect();
        let known: HashSet<String> = targets.iter().map(|target| target.key()).collect();
        self.seen.retain(|key, _| known.contains(key));
        let policies: HashSet<String> =
            snapshot.scan::<Policy>().map(|policy| policy.key()).collect();
        self.figures.retain(|key, _| policies.contains(key));
        for target in targets {
            self.look_at(&target).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, target: &Target) -> Result<(), DiskFault> {
        let (realm, resource) = (&target.realm, &target.resource);
        let prefix = format!("{}/", target.key());
        let snapshot = self.scaling.store.read();
        let policies: Vec<Arc<Policy>> = snapshot.scan_prefix::<Policy>(&prefix).collect();
        let scaled = self.scaling.scaled().clone();
        let Some(capacity) = scaled.capacity(realm, resource) else { return Ok(()) };
        if policies.is_empty() {
            return Ok(());
        }
        let usage = scaled.usage(realm, resource).await;
        let now = self.scaling.world.now();
        let seen = self.seen.entry(target.key()).or_default();
        let passed = seen.at.map(|at| now.since(at));
        let cpu = passed.and_then(|passed| cpu(seen, &usage, passed));
        let memory = memory(&usage);
        for policy in &policies {
            let Some(tracking) = &policy.tracking else { continue };
            let figure = match metric(tracking) {
                Some((MetricType::ECSServiceAverageCPUUtilization, _)) => cpu,
                Some((MetricType::ECSServiceAverageMemoryUtilization, _)) => memory,
                Some((MetricType::ALBRequestCountPerTarget, Some(label))) => {
                    let counted = scaled.requests(realm, label);
                    let before =
                        counted.and_then(|(count, _)| seen.requests.insert(label.clone(), count));
                    counted.zip(before).and_then(|((count, targets), before)| {
                        let sent = count.saturating_sub(before) as f64;
                        (targets > 0).then(|| sent / f64::from(targets))
                    })
                }
                _ => match &tracking.customized_metric_specification {
                    Some(metric) => scaled.metric(realm, metric).await,
                    None => None,
                },
            };
            plan::push(self.figures.entry(policy.key()).or_default(), figure);
        }
        seen.at = Some(now);
        seen.cpu_ns = usage.iter().map(|copy| (copy.id.clone(), copy.cpu_ns)).collect();
        let series: Vec<Tracked> = policies
            .iter()
            .filter_map(|policy| {
                let series = self.figures.get(&policy.key())?;
                Some(Tracked { policy, tracking: policy.tracking.as_ref()?, series })
            })
            .collect();
        let world = &self.scaling.world;
        let decision =
            plan::decide(target, &series, capacity.desired, now, |time| world.scaled(time));
        match decision {
            Some(decision) => {
                self.scaling.carry_out(target, capacity.desired, decision, None).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Runs the scheduled actions that are due.
    async fn run_due(&self) -> Result<(), DiskFault> {
        let now = self.scaling.world.now();
        let snapshot = self.scaling.store.read();
        let due = |action: &Arc<ScheduledAction>| action.next.is_some_and(|next| next <= now);
        for action in snapshot.scan::<ScheduledAction>().filter(due) {
            self.run(&action, now).await?;
        }
        Ok(())
    }

    /// Sets the number of copies when it is outside the new limits, then the limits and the next time in one
    /// transaction. Whoever dies in between does it again, and finds the copies as they are to be.
    async fn run(&self, action: &ScheduledAction, now: Timestamp) -> Result<(), DiskFault> {
        let target_key = Target::key_of(&action.realm, &action.resource);
        let Some(target) = self.scaling.store.read().get::<Target>(&target_key) else {
            return Ok(());
        };
        if !target.suspended.schedules {
            let mut limits = Target::clone(&target);
            limits.min = action.min.unwrap_or(limits.min);
            limits.max = action.max.unwrap_or(limits.max);
            self.keep_within(&limits).await?;
        }
        let (key, schedule) = (action.key(), action.clone());
        let id = self.scaling.world.uuid();
        let write = self.scaling.store.write(move |tx| {
            let Some(record) = tx.get::<ScheduledAction>(&key) else { return Ok(()) };
            // It was put anew meanwhile.
            if record.put != schedule.put || record.next != schedule.next {
                return Ok(());
            }
            match next(&schedule, now) {
                Some(next) => {
                    tx.update::<ScheduledAction>(&key, |action| action.next = Some(next));
                }
                None => {
                    tx.delete::<ScheduledAction>(&key);
                }
            }
            if !target.suspended.schedules {
                apply(tx, &schedule, &target, now, id);
            }
            Ok::<_, DiskFault>(())
        });
        write.await
    }

    async fn keep_within(&self, limits: &Target) -> Result<(), DiskFault> {
        let Some(capacity) = self.scaling.scaled().capacity(&limits.realm, &limits.resource) else {
            return Ok(());
        };
        let Target { min, max, .. } = *limits;
        if capacity.desired < min {
            let cause = format!("minimum capacity was set to {min}");
            self.scaling.set(limits, min, cause).await?;
        } else if capacity.desired > max {
            let cause = format!("maximum capacity was set to {max}");
            self.scaling.set(limits, max, cause).await?;
        }
        Ok(())
    }

    /// Ends activities whose service is there, or has been told something else.
    async fn follow(&self) -> Result<(), DiskFault> {
        let snapshot = self.scaling.store.read();
        let begun = |activity: &Arc<Activity>| activity.status == ActivityStatus::InProgress;
        for activity in snapshot.scan::<Activity>().filter(begun) {
            let Some(to) = activity.to else { continue };
            let capacity = self.scaling.scaled().capacity(&activity.realm, &activity.resource);
            let (status, message) = match capacity {
                Some(capacity) if capacity.desired == to && capacity.running == to => (
                    ActivityStatus::Successful,
                    format!(
                        "Successfully set desired count to {to}. Change successfully fulfilled by ecs."
                    ),
                ),
                Some(capacity) if capacity.desired == to => continue,
                _ => (
                    ActivityStatus::Overridden,
                    format!(
                        "Successfully set desired count to {to}. Another change was made before it was \
                         fulfilled by ecs."
                    ),
                ),
            };
            let (key, now) = (activity.key(), self.scaling.world.now());
            let write = self.scaling.store.write(move |tx| {
                tx.update::<Activity>(&key, |activity| {
                    (activity.status, activity.message) = (status, message);
                    activity.ended = Some(now);
                });
                Ok::<_, DiskFault>(())
            });
            write.await?;
        }
        Ok(())
    }
}

impl AutoScaling {
    /// Sets the number of copies that a policy wants, for the `cause` or because of what the policy tracks, and takes
    /// note of it. Whether that was begun.
    pub(crate) async fn carry_out(
        &self,
        target: &Target,
        from: i32,
        decision: Decision,
        cause: Option<String>,
    ) -> Result<bool, DiskFault> {
        let Decision { to, policy, out } = decision;
        let tracked = || {
            format!(
                "policy {policy} wants {} capacity: its metric was {} the target value",
                if out { "more" } else { "less" },
                if out { "above" } else { "below" }
            )
        };
        let began = self.set(target, to, cause.unwrap_or_else(tracked)).await?;
        if !began {
            return Ok(false);
        }
        let (key, at) =
            (Policy::key_of(&target.realm, &target.resource, &policy), self.world.now());
        let write = self.store.write(move |tx| {
            tx.update::<Policy>(&key, |policy| {
                let last = Some(Scaling { at, to, from });
                if out {
                    policy.last_out = last;
                } else {
                    policy.last_in = last;
                }
            });
            Ok::<_, DiskFault>(())
        });
        write.await.map(|()| true)
    }

    /// Wants another number of copies, and takes note of it. Whether that was begun.
    async fn set(&self, target: &Target, to: i32, cause: String) -> Result<bool, DiskFault> {
        let set = self.scaled().set(&target.realm, &target.resource, to).await;
        let (status, message) = match &set {
            Ok(()) => (
                ActivityStatus::InProgress,
                format!(
                    "Successfully set desired count to {to}. Waiting for change to be fulfilled by ecs."
                ),
            ),
            Err(reason) => (
                ActivityStatus::Failed,
                format!("Failed to set desired count to {to}. Reason: {reason}"),
            ),
        };
        let began = set.is_ok();
        let now = self.world.now();
        let activity = Activity {
            realm: target.realm.clone(),
            resource: target.resource.clone(),
            id: self.world.uuid(),
            number: 0,
            description: format!("Setting desired count to {to}."),
            cause,
            status,
            message,
            to: Some(to),
            started: now,
            ended: (!began).then_some(now),
        };
        let write = self.store.write(move |tx| {
            note(tx, activity);
            Ok::<_, DiskFault>(())
        });
        write.await.map(|()| began)
    }
}

/// When a scheduled action is due again. A rate begins with its start.
pub(crate) fn next(action: &ScheduledAction, now: Timestamp) -> Option<Timestamp> {
    // It was read when it was put.
    let schedule = schedule::read(&action.schedule, action.timezone.as_deref()).ok()?;
    let next = match (&schedule, action.start.filter(|start| *start > now)) {
        (Schedule::Rate(_), Some(start)) => Some(start),
        // What is due just then is due.
        (_, Some(start)) => schedule.next(Timestamp::from_millis(start.millis() - 1), action.put),
        (_, None) => schedule.next(now, action.start.unwrap_or(action.put)),
    };
    next.filter(|next| action.end.is_none_or(|end| *next <= end))
}

fn apply(tx: &mut Tx, action: &ScheduledAction, target: &Target, now: Timestamp, id: String) {
    tx.update::<Target>(&target.key(), |target| {
        target.min = action.min.unwrap_or(target.min);
        target.max = action.max.unwrap_or(target.max);
    });
    let what = match (action.min, action.max) {
        (Some(min), Some(max)) => format!("min capacity to {min} and max capacity to {max}"),
        (Some(min), None) => format!("min capacity to {min}"),
        (None, Some(max)) => format!("max capacity to {max}"),
        (None, None) => return,
    };
    let activity = Activity {
        realm: action.realm.clone(),
        resource: action.resource.clone(),
        id,
        number: 0,
        description: format!("Setting {what}"),
        cause: format!("scheduled action name {} was triggered", action.name),
        status: ActivityStatus::Successful,
        message: format!("Successfully set {what}"),
        to: None,
        started: now,
        ended: Some(now),
    };
    note(tx, activity);
}

/// Keeps an activity as the newest of its target.
fn note(tx: &mut Tx, mut activity: Activity) {
    let prefix = format!("{}/{}/", activity.realm, activity.resource);
    let newest = tx.scan_prefix::<Activity>(&prefix).next_back();
    activity.number = newest.map_or(0, |newest| newest.number + 1);
    let count = tx.scan_prefix::<Activity>(&prefix).count();
    let old: Vec<String> = tx
        .scan_prefix::<Activity>(&prefix)
        .take((count + 1).saturating_sub(MOST_ACTIVITIES))
        .map(|old| old.key())
        .collect();
    for key in old {
        tx.delete::<Activity>(&key);
    }
    tx.put(activity);
}

/// What a policy tracks, and of which target group.
fn metric(
    tracking: &TargetTrackingScalingPolicyConfiguration,
) -> Option<(MetricType, Option<&String>)> {
    let given = tracking.predefined_metric_specification.as_ref()?;
    Some((given.predefined_metric_type, given.resource_label.as_ref()))
}

/// The average of the copies' shares of the CPU that they may use, in percent, of those that ran all the time.
fn cpu(seen: &Seen, usage: &[Usage], passed: Duration) -> Option<f64> {
    let shares: Vec<f64> = usage
        .iter()
        .filter_map(|copy| {
            let used = copy.cpu_ns.checked_sub(*seen.cpu_ns.get(&copy.id)?)? as f64;
            let most = copy.cpu_ns_per_s as f64 * passed.as_secs_f64();
            (most > 0.0).then(|| used / most * 100.0)
        })
        .collect();
    average(&shares)
}

fn memory(usage: &[Usage]) -> Option<f64> {
    let share = |copy: &Usage| {
        let limit = copy.memory_limit_bytes as f64;
        (limit > 0.0).then(|| copy.memory_bytes as f64 / limit * 100.0)
    };
    average(&usage.iter().filter_map(share).collect::<Vec<_>>())
}

fn average(figures: &[f64]) -> Option<f64> {
    (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
}
