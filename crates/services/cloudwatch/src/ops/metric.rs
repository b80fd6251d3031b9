//! Metrics: what was measured, put and read.

use super::{authorise, check_text, named, page, told};
use crate::{
    CloudWatch,
    api::*,
    faults,
    metric::{self, Metric},
};
use metricstore::{Point, Resolution, Summary};
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use wire::{Context, Fault};
use world::Timestamp;

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>
const MOST_DATA: usize = 1000;
const MOST_VALUES: usize = 150;
/// Larger numbers, of either sign, are refused.
const LARGEST: f64 = 2.348_542_582_773_833_3e108; // 2^360
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Older points are refused.
const OLDEST_S: i64 = 14 * DAY_S;
/// And those that are later from now than this.
const LATEST_S: i64 = 2 * HOUR_S;
/// What GetMetricStatistics answers with at most.
const MOST_DATAPOINTS: i64 = 1440;
/// What GetMetricData answers with at most, on a page, and for how many queries.
const MOST_VALUES_OF_PAGE: i32 = 100_800;
const MOST_QUERIES: usize = 500;
/// Metrics on a page.
const PAGE: usize = 500;

fn finite(what: &str, value: f64) -> Result<f64, Fault> {
    match value.is_finite() && value.abs() <= LARGEST {
        true => Ok(value),
        false => Err(faults::invalid(format!(
            "The value {value} for parameter {what} is invalid: it must be a number between -2^360 and 2^360"
        ))),
    }
}

/// What one datum of a request, which stands at `place` in it, has measured.
fn summary(place: &str, datum: &MetricDatum) -> Result<Summary, Fault> {
    let part = |part: &str| format!("{place}.{part}");
    match (datum.value, &datum.statistic_values, &datum.values) {
        (Some(value), None, None) => {
            let value = finite(&part("Value"), value)?;
            Ok(Summary::of_set(1.0, value, value, value))
        }
        (None, Some(set), None) => {
            let number =
                |name: &str, value| finite(&part(&format!("StatisticValues.{name}")), value);
            let (count, sum) = (number("SampleCount", set.sample_count)?, number("Sum", set.sum)?);
            let (min, max) = (number("Minimum", set.minimum)?, number("Maximum", set.maximum)?);
            match count > 0.0 && min <= max {
                true => Ok(Summary::of_set(count, sum, min, max)),
                false => Err(faults::invalid(format!(
                    "The parameter {} must have a SampleCount above 0, and a Minimum that is no more than its Maximum",
                    part("StatisticValues")
                ))),
            }
        }
        (None, None, Some(values)) if !values.is_empty() => {
            let counts = datum.counts.clone().unwrap_or_else(|| vec![1.0; values.len()]);
            if counts.len() != values.len() || values.len() > MOST_VALUES {
                return Err(faults::invalid(format!(
                    "The parameters {} and {} must have the same size, {MOST_VALUES} at most",
                    part("Values"),
                    part("Counts")
                )));
            }
            let pair = |(value, count): (&f64, f64)| {
                Ok((finite(&part("Values"), *value)?, finite(&part("Counts"), count)?))
            };
            let pairs: Vec<_> =
                values.iter().zip(counts).map(pair).collect::<Result<_, Fault>>()?;
            if pairs.iter().any(|(_, count)| *count < 0.0) {
                return Err(faults::invalid(format!("{} must not be negative", part("Counts"))));
            }
            Summary::of_values(pairs)
                .ok_or_else(|| faults::invalid(format!("{} must have one above 0", part("Counts"))))
        }
        (None, None, _) => Err(faults::missing(format!(
            "At least one of the parameters must be specified: {}, {} or {}",
            part("Value"),
            part("Values"),
            part("StatisticValues")
        ))),
        _ => Err(faults::combination(format!(
            "The parameters {}, {} and {} are mutually exclusive and you have specified more than one.",
            part("Value"),
            part("Values"),
            part("StatisticValues")
        ))),
    }
}

fn point(
    realm: &str,
    namespace: &str,
    (place, datum): (&str, &MetricDatum),
    now: Timestamp,
) -> Result<Point, Fault> {
    let metric = named(namespace, &datum.metric_name, datum.dimensions.as_ref())?;
    let summary = summary(place, datum)?;
    let at = datum.timestamp.unwrap_or(now).millis().div_euclid(1000);
    let now = now.millis().div_euclid(1000);
    if at < now - OLDEST_S {
        return Err(faults::invalid(format!(
            "The parameter {place}.Timestamp must specify a time within the past two weeks."
        )));
    }
    if at > now + LATEST_S {
        return Err(faults::invalid(format!(
            "The parameter {place}.Timestamp must specify a time no more than two hours in the future."
        )));
    }
    let resolution = match datum.storage_resolution {
        None | Some(60) => Resolution::Minute,
        Some(1) => Resolution::Second,
        Some(other) => {
            return Err(faults::invalid(format!(
                "The value {other} for parameter {place}.StorageResolution is invalid: it must be 1 or 60"
            )));
        }
    };
    let unit = datum.unit.unwrap_or(StandardUnit::None);
    Ok(Point { series: metric.series(realm, unit.as_str()), at, resolution, summary })
}

pub(crate) async fn put_metric_data(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: PutMetricDataInput,
) -> Result<(), Fault> {
    authorise(ctx, "PutMetricData")?;
    check_text("Namespace", &input.namespace)?;
    if input.namespace.starts_with("AWS/") {
        return Err(faults::invalid(format!(
            "The value {} for parameter Namespace is invalid.",
            input.namespace
        )));
    }
    let data = input.metric_data.unwrap_or_default();
    if data.is_empty() {
        return Err(faults::missing("The parameter MetricData is required."));
    }
    if data.len() > MOST_DATA {
        return Err(faults::validation(format!(
            "The collection MetricData must not have a size greater than {MOST_DATA}."
        )));
    }
    let (realm, now) = (ctx.realm(), cloudwatch.world.now());
    let point = |(place, datum): (usize, &MetricDatum)| {
        let place = format!("MetricData.member.{}", place + 1);
        point(&realm, &input.namespace, (&place, datum), now)
    };
    let points = data.iter().enumerate().map(point).collect::<Result<_, _>>()?;
    cloudwatch.points.put(points).await.map_err(|error| faults::points(&error))
}

fn check_period(period: i32) -> Result<u32, Fault> {
    match matches!(period, 1 | 5 | 10 | 20 | 30) || (period > 0 && period % 60 == 0) {
        true => Ok(period.unsigned_abs()),
        false => Err(faults::invalid(format!(
            "The value {period} for parameter Period is invalid: it must be 1, 5, 10, 20, 30 or a multiple of 60"
        ))),
    }
}

/// The stretch of time that is read, in whole seconds: a start that is long ago is where points of that age begin.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html>
fn times(
    (start, end): (Timestamp, Timestamp),
    period: u32,
    now: Timestamp,
) -> Result<Range<i64>, Fault> {
    if start >= end {
        return Err(faults::validation(
            "The parameter StartTime must be less than the parameter EndTime.",
        ));
    }
    let seconds = |time: Timestamp| time.millis().div_euclid(1000);
    let age = seconds(now) - seconds(start);
    let whole = match age {
        age if age > 63 * DAY_S => 3600,
        age if age > 15 * DAY_S => 300,
        age if age > 3 * HOUR_S || period >= 60 => 60,
        _ => i64::from(period),
    };
    // What ends within a second ends with it.
    Ok(seconds(start).div_euclid(whole) * whole..end.millis().saturating_add(999).div_euclid(1000))
}

pub(crate) async fn get_metric_statistics(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: GetMetricStatisticsInput,
) -> Result<GetMetricStatisticsOutput, Fault> {
    authorise(ctx, "GetMetricStatistics")?;
    let metric = named(&input.namespace, &input.metric_name, input.dimensions.as_ref())?;
    let period = check_period(input.period)?;
    let times = times((input.start_time, input.end_time), period, cloudwatch.world.now())?;
    let (plain, extended) =
        (input.statistics.unwrap_or_default(), input.extended_statistics.unwrap_or_default());
    if plain.is_empty() && extended.is_empty() {
        return Err(faults::missing(
            "At least one of the parameters Statistics and ExtendedStatistics must be specified.",
        ));
    }
    let extended: Vec<(String, metric::Statistic)> = extended
        .into_iter()
        .map(|text| Ok((text.clone(), statistic(&text)?)))
        .collect::<Result<_, Fault>>()?;
    let asked = (times.end - times.start).div_euclid(i64::from(period));
    if asked > MOST_DATAPOINTS {
        return Err(faults::combination(format!(
            "You have requested up to {asked} datapoints, which exceeds the limit of {MOST_DATAPOINTS}. You may \
             reduce the \
             datapoints requested by increasing Period, or decreasing the time range."
        )));
    }
    let realm = ctx.realm();
    let units = match input.unit {
        Some(unit) => vec![unit],
        None => units(cloudwatch, &realm, &metric).await?,
    };
    let mut datapoints = Vec::new();
    for unit in units {
        let read = cloudwatch.read(&realm, &metric, Some(unit.as_str()), times.clone(), period);
        for (at, summary) in read.await.map_err(|error| faults::points(&error))? {
            datapoints.push(datapoint((at, unit), &summary, &plain, &extended));
        }
    }
    Ok(GetMetricStatisticsOutput { label: Some(input.metric_name), datapoints: Some(datapoints) })
}

fn datapoint(
    (at, unit): (i64, StandardUnit),
    summary: &Summary,
    plain: &[Statistic],
    extended: &[(String, metric::Statistic)],
) -> Datapoint {
    let one = |asked: Statistic, figure: f64| plain.contains(&asked).then_some(figure);
    let figure = |(text, statistic): &(String, metric::Statistic)| {
        Some((text.clone(), statistic.of(summary)?))
    };
    let extended: BTreeMap<_, _> = extended.iter().filter_map(figure).collect();
    Datapoint {
        timestamp: Some(Timestamp::from_millis(at * 1000)),
        sample_count: one(Statistic::SampleCount, summary.count),
        average: one(Statistic::Average, summary.average()),
        sum: one(Statistic::Sum, summary.sum),
        minimum: one(Statistic::Minimum, summary.min),
        maximum: one(Statistic::Maximum, summary.max),
        unit: Some(unit),
        extended_statistics: (!extended.is_empty()).then_some(extended),
    }
}

fn statistic(text: &str) -> Result<metric::Statistic, Fault> {
    metric::Statistic::read(text).ok_or_else(|| {
        faults::invalid(format!(
            "The value {text} is no statistic that Neargate has: SampleCount, Average, Sum, Minimum, Maximum, \
             p0 to p100"
        ))
    })
}

/// The names of the series that begin with `prefix`.
async fn series(cloudwatch: &CloudWatch, prefix: String, since: i64) -> Result<Vec<String>, Fault> {
    let points = cloudwatch.points.clone();
    let read = tokio::task::spawn_blocking(move || points.series(&prefix, since)).await;
    read.expect("reading names does not panic").map_err(|error| faults::points(&error))
}

/// The units that a metric was measured in.
async fn units(
    cloudwatch: &CloudWatch,
    realm: &str,
    metric: &Metric,
) -> Result<Vec<StandardUnit>, Fault> {
    let prefix = metric.prefix(realm);
    let series = series(cloudwatch, prefix.clone(), i64::MIN).await?;
    let unit = |name: &String| StandardUnit::parse(name.strip_prefix(&prefix)?);
    Ok(series.iter().filter_map(unit).collect())
}

/// A metric that is asked for, and in which way.
struct Query {
    id: String,
    label: String,
    metric: Metric,
    statistic: metric::Statistic,
    unit: Option<StandardUnit>,
    period: u32,
}

fn query(query: MetricDataQuery) -> Result<Option<Query>, Fault> {
    let asked = query.metric_stat.ok_or_else(|| {
        faults::validation(format!(
            "The query {} has no MetricStat, which is what Neargate reads",
            query.id
        ))
    })?;
    let mut letters = query.id.chars();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !letters.next().is_some_and(|c| c.is_ascii_lowercase()) || !letters.all(word) {
        return Err(faults::validation(format!(
            "The value {} for parameter MetricDataQueries.member.Id is not matching the expected pattern \
             ^[a-z][a-zA-Z0-9_]*$",
            query.id
        )));
    }
    let given = |text: Option<String>, what: &str| {
        text.ok_or_else(|| {
            faults::missing(format!("The parameter MetricStat.Metric.{what} is required."))
        })
    };
    let namespace = given(asked.metric.namespace, "Namespace")?;
    let name = given(asked.metric.metric_name, "MetricName")?;
    let metric = named(&namespace, &name, asked.metric.dimensions.as_ref())?;
    let statistic = statistic(&asked.stat)?;
    let period = check_period(asked.period)?;
    let wanted = query.return_data.unwrap_or(true);
    let label = query.label.unwrap_or(name);
    let (id, unit) = (query.id, asked.unit);
    Ok(wanted.then_some(Query { id, label, metric, statistic, unit, period }))
}

/// A page's place in the answer: so many values were on the pages before.
fn place(token: Option<&str>) -> Result<usize, Fault> {
    let Some(token) = token else { return Ok(0) };
    let digits = token.strip_prefix("values-").ok_or_else(faults::bad_token)?;
    digits.parse().map_err(|_| faults::bad_token())
}

pub(crate) async fn get_metric_data(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: GetMetricDataInput,
) -> Result<GetMetricDataOutput, Fault> {
    authorise(ctx, "GetMetricData")?;
    if input.metric_data_queries.is_empty() || input.metric_data_queries.len() > MOST_QUERIES {
        return Err(faults::validation(format!(
            "The collection MetricDataQueries must have a size between 1 and {MOST_QUERIES}."
        )));
    }
    let most = input.max_datapoints.unwrap_or(MOST_VALUES_OF_PAGE);
    if !(1..=MOST_VALUES_OF_PAGE).contains(&most) {
        return Err(faults::validation(format!(
            "The parameter MaxDatapoints must be between 1 and {MOST_VALUES_OF_PAGE}."
        )));
    }
    let mut ids = std::collections::BTreeSet::new();
    let mut queries = Vec::new();
    for one in input.metric_data_queries {
        if !ids.insert(one.id.clone()) {
            return Err(faults::validation(format!("The id {} is given more than once.", one.id)));
        }
        queries.extend(query(one)?);
    }
    let (mut before, mut room) =
        (place(input.next_token.as_deref())?, most.unsigned_abs() as usize);
    let (mut results, mut shown, mut more) = (Vec::new(), before, false);
    for query in queries {
        let (start, end) = (input.start_time, input.end_time);
        let mut times = times((start, end), query.period, cloudwatch.world.now())?;
        // Periods begin where periods of this length always begin.
        times.start -= times.start.rem_euclid(i64::from(query.period));
        let unit = query.unit.map(StandardUnit::as_str);
        let realm = ctx.realm();
        let read = cloudwatch.read(&realm, &query.metric, unit, times, query.period).await;
        let figure = |(at, summary): (i64, Summary)| {
            Some((Timestamp::from_millis(at * 1000), query.statistic.of(&summary)?))
        };
        let read = read.map_err(|error| faults::points(&error))?;
        let mut figures: Vec<_> = read.into_iter().filter_map(figure).collect();
        if input.scan_by != Some(ScanBy::TimestampAscending) {
            figures.reverse();
        }
        let skipped = before.min(figures.len());
        before -= skipped;
        let taken = room.min(figures.len() - skipped);
        let whole = skipped + taken == figures.len();
        (room, shown, more) = (room - taken, shown + taken, more || !whole);
        let (timestamps, values) = figures.into_iter().skip(skipped).take(taken).unzip();
        results.push(MetricDataResult {
            id: Some(query.id),
            label: Some(query.label),
            timestamps: Some(timestamps),
            values: Some(values),
            status_code: Some(if whole { StatusCode::Complete } else { StatusCode::PartialData }),
            messages: None,
        });
    }
    Ok(GetMetricDataOutput {
        metric_data_results: Some(results),
        next_token: more.then(|| format!("values-{shown}")),
        messages: Some(Vec::new()),
    })
}

pub(crate) async fn list_metrics(
    cloudwatch: &Arc<CloudWatch>,
    ctx: &Context,
    input: ListMetricsInput,
) -> Result<ListMetricsOutput, Fault> {
    authorise(ctx, "ListMetrics")?;
    let realm = ctx.realm();
    let prefix = match &input.namespace {
        Some(namespace) => Metric::named(&realm, namespace),
        None => Metric::within(&realm),
    };
    let recent = if input.recently_active.is_some() { 3 * HOUR_S } else { OLDEST_S };
    let since = cloudwatch.world.now().millis().div_euclid(1000) - recent;
    let filters = input.dimensions.unwrap_or_default();
    let wanted = |metric: &Metric| {
        input.metric_name.as_ref().is_none_or(|name| *name == metric.name)
            && filters.iter().all(|filter| {
                let same = |(name, value): &(String, String)| {
                    *name == filter.name && filter.value.as_ref().is_none_or(|it| it == value)
                };
                metric.dimensions.iter().any(same)
            })
    };
    let all = series(cloudwatch, prefix, since).await?;
    let mut metrics: Vec<Metric> =
        all.iter().filter_map(|name| Metric::of_series(name)).filter(wanted).collect();
    // One with several units is one.
    metrics.dedup();
    let listed = metrics.into_iter().map(|metric| (metric.prefix(&realm), told(&metric)));
    let page = page("metrics", input.next_token.as_deref(), PAGE, listed)?;
    Ok(ListMetricsOutput {
        metrics: Some(page.items),
        next_token: page.next_token,
        ..Default::default()
    })
}
