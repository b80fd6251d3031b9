//! Metric filters: what of a group's events counts as a metric.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/MonitoringLogData.html>

use super::{group, group_arn, page};
use crate::{
    Logs,
    api::*,
    count::{Ready, names},
    faults,
    model::{LogGroup, MetricFilter as Record, Transformation},
};
use logstore::pattern::Pattern;
use std::collections::BTreeMap;
use store::Record as _;
use wire::{Context, Fault};

/// Filters of a group.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html>
const MOST: usize = 100;
/// Dimensions of a metric.
const MOST_DIMENSIONS: usize = 3;

pub(super) fn pattern(text: &str) -> Result<Pattern, Fault> {
    Pattern::parse(text).map_err(|error| faults::invalid(error.to_string()))
}

fn check(filter: &Record) -> Result<(), Fault> {
    let (pattern, wanted) = (pattern(&filter.pattern)?, &filter.transformation);
    let extracts = names(&wanted.value) || !wanted.dimensions.is_empty();
    if extracts && !pattern.names_values() {
        return Err(faults::invalid(
            "Invalid metric transformation: values can be taken from JSON and space-delimited filter patterns only",
        ));
    }
    if wanted.dimensions.len() > MOST_DIMENSIONS {
        return Err(faults::invalid(format!(
            "Invalid metric transformation: there can be {MOST_DIMENSIONS} dimensions at most"
        )));
    }
    if !wanted.dimensions.is_empty() && wanted.default.is_some() {
        return Err(faults::invalid(
            "Invalid metric transformation: dimensions and default value are mutually exclusive properties.",
        ));
    }
    if wanted.name.is_empty() || wanted.namespace.is_empty() {
        return Err(faults::invalid(
            "Invalid metric transformation: metricName and metricNamespace must not be empty",
        ));
    }
    if let Some(wrong) = wanted.dimensions.values().find(|value| !names(value)) {
        return Err(faults::invalid(format!(
            "Invalid metric transformation: the dimension's value {wrong} names no field of the pattern"
        )));
    }
    match Ready::of(filter) {
        Some(_) => Ok(()),
        None => Err(faults::invalid(format!(
            "Invalid metric transformation: {} is neither a number nor a field of the pattern",
            wanted.value
        ))),
    }
}

pub(crate) async fn put_metric_filter(
    logs: &Logs,
    ctx: &Context,
    input: PutMetricFilterRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:PutMetricFilter", &group_arn(ctx, &input.log_group_name))?;
    group(logs, ctx, &input.log_group_name)?;
    let transformation = input.metric_transformations.into_iter().next();
    let given = transformation.ok_or_else(|| faults::invalid("metricTransformations is empty"))?;
    let filter = Record {
        realm: ctx.realm(),
        group: input.log_group_name,
        name: input.filter_name,
        pattern: input.filter_pattern,
        transformation: Transformation {
            name: given.metric_name,
            namespace: given.metric_namespace,
            value: given.metric_value,
            default: given.default_value,
            dimensions: given.dimensions.unwrap_or_default(),
            unit: given.unit.map_or("None", StandardUnit::as_str).to_owned(),
        },
        created: ctx.now,
    };
    check(&filter)?;
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

fn answer(filter: &Record) -> MetricFilter {
    let wanted = &filter.transformation;
    MetricFilter {
        filter_name: Some(filter.name.clone()),
        filter_pattern: Some(filter.pattern.clone()),
        metric_transformations: Some(vec![MetricTransformation {
            metric_name: wanted.name.clone(),
            metric_namespace: wanted.namespace.clone(),
            metric_value: wanted.value.clone(),
            default_value: wanted.default,
            dimensions: Some(wanted.dimensions.clone()).filter(|all| !all.is_empty()),
            unit: StandardUnit::parse(&wanted.unit),
        }]),
        creation_time: Some(filter.created.millis()),
        log_group_name: Some(filter.group.clone()),
        ..MetricFilter::default()
    }
}

pub(crate) async fn describe_metric_filters(
    logs: &Logs,
    ctx: &Context,
    input: DescribeMetricFiltersRequest,
) -> Result<DescribeMetricFiltersResponse, Fault> {
    let of = input.log_group_name.as_deref();
    ctx.authorise("logs:DescribeMetricFilters", &group_arn(ctx, of.unwrap_or("*")))?;
    if let Some(name) = of {
        group(logs, ctx, name)?;
    }
    if input.metric_name.is_some() != input.metric_namespace.is_some() {
        return Err(faults::invalid("metricName and metricNamespace must be specified together."));
    }
    let wanted = |filter: &std::sync::Arc<Record>| {
        let made = &filter.transformation;
        input.filter_name_prefix.as_ref().is_none_or(|prefix| filter.name.starts_with(prefix))
            && input.metric_name.as_ref().is_none_or(|name| *name == made.name)
            && input.metric_namespace.as_ref().is_none_or(|namespace| *namespace == made.namespace)
    };
    let prefix = match of {
        Some(name) => Record::prefix_of(&ctx.realm(), name),
        None => format!("{}/", ctx.realm()),
    };
    let snapshot = logs.store.read();
    let all = snapshot.scan_prefix::<Record>(&prefix).filter(wanted);
    let all = all.map(|filter| (filter.key(), answer(&filter)));
    let (metric_filters, next_token) =
        page("DescribeMetricFilters", input.next_token.as_deref(), input.limit, all)?;
    Ok(DescribeMetricFiltersResponse { metric_filters, next_token })
}

pub(crate) async fn delete_metric_filter(
    logs: &Logs,
    ctx: &Context,
    input: DeleteMetricFilterRequest,
) -> Result<(), Fault> {
    ctx.authorise("logs:DeleteMetricFilter", &group_arn(ctx, &input.log_group_name))?;
    group(logs, ctx, &input.log_group_name)?;
    let key = Record::prefix_of(&ctx.realm(), &input.log_group_name) + &input.filter_name;
    let write = logs.store.write(move |tx| match tx.delete::<Record>(&key) {
        true => Ok(()),
        false => Err(Fault::new(
            "ResourceNotFoundException",
            "The specified metric filter does not exist.",
        )),
    });
    write.await
}

pub(crate) async fn test_metric_filter(
    _: &Logs,
    ctx: &Context,
    input: TestMetricFilterRequest,
) -> Result<TestMetricFilterResponse, Fault> {
    ctx.authorise("logs:TestMetricFilter", "*")?;
    let pattern = pattern(&input.filter_pattern)?;
    let record = |(place, message): (usize, String)| {
        let extracted_values: BTreeMap<String, String> = pattern.extract(&message)?;
        Some(MetricFilterMatchRecord {
            event_number: i64::try_from(place + 1).ok(),
            event_message: Some(message),
            extracted_values: Some(extracted_values),
        })
    };
    let matches = input.log_event_messages.into_iter().enumerate().filter_map(record).collect();
    Ok(TestMetricFilterResponse { matches: Some(matches) })
}
