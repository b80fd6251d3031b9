//! From rules to their targets: each delivery is tried until it arrives, its time is over, or it is clear that it never
//! will. <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>

use crate::{
    Events,
    api::{EcsParameters, Target},
    input::{self, Surroundings},
    model::Delivery,
    target::{Kind, SERVICE},
};
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use store::DiskFault;
use wire::{Fault, Principal, PrincipalKind};

/// So many are under way at once.
const MOST_UNDER_WAY: usize = 32;
/// The wait after the first vain attempt, doubled after each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a target's role is taken on for.
const SESSION: Duration = Duration::from_secs(3600);
/// What a target without a retry policy has.
const ATTEMPTS: i32 = 185;
const AGE_S: i32 = 24 * 3600;

/// Why a delivery did not arrive.
struct Failed {
    /// It may arrive another time.
    again: bool,
    why: String,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        let throttled = fault.code.contains("Throttl") || fault.code.contains("LimitExceeded");
        let again = !fault.is_sender() || throttled;
        Self { again, why: format!("{}: {}", fault.code, fault.message) }
    }
}

fn never(why: impl Into<String>) -> Failed {
    Failed { again: false, why: why.into() }
}

pub(crate) async fn drive(events: Arc<Events>) {
    let carry = |one: Arc<Delivery>| {
        let events = events.clone();
        async move { carry(&events, &one).await }
    };
    store::carry_due(&events.store, &events.world, "a delivery", MOST_UNDER_WAY, carry).await;
}

/// Tries once and writes down what came of it.
async fn carry(events: &Arc<Events>, delivery: &Delivery) {
    let failed = attempt(events, delivery).await.err();
    let now = events.world.now();
    let again = failed.as_ref().filter(|failed| failed.again).and_then(|_| retry(delivery, now));
    if let Some(failed) = &failed {
        let (rule, target) = (&delivery.rule, &delivery.target.id);
        match again {
            Some(_) => tracing::info!(
                rule,
                target,
                why = failed.why,
                "an event did not arrive; it is tried again"
            ),
            None => tracing::warn!(
                rule,
                target,
                why = failed.why,
                "an event did not arrive and is given up"
            ),
        }
    }
    let id = delivery.id.clone();
    let written = events.store.write(move |tx| {
        match again {
            Some(due) => {
                tx.update::<Delivery>(&id, |delivery| {
                    delivery.attempts += 1;
                    delivery.due = due;
                });
            }
            None => {
                tx.delete::<Delivery>(&id);
            }
        }
        Ok::<_, DiskFault>(())
    });
    if let Err(error) = written.await {
        // It stays due, and is tried again: twice is better than never.
        tracing::warn!(%error, "an event's delivery could not be written down");
        events.world.sleep(FIRST_PAUSE).await;
    }
}

/// When a delivery is tried again, if at all.
fn retry(delivery: &Delivery, now: world::Timestamp) -> Option<world::Timestamp> {
    let policy = delivery.target.retry_policy.as_ref();
    let attempts = policy.and_then(|policy| policy.maximum_retry_attempts).unwrap_or(ATTEMPTS);
    let age_s = policy.and_then(|policy| policy.maximum_event_age_in_seconds).unwrap_or(AGE_S);
    let pause = FIRST_PAUSE.saturating_mul(1 << delivery.attempts.min(16)).min(LONGEST_PAUSE);
    let due = now + pause;
    let in_time = due.since(delivery.since) <= Duration::from_secs(age_s.unsigned_abs().into());
    (in_time && i64::from(delivery.attempts) < i64::from(attempts)).then_some(due)
}

async fn attempt(events: &Arc<Events>, delivery: &Delivery) -> Result<(), Failed> {
    let target = &delivery.target;
    let (account, region) = delivery.realm.split_once('/').expect("realms are account/region");
    let rule_arn = format!("arn:aws:events:{region}:{account}:rule/{}", delivery.rule);
    let time = delivery.since.rfc3339();
    let around =
        Surroundings { rule_name: &delivery.rule, rule_arn: &rule_arn, ingestion_time: &time };
    let text = input::text(target, &delivery.event, &around);
    match Kind::read(&target.arn).map_err(never)? {
        Kind::Cluster { region, .. } => {
            let principal = principal(events, target)?;
            run_task(events, delivery, &principal, region, &text).await
        }
        Kind::Pipeline { region, name, .. } => {
            let principal = principal(events, target)?;
            // The same delivery, tried again after a crash, begins nothing more.
            let request = json!({"name": name, "clientRequestToken": delivery.id});
            let start = ("codepipeline", "StartPipelineExecution");
            call(events, &principal, region, start, request).await?;
            Ok(())
        }
        Kind::Project { region, name, .. } => {
            let principal = principal(events, target)?;
            let request = build(name, &delivery.id, &text);
            call(events, &principal, region, ("codebuild", "StartBuild"), request).await?;
            Ok(())
        }
        Kind::Topic { region, .. } => {
            // Whether it may, the topic's own policy says: a service is of no account.
            let mut ctx = events.front().context(itself(""), region);
            ctx.source_arn = Some(rule_arn.clone());
            let request = json!({"TopicArn": target.arn, "Message": text});
            events.front().call(ctx, "sns", "Publish", request).await?;
            Ok(())
        }
        Kind::LogGroup { account, region, name } => {
            log(events, delivery, &itself(account), (region, name), text).await
        }
    }
}

/// The build that an input asks for: what of it are StartBuild's own members changes the project for this build. A
/// whole event has none.
fn build(project: &str, token: &str, input: &str) -> Json {
    let given: Map<String, Json> = serde_json::from_str(input).unwrap_or_default();
    let own = |name: &String| name == "sourceVersion" || name.ends_with("Override");
    let mut request: Map<String, Json> = given.into_iter().filter(|(name, _)| own(name)).collect();
    request.insert("projectName".to_owned(), json!(project));
    request.insert("idempotencyToken".to_owned(), json!(token));
    Json::Object(request)
}

/// EventBridge, as a caller in an account.
fn itself(account: &str) -> Principal {
    Principal {
        account: account.to_owned(),
        kind: PrincipalKind::Service { name: SERVICE },
        arn: SERVICE.to_owned(),
        user_id: SERVICE.to_owned(),
        session_policies: Vec::new(),
    }
}

/// A session of the target's role.
fn principal(events: &Events, target: &Target) -> Result<Principal, Failed> {
    let role = target.role_arn.as_deref().ok_or_else(|| never("the target has no role"))?;
    let session = events.world.hex(32);
    let session = events.iam.assume_for_service(role, SERVICE, &session, SESSION);
    session.map(|session| session.principal).map_err(|error| never(error.to_string()))
}

async fn call(
    events: &Events,
    principal: &Principal,
    region: &str,
    (service, operation): (&str, &str),
    request: Json,
) -> Result<Json, Fault> {
    let mut ctx = events.front().context(principal.clone(), region);
    ctx.user_agent = SERVICE.to_owned();
    events.front().call(ctx, service, operation, request).await
}

/// What a target's input may override in a task, as `overrides` of RunTask has it.
const OVERRIDES: [&str; 6] =
    ["containerOverrides", "cpu", "memory", "taskRoleArn", "executionRoleArn", "ephemeralStorage"];

async fn run_task(
    events: &Events,
    delivery: &Delivery,
    principal: &Principal,
    region: &str,
    text: &str,
) -> Result<(), Failed> {
    let parameters = delivery.target.ecs_parameters.as_ref();
    let parameters = parameters.ok_or_else(|| never("the target has no EcsParameters"))?;
    let mut overrides = Map::new();
    if let Ok(Json::Object(given)) = serde_json::from_str(text) {
        overrides.extend(given.into_iter().filter(|(name, _)| OVERRIDES.contains(&name.as_str())));
    }
    let mut request = serde_json::to_value(EcsParameters {
        task_definition_arn: String::new(),
        task_count: None,
        ..parameters.clone()
    })
    .map_err(|error| never(error.to_string()))?;
    if let Some(request) = request.as_object_mut() {
        request.remove("TaskDefinitionArn");
        request.insert("taskDefinition".to_owned(), json!(parameters.task_definition_arn));
        request.insert("cluster".to_owned(), json!(delivery.target.arn));
        request.insert("count".to_owned(), json!(parameters.task_count.unwrap_or(1)));
        request.insert("startedBy".to_owned(), json!(format!("events-rule/{}", delivery.rule)));
        request.insert("overrides".to_owned(), Json::Object(overrides));
        // The same delivery, tried again after a crash, starts nothing more.
        request.insert("clientToken".to_owned(), json!(delivery.id));
    }
    let answer = call(events, principal, region, ("ecs", "RunTask"), request).await?;
    match answer["failures"].as_array().and_then(|failures| failures.first()) {
        Some(failure) => Err(Failed { again: true, why: failure.to_string() }),
        None => Ok(()),
    }
}

async fn log(
    events: &Events,
    delivery: &Delivery,
    principal: &Principal,
    (region, group): (&str, &str),
    message: String,
) -> Result<(), Failed> {
    let stream = json!({"logGroupName": group, "logStreamName": delivery.id});
    let made = call(events, principal, region, ("logs", "CreateLogStream"), stream).await;
    match made {
        Err(fault) if fault.code != "ResourceAlreadyExistsException" => return Err(fault.into()),
        _ => {}
    }
    let line = json!({"timestamp": delivery.since.millis(), "message": message});
    let put = json!({"logGroupName": group, "logStreamName": delivery.id, "logEvents": [line]});
    call(events, principal, region, ("logs", "PutLogEvents"), put).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RetryPolicy;
    use world::Timestamp;

    fn delivery(attempts: u32, policy: Option<(i32, i32)>) -> Delivery {
        let retry_policy = policy.map(|(attempts, age_s)| RetryPolicy {
            maximum_retry_attempts: Some(attempts),
            maximum_event_age_in_seconds: Some(age_s),
        });
        Delivery {
            id: String::new(),
            realm: "1/r".to_owned(),
            rule: "rule".to_owned(),
            target: Target { retry_policy, ..Target::default() },
            event: Json::Null,
            since: Timestamp::from_millis(0),
            attempts,
            due: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn retries_wait_longer_and_longer_until_they_are_given_up() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let next = |attempts, policy, now| retry(&delivery(attempts, policy), at(now));
        assert_eq!(next(0, None, 10), Some(at(11)));
        assert_eq!(next(3, None, 10), Some(at(18)));
        assert_eq!(next(100, None, 10), Some(at(310)));
        assert_eq!(next(184, None, 0), Some(at(300)));
        assert_eq!(next(185, None, 0), None);
        assert_eq!(next(0, None, 24 * 3600), None);
        assert_eq!(next(0, Some((0, 3600)), 0), None);
        assert_eq!(next(1, Some((2, 60)), 57), Some(at(59)));
        assert_eq!(next(1, Some((2, 60)), 59), None);
    }

    #[test]
    fn what_will_never_arrive_is_not_tried_again() {
        let again =
            |code: &'static str, status| Failed::from(Fault::new(code, "x").status(status)).again;
        assert!(again("InternalFailure", 500) && again("ThrottlingException", 400));
        assert!(!again("AccessDeniedException", 400) && !again("ClusterNotFoundException", 400));
    }
}
