//! Events of one's own, and patterns tried out.

use super::bus;
use crate::{
    Events,
    api::*,
    faults,
    pattern::{DEEPEST, Pattern},
    tell::{Event, tell},
};
use serde_json::Value as Json;
use wire::{Context, Fault};

/// The most bytes of one request's entries.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html>
const MOST_BYTES: usize = 256 << 10;

fn required(value: Option<String>, name: &str) -> Result<String, (&'static str, String)> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        (
            "InvalidArgument",
            format!("Parameter {name} is not valid. Reason: {name} is a required argument."),
        )
    })
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn read(
    events: &Events,
    ctx: &Context,
    entry: PutEventsRequestEntry,
) -> Result<Event, (&'static str, String)> {
    if bus(ctx, entry.event_bus_name.as_deref()).is_err() {
        let message = "Event bus does not exist.".to_owned();
        return Err(("ResourceNotFoundException", message));
    }
    let source = required(entry.source, "Source")?;
    let detail_type = required(entry.detail_type, "DetailType")?;
    let detail = required(entry.detail, "Detail")?;
    if source.starts_with("aws.") {
        return Err((
            "NotAuthorizedForSourceException",
            "Not authorized for the source.".to_owned(),
        ));
    }
    let detail: Option<Json> = serde_json::from_str(&detail).ok();
    let detail = detail.filter(|detail| detail.is_object() && depth(detail) < DEEPEST);
    Ok(Event {
        id: events.world.uuid(),
        realm: ctx.realm(),
        source,
        detail_type,
        time: entry.time.unwrap_or(ctx.now),
        resources: entry.resources.unwrap_or_default(),
        detail: detail.ok_or(("MalformedDetail", "Detail is malformed.".to_owned()))?,
    })
}

pub(crate) async fn put_events(
    events: &Events,
    ctx: &Context,
    input: PutEventsRequest,
) -> Result<PutEventsResponse, Fault> {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let bytes = input.entries.iter().map(|entry| {
        let resources = entry.resources.iter().flatten().map(String::len).sum::<usize>();
        length(&entry.source) + length(&entry.detail_type) + length(&entry.detail) + resources
    });
    if bytes.sum::<usize>() > MOST_BYTES {
        return Err(faults::validation(
            "Total size of the entries in the request is over the limit.",
        ));
    }
    let arn = ctx.arn("events", "event-bus/default");
    for entry in &input.entries {
        let keys = [
            ("events:source", entry.source.as_deref().unwrap_or_default()),
            ("events:detail-type", entry.detail_type.as_deref().unwrap_or_default()),
        ];
        ctx.authorise_with("events:PutEvents", &arn, &keys)?;
    }
    let read: Vec<_> = input.entries.into_iter().map(|entry| read(events, ctx, entry)).collect();
    let good: Vec<Event> = read.iter().flatten().cloned().collect();
    let world = events.world.clone();
    events
        .store
        .write(move |tx| {
            good.iter().for_each(|event| tell(tx, &world, event));
            Ok::<_, Fault>(())
        })
        .await?;
    let failed = read.iter().filter(|entry| entry.is_err()).count();
    let entries = read.into_iter().map(|entry| match entry {
        Ok(event) => PutEventsResultEntry { event_id: Some(event.id), ..Default::default() },
        Err((code, message)) => PutEventsResultEntry {
            event_id: None,
            error_code: Some(code.to_owned()),
            error_message: Some(message),
        },
    });
    Ok(PutEventsResponse {
        failed_entry_count: Some(failed as i32),
        entries: Some(entries.collect()),
    })
}

pub(crate) async fn test_event_pattern(
    _: &Events,
    ctx: &Context,
    input: TestEventPatternRequest,
) -> Result<TestEventPatternResponse, Fault> {
    ctx.authorise("events:TestEventPattern", "*")?;
    let pattern = Pattern::read(&input.event_pattern).map_err(|error| faults::pattern(&error))?;
    let event: Option<Json> = serde_json::from_str(&input.event).ok();
    let event = event.filter(|event| event.is_object() && depth(event) <= DEEPEST);
    let event = event.ok_or_else(|| {
        faults::validation(
            "Parameter Event is not valid. Reason: Event is not a valid JSON object.",
        )
    })?;
    let whole = ["id", "account", "source", "time", "region", "resources", "detail-type"];
    if let Some(missing) = whole.into_iter().find(|name| event.get(name).is_none()) {
        return Err(faults::validation(format!(
            "Parameter Event is not valid. Reason: Event does not have the field {missing}."
        )));
    }
    Ok(TestEventPatternResponse { result: Some(pattern.matches(&event)) })
}
