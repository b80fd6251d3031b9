//! Log groups.

use super::{group_arn, group_name, page};
use crate::{
    Logs,
    api::*,
    faults,
    model::{LogGroup as Record, LogStream, MetricFilter, SubscriptionFilter},
};
use store::Record as _;
use wire::{Context, Fault};

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>
const RETENTIONS: [i32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

pub(crate) async fn create_log_group(
    logs: &Logs,
    ctx: &Context,
    input: CreateLogGroupRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:CreateLogGroup", &group_arn(ctx, &input.log_group_name))?;
    let group = Record {
        realm: ctx.realm(),
        name: input.log_group_name,
        created: ctx.now,
        retention_days: None,
        class: input.log_group_class.map_or("STANDARD", LogGroupClass::as_str).to_owned(),
        tags: input.tags.unwrap_or_default(),
    };
    logs.store
        .write(move |tx| {
            if tx.get::<Record>(&Record::key_of(&group.realm, &group.name)).is_some() {
                return Err(faults::group_exists());
            }
            tx.put(group);
            Ok(())
        })
        .await
}

pub(crate) async fn describe_log_groups(
    logs: &Logs,
    ctx: &Context,
    input: DescribeLogGroupsRequest,
) -> Result<DescribeLogGroupsResponse, Fault> {
    ctx.authorise("logs:DescribeLogGroups", &group_arn(ctx, "*"))?;
    if input.log_group_name_prefix.is_some() && input.log_group_name_pattern.is_some() {
        return Err(faults::invalid(
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        ));
    }
    let identifiers = input.log_group_identifiers.unwrap_or_default();
    let identified: Result<Vec<String>, Fault> =
        identifiers.into_iter().map(|id| group_name(ctx, None, Some(id))).collect();
    let identified = identified?;
    let snapshot = logs.store.read();
    let prefix = Record::key_of(&ctx.realm(), input.log_group_name_prefix.as_deref().unwrap_or(""));
    let pattern = input.log_group_name_pattern.map(|pattern| pattern.to_lowercase());
    let groups = snapshot.scan_prefix::<Record>(&prefix).filter(|group| {
        pattern.as_ref().is_none_or(|pattern| group.name.to_lowercase().contains(pattern))
            && (identified.is_empty() || identified.contains(&group.name))
            && input.log_group_class.is_none_or(|class| class.as_str() == group.class)
    });
    let groups = groups.map(|group| (group.name.clone(), group));
    let (found, next_token) =
        page("DescribeLogGroups", input.next_token.as_deref(), input.limit, groups)?;
    let mut answers = Vec::new();
    for group in found.unwrap_or_default() {
        answers.push(answer(logs, &group).await?);
    }
    Ok(DescribeLogGroupsResponse { log_groups: Some(answers), next_token })
}

async fn answer(logs: &Logs, group: &Record) -> Result<LogGroup, Fault> {
    let snapshot = logs.store.read();
    let prefix = MetricFilter::prefix_of(&group.realm, &group.name);
    let filters = snapshot.scan_prefix::<MetricFilter>(&prefix).count();
    let mut stored = 0;
    for stream in
        snapshot.scan_prefix::<LogStream>(&LogStream::prefix_of(&group.realm, &group.name))
    {
        let stats = logs.events.stats(&stream.id).await.map_err(|error| faults::read(&error))?;
        stored += stats.message_bytes;
    }
    Ok(LogGroup {
        log_group_name: Some(group.name.clone()),
        creation_time: Some(group.created.millis()),
        retention_in_days: group.retention_days,
        metric_filter_count: i32::try_from(filters).ok(),
        arn: Some(format!("{}:*", group.arn())),
        stored_bytes: Some(i64::try_from(stored).unwrap_or(i64::MAX)),
        log_group_class: LogGroupClass::parse(&group.class),
        log_group_arn: Some(group.arn()),
        ..LogGroup::default()
    })
}

pub(crate) async fn delete_log_group(
    logs: &Logs,
    ctx: &Context,
    input: DeleteLogGroupRequest,
) -> Result<(), Fault> {
    let name = input.log_group_name;
    ctx.authorise("logs:DeleteLogGroup", &group_arn(ctx, &name))?;
    let realm = ctx.realm();
    let deleted = logs.store.write(move |tx| {
        if !tx.delete::<Record>(&Record::key_of(&realm, &name)) {
            return Err(faults::no_group());
        }
        let streams = tx.scan_prefix::<LogStream>(&LogStream::prefix_of(&realm, &name));
        let streams: Vec<_> = streams.collect();
        for stream in &streams {
            tx.delete::<LogStream>(&LogStream::key_of(&realm, &name, &stream.name));
        }
        let prefix = MetricFilter::prefix_of(&realm, &name);
        let counting: Vec<_> = tx.scan_prefix::<MetricFilter>(&prefix).map(|it| it.key()).collect();
        for filter in counting {
            tx.delete::<MetricFilter>(&filter);
        }
        let handing = tx.scan_prefix::<SubscriptionFilter>(&prefix);
        for filter in handing.map(|it| it.key()).collect::<Vec<_>>() {
            tx.delete::<SubscriptionFilter>(&filter);
        }
        Ok::<_, Fault>(streams)
    });
    for stream in deleted.await? {
        logs.events.delete(&stream.id).await.map_err(|error| faults::append(&error))?;
    }
    Ok(())
}

async fn set_retention(
    logs: &Logs,
    ctx: &Context,
    name: String,
    days: Option<i32>,
) -> Result<(), Fault> {
    let key = Record::key_of(&ctx.realm(), &name);
    logs.store
        .write(move |tx| match tx.update::<Record>(&key, |group| group.retention_days = days) {
            true => Ok(()),
            false => Err(faults::no_group()),
        })
        .await
}

pub(crate) async fn put_retention_policy(
    logs: &Logs,
    ctx: &Context,
    input: PutRetentionPolicyRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:PutRetentionPolicy", &group_arn(ctx, &input.log_group_name))?;
    let days = input.retention_in_days;
    if !RETENTIONS.contains(&days) {
        let allowed: Vec<String> = RETENTIONS.iter().map(ToString::to_string).collect();
        return Err(faults::invalid(format!(
            "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: \
             Member must satisfy enum value set: [{}]",
            allowed.join(", ")
        )));
    }
    set_retention(logs, ctx, input.log_group_name, Some(days)).await
}

pub(crate) async fn delete_retention_policy(
    logs: &Logs,
    ctx: &Context,
    input: DeleteRetentionPolicyRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:DeleteRetentionPolicy", &group_arn(ctx, &input.log_group_name))?;
    set_retention(logs, ctx, input.log_group_name, None).await
}
