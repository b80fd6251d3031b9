//! Subscription filters: what of a group's events is handed on to functions.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html>

use super::{group, group_arn, metric_filter::pattern, page};
use crate::{
    Logs,
    api::*,
    faults,
    model::{LogGroup, SubscriptionFilter as Record},
};
use store::Record as _;
use wire::{Context, Fault};

/// Filters of a group.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html>
const MOST: usize = 2;

pub(crate) async fn put_subscription_filter(
    logs: &Logs,
    ctx: &Context,
    input: PutSubscriptionFilterRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:PutSubscriptionFilter", &group_arn(ctx, &input.log_group_name))?;
    group(logs, ctx, &input.log_group_name)?;
    pattern(&input.filter_pattern)?;
    let destination = input.destination_arn;
    if !destination.starts_with("arn:aws:lambda:") {
        return Err(faults::invalid(format!(
            "Neargate hands events on to Lambda functions only, not to destinationArn {destination}"
        )));
    }
    logs.lambda.function(&ctx.realm(), &destination).map_err(|why| {
        faults::invalid(format!("Could not execute the lambda function {destination}. {why}"))
    })?;
    let filter = Record {
        realm: ctx.realm(),
        group: input.log_group_name,
        name: input.filter_name,
        pattern: input.filter_pattern,
        destination,
        distribution: input.distribution.map_or("ByLogStream", Distribution::as_str).to_owned(),
        created: ctx.now,
    };
    let write = logs.store.write(move |tx| {
        if tx.get::<LogGroup>(&LogGroup::key_of(&filter.realm, &filter.group)).is_none() {
            return Err(faults::no_group());
        }
        let prefix = Record::prefix_of(&filter.realm, &filter.group);
        let known = tx.get::<Record>(&filter.key());
        if known.is_none() && tx.scan_prefix::<Record>(&prefix).count() >= MOST {
            return Err(Fault::new("LimitExceededException", "Resource limit exceeded."));
        }
        tx.put(filter);
        Ok(())
    });
    write.await
}

pub(crate) async fn describe_subscription_filters(
    logs: &Logs,
    ctx: &Context,
    input: DescribeSubscriptionFiltersRequest,
) -> Result<DescribeSubscriptionFiltersResponse, Fault> {
    let of = input.log_group_name;
    ctx.authorise("logs:DescribeSubscriptionFilters", &group_arn(ctx, &of))?;
    group(logs, ctx, &of)?;
    let wanted = input.filter_name_prefix.unwrap_or_default();
    let prefix = Record::prefix_of(&ctx.realm(), &of) + &wanted;
    let answer = |filter: std::sync::Arc<Record>| {
        let told = SubscriptionFilter {
            filter_name: Some(filter.name.clone()),
            log_group_name: Some(filter.group.clone()),
            filter_pattern: Some(filter.pattern.clone()),
            destination_arn: Some(filter.destination.clone()),
            distribution: Distribution::parse(&filter.distribution),
            creation_time: Some(filter.created.millis()),
            ..SubscriptionFilter::default()
        };
        (filter.key(), told)
    };
    let snapshot = logs.store.read();
    let all = snapshot.scan_prefix::<Record>(&prefix).map(answer);
    let (subscription_filters, next_token) =
        page("DescribeSubscriptionFilters", input.next_token.as_deref(), input.limit, all)?;
    Ok(DescribeSubscriptionFiltersResponse { subscription_filters, next_token })
}

pub(crate) async fn delete_subscription_filter(
    logs: &Logs,
    ctx: &Context,
    input: DeleteSubscriptionFilterRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:DeleteSubscriptionFilter", &group_arn(ctx, &input.log_group_name))?;
    group(logs, ctx, &input.log_group_name)?;
    let key = Record::prefix_of(&ctx.realm(), &input.log_group_name) + &input.filter_name;
    let write = logs.store.write(move |tx| match tx.delete::<Record>(&key) {
        true => Ok(()),
        false => Err(Fault::new(
            "ResourceNotFoundException",
            "The specified subscription filter does not exist.",
        )),
    });
    write.await
}
