//! Log streams.

use super::{group, group_arn, group_name, page, stream, stream_arn};
use crate::{
    Logs,
    api::*,
    faults,
    model::{LogGroup, LogStream as Record},
};
use logstore::StreamStats;
use std::sync::Arc;
use wire::{Context, Fault};

pub(crate) async fn create_log_stream(
    logs: &Logs,
    ctx: &Context,
    input: CreateLogStreamRequest,
) -> Result<(), Fault> {
    let (group, name) = (input.log_group_name, input.log_stream_name);
    ctx.authorise("logs:CreateLogStream", &stream_arn(ctx, &group, &name))?;
    let record =
        Record { realm: ctx.realm(), group, name, id: logs.world.uuid(), created: ctx.now };
    logs.store
        .write(move |tx| {
            if tx.get::<LogGroup>(&LogGroup::key_of(&record.realm, &record.group)).is_none() {
                return Err(faults::no_group());
            }
            if tx
                .get::<Record>(&Record::key_of(&record.realm, &record.group, &record.name))
                .is_some()
            {
                return Err(faults::stream_exists());
            }
            tx.put(record);
            Ok(())
        })
        .await
}

pub(crate) async fn delete_log_stream(
    logs: &Logs,
    ctx: &Context,
    input: DeleteLogStreamRequest,
) -> Result<(), Fault> {
    let (group_name, name) = (input.log_group_name, input.log_stream_name);
    ctx.authorise("logs:DeleteLogStream", &stream_arn(ctx, &group_name, &name))?;
    group(logs, ctx, &group_name)?;
    let found = stream(logs, ctx, &group_name, &name)?;
    let key = Record::key_of(&ctx.realm(), &group_name, &name);
    logs.store
        .write(move |tx| {
            tx.delete::<Record>(&key);
            Ok::<_, Fault>(())
        })
        .await?;
    logs.events.delete(&found.id).await.map_err(|error| faults::append(&error))
}

fn answer(stream: &Record, stats: &StreamStats) -> LogStream {
    LogStream {
        log_stream_name: Some(stream.name.clone()),
        creation_time: Some(stream.created.millis()),
        first_event_timestamp: stats.first_event_ms,
        last_event_timestamp: stats.last_event_ms,
        last_ingestion_time: stats.last_ingestion_ms,
        arn: Some(stream.arn()),
        // AWS tells 0 for streams since 2019.
        stored_bytes: Some(0),
        ..LogStream::default()
    }
}

pub(crate) async fn describe_log_streams(
    logs: &Logs,
    ctx: &Context,
    input: DescribeLogStreamsRequest,
) -> Result<DescribeLogStreamsResponse, Fault> {
    let name = group_name(ctx, input.log_group_name, input.log_group_identifier)?;
    ctx.authorise("logs:DescribeLogStreams", &group_arn(ctx, &name))?;
    group(logs, ctx, &name)?;
    let by_time = input.order_by == Some(OrderBy::LastEventTime);
    if by_time && input.log_stream_name_prefix.is_some() {
        return Err(faults::invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let prefix = Record::prefix_of(&ctx.realm(), &name);
    let prefix = prefix + input.log_stream_name_prefix.as_deref().unwrap_or("");
    let streams: Vec<Arc<Record>> = logs.store.read().scan_prefix::<Record>(&prefix).collect();
    let mut ordered = Vec::new();
    for stream in streams {
        let stats = logs.events.stats(&stream.id).await.map_err(|error| faults::read(&error))?;
        // Times sort as text when they are padded.
        let time = stats.last_event_ms.unwrap_or(0).max(0);
        let key = if by_time { format!("{time:020}/{}", stream.name) } else { stream.name.clone() };
        ordered.push((key, answer(&stream, &stats)));
    }
    ordered.sort_by(|a, b| a.0.cmp(&b.0));
    if input.descending == Some(true) {
        ordered.reverse();
        // Pages go by ascending keys, so a descending listing is keyed by its rank.
        for (rank, (key, _)) in ordered.iter_mut().enumerate() {
            *key = format!("{rank:010}");
        }
    }
    let (log_streams, next_token) =
        page("DescribeLogStreams", input.next_token.as_deref(), input.limit, ordered.into_iter())?;
    Ok(DescribeLogStreamsResponse { log_streams, next_token })
}
