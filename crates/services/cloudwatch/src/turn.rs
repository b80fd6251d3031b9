//! What follows from an alarm's state that changed: history, an event, and those who are told.

use crate::{
    Told,
    api::{HistoryItemType, StateValue},
    evaluate::stamp,
    model::{Alarm, HistoryItem, Watch},
};
use serde_json::{Value as Json, json};
use store::{Record, Tx};
use world::{Timestamp, World};

/// What is kept of an alarm's history.
const MOST_ITEMS: usize = 1000;

/// A state that an alarm gets.
pub(crate) struct Turn {
    pub(crate) state: StateValue,
    pub(crate) reason: String,
    pub(crate) data: Option<String>,
}

/// Takes note of something in an alarm's history; of the oldest, what is too much goes.
pub(crate) fn note(
    tx: &mut Tx,
    world: &World,
    alarm: &Alarm,
    (kind, summary, data): (HistoryItemType, String, Json),
) {
    let at = world.now();
    let number = tx.scan_prefix::<HistoryItem>(&HistoryItem::prefix_of(alarm, at)).count();
    let item = HistoryItem {
        realm: alarm.realm.clone(),
        alarm: alarm.name.clone(),
        at,
        number,
        kind,
        summary: summary.chars().take(255).collect(),
        data: data.to_string(),
    };
    let prefix = format!("{}/{}\u{1f}", alarm.realm, alarm.name);
    let count = tx.scan_prefix::<HistoryItem>(&prefix).count();
    let most = MOST_ITEMS.saturating_sub(1);
    let old: Vec<String> = tx
        .scan_prefix::<HistoryItem>(&prefix)
        .take(count.saturating_sub(most))
        .map(|item| item.key())
        .collect();
    for key in old {
        tx.delete::<HistoryItem>(&key);
    }
    tx.put(item);
}

/// Gives an alarm a state and, when that is another one than before, tells everybody. Scaling policies are told
/// afterwards, by whoever looks at alarms.
pub(crate) fn turn(tx: &mut Tx, world: &World, told: &Told, mut alarm: Alarm, turn: Turn) {
    let now = world.now();
    let before = (alarm.state, alarm.reason.clone(), alarm.reason_data.clone(), alarm.updated);
    let changed = alarm.state != turn.state;
    if changed {
        (alarm.transitioned, alarm.scaled) = (now, None);
    }
    (alarm.state, alarm.reason, alarm.reason_data) = (turn.state, turn.reason, turn.data);
    alarm.updated = now;
    tx.put(alarm.clone());
    if !changed {
        return;
    }
    let summary = format!("Alarm updated from {} to {}", before.0.as_str(), alarm.state.as_str());
    let state = |(state, reason, data): (StateValue, &str, Option<&String>)| {
        let mut told = json!({"stateValue": state.as_str(), "stateReason": reason});
        // What the user said of it may be no JSON.
        if let Some(data) = data.and_then(|data| serde_json::from_str::<Json>(data).ok()) {
            told["stateReasonData"] = data;
        }
        told
    };
    let data = json!({
        "version": "1.0",
        "oldState": state((before.0, &before.1, before.2.as_ref())),
        "newState": state((alarm.state, &alarm.reason, alarm.reason_data.as_ref())),
    });
    note(tx, world, &alarm, (HistoryItemType::StateUpdate, summary, data));
    event(tx, world, &alarm, &before);
    if alarm.watch.acts {
        let letter = letter(&alarm, before.0);
        for action in alarm.actions(alarm.state).to_vec() {
            act(tx, world, told, &alarm, &action, before.0, &letter);
        }
    }
}

/// Whether an action is one of a scaling policy.
pub(crate) fn scales(action: &str) -> bool {
    action.starts_with("arn:aws:autoscaling:") && action.contains(":scalingPolicy:")
}

fn act(
    tx: &mut Tx,
    world: &World,
    told: &Told,
    alarm: &Alarm,
    action: &str,
    before: StateValue,
    letter: &Json,
) {
    let service = action.split(':').nth(2).unwrap_or_default();
    let outcome = match service {
        "sns" => {
            let (_, region) = alarm.realm.split_once('/').unwrap_or_default();
            let state = alarm.state.as_str();
            let subject = format!("{state}: \"{}\" in {}", alarm.name, place(region));
            told.sns.tell(tx, &alarm.realm, action, &subject, letter.to_string())
        }
        "lambda" => told
            .lambda
            .function(&alarm.realm, action)
            .map(|function| told.lambda.ask(tx, function, &invocation(alarm, before).to_string())),
        _ => return,
    };
    acted(tx, world, alarm, action, outcome.err());
}

/// Takes note of an action, and why it failed if it did.
pub(crate) fn acted(
    tx: &mut Tx,
    world: &World,
    alarm: &Alarm,
    action: &str,
    failure: Option<String>,
) {
    let (summary, state) = match &failure {
        None => (format!("Successfully executed action {action}"), "Succeeded"),
        Some(error) => (format!("Failed to execute action {action}. {error}"), "Failed"),
    };
    let mut data = json!({
        "actionState": state, "notificationResource": action, "stateUpdateTimestamp": alarm.updated.millis(),
    });
    if let Some(error) = failure {
        data["error"] = json!(error);
    }
    note(tx, world, alarm, (HistoryItemType::Action, summary, data));
}

/// What a topic is told.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html>
fn letter(alarm: &Alarm, before: StateValue) -> Json {
    let (account, region) = alarm.realm.split_once('/').unwrap_or_default();
    let watch = &alarm.watch;
    let dimension = |(name, value): &(String, String)| json!({"value": value, "name": name});
    let dimensions: Vec<Json> = watch.metric.dimensions.iter().map(dimension).collect();
    let mut trigger = json!({
        "MetricName": watch.metric.name, "Namespace": watch.metric.namespace, "Unit": watch.unit,
        "Dimensions": dimensions, "Period": watch.period_s, "EvaluationPeriods": watch.periods,
        "DatapointsToAlarm": watch.datapoints.unwrap_or(watch.periods),
        "ComparisonOperator": watch.comparison.as_str(), "Threshold": watch.threshold,
        "TreatMissingData": watch.missing.map_or("missing", |missing| missing.name()),
        "EvaluateLowSampleCountPercentile": watch.low_sample.clone().unwrap_or_default(),
    });
    match watch.statistic.strip_prefix('p') {
        None => {
            trigger["StatisticType"] = json!("Statistic");
            trigger["Statistic"] = json!(watch.statistic.to_uppercase());
        }
        Some(_) => {
            trigger["StatisticType"] = json!("ExtendedStatistic");
            trigger["ExtendedStatistic"] = json!(watch.statistic);
        }
    }
    json!({
        "AlarmName": alarm.name, "AlarmDescription": watch.description, "AWSAccountId": account,
        "AlarmConfigurationUpdatedTimestamp": stamp(alarm.configured), "NewStateValue": alarm.state.as_str(),
        "NewStateReason": alarm.reason, "StateChangeTime": stamp(alarm.updated), "Region": place(region),
        "AlarmArn": alarm.arn(), "OldStateValue": before.as_str(), "OKActions": watch.ok,
        "AlarmActions": watch.alarm, "InsufficientDataActions": watch.unknown, "Trigger": trigger,
    })
}

/// What a function is asked.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html>
fn invocation(alarm: &Alarm, before: StateValue) -> Json {
    let (account, region) = alarm.realm.split_once('/').unwrap_or_default();
    let mut data = detail(alarm, (before, None));
    data["alarmName"] = json!(alarm.name);
    json!({
        "source": "aws.cloudwatch", "alarmArn": alarm.arn(), "accountId": account, "time": stamp(alarm.updated),
        "region": region, "alarmData": data,
    })
}

/// How an alarm was and is. Of how it was, more may be known than its state.
fn detail(alarm: &Alarm, (before, known): (StateValue, Option<(&str, Timestamp)>)) -> Json {
    let state = |state: StateValue, reason: &str, at: Timestamp| {
        json!({
            "value": state.as_str(), "reason": reason, "timestamp": stamp(at),
        })
    };
    let mut now = state(alarm.state, &alarm.reason, alarm.updated);
    if let Some(data) = &alarm.reason_data {
        now["reasonData"] = json!(data);
    }
    json!({
        "alarmName": alarm.name, "state": now, "configuration": configuration(&alarm.watch),
        "previousState": match known {
            Some((reason, at)) => state(before, reason, at),
            None => json!({"value": before.as_str()}),
        },
    })
}

fn configuration(watch: &Watch) -> Json {
    let dimensions: serde_json::Map<_, _> =
        watch.metric.dimensions.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut told = json!({"metrics": [{
        "id": "m1", "returnData": true,
        "metricStat": {
            "metric": {
                "namespace": watch.metric.namespace, "name": watch.metric.name, "dimensions": dimensions,
            },
            "period": watch.period_s, "stat": watch.statistic,
        },
    }]});
    if let Some(description) = &watch.description {
        told["description"] = json!(description);
    }
    told
}

/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html>
fn event(
    tx: &mut Tx,
    world: &World,
    alarm: &Alarm,
    before: &(StateValue, String, Option<String>, Timestamp),
) {
    if !events::is_heeded(tx, &alarm.realm) {
        return;
    }
    let event = events::Event {
        id: world.uuid(),
        realm: alarm.realm.clone(),
        source: "aws.cloudwatch".to_owned(),
        detail_type: "CloudWatch Alarm State Change".to_owned(),
        time: alarm.updated,
        resources: vec![alarm.arn()],
        detail: detail(alarm, (before.0, Some((&before.1, before.3)))),
    };
    events::tell(tx, world, &event);
}

/// A region's name for people, as it stands in what topics are told; of those that are less known, its code.
/// <https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html>
fn place(region: &str) -> &str {
    match region {
        "us-east-1" => "US East (N. Virginia)",
        "us-east-2" => "US East (Ohio)",
        "us-west-1" => "US West (N. California)",
        "us-west-2" => "US West (Oregon)",
        "ap-northeast-1" => "Asia Pacific (Tokyo)",
        "ap-northeast-2" => "Asia Pacific (Seoul)",
        "ap-northeast-3" => "Asia Pacific (Osaka)",
        "ap-south-1" => "Asia Pacific (Mumbai)",
        "ap-southeast-1" => "Asia Pacific (Singapore)",
        "ap-southeast-2" => "Asia Pacific (Sydney)",
        "ca-central-1" => "Canada (Central)",
        "eu-central-1" => "EU (Frankfurt)",
        "eu-north-1" => "EU (Stockholm)",
        "eu-west-1" => "EU (Ireland)",
        "eu-west-2" => "EU (London)",
        "eu-west-3" => "EU (Paris)",
        "sa-east-1" => "South America (Sao Paulo)",
        other => other,
    }
}
