//! Lifecycle policies on record.

use super::change;
use crate::{
    Ecr,
    api::{
        DeleteLifecyclePolicyRequest, DeleteLifecyclePolicyResponse, GetLifecyclePolicyRequest,
        GetLifecyclePolicyResponse, PutLifecyclePolicyRequest, PutLifecyclePolicyResponse,
    },
    faults,
    lifecycle::LifecyclePolicy,
};
use wire::{Context, Fault};

/// Puts the policy and applies it at once: AWS promises that within a day.
pub(crate) async fn put_lifecycle_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: PutLifecyclePolicyRequest,
) -> Result<PutLifecyclePolicyResponse, Fault> {
    let action = "ecr:PutLifecyclePolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = input.lifecycle_policy_text;
    let invalid = |error| {
        let reason = format!("Lifecycle policy validation failure: {error}");
        faults::constraint("LifecyclePolicyText", reason)
    };
    LifecyclePolicy::parse(&text).map_err(invalid)?;
    let kept = text.clone();
    let changed = change(ecr, &found, move |repository| repository.lifecycle = Some(kept)).await?;
    ecr.apply_lifecycle(&changed.place).await?;
    Ok(PutLifecyclePolicyResponse {
        registry_id: Some(changed.place.account().to_owned()),
        repository_name: Some(changed.place.name.clone()),
        lifecycle_policy_text: Some(text),
    })
}

pub(crate) async fn get_lifecycle_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: GetLifecyclePolicyRequest,
) -> Result<GetLifecyclePolicyResponse, Fault> {
    let action = "ecr:GetLifecyclePolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = found.lifecycle.clone().ok_or_else(|| faults::no_lifecycle(&found.place))?;
    Ok(GetLifecyclePolicyResponse {
        registry_id: Some(found.place.account().to_owned()),
        repository_name: Some(found.place.name.clone()),
        lifecycle_policy_text: Some(text),
        last_evaluated_at: found.evaluated,
    })
}

pub(crate) async fn delete_lifecycle_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: DeleteLifecyclePolicyRequest,
) -> Result<DeleteLifecyclePolicyResponse, Fault> {
    let action = "ecr:DeleteLifecyclePolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = found.lifecycle.clone().ok_or_else(|| faults::no_lifecycle(&found.place))?;
    change(ecr, &found, |repository| {
        repository.lifecycle = None;
        repository.evaluated = None;
    })
    .await?;
    Ok(DeleteLifecyclePolicyResponse {
        registry_id: Some(found.place.account().to_owned()),
        repository_name: Some(found.place.name.clone()),
        lifecycle_policy_text: Some(text),
        last_evaluated_at: found.evaluated,
    })
}
