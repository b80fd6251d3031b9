//! Events: in by PutLogEvents, out by GetLogEvents and FilterLogEvents.

use super::{group, group_arn, group_name, stream, stream_arn};
use crate::{
    Logs,
    api::*,
    faults,
    hand_on::{Place, event_id},
    model::{LogGroup, LogStream},
};
use logstore::{Direction, Event, NewEvent, Position, Query, pattern::Pattern};
use std::{collections::HashMap, sync::Arc};
use wire::{Context, Fault};

/// AWS counts this much for each event beside its message, in bytes.
const OVERHEAD: usize = 26;
/// The largest batch, in bytes with the overhead.
const MOST_BATCH: usize = 1_048_576;
const DAY_MS: i64 = 86_400_000;
/// Events further ahead than this are rejected.
const AHEAD_MS: i64 = 2 * 3_600_000;
/// Events older than this are rejected.
const BEHIND_MS: i64 = 14 * DAY_MS;
/// The most events of one answer.
const MOST_EVENTS: i32 = 10_000;
/// So much is searched for one answer of FilterLogEvents before it says how to go on, in bytes.
const MOST_SEARCHED: u64 = 256 << 20;

pub(crate) async fn put_log_events(
    logs: &Logs,
    ctx: &Context,
    input: PutLogEventsRequest,
) -> Result<PutLogEventsResponse, Fault> {
    let (group_name, name) = (input.log_group_name, input.log_stream_name);
    ctx.authorise("logs:PutLogEvents", &stream_arn(ctx, &group_name, &name))?;
    let group = group(logs, ctx, &group_name)?;
    let stream = stream(logs, ctx, &group_name, &name)?;
    check_batch(&input.log_events)?;
    let (kept, rejected) = split(&group, ctx.now.millis(), input.log_events);
    if !kept.is_empty() {
        let appended = logs.events.append(&stream.id, &kept, None).await;
        let appended = appended.map_err(|error| faults::append(&error))?;
        let place = Place { realm: &group.realm, group: &group.name, stream: &name };
        logs.filter(place, &kept, appended.first_sequence).await;
    }
    Ok(PutLogEventsResponse {
        // Tokens mean nothing any more, on AWS as here; the answer has one for old clients.
        next_sequence_token: Some(format!("{:056}", ctx.now.millis())),
        rejected_log_events_info: rejected,
        ..PutLogEventsResponse::default()
    })
}

fn check_batch(events: &[InputLogEvent]) -> Result<(), Fault> {
    let times = || events.iter().map(|event| event.timestamp);
    if events.windows(2).any(|pair| pair[0].timestamp > pair[1].timestamp) {
        return Err(faults::invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    if let (Some(first), Some(last)) = (times().next(), times().next_back())
        && last - first > DAY_MS
    {
        return Err(faults::invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    let size: usize = events.iter().map(|event| event.message.len() + OVERHEAD).sum();
    match size > MOST_BATCH {
        true => Err(faults::invalid(format!(
            "Upload too large: {size} bytes exceeds limit of {MOST_BATCH}"
        ))),
        false => Ok(()),
    }
}

/// What is kept of a batch in chronological order, and which of its ends are not.
fn split(
    group: &LogGroup,
    now_ms: i64,
    events: Vec<InputLogEvent>,
) -> (Vec<NewEvent>, Option<RejectedLogEventsInfo>) {
    let count = |events: usize| i32::try_from(events).unwrap_or(i32::MAX);
    let horizon_ms = group.horizon_ms(world::Timestamp::from_millis(now_ms));
    let expired =
        events.iter().take_while(|e| horizon_ms.is_some_and(|at| e.timestamp < at)).count();
    let too_old = events.iter().take_while(|e| e.timestamp < now_ms - BEHIND_MS).count();
    let too_new = events.iter().position(|e| e.timestamp > now_ms + AHEAD_MS);
    let end = too_new.unwrap_or(events.len());
    let start = expired.max(too_old).min(end);
    let rejected = (start > 0 || too_new.is_some()).then(|| RejectedLogEventsInfo {
        too_new_log_event_start_index: too_new.map(count),
        too_old_log_event_end_index: (too_old > 0).then(|| count(too_old)),
        expired_log_event_end_index: (expired > 0).then(|| count(expired)),
    });
    let kept = events.into_iter().take(end).skip(start);
    let kept = kept.map(|event| NewEvent { timestamp_ms: event.timestamp, message: event.message });
    (kept.collect(), rejected)
}

/// What a group's readers see begins here.
fn start_ms(group: &LogGroup, ctx: &Context, wanted: Option<i64>) -> Option<i64> {
    match (wanted, group.horizon_ms(ctx.now)) {
        (Some(wanted), Some(horizon)) => Some(wanted.max(horizon)),
        (wanted, horizon) => wanted.or(horizon),
    }
}

fn limit(given: Option<i32>) -> usize {
    usize::try_from(given.unwrap_or(MOST_EVENTS).clamp(1, MOST_EVENTS)).expect("it is positive")
}

pub(crate) async fn get_log_events(
    logs: &Logs,
    ctx: &Context,
    input: GetLogEventsRequest,
) -> Result<GetLogEventsResponse, Fault> {
    let group_name = group_name(ctx, input.log_group_name, input.log_group_identifier)?;
    ctx.authorise("logs:GetLogEvents", &stream_arn(ctx, &group_name, &input.log_stream_name))?;
    let group = group(logs, ctx, &group_name)?;
    let stream = stream(logs, ctx, &group_name, &input.log_stream_name)?;
    let token = input.next_token.as_deref().map(token).transpose()?;
    let direction = match (&token, input.start_from_head) {
        (Some((direction, _)), _) => *direction,
        (None, Some(true)) => Direction::Forward,
        (None, _) => Direction::Backward,
    };
    let from = token.map(|(_, position)| position);
    let query = Query {
        streams: vec![stream.id.clone()],
        start_ms: start_ms(&group, ctx, input.start_time),
        end_ms: input.end_time,
        from,
        direction,
        max_events: limit(input.limit),
        ..Query::default()
    };
    let page = logs.events.read(query).await.map_err(|error| faults::read(&error))?;
    let edge = |event: Option<&Event>| event.map(Event::position).or(from).unwrap_or(page.next);
    let (first, last) = (edge(page.events.first()), edge(page.events.last()));
    let events = page.events.iter().map(|event| OutputLogEvent {
        timestamp: Some(event.timestamp_ms),
        message: Some(event.message.clone()),
        ingestion_time: Some(event.ingestion_ms),
    });
    Ok(GetLogEventsResponse {
        events: Some(events.collect()),
        next_forward_token: Some(format!("f/{last}/s")),
        next_backward_token: Some(format!("b/{first}/s")),
    })
}

fn token(text: &str) -> Result<(Direction, Position), Fault> {
    let bad = || faults::invalid("The specified nextToken is invalid.");
    let (direction, rest) = text.split_once('/').ok_or_else(bad)?;
    let direction = match direction {
        "f" => Direction::Forward,
        "b" => Direction::Backward,
        _ => return Err(bad()),
    };
    let position = rest.strip_suffix("/s").and_then(|text| text.parse().ok());
    Ok((direction, position.ok_or_else(bad)?))
}

pub(crate) async fn filter_log_events(
    logs: &Logs,
    ctx: &Context,
    input: FilterLogEventsRequest,
) -> Result<FilterLogEventsResponse, Fault> {
    let group_name = group_name(ctx, input.log_group_name, input.log_group_identifier)?;
    ctx.authorise("logs:FilterLogEvents", &group_arn(ctx, &group_name))?;
    let group = group(logs, ctx, &group_name)?;
    if input.log_stream_names.is_some() && input.log_stream_name_prefix.is_some() {
        return Err(faults::invalid(
            "LogStreamNamePrefix and LogStreamNames are mutually exclusive parameters.",
        ));
    }
    let streams: HashMap<String, Arc<LogStream>> = match &input.log_stream_names {
        Some(names) => {
            let found = names.iter().map(|name| stream(logs, ctx, &group_name, name));
            let found: Vec<Arc<LogStream>> = found.collect::<Result<_, _>>()?;
            found.into_iter().map(|stream| (stream.id.clone(), stream)).collect()
        }
        None => {
            let prefix = LogStream::prefix_of(&ctx.realm(), &group_name);
            let prefix = prefix + input.log_stream_name_prefix.as_deref().unwrap_or("");
            let snapshot = logs.store.read();
            snapshot.scan_prefix::<LogStream>(&prefix).map(|s| (s.id.clone(), s)).collect()
        }
    };
    let pattern = input.filter_pattern.as_deref().unwrap_or("");
    let pattern = Pattern::parse(pattern)
        .map_err(|error| faults::invalid(format!("Invalid filter pattern: {error}")))?;
    let from = input.next_token.as_deref().map(|token| {
        let position: Result<Position, _> = token.parse();
        position.map_err(|_| faults::invalid("The specified nextToken is invalid."))
    });
    let query = Query {
        streams: streams.keys().cloned().collect(),
        start_ms: start_ms(&group, ctx, input.start_time),
        end_ms: input.end_time,
        from: from.transpose()?,
        filter: Some(Arc::new(pattern)),
        max_events: limit(input.limit),
        max_searched_bytes: MOST_SEARCHED,
        ..Query::default()
    };
    let page = logs.events.read(query).await.map_err(|error| faults::read(&error))?;
    let events = page.events.iter().map(|event| FilteredLogEvent {
        log_stream_name: streams.get(&*event.stream).map(|stream| stream.name.clone()),
        timestamp: Some(event.timestamp_ms),
        message: Some(event.message.clone()),
        ingestion_time: Some(event.ingestion_ms),
        event_id: Some(event_id(event.timestamp_ms, event.sequence)),
    });
    Ok(FilterLogEventsResponse {
        events: Some(events.collect()),
        searched_log_streams: Some(Vec::new()),
        next_token: (!page.end).then(|| page.next.to_string()),
    })
}
