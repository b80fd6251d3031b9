//! Looks at all alarms, again and again, and lets old points age.

use crate::{
    CloudWatch,
    api::StateValue,
    evaluate::{Datapoint, MORE, Verdict, evaluate},
    metric::Statistic,
    model::Alarm,
    turn::{Turn, acted, scales, turn},
};
use metricstore::{Kept, MetricStoreError, Resolution};
use std::{sync::Arc, time::Duration};
use store::{DiskFault, Record};
use world::Timestamp;

/// Alarms are looked at every so often: those of a minute's periods turn within as much of the minute's end.
const ROUND: Duration = Duration::from_secs(10);
/// A period is looked at when it has been over for so long: what was measured in it takes its time to arrive.
const LATE_S: i64 = 5;
/// Scaling policies are told again every so often as long as an alarm lasts.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions.html>
const AGAIN: Duration = Duration::from_secs(60);
/// Old points are looked for every so often.
const AGES: Duration = Duration::from_secs(3600);

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// How long points are kept.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#metrics-retention>
const KEPT: [Kept; 4] = [
    Kept { resolution: Resolution::Second, seconds: 3 * HOUR, next: Some(Resolution::Minute) },
    Kept { resolution: Resolution::Minute, seconds: 15 * DAY, next: Some(Resolution::FiveMinutes) },
    Kept { resolution: Resolution::FiveMinutes, seconds: 63 * DAY, next: Some(Resolution::Hour) },
    Kept { resolution: Resolution::Hour, seconds: 455 * DAY, next: None },
];

pub(crate) async fn age(cloudwatch: Arc<CloudWatch>) {
    loop {
        cloudwatch.world.sleep(AGES).await;
        let now = cloudwatch.world.now().millis().div_euclid(1000);
        if let Err(error) = cloudwatch.points.age(KEPT.to_vec(), now).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "old metrics could not be put together");
        }
    }
}

pub(crate) async fn watch(cloudwatch: Arc<CloudWatch>) {
    let mut changed = cloudwatch.store.watch::<Alarm>();
    let mut configured = Timestamp::from_millis(0);
    let mut next = cloudwatch.world.now();
    loop {
        let now = cloudwatch.world.now();
        let all = now >= next;
        if all {
            next = now + cloudwatch.world.scaled(ROUND);
        }
        // What was put just now is looked at at once, the rest when its time has come.
        let of = |alarm: &Arc<Alarm>| all || alarm.configured > configured;
        let alarms: Vec<_> = cloudwatch.store.read().scan::<Alarm>().filter(of).collect();
        configured = alarms.iter().map(|alarm| alarm.configured).fold(configured, Timestamp::max);
        for alarm in alarms {
            if let Err(error) = look(&cloudwatch, &alarm).await {
                let error: &dyn std::error::Error = &*error;
                tracing::error!(error, alarm = alarm.name, "an alarm could not be looked at");
            }
        }
        tokio::select! {
            () = cloudwatch.world.sleep(next.since(cloudwatch.world.now())) => {}
            () = changed.changed() => {}
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn look(cloudwatch: &Arc<CloudWatch>, alarm: &Alarm) -> Result<(), Failed> {
    let verdict = verdict(cloudwatch, alarm).await?;
    if let Some(verdict) = verdict.as_ref().filter(|verdict| verdict.state != alarm.state) {
        let (key, put) = (alarm.key(), alarm.configured);
        let (world, told) = (cloudwatch.world.clone(), cloudwatch.told().clone());
        let new = Turn {
            state: verdict.state,
            reason: verdict.reason.clone(),
            data: Some(verdict.data.clone()),
        };
        let write = cloudwatch.store.write(move |tx| {
            // It may watch something else by now, or be gone.
            let alarm = tx.get::<Alarm>(&key).filter(|alarm| alarm.configured == put);
            if let Some(alarm) = alarm {
                turn(tx, &world, &told, Arc::unwrap_or_clone(alarm), new);
            }
            Ok::<_, DiskFault>(())
        });
        write.await?;
    }
    scale(cloudwatch, alarm, verdict.map(|verdict| verdict.values).unwrap_or_default()).await?;
    Ok(())
}

async fn verdict(
    cloudwatch: &CloudWatch,
    alarm: &Alarm,
) -> Result<Option<Verdict>, MetricStoreError> {
    let watch = &alarm.watch;
    let Some(statistic) = Statistic::read(&watch.statistic) else { return Ok(None) };
    let (now, period) = (cloudwatch.world.now(), i64::from(watch.period_s));
    // Whole minutes, or of finer alarms whole tens of seconds, that are over: what is not over is not known.
    let whole = if period < 60 { period } else { 60 };
    let end = (now.millis().div_euclid(1000) - LATE_S).div_euclid(whole) * whole;
    let periods = i64::from(watch.periods + MORE);
    let times = end - periods * period..end;
    let unit = watch.unit.as_deref();
    let read =
        cloudwatch.read(&alarm.realm, &watch.metric, unit, times.clone(), watch.period_s).await?;
    let datapoint = |back: i64| {
        let begin = end - back * period;
        let summary = read.get(&begin)?;
        let at = Timestamp::from_millis(begin * 1000);
        Some(Datapoint { at, value: statistic.of(summary)?, count: summary.count })
    };
    let range: Vec<_> = (1..=periods).map(datapoint).collect();
    Ok(evaluate(watch, &range, now))
}

/// Tells scaling policies of an alarm as long as it lasts.
async fn scale(
    cloudwatch: &Arc<CloudWatch>,
    alarm: &Alarm,
    mut values: Vec<f64>,
) -> Result<(), Failed> {
    let (world, key) = (&cloudwatch.world, alarm.key());
    let (again, now) = (world.scaled(AGAIN), world.now());
    let Some(alarm) = cloudwatch.store.read().get::<Alarm>(&key) else { return Ok(()) };
    let policies: Vec<_> =
        alarm.actions(alarm.state).iter().filter(|action| scales(action)).cloned().collect();
    // All is well, or unknown: that is said once.
    let lasts = alarm.state == StateValue::Alarm;
    let due = alarm.scaled.is_none_or(|scaled| lasts && now >= scaled + again);
    if policies.is_empty() || !alarm.watch.acts || !due {
        return Ok(());
    }
    if values.is_empty() {
        // Somebody set the state, or what is missing breaches.
        values.push(alarm.watch.threshold);
    }
    let mut done = Vec::new();
    for policy in policies {
        let told = cloudwatch.told();
        let breach = application_autoscaling::Breach {
            alarm: &alarm.name,
            state: alarm.state.as_str(),
            values: &values,
            threshold: alarm.watch.threshold,
        };
        let outcome = told.scaling.breached(&alarm.realm, &policy, breach).await;
        done.push((policy, outcome.err()));
    }
    let world = world.clone();
    let write = cloudwatch.store.write(move |tx| {
        let first = alarm.scaled.is_none();
        for (policy, failure) in done {
            // What is said again is not worth a line each time, unless it fails.
            if first || failure.is_some() {
                acted(tx, &world, &alarm, &policy, failure);
            }
        }
        tx.update::<Alarm>(&key, |alarm| alarm.scaled = Some(now));
        Ok::<_, DiskFault>(())
    });
    write.await?;
    Ok(())
}
