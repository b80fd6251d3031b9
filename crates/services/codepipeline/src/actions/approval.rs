//! Manual approvals: they wait for PutApprovalResult, and end by themselves only when nobody decides.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/approvals.html>

use super::{Done, Failed, Work};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long an approval waits unless its action says otherwise: seven days.
const MINUTES: i32 = 7 * 24 * 60;
/// The longest wait between two looks.
const ROUND: Duration = Duration::from_secs(60);

pub(super) async fn wait(work: &Work<'_>) -> Result<Done, Failed> {
    let minutes = work.run.declaration.timeout_in_minutes.unwrap_or(MINUTES);
    let world = &work.service.world;
    let limit = world.scaled(Duration::from_secs(60) * minutes.unsigned_abs());
    // After a crash in between, they may be told twice.
    if work.current().is_some_and(|run| run.progress.is_null())
        && work.get("NotificationArn").is_some()
    {
        work.call("sns", "Publish", notice(work, limit)?).await?;
        work.progress(json!({"told": true}), None).await?;
    }
    while work.is_wanted() {
        let passed = world.now().since(work.run.started);
        if passed >= limit {
            return Err(Failed::job(format!(
                "Nobody approved or rejected within {minutes} minutes."
            )));
        }
        world.sleep((limit - passed).min(ROUND)).await;
    }
    // It is decided: what is answered here is no longer asked for.
    Ok(Done::default())
}

/// What whoever decides is told, but for the links into AWS's console.
/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/approvals-json-format.html>
fn notice(work: &Work<'_>, limit: Duration) -> Result<Json, Failed> {
    let holds = |stage: &&crate::model::StageRun| {
        stage.actions.iter().any(|action| action.id == work.run.id)
    };
    let stage = work.execution.stages.iter().find(holds).map(|stage| &stage.name);
    let (pipeline, action) = (&work.execution.pipeline, &work.run.declaration.name);
    let message = json!({
        "region": work.region(),
        "approval": {
            "pipelineName": pipeline,
            "stageName": stage,
            "actionName": action,
            "token": work.run.token,
            "expires": (work.run.started + limit).datetime().format("%Y-%m-%dT%H:%MZ").to_string(),
            "externalEntityLink": work.get("ExternalEntityLink"),
            "customData": work.get("CustomData"),
        },
    });
    // Subjects have an end.
    let subject: String =
        format!("APPROVAL NEEDED: AWS CodePipeline {pipeline} for action {action}")
            .chars()
            .take(100)
            .collect();
    Ok(json!({
        "TopicArn": work.need("NotificationArn")?, "Subject": subject, "Message": message.to_string(),
    }))
}
