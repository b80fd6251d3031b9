//! CloudWatch: metrics, and alarms that watch them.
//!
//! - `metric`: what a metric is called, and which statistics there are.
//! - `evaluate`: what an alarm's state is, from datapoints alone. Pure.
//! - `drive`: looks at all alarms, again and again, and lets old points age.
//! - `turn`: what follows from a state that changed: history, notices, actions.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/WhatIsCloudWatch.html>

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod drive;
mod evaluate;
mod faults;
pub mod metric;
pub mod model;
mod ops;
pub mod resources;
mod turn;

use application_autoscaling::AutoScaling;
use lambda::Lambda;
use metric::{Metric, Statistic};
pub use metricstore::Summary;
use metricstore::{MetricStore, MetricStoreError, Point, Resolution};
use model::{Alarm, HistoryItem};
use sns::Sns;
use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use store::{ReadError, Store};
use world::{Timestamp, World};

/// Whom alarms tell.
#[derive(Clone)]
pub struct Told {
    /// Topics.
    pub sns: Arc<Sns>,
    /// Functions.
    pub lambda: Arc<Lambda>,
    /// Scaling policies.
    pub scaling: Arc<AutoScaling>,
}

/// The service's state.
pub struct CloudWatch {
    store: Store,
    world: World,
    points: Arc<MetricStore>,
    /// Set once, when alarms are looked at.
    told: OnceLock<Told>,
}

/// What another part of the house has measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of what.
    pub metric: Metric,
    /// In what unit.
    pub unit: &'static str,
    /// When.
    pub at: Timestamp,
    /// What was measured since the last time.
    pub summary: Summary,
}

impl CloudWatch {
    /// The service over `store`; points are in the file `metrics`. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, metrics: &Path) -> Result<Arc<Self>, ReadError> {
        store.declare::<Alarm>()?;
        store.declare::<HistoryItem>()?;
        events::declare(&store)?;
        let points = Arc::new(MetricStore::new(metrics));
        Ok(Arc::new(Self { store, world, points, told: OnceLock::new() }))
    }

    /// Begins to look at alarms.
    pub fn start(self: &Arc<Self>, told: Told) {
        assert!(self.told.set(told).is_ok(), "started once");
        let (alarms, ages) = (self.clone(), self.clone());
        self.world.spawn("alarms", async move { drive::watch(alarms).await });
        self.world.spawn("old metrics", async move { drive::age(ages).await });
    }

    fn told(&self) -> &Told {
        self.told.get().expect("alarms are looked at before the first request comes in")
    }

    /// Keeps what another part of the house has measured in `realm`.
    pub async fn keep(
        &self,
        realm: &str,
        measured: Vec<Measured>,
    ) -> Result<(), Arc<MetricStoreError>> {
        let point = |one: Measured| Point {
            series: one.metric.series(realm, one.unit),
            at: one.at.millis().div_euclid(1000),
            resolution: Resolution::Minute,
            summary: one.summary,
        };
        self.points.put(measured.into_iter().map(point).collect()).await
    }

    /// A statistic of a metric in the last minute that is over; none when nothing was measured. `unit` is the unit to
    /// look at, or all.
    pub async fn last_minute(
        &self,
        realm: &str,
        metric: &Metric,
        unit: Option<&str>,
        statistic: Statistic,
    ) -> Result<Option<f64>, MetricStoreError> {
        let end = self.world.now().millis().div_euclid(60_000) * 60;
        let read = self.read(realm, metric, unit, end - 60..end, 60).await?;
        Ok(read.into_values().next().and_then(|summary| statistic.of(&summary)))
    }

    /// How alarms are: the names of those that are on, and how long the slowest takes until it is, when there is cause.
    pub fn look(&self, realm: &str, names: &[String]) -> (Vec<String>, Duration) {
        let snapshot = self.store.read();
        let known = names.iter().filter_map(|name| snapshot.get(&Alarm::key_of(realm, name)));
        let (mut on, mut takes) = (Vec::new(), Duration::ZERO);
        for alarm in known {
            let alarm: Arc<Alarm> = alarm;
            let watch = &alarm.watch;
            let seconds = u64::from(watch.period_s) * u64::from(watch.periods);
            takes = takes.max(Duration::from_secs(seconds));
            if alarm.state == api::StateValue::Alarm {
                on.push(alarm.name.clone());
            }
        }
        (on, takes)
    }

    /// What was measured of a metric in each period that begins in `times`, from its start on; by the period's begin.
    async fn read(
        &self,
        realm: &str,
        metric: &Metric,
        unit: Option<&str>,
        times: Range<i64>,
        period: u32,
    ) -> Result<BTreeMap<i64, Summary>, MetricStoreError> {
        let (points, period) = (self.points.clone(), i64::from(period));
        let (prefix, wanted) = (metric.prefix(realm), unit.map(|unit| metric.series(realm, unit)));
        let work = move || {
            let series = match wanted {
                Some(series) => vec![series],
                None => points.series(&prefix, i64::MIN)?,
            };
            let mut read = BTreeMap::<i64, Summary>::new();
            for series in series {
                for (at, summary) in points.read(&series, times.clone())? {
                    let begin = times.start + (at - times.start).div_euclid(period) * period;
                    let merge = |known: &mut Summary| known.merge(&summary);
                    read.entry(begin).and_modify(merge).or_insert(summary.clone());
                }
            }
            Ok(read)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.expect("reading points does not panic")
    }
}
