//! Holds events against their group's filters once they are kept: counts them, and hands them on to functions.

use crate::{
    Logs,
    model::{MetricFilter, SubscriptionFilter},
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use flate2::{Compression, write::GzEncoder};
use lambda::model::Function;
use logstore::{NewEvent, pattern::Pattern};
use serde_json::{Value as Json, json};
use std::io::Write;
use store::DiskFault;

/// A stream, and where it is.
pub(crate) struct Place<'a> {
    pub(crate) realm: &'a str,
    pub(crate) group: &'a str,
    pub(crate) stream: &'a str,
}

/// An event's id, as readers see it.
pub(crate) fn event_id(timestamp_ms: i64, sequence: u64) -> String {
    format!("{timestamp_ms:020}{sequence:036}")
}

impl Logs {
    /// Does with events what their group's filters say. `first` is the sequence of the first.
    pub(crate) async fn filter(&self, place: Place<'_>, events: &[NewEvent], first: u64) {
        let Place { realm, group, .. } = place;
        let snapshot = self.store.read();
        let prefix = MetricFilter::prefix_of(realm, group);
        let counting: Vec<_> = snapshot.scan_prefix::<MetricFilter>(&prefix).collect();
        if !counting.is_empty() {
            self.count(realm, group, &counting, events).await;
        }
        let handing: Vec<_> = snapshot.scan_prefix::<SubscriptionFilter>(&prefix).collect();
        let mut letters: Vec<(Function, String)> = Vec::new();
        for filter in handing {
            let Some(payload) = payload(&place, &filter, events, first) else { continue };
            match self.lambda.function(realm, &filter.destination) {
                Ok(function) => letters.push((function, payload)),
                Err(why) => {
                    tracing::warn!(group, filter = filter.name, why, "events are not handed on")
                }
            }
        }
        if letters.is_empty() {
            return;
        }
        let lambda = self.lambda.clone();
        let write = self.store.write(move |tx| {
            for (function, payload) in letters {
                lambda.ask(tx, function, &payload);
            }
            Ok::<_, DiskFault>(())
        });
        if let Err(error) = write.await {
            tracing::error!(%error, group, "events could not be handed on");
        }
    }
}

/// What a function is asked with; none when no event matches.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-cloudwatchlogs.html>
fn payload(
    place: &Place,
    filter: &SubscriptionFilter,
    events: &[NewEvent],
    first: u64,
) -> Option<String> {
    // It was read when it was put.
    let pattern = Pattern::parse(&filter.pattern).ok()?;
    let told = |(event, sequence): (&NewEvent, u64)| {
        json!({
            "id": event_id(event.timestamp_ms, sequence), "timestamp": event.timestamp_ms,
            "message": event.message,
        })
    };
    let matching = events.iter().zip(first..).filter(|(event, _)| pattern.matches(&event.message));
    let matching: Vec<Json> = matching.map(told).collect();
    if matching.is_empty() {
        return None;
    }
    let (owner, _) = place.realm.split_once('/').unwrap_or_default();
    let data = json!({
        "messageType": "DATA_MESSAGE", "owner": owner, "logGroup": place.group, "logStream": place.stream,
        "subscriptionFilters": [filter.name], "logEvents": matching,
    });
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let written = packed.write_all(data.to_string().as_bytes()).and_then(|()| packed.finish());
    let packed = written.expect("writing into memory does not fail");
    Some(json!({"awslogs": {"data": BASE64.encode(packed)}}).to_string())
}
