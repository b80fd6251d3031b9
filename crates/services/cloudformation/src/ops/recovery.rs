//! Ways out of an update that goes wrong.

use super::{find, stack::not_now};
use crate::{CloudFormation, api::*, faults, model};
use std::{collections::BTreeSet, sync::Arc};
use wire::{Context, Fault};

pub(crate) async fn cancel_update_stack(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: CancelUpdateStackInput,
) -> Result<(), Fault> {
    let stack = find(house, ctx, "CancelUpdateStack", &input.stack_name)?;
    if stack.status != StackStatus::UpdateInProgress {
        return Err(faults::validation(
            "CancelUpdateStack cannot be called from current stack status",
        ));
    }
    // The same operation goes on, the other way.
    let begun = house.begin(&stack, None, "User Initiated", |stack| {
        stack.status = StackStatus::UpdateRollbackInProgress;
        stack.operation.token = input.client_request_token.or(stack.operation.token.take());
    });
    begun.await.map(|_| ())
}

pub(crate) async fn continue_update_rollback(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ContinueUpdateRollbackInput,
) -> Result<ContinueUpdateRollbackOutput, Fault> {
    let stack = find(house, ctx, "ContinueUpdateRollback", &input.stack_name)?;
    if stack.status != StackStatus::UpdateRollbackFailed {
        return Err(not_now(&stack, "rolled back"));
    }
    let skip: BTreeSet<String> = input.resources_to_skip.unwrap_or_default().into_iter().collect();
    let snapshot = house.store.read();
    for logical in &skip {
        let record = snapshot.get::<model::Resource>(&model::Resource::key_of(&stack.id, logical));
        if record.is_none_or(|record| record.status != "UPDATE_FAILED") {
            let message = format!("Resources to skip must be in status UPDATE_FAILED: [{logical}]");
            return Err(faults::validation(message));
        }
    }
    let mut operation = house.operation(input.client_request_token);
    operation.skip = skip;
    let principal = model::Principal::new(&ctx.principal);
    house
        .begin(&stack, None, "User Initiated", |stack| {
            if let Some(principal) = principal {
                stack.settings.principal = principal;
            }
            stack.status = StackStatus::UpdateRollbackInProgress;
            stack.operation = operation;
        })
        .await?;
    Ok(ContinueUpdateRollbackOutput::default())
}
