//! Stack policies.

use super::{find, given::text_of};
use crate::{CloudFormation, api::*, faults, model, policy::Policy};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// A policy's text, from the request or from S3, if it gives one.
pub(super) async fn read(
    house: &CloudFormation,
    ctx: &Context,
    body: Option<String>,
    url: Option<String>,
) -> Result<Option<String>, Fault> {
    let text = match (body, url) {
        (None, None) => return Ok(None),
        (Some(body), None) => body,
        (None, Some(url)) => text_of(house, ctx, &url, "StackPolicyURL").await?,
        (Some(_), Some(_)) => {
            let message = "You cannot specify both StackPolicyURL and StackPolicyBody.";
            return Err(faults::validation(message));
        }
    };
    match Policy::read(&text) {
        Some(_) => Ok(Some(text)),
        None => Err(faults::validation("Error validating stack policy: Invalid stack policy")),
    }
}

pub(crate) async fn set_stack_policy(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: SetStackPolicyInput,
) -> Result<(), Fault> {
    let stack = find(house, ctx, "SetStackPolicy", &input.stack_name)?;
    let policy = read(house, ctx, input.stack_policy_body, input.stack_policy_url).await?;
    let policy = policy.ok_or_else(|| {
        faults::validation("You must specify either StackPolicyURL or StackPolicyBody.")
    })?;
    let key = stack.key();
    let write = house.store.write(move |tx| {
        tx.update::<model::Stack>(&key, |stack| stack.policy = Some(policy));
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn get_stack_policy(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: GetStackPolicyInput,
) -> Result<GetStackPolicyOutput, Fault> {
    let stack = find(house, ctx, "GetStackPolicy", &input.stack_name)?;
    Ok(GetStackPolicyOutput { stack_policy_body: stack.policy.clone() })
}
