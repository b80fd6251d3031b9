//! Approvals are given, or not.

use super::{execution as the_execution, executions, find};
use crate::{
    CodePipeline,
    api::*,
    faults,
    model::{ActionRun, Execution},
    tell,
};
use std::result::Result;
use wire::{Context, Fault};

fn invalid_token() -> Fault {
    Fault::new("InvalidApprovalTokenException", "The approval token is not valid.")
}

fn is_asked(action: &ActionRun, name: &str, token: &str) -> bool {
    action.declaration.name == name && action.token.as_deref() == Some(token)
}

pub(crate) async fn put_approval_result(
    service: &CodePipeline,
    ctx: &Context,
    input: PutApprovalResultInput,
) -> Result<PutApprovalResultOutput, Fault> {
    let (name, stage, action) = (&input.pipeline_name, &input.stage_name, &input.action_name);
    let arn = ctx.arn("codepipeline", format!("{name}/{stage}/{action}"));
    ctx.authorise("codepipeline:PutApprovalResult", &arn)?;
    let pipeline = find(service, ctx, name, "codepipeline:PutApprovalResult")?;
    let declared = pipeline.declaration.stages.iter().find(|one| one.name == *stage);
    let declared = declared.ok_or_else(|| faults::no_stage(stage))?;
    if !declared.actions.iter().any(|one| one.name == *action) {
        return Err(Fault::new(
            "ActionNotFoundException",
            format!("The action '{action}' was not found."),
        ));
    }
    let asked = executions(service, &pipeline).into_iter().find(|execution| {
        let stages = execution.stages.iter().filter(|one| one.name == *stage);
        stages.flat_map(|one| &one.actions).any(|one| is_asked(one, action, &input.token))
    });
    let asked = asked.ok_or_else(invalid_token)?;
    let (realm, id, now) = (ctx.realm(), asked.id.clone(), ctx.now);
    let (by, world) = (ctx.principal.arn.clone(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let mut execution: Execution = the_execution(tx, &realm, &input.pipeline_name, &id)?;
            let actions = execution.stages.iter_mut().flat_map(|stage| &mut stage.actions);
            let action = actions
                .into_iter()
                .find(|one| is_asked(one, &input.action_name, &input.token))
                .ok_or_else(invalid_token)?;
            if !action.is_under_way() {
                return Err(Fault::new(
                    "ApprovalAlreadyCompletedException",
                    "The approval action has already been approved or rejected.",
                ));
            }
            let approved = input.result.status == ApprovalStatus::Approved;
            action.status = Some(match approved {
                true => ActionExecutionStatus::Succeeded,
                false => ActionExecutionStatus::Failed,
            });
            action.changed = now;
            action.summary = Some(input.result.summary.clone());
            action.by = Some(by);
            if !approved {
                let message = format!("Rejected: {}", input.result.summary);
                action.error = Some(("JobFailed".to_owned(), message));
            }
            execution.updated = now;
            tell::put(tx, &world, execution);
            Ok(())
        })
        .await?;
    Ok(PutApprovalResultOutput { approved_at: Some(now) })
}
