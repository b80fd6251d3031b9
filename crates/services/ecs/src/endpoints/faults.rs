//! Faults that a task's own containers ask for, of its network.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fault-injection.html>

use super::{Answer, json};
use crate::{Ecs, model::Task, reconcile::chain, tell::change_task};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming};
use network::{BlackHole, Cidr, Faults, Latency, Loss};
use serde::{Deserialize, Serialize};
use store::{DiskFault, Record};

/// The longest request, in bytes.
const MOST_BYTES: usize = 64 << 10;
/// The most places of a request.
const MOST_PLACES: usize = 1000;
/// The longest delay, in ms.
const MOST_DELAY_MS: u64 = 60_000;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked {
    port: Option<u16>,
    protocol: Option<String>,
    traffic_type: Option<String>,
    delay_milliseconds: Option<u64>,
    jitter_milliseconds: Option<u64>,
    loss_percent: Option<u64>,
    sources: Option<Vec<String>>,
    sources_to_filter: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
enum Outcome {
    Status(&'static str),
    Error(String),
}

/// Answers what is asked at `ECS_AGENT_URI/fault/v1/KIND/ACTION`.
pub(super) async fn answer(
    ecs: &Ecs,
    task: &Task,
    [kind, action]: [&str; 2],
    request: Request<Incoming>,
) -> Answer {
    let outcome = match request.method() {
        &Method::POST => carry_out(ecs, task, kind, action, request).await,
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "the method must be POST".to_owned())),
    };
    match outcome {
        Ok(status) => json(&Outcome::Status(status)),
        Err((status, error)) => {
            let mut answer = json(&Outcome::Error(error));
            *answer.status_mut() = status;
            answer
        }
    }
}

type Refusal = (StatusCode, String);

fn bad(message: impl Into<String>) -> Refusal {
    (StatusCode::BAD_REQUEST, message.into())
}

async fn carry_out(
    ecs: &Ecs,
    task: &Task,
    kind: &str,
    action: &str,
    request: Request<Incoming>,
) -> Result<&'static str, Refusal> {
    let definition = ecs.definition_of(task);
    if definition.is_none_or(|found| found.document.enable_fault_injection != Some(true)) {
        return Err(bad(format!("enableFaultInjection is not enabled for task: {}", task.arn())));
    }
    let body = Limited::new(request.into_body(), MOST_BYTES).collect().await;
    let body =
        body.map_err(|error| bad(format!("the request cannot be read: {error}")))?.to_bytes();
    let asked: Asked = match body.is_empty() {
        true => Asked::default(),
        false => serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?,
    };
    let change = Change::of(kind, asked, action == "start")?;
    // One after the other: the network gets all faults of a task at once.
    let _turn = ecs.injecting.lock().await;
    let task = ecs.store.read().get::<Task>(&task.key());
    let task = task.ok_or_else(|| bad("the task is gone"))?;
    let mut faults = task.faults.clone();
    let status = match action {
        "status" if change.runs(&faults) => return Ok("running"),
        "status" => return Ok("not-running"),
        "start" => {
            change.start(&mut faults)?;
            "running"
        }
        "stop" => {
            change.stop(&mut faults);
            "stopped"
        }
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    };
    let netns = ecs.engine.task(&task.id).and_then(|running| running.netns());
    let netns = netns.ok_or_else(|| bad("the task does not run"))?;
    let failed = |error: &dyn std::error::Error| (StatusCode::INTERNAL_SERVER_ERROR, chain(error));
    if let Err(error) = ecs.ec2.network().set_faults(&netns, &faults).await {
        // Of what was there before nothing is lost.
        ecs.ec2.network().set_faults(&netns, &task.faults).await.map_err(|e| failed(&e))?;
        return Err(failed(&error));
    }
    let key = task.key();
    let written = ecs.store.write(|tx| {
        change_task(tx, &ecs.world, &key, |task| task.faults = faults);
        Ok::<_, DiskFault>(())
    });
    written.await.map_err(|error| failed(&error))?;
    Ok(status)
}

/// The fault that a request is about.
enum Change {
    BlackHole(BlackHole),
    Loss(Loss),
    Latency(Latency),
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| bad(format!("required parameter {name} is missing")))
}

fn invalid(value: impl std::fmt::Display, name: &str) -> Refusal {
    bad(format!("invalid value {value} for parameter {name}"))
}

fn places(given: Option<Vec<String>>, name: &str) -> Result<Vec<Cidr>, Refusal> {
    let given = given.unwrap_or_default();
    if given.len() > MOST_PLACES {
        return Err(invalid(format!("of {} places", given.len()), name));
    }
    let of_version_6 = |text: &String| text.contains(':');
    let given = given.iter().filter(|text| !of_version_6(text));
    given.map(|text| network::block(text).ok_or_else(|| invalid(text, name))).collect()
}

impl Change {
    /// What is meant; what is only needed to start it is left out elsewhere.
    fn of(kind: &str, asked: Asked, start: bool) -> Result<Self, Refusal> {
        let spared = places(asked.sources_to_filter, "SourcesToFilter")?;
        let to = places(asked.sources, "Sources")?;
        if kind == "network-blackhole-port" {
            let protocol = required(asked.protocol, "Protocol")?;
            let protocol = match protocol.as_str() {
                "tcp" => network::Protocol::Tcp,
                "udp" => network::Protocol::Udp,
                _ => return Err(invalid(protocol, "Protocol")),
            };
            let traffic = required(asked.traffic_type, "TrafficType")?;
            let ingress = match traffic.as_str() {
                "ingress" => true,
                "egress" => false,
                _ => return Err(invalid(traffic, "TrafficType")),
            };
            let port = required(asked.port, "Port")?;
            return Ok(Self::BlackHole(BlackHole { ingress, protocol, port, spared }));
        }
        if !matches!(kind, "network-packet-loss" | "network-latency") {
            return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned()));
        }
        if start && to.is_empty() {
            return Err(bad("required parameter Sources is missing"));
        }
        if kind == "network-packet-loss" {
            let percent = if start { required(asked.loss_percent, "LossPercent")? } else { 1 };
            let fits = u8::try_from(percent).ok().filter(|percent| (1..=100).contains(percent));
            let percent = fits.ok_or_else(|| invalid(percent, "LossPercent"))?;
            return Ok(Self::Loss(Loss { percent, to, spared }));
        }
        let given = |value: Option<u64>, name| match value {
            None if start => required(value, name),
            Some(value) if value > MOST_DELAY_MS => Err(invalid(value, name)),
            value => Ok(value.unwrap_or_default()),
        };
        let delay_ms = given(asked.delay_milliseconds, "DelayMilliseconds")?;
        let jitter_ms = given(asked.jitter_milliseconds, "JitterMilliseconds")?;
        Ok(Self::Latency(Latency { delay_ms, jitter_ms, to, spared }))
    }

    fn same(hole: &BlackHole, other: &BlackHole) -> bool {
        (hole.ingress, hole.protocol, hole.port) == (other.ingress, other.protocol, other.port)
    }

    fn runs(&self, faults: &Faults) -> bool {
        match self {
            Self::BlackHole(hole) => faults.black_holes.iter().any(|one| Self::same(hole, one)),
            Self::Loss(_) => faults.loss.is_some(),
            Self::Latency(_) => faults.latency.is_some(),
        }
    }

    fn start(self, faults: &mut Faults) -> Result<(), Refusal> {
        let conflict = |what: &str| {
            (StatusCode::CONFLICT, format!("There is already one {what} fault running"))
        };
        match self {
            Self::BlackHole(hole) => {
                faults.black_holes.retain(|one| !Self::same(&hole, one));
                faults.black_holes.push(hole);
            }
            // As on Fargate, where both are the network emulator's.
            Self::Loss(_) | Self::Latency(_) if faults.loss.is_some() => {
                return Err(conflict("network packet loss"));
            }
            Self::Loss(_) | Self::Latency(_) if faults.latency.is_some() => {
                return Err(conflict("network latency"));
            }
            Self::Loss(loss) => faults.loss = Some(loss),
            Self::Latency(latency) => faults.latency = Some(latency),
        }
        Ok(())
    }

    fn stop(self, faults: &mut Faults) {
        match self {
            Self::BlackHole(hole) => faults.black_holes.retain(|one| !Self::same(&hole, one)),
            Self::Loss(_) => faults.loss = None,
            Self::Latency(_) => faults.latency = None,
        }
    }
}
