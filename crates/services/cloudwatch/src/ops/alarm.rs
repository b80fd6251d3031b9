//! Alarms.

use super::{authorise, authorise_alarm, check_text, dimensions, named, page};
use crate::{
    CloudWatch,
    api::*,
    evaluate::TreatMissingData,
    faults, metric,
    model::{Alarm, Watch},
    turn::{Turn, note, turn},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use store::{Record, Tx};
use wire::{Context, Fault};

/// Alarms of an account in a region.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html>
const MOST: usize = 5000;
/// On a page.
const PAGE: i32 = 50;
/// What an alarm looks back at: a day, or seven when its periods are hours.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>
const DAY_S: i64 = 86_400;

fn needed<T>(value: Option<T>, what: &str) -> Result<T, Fault> {
    value.ok_or_else(|| faults::missing(format!("The parameter {what} is required.")))
}

/// The unit of a metric, in AWS's words.
fn unit(unit: Option<StandardUnit>) -> Option<String> {
    unit.map(|unit| unit.as_str().to_owned())
}

fn statistic(one: Option<Statistic>, extended: Option<String>) -> Result<String, Fault> {
    let text = match (one, extended) {
        (Some(one), None) => return Ok(one.as_str().to_owned()),
        (None, Some(text)) => text,
        (Some(_), Some(_)) => {
            return Err(faults::combination(
                "Statistic and ExtendedStatistic cannot be given together",
            ));
        }
        (None, None) => {
            return Err(faults::combination(
                "Must specify either Statistic or ExtendedStatistic for a MetricName",
            ));
        }
    };
    match metric::Statistic::read(&text) {
        Some(metric::Statistic::Percentile(_)) => Ok(text),
        _ => Err(faults::invalid(format!(
            "The value {text} for parameter ExtendedStatistic is not supported: Neargate has percentiles, p0 to p100"
        ))),
    }
}

fn check_actions(actions: &[String]) -> Result<(), Fault> {
    for action in actions {
        let parts: Vec<&str> = action.split(':').collect();
        let known = match parts[..] {
            ["arn", "aws", "sns", _, _, topic] => !topic.is_empty(),
            ["arn", "aws", "lambda", _, _, "function", ..] => true,
            ["arn", "aws", "autoscaling", _, _, "scalingPolicy", ..] => true,
            ["arn", _, _, _, _, ..] => {
                return Err(faults::validation(format!(
                    "Invalid action {action}: Neargate's alarms tell SNS topics, Lambda functions and scaling \
                     policies of \
                     Application Auto Scaling"
                )));
            }
            _ => false,
        };
        if !known {
            return Err(faults::validation(format!("Invalid arn syntax: {action}")));
        }
    }
    Ok(())
}

fn check_times(period: i32, periods: i32, datapoints: Option<i32>) -> Result<(), Fault> {
    if !matches!(period, 10 | 20 | 30) && period % 60 != 0 {
        return Err(faults::invalid(
            "The value for parameter Period is invalid: it must be 10, 20, 30 or a multiple of 60",
        ));
    }
    let back = i64::from(period) * i64::from(periods);
    if back > if period >= 3600 { 7 * DAY_S } else { DAY_S } {
        return Err(faults::validation(
            "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400), or \
             seven when \
             the period is an hour or more.",
        ));
    }
    if datapoints.is_some_and(|datapoints| datapoints > periods) {
        return Err(faults::validation(
            "DatapointsToAlarm must be smaller than or equal to EvaluationPeriods",
        ));
    }
    Ok(())
}

fn read(input: PutMetricAlarmInput) -> Result<Watch, Fault> {
    let comparison = needed(input.comparison_operator, "ComparisonOperator")?;
    if matches!(
        comparison,
        ComparisonOperator::LessThanLowerOrGreaterThanUpperThreshold
            | ComparisonOperator::LessThanLowerThreshold
            | ComparisonOperator::GreaterThanUpperThreshold
    ) {
        return Err(faults::validation(format!(
            "ComparisonOperator {} is of anomaly detectors, which Neargate does not have yet",
            comparison.as_str()
        )));
    }
    let name = needed(input.metric_name, "MetricName")?;
    let namespace = needed(input.namespace, "Namespace")?;
    let metric = named(&namespace, &name, input.dimensions.as_ref())?;
    let statistic = statistic(input.statistic, input.extended_statistic)?;
    let period = needed(input.period, "Period")?;
    let periods = needed(input.evaluation_periods, "EvaluationPeriods")?;
    check_times(period, periods, input.datapoints_to_alarm)?;
    let threshold = needed(input.threshold, "Threshold")?;
    if !threshold.is_finite() {
        return Err(faults::invalid("The value for parameter Threshold must be a finite number"));
    }
    let missing = input.treat_missing_data.map(|text| {
        TreatMissingData::read(&text).ok_or_else(|| {
            faults::validation(format!(
                "Value '{text}' at 'treatMissingData' failed to satisfy constraint: Member must satisfy enum \
                 value set: \
                 [missing, ignore, breaching, notBreaching]"
            ))
        })
    });
    if let Some(sample) = input.evaluate_low_sample_count_percentile.as_deref()
        && sample != "evaluate"
    {
        return Err(faults::validation(format!(
            "EvaluateLowSampleCountPercentile {sample} is not supported by Neargate yet: percentiles of few values are \
             evaluated"
        )));
    }
    let (ok, alarm) =
        (input.ok_actions.unwrap_or_default(), input.alarm_actions.unwrap_or_default());
    let unknown = input.insufficient_data_actions.unwrap_or_default();
    [&ok, &alarm, &unknown].into_iter().try_for_each(|actions| check_actions(actions))?;
    Ok(Watch {
        description: input.alarm_description,
        acts: input.actions_enabled.unwrap_or(true),
        ok,
        alarm,
        unknown,
        metric,
        statistic,
        unit: unit(input.unit),
        period_s: period.unsigned_abs(),
        periods: periods.unsigned_abs(),
        datapoints: input.datapoints_to_alarm.map(i32::unsigned_abs),
        threshold,
        comparison,
        missing: missing.transpose()?,
        low_sample: input.evaluate_low_sample_count_percentile,
    })
}

pub(crate) async fn put_metric_alarm(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    mut input: PutMetricAlarmInput,
) -> Result<(), Fault> {
    authorise_alarm(ctx, "PutMetricAlarm", &input.alarm_name)?;
    check_text("AlarmName", &input.alarm_name)?;
    let (name, tags) = (input.alarm_name.clone(), input.tags.take().unwrap_or_default());
    let tags: BTreeMap<_, _> = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    super::tag::check(&tags)?;
    let watch = read(input)?;
    let (realm, world, now) = (ctx.realm(), cloudwatch.world.clone(), cloudwatch.world.now());
    let write = cloudwatch.store.write(move |tx| {
        let key = Alarm::key_of(&realm, &name);
        let known = tx.get::<Alarm>(&key);
        let prefix = format!("{realm}/");
        if known.is_none() && tx.scan_prefix::<Alarm>(&prefix).count() >= MOST {
            return Err(faults::limit(format!("The maximum of {MOST} alarms is reached")));
        }
        let words = if known.is_some() { "updated" } else { "created" };
        let alarm = match known {
            // Its state and its tags stay; TagResource is for those.
            Some(known) => {
                // A clock that stands still would hide the change.
                let configured = now.max(known.configured + std::time::Duration::from_millis(1));
                Alarm { watch, configured, ..Arc::unwrap_or_clone(known) }
            }
            None => Alarm {
                realm,
                name,
                watch,
                tags,
                configured: now,
                state: StateValue::InsufficientData,
                reason: "Unchecked: Initial alarm creation".to_owned(),
                reason_data: None,
                updated: now,
                transitioned: now,
                scaled: None,
            },
        };
        let data = json!({"version": "1.0", "type": "Update", "updatedAlarm": alarm.name});
        let summary = format!("Alarm \"{}\" {words}", alarm.name);
        note(tx, &world, &alarm, (HistoryItemType::ConfigurationUpdate, summary, data));
        tx.put(alarm);
        Ok(())
    });
    write.await
}

fn answer(alarm: &Alarm) -> MetricAlarm {
    let (watch, statistic) = (&alarm.watch, &alarm.watch.statistic);
    let plain = Statistic::parse(statistic);
    let number = |number: u32| i32::try_from(number).ok();
    MetricAlarm {
        alarm_name: Some(alarm.name.clone()),
        alarm_arn: Some(alarm.arn()),
        alarm_description: watch.description.clone(),
        alarm_configuration_updated_timestamp: Some(alarm.configured),
        actions_enabled: Some(watch.acts),
        ok_actions: Some(watch.ok.clone()),
        alarm_actions: Some(watch.alarm.clone()),
        insufficient_data_actions: Some(watch.unknown.clone()),
        state_value: Some(alarm.state),
        state_reason: Some(alarm.reason.clone()),
        state_reason_data: alarm.reason_data.clone(),
        state_updated_timestamp: Some(alarm.updated),
        state_transitioned_timestamp: Some(alarm.transitioned),
        metric_name: Some(watch.metric.name.clone()),
        namespace: Some(watch.metric.namespace.clone()),
        extended_statistic: plain.is_none().then(|| statistic.clone()),
        statistic: plain,
        dimensions: Some(dimensions(&watch.metric)),
        period: number(watch.period_s),
        unit: watch.unit.as_deref().and_then(StandardUnit::parse),
        evaluation_periods: number(watch.periods),
        datapoints_to_alarm: watch.datapoints.and_then(number),
        threshold: Some(watch.threshold),
        comparison_operator: Some(watch.comparison),
        treat_missing_data: watch.missing.map(|missing| missing.name().to_owned()),
        evaluate_low_sample_count_percentile: watch.low_sample.clone(),
        ..MetricAlarm::default()
    }
}

pub(crate) async fn describe_alarms(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: DescribeAlarmsInput,
) -> Result<DescribeAlarmsOutput, Fault> {
    authorise(ctx, "DescribeAlarms")?;
    if input.alarm_names.is_some() && input.alarm_name_prefix.is_some() {
        return Err(faults::combination(
            "AlarmNamePrefix and AlarmNames cannot be specified together",
        ));
    }
    let kinds = input.alarm_types.unwrap_or_default();
    let metric = kinds.is_empty() || kinds.contains(&AlarmType::MetricAlarm);
    let wanted = |alarm: &Arc<Alarm>| {
        let mut actions = [&alarm.watch.ok, &alarm.watch.alarm, &alarm.watch.unknown].into_iter();
        metric
            && input.alarm_names.as_ref().is_none_or(|names| names.contains(&alarm.name))
            && input.alarm_name_prefix.as_ref().is_none_or(|it| alarm.name.starts_with(it))
            && input.state_value.is_none_or(|state| alarm.state == state)
            && input.action_prefix.as_ref().is_none_or(|prefix| {
                actions.any(|actions| actions.iter().any(|action| action.starts_with(prefix)))
            })
    };
    let snapshot = cloudwatch.store.read();
    let all = snapshot.scan_prefix::<Alarm>(&format!("{}/", ctx.realm())).filter(wanted);
    let all = all.map(|alarm| (alarm.key(), answer(&alarm)));
    // By name up to a hundred can be asked for, and all are answered.
    let most = if input.alarm_names.is_some() { 100 } else { PAGE };
    let size = usize::try_from(input.max_records.unwrap_or(most)).unwrap_or(1);
    let page = page("alarms", input.next_token.as_deref(), size, all)?;
    Ok(DescribeAlarmsOutput {
        metric_alarms: Some(page.items),
        composite_alarms: Some(Vec::new()),
        next_token: page.next_token,
    })
}

pub(crate) async fn describe_alarms_for_metric(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: DescribeAlarmsForMetricInput,
) -> Result<DescribeAlarmsForMetricOutput, Fault> {
    authorise(ctx, "DescribeAlarmsForMetric")?;
    let metric = named(&input.namespace, &input.metric_name, input.dimensions.as_ref())?;
    let statistic = input.statistic.map(|one| one.as_str().to_owned());
    let statistic = statistic.or(input.extended_statistic);
    let unit = unit(input.unit);
    let wanted = |alarm: &Arc<Alarm>| {
        let watch = &alarm.watch;
        watch.metric == metric
            && statistic.as_ref().is_none_or(|wanted| *wanted == watch.statistic)
            && input.period.is_none_or(|period| i64::from(period) == i64::from(watch.period_s))
            && (unit.is_none() || unit == watch.unit)
    };
    let snapshot = cloudwatch.store.read();
    let all = snapshot.scan_prefix::<Alarm>(&format!("{}/", ctx.realm())).filter(wanted);
    let metric_alarms = Some(all.map(|alarm| answer(&alarm)).collect());
    Ok(DescribeAlarmsForMetricOutput { metric_alarms })
}

/// Changes alarms that exist; fails unless all do.
async fn change(
    cloudwatch: &CloudWatch,
    ctx: &Context,
    action: &str,
    names: Vec<String>,
    change: impl Fn(&mut Tx, Alarm) + Send + 'static,
) -> Result<(), Fault> {
    names.iter().try_for_each(|name| authorise_alarm(ctx, action, name))?;
    let realm = ctx.realm();
    let write = cloudwatch.store.write(move |tx| {
        for name in names {
            let alarm = tx.get::<Alarm>(&Alarm::key_of(&realm, &name));
            change(tx, Arc::unwrap_or_clone(alarm.ok_or_else(faults::no_alarm)?));
        }
        Ok(())
    });
    write.await
}

pub(crate) async fn delete_alarms(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: DeleteAlarmsInput,
) -> Result<(), Fault> {
    let world = cloudwatch.world.clone();
    let delete = move |tx: &mut Tx, alarm: Alarm| {
        let data = json!({"version": "1.0", "type": "Delete", "deletedAlarm": alarm.name});
        let summary = format!("Alarm \"{}\" deleted", alarm.name);
        note(tx, &world, &alarm, (HistoryItemType::ConfigurationUpdate, summary, data));
        tx.delete::<Alarm>(&alarm.key());
    };
    change(cloudwatch, ctx, "DeleteAlarms", input.alarm_names, delete).await
}

fn acting(acts: bool) -> impl Fn(&mut Tx, Alarm) + Send + 'static {
    move |tx, mut alarm| {
        alarm.watch.acts = acts;
        tx.put(alarm);
    }
}

pub(crate) async fn enable_alarm_actions(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: EnableAlarmActionsInput,
) -> Result<(), Fault> {
    change(cloudwatch, ctx, "EnableAlarmActions", input.alarm_names, acting(true)).await
}

pub(crate) async fn disable_alarm_actions(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: DisableAlarmActionsInput,
) -> Result<(), Fault> {
    change(cloudwatch, ctx, "DisableAlarmActions", input.alarm_names, acting(false)).await
}

pub(crate) async fn set_alarm_state(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: SetAlarmStateInput,
) -> Result<(), Fault> {
    if let Some(data) = &input.state_reason_data
        && serde_json::from_str::<serde::de::IgnoredAny>(data).is_err()
    {
        authorise_alarm(ctx, "SetAlarmState", &input.alarm_name)?;
        let fault = Fault::new("InvalidFormat", "StateReasonData is not valid JSON");
        return Err(fault);
    }
    let (world, told) = (cloudwatch.world.clone(), cloudwatch.told().clone());
    let (state, reason, data) = (input.state_value, input.state_reason, input.state_reason_data);
    let set = move |tx: &mut Tx, alarm: Alarm| {
        let (reason, data) = (reason.clone(), data.clone());
        turn(tx, &world, &told, alarm, Turn { state, reason, data });
    };
    change(cloudwatch, ctx, "SetAlarmState", vec![input.alarm_name], set).await
}
