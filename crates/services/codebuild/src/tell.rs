//! What EventBridge is told of builds, within the transaction that changes them.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/sample-build-notifications.html>

use crate::{
    api::{BuildPhase, StatusType},
    model::Build,
};
use events::Event;
use serde_json::{Map, Value as Json, json};
use store::{Record, Tx};
use world::{Timestamp, World};

/// Writes a build, and tells what of it is another than before.
pub(crate) fn put(tx: &mut Tx, world: &World, build: Build) {
    if events::is_heeded(tx, &build.realm) {
        let before = tx.get::<Build>(&build.key());
        let over = |build: &Build| -> Vec<BuildPhase> {
            let phases = build.document.phases.iter().flatten();
            phases.filter(|phase| phase.phase_status.is_some()).cloned().collect()
        };
        let known = before.as_deref().map(over).unwrap_or_default().len();
        for phase in over(&build).iter().skip(known) {
            tell(tx, world, &build, "CodeBuild Build Phase Change", phase_detail(phase));
        }
        if before.is_none_or(|before| before.document.build_status != build.document.build_status) {
            let detail = json!({
                "build-status": build.status().as_str(),
                "current-phase": build.document.current_phase,
                "current-phase-context": "[]",
            });
            tell(tx, world, &build, "CodeBuild Build State Change", detail);
        }
    }
    tx.put(build);
}

/// `Sep 1, 2017 4:12:29 PM`.
fn date(time: Timestamp) -> String {
    let (date, clock) = time
        .rfc3339()
        .split_at_checked(10)
        .map_or_else(Default::default, |(a, b)| (a.to_owned(), b[1..].to_owned()));
    let number = |text: &str| text.parse::<usize>().unwrap_or_default();
    let date: Vec<usize> = date.split('-').map(number).collect();
    let clock: Vec<usize> = clock.get(..8).unwrap_or_default().split(':').map(number).collect();
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    match (&date[..], &clock[..]) {
        ([year, month @ 1..=12, day], [hour, minute, second]) => {
            let half = if *hour < 12 { "AM" } else { "PM" };
            let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
            let month = MONTHS[month - 1];
            format!("{month} {day}, {year} {hour}:{minute:02}:{second:02} {half}")
        }
        _ => time.rfc3339(),
    }
}

fn context(phase: &BuildPhase) -> Vec<String> {
    let contexts = phase.contexts.iter().flatten();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    contexts.map(|c| format!("{}: {}", text(&c.status_code), text(&c.message))).collect()
}

fn phase_detail(phase: &BuildPhase) -> Json {
    json!({
        "completed-phase": phase.phase_type.map(|phase| phase.as_str()),
        "completed-phase-status": phase.phase_status.map(|status| status.as_str()),
        "completed-phase-context": format!("[{}]", context(phase).join(", ")),
        "completed-phase-duration-seconds": phase.duration_in_seconds,
        "completed-phase-start": phase.start_time.map(date),
        "completed-phase-end": phase.end_time.map(date),
    })
}

fn phase_line(phase: &BuildPhase) -> Json {
    let mut line = Map::new();
    let mut set = |name: &str, value: Json| drop(line.insert(name.to_owned(), value));
    set("phase-type", json!(phase.phase_type.map(|phase| phase.as_str())));
    set("start-time", json!(phase.start_time.map(date)));
    if let Some(status) = phase.phase_status {
        set("phase-status", json!(status.as_str()));
        set("phase-context", json!(context(phase)));
        set("end-time", json!(phase.end_time.map(date)));
        set("duration-in-seconds", json!(phase.duration_in_seconds));
    }
    Json::Object(line)
}

fn tell(tx: &mut Tx, world: &World, build: &Build, detail_type: &str, mut detail: Json) {
    let document = &build.document;
    let environment = document.environment.as_ref();
    let variables = environment.and_then(|environment| environment.environment_variables.as_ref());
    let variables: Vec<Json> = variables
        .into_iter()
        .flatten()
        .map(|one| json!({"name": one.name, "value": one.value, "type": one.r#type.map(|t| t.as_str())}))
        .collect();
    let logs = document.logs.as_ref();
    detail["project-name"] = json!(build.project);
    detail["build-id"] = json!(document.arn);
    detail["version"] = json!("1");
    detail["additional-information"] = json!({
        "artifact": document.artifacts.as_ref().map(|artifacts| json!({
            "location": artifacts.location, "sha256sum": artifacts.sha256sum,
        })),
        "environment": environment.map(|environment| json!({
            "image": environment.image,
            "compute-type": environment.compute_type.as_str(),
            "type": environment.r#type.as_str(),
            "privileged-mode": environment.privileged_mode.unwrap_or(false),
            "environment-variables": variables,
        })),
        "timeout-in-minutes": document.timeout_in_minutes,
        "build-complete": document.build_status != Some(StatusType::InProgress),
        "build-number": document.build_number,
        "initiator": document.initiator,
        "build-start-time": document.start_time.map(date),
        "source": document.source.as_ref().map(|source| json!({
            "type": source.r#type.as_str(), "location": source.location,
        })),
        "source-version": document.source_version,
        "logs": logs.map(|logs| json!({
            "group-name": logs.group_name, "stream-name": logs.stream_name, "deep-link": logs.deep_link,
        })),
        "phases": document.phases.iter().flatten().map(phase_line).collect::<Vec<_>>(),
    });
    let event = Event {
        id: world.uuid(),
        realm: build.realm.clone(),
        source: "aws.codebuild".to_owned(),
        detail_type: detail_type.to_owned(),
        time: world.now(),
        resources: document.arn.iter().cloned().collect(),
        detail,
    };
    events::tell(tx, world, &event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_aws_writes_them() {
        let at = |text: &str| date(Timestamp::parse_rfc3339(text).unwrap());
        assert_eq!(at("2017-09-01T16:12:29Z"), "Sep 1, 2017 4:12:29 PM");
        assert_eq!(at("2026-12-31T00:05:09Z"), "Dec 31, 2026 12:05:09 AM");
    }
}
