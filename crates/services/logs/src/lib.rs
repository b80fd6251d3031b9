//! CloudWatch Logs: groups and streams as records, events in the [`logstore`]. Tasks' output comes in by
//! [`Logs::sink`], everybody else's by PutLogEvents.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod count;
mod faults;
mod hand_on;
pub mod model;
mod ops;
pub mod resources;
mod retention;
mod sink;

pub use sink::{Sink, SinkError};

use cloudwatch::CloudWatch;
use lambda::Lambda;
use logstore::LogStore;
use model::{LogGroup, LogStream, MetricFilter, SubscriptionFilter};
use std::sync::Arc;
use store::{ReadError, Store};
use wire::Identity;
use world::World;

/// The service's state.
pub struct Logs {
    store: Store,
    world: World,
    events: LogStore,
    identity: Arc<dyn Identity>,
    /// Where what filters count is kept.
    metrics: Arc<CloudWatch>,
    /// Whom events are handed on to.
    lambda: Arc<Lambda>,
}

impl Logs {
    /// The service over `store` and `events`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        events: LogStore,
        identity: Arc<dyn Identity>,
        metrics: Arc<CloudWatch>,
        lambda: Arc<Lambda>,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<LogGroup>()?;
        store.declare::<LogStream>()?;
        store.declare::<MetricFilter>()?;
        store.declare::<SubscriptionFilter>()?;
        Ok(Arc::new(Self { store, world, events, identity, metrics, lambda }))
    }

    /// Begins to drop what is older than its group keeps it.
    pub fn start(self: &Arc<Self>) {
        let logs = self.clone();
        self.world.spawn("log retention", async move { retention::drive(logs).await });
    }
}

/// A line that [`Logs::follow`] gives.
pub struct Line {
    /// The stream's name.
    pub stream: String,
    /// When it happened, in ms since the epoch.
    pub timestamp_ms: i64,
    /// The text.
    pub message: String,
}

impl Logs {
    /// Whether there is such a group.
    pub fn has_group(&self, realm: &str, group: &str) -> bool {
        self.store.read().get::<LogGroup>(&LogGroup::key_of(realm, group)).is_some()
    }

    /// The last `last` events of a group, and with `follow` those that come, given to `each` until it says no.
    /// Streams made later are taken up as they come.
    pub async fn follow<F: Future<Output = bool>>(
        &self,
        realm: &str,
        group: &str,
        last: usize,
        follow: bool,
        each: impl Fn(Line) -> F,
    ) -> Result<(), logstore::ReadError> {
        let mut watch = self.store.watch::<LogStream>();
        let tail = self.events.tail();
        let mut names = std::collections::HashMap::new();
        let prefix = LogStream::prefix_of(realm, group);
        let mut first = true;
        loop {
            for stream in self.store.read().scan_prefix::<LogStream>(&prefix) {
                if names.insert(stream.id.clone(), stream.name.clone()).is_none() && follow {
                    tail.add(&stream.id)?;
                }
            }
            if std::mem::take(&mut first) {
                let query = logstore::Query {
                    streams: names.keys().cloned().collect(),
                    direction: logstore::Direction::Backward,
                    max_events: last.max(1),
                    ..logstore::Query::default()
                };
                for event in self.events.read(query).await?.events {
                    if !each(line(&names, event)).await {
                        return Ok(());
                    }
                }
            }
            if !follow {
                return Ok(());
            }
            tokio::select! {
                () = watch.changed() => {}
                arrivals = tail.next() => {
                    for event in arrivals.events {
                        if !each(line(&names, event)).await {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

fn line(names: &std::collections::HashMap<String, String>, event: logstore::Event) -> Line {
    Line {
        stream: names.get(&*event.stream).cloned().unwrap_or_default(),
        timestamp_ms: event.timestamp_ms,
        message: event.message,
    }
}
