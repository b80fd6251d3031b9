//! Lifecycle events that are functions': each is asked with the id of this execution, and says with
//! PutLifecycleEventHookExecutionStatus whether the deployment may go on.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html>

use crate::{
    api::{ErrorCode, LifecycleErrorCode},
    drive::Flow,
    model::{Diagnosis, Hook, HookEvent},
    steps::{Failed, Work},
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use serde_json::json;

/// How long a function may take to say something.
const MINUTES: u32 = 60;

/// Asks the function once, however often the process dies, but for a death between the asking and its note; then waits.
pub(crate) async fn step(work: &Work<'_>, event: HookEvent) -> Result<Flow, Failed> {
    let deployment = work.deployment;
    let function = deployment.plan.hooks.get(&event).cloned().unwrap_or_default();
    let Some(hook) = deployment.hooks.iter().find(|hook| hook.event == event) else {
        let hook = Hook { id: work.service.world.uuid(), event, invoked: false, result: None };
        work.note(|deployment| deployment.hooks.push(hook)).await?;
        return Ok(Flow::Again);
    };
    match hook.result {
        Some(true) => return Ok(Flow::On),
        Some(false) => {
            let message = format!("The validation function {function} said that it failed.");
            return Err(failed(event, &function, LifecycleErrorCode::ScriptFailed, message));
        }
        None => {}
    }
    if !hook.invoked {
        invoke(work, &function, hook).await?;
        let id = hook.id.clone();
        work.note(|deployment| {
            let asked = deployment.hooks.iter_mut().filter(|hook| hook.id == id);
            asked.for_each(|hook| hook.invoked = true);
        })
        .await?;
        return Ok(Flow::Again);
    }
    match work.minutes(MINUTES).checked_sub(work.passed()) {
        Some(left) if !left.is_zero() => Ok(Flow::Wait(left)),
        _ => {
            let message = format!(
                "The validation function {function} did not say within {MINUTES} minutes whether it succeeded."
            );
            Err(failed(event, &function, LifecycleErrorCode::ScriptTimedOut, message))
        }
    }
}

fn failed(event: HookEvent, function: &str, code: LifecycleErrorCode, message: String) -> Failed {
    Failed {
        diagnosis: Some(Diagnosis {
            code,
            function: function.to_owned(),
            message: message.clone(),
        }),
        ..Failed::new(
            ErrorCode::HookExecutionFailure,
            format!("The lifecycle event {} failed. {message}", event.name()),
        )
    }
}

async fn invoke(work: &Work<'_>, function: &str, hook: &Hook) -> Result<(), Failed> {
    let event = json!({
        "DeploymentId": work.deployment.id, "LifecycleEventHookExecutionId": hook.id,
    });
    let asked = json!({
        "FunctionName": function, "InvocationType": "Event",
        "Payload": BASE64.encode(event.to_string()),
    });
    let answer = work.service.front().call(work.context(), "lambda", "Invoke", asked).await;
    answer.map(|_| ()).map_err(|fault| {
        let throttled = fault.code == "TooManyRequestsException";
        let message = format!("{} ({})", fault.message, fault.code);
        let diagnosis = Diagnosis {
            code: LifecycleErrorCode::ScriptMissing,
            function: function.to_owned(),
            message,
        };
        let failed = Failed::of(ErrorCode::InvalidLambdaFunction, &fault);
        Failed { again: failed.again || throttled, diagnosis: Some(diagnosis), ..failed }
    })
}
