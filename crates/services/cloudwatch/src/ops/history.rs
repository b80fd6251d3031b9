//! What happened to alarms.

use super::{authorise, page};
use crate::{CloudWatch, api::*, model::HistoryItem};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// On a page.
const PAGE: i32 = 100;

pub(crate) async fn describe_alarm_history(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: DescribeAlarmHistoryInput,
) -> Result<DescribeAlarmHistoryOutput, Fault> {
    authorise(ctx, "DescribeAlarmHistory")?;
    let kinds = input.alarm_types.unwrap_or_default();
    let metric = kinds.is_empty() || kinds.contains(&AlarmType::MetricAlarm);
    let wanted = |item: &Arc<HistoryItem>| {
        metric
            && input.alarm_name.as_ref().is_none_or(|name| *name == item.alarm)
            && input.history_item_type.is_none_or(|kind| kind == item.kind)
            && input.start_date.is_none_or(|start| item.at >= start)
            && input.end_date.is_none_or(|end| item.at <= end)
    };
    let snapshot = cloudwatch.store.read();
    let all = snapshot.scan_prefix::<HistoryItem>(&format!("{}/", ctx.realm())).filter(wanted);
    let descending = input.scan_by != Some(ScanBy::TimestampAscending);
    // By time; pages count in that order, so their keys do too.
    let mut all: Vec<_> = all
        .map(|item| {
            let at = (item.at.millis(), item.number);
            let (place, number) = match descending {
                true => (i64::MAX - at.0, usize::MAX - at.1),
                false => at,
            };
            (format!("{place:020}/{number:020}/{}", item.key()), item)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let item = |(key, item): (String, Arc<HistoryItem>)| {
        let told = AlarmHistoryItem {
            alarm_name: Some(item.alarm.clone()),
            alarm_type: Some(AlarmType::MetricAlarm),
            timestamp: Some(item.at),
            history_item_type: Some(item.kind),
            history_summary: Some(item.summary.clone()),
            history_data: Some(item.data.clone()),
            ..AlarmHistoryItem::default()
        };
        (key, told)
    };
    let size = usize::try_from(input.max_records.unwrap_or(PAGE)).unwrap_or(1);
    let all = all.into_iter().map(item);
    let page = page("alarm history", input.next_token.as_deref(), size, all)?;
    Ok(DescribeAlarmHistoryOutput {
        alarm_history_items: Some(page.items),
        next_token: page.next_token,
    })
}
