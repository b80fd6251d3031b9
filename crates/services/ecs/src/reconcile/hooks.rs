//! Lifecycle hooks that are functions: each is asked at its stage, says whether the deployment may go on, or that it is
//! to be asked again.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html>

use crate::{
    Ecs,
    api::{DeploymentLifecycleHookStatus as Status, ServiceDeploymentStatus},
    model::{Hook, ServiceDeployment, WHOLE},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{DiskFault, Record};
use world::Timestamp;

/// When a function that is not done, or was not reached, is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest that a function can ask to be left alone.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long the role's session for one call holds: longer than a function runs.
const SESSION: Duration = Duration::from_secs(3600);

/// What a function says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    hook_status: String,
    /// Seconds.
    call_back_delay: Option<u64>,
}

/// Asks the functions of all deployments.
pub(super) async fn drive(ecs: Arc<Ecs>) {
    let mut watch = ecs.store.watch::<ServiceDeployment>();
    let asked: Arc<Mutex<HashSet<String>>> = Arc::default();
    loop {
        let now = ecs.world.now();
        let mut next: Option<Timestamp> = None;
        for deployment in ecs.store.read().scan::<ServiceDeployment>() {
            if deployment.status != ServiceDeploymentStatus::InProgress {
                continue;
            }
            for hook in deployment.shift.iter().flat_map(|shift| &shift.hooks) {
                let Some(due) = hook.due.filter(|_| hook.status == Status::InProgress) else {
                    continue;
                };
                if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                let lock = asked.clone();
                let mut set = lock.lock().unwrap_or_else(PoisonError::into_inner);
                if !set.insert(hook.id.clone()) {
                    continue;
                }
                let (ecs_of_call, deployment) = (ecs.clone(), deployment.clone());
                let (hook, asked) = (hook.clone(), asked.clone());
                ecs.world.spawn("lifecycle hook", async move {
                    ask(&ecs_of_call, &deployment, &hook).await;
                    asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&hook.id);
                });
            }
        }
        let wait = next.map_or(AGAIN, |next| next.since(now));
        ecs.world.timeout(wait, watch.changed()).await;
    }
}

/// Asks a function once, and notes what it says.
async fn ask(ecs: &Ecs, deployment: &ServiceDeployment, hook: &Hook) {
    let again = ecs.world.now() + ecs.world.scaled(AGAIN);
    let (status, due, reason) = match call(ecs, deployment, hook).await {
        Ok(said) => match said.hook_status.as_str() {
            "SUCCEEDED" => (Status::Succeeded, None, None),
            "IN_PROGRESS" => {
                let delay = said.call_back_delay.map_or(AGAIN, Duration::from_secs).min(LONGEST);
                (Status::InProgress, Some(ecs.world.now() + ecs.world.scaled(delay)), None)
            }
            "FAILED" => (Status::Failed, None, Some("it said so".to_owned())),
            other => (Status::Failed, None, Some(format!("its hookStatus is '{other}'"))),
        },
        Err(Unsaid { last: true, why }) => (Status::Failed, None, Some(why)),
        Err(Unsaid { why, .. }) => {
            tracing::warn!(hook = hook.id, why, "a lifecycle hook's function was not reached");
            (Status::InProgress, Some(again), None)
        }
    };
    let (key, id, now) = (deployment.key(), hook.id.clone(), ecs.world.now());
    let written = ecs.store.write(move |tx| {
        tx.update::<ServiceDeployment>(&key, |deployment| {
            let hooks = deployment.shift.iter_mut().flat_map(|shift| &mut shift.hooks);
            for hook in hooks.filter(|hook| hook.id == id && hook.status == Status::InProgress) {
                (hook.status, hook.due) = (status, due);
                hook.reason.clone_from(&reason);
                deployment.updated_at = now;
            }
        });
        Ok::<_, DiskFault>(())
    });
    // It is asked again.
    if let Err(error) = written.await {
        tracing::warn!(error = super::chain(&error), "what a function said could not be kept");
    }
}

/// Why nothing was said.
struct Unsaid {
    /// Whether asking again would not help.
    last: bool,
    /// For people.
    why: String,
}

async fn call(ecs: &Ecs, deployment: &ServiceDeployment, hook: &Hook) -> Result<Said, Unsaid> {
    let last = |why: String| Unsaid { last: true, why };
    let configured = deployment.configuration.lifecycle_hooks.iter().flatten().nth(hook.index);
    let role = configured.and_then(|hook| hook.role_arn.as_deref()).unwrap_or_default();
    let session = ecs.iam.assume_for_service(role, "ecs.amazonaws.com", &deployment.id, SESSION);
    let session = session.map_err(|_| last(format!("ECS cannot assume the role '{role}'")))?;
    let function = hook.function.as_deref().unwrap_or_default();
    let event = event(deployment, hook).to_string();
    let functions = &ecs.surroundings().functions;
    let answer = functions.invoke(&deployment.realm, &session.principal, function, event).await;
    let answer = answer.map_err(|(last, why)| Unsaid { last, why })?;
    serde_json::from_str(&answer)
        .map_err(|error| last(format!("its answer cannot be read: {error}")))
}

/// What a function is told.
fn event(deployment: &ServiceDeployment, hook: &Hook) -> Json {
    let weights = |share: &dyn Fn(&str) -> i32| {
        let all = deployment.sources.iter().chain([&deployment.target]);
        let weights = all.filter_map(|revision| match share(&revision.deployment) {
            0 => None,
            share => {
                let percent = f64::from(share) * 100.0 / f64::from(WHOLE);
                Some((deployment.revision_arn(&revision.deployment), json!(percent)))
            }
        });
        Json::Object(weights.collect::<Map<_, _>>())
    };
    json!({
        "executionDetails": {
            "testTrafficWeights": weights(&|id| deployment.test(id)),
            "productionTrafficWeights": weights(&|id| deployment.production(id)),
            "serviceArn": deployment.service_arn(),
            "targetServiceRevisionArn": deployment.revision_arn(&deployment.target.deployment),
        },
        "executionId": hook.id,
        "lifecycleStage": hook.stage.as_str(),
        "resourceArn": deployment.arn(),
    })
}
