//! Repositories' own policies.

use super::change;
use crate::{
    Ecr,
    api::{
        DeleteRepositoryPolicyRequest, DeleteRepositoryPolicyResponse, GetRepositoryPolicyRequest,
        GetRepositoryPolicyResponse, SetRepositoryPolicyRequest, SetRepositoryPolicyResponse,
    },
    faults,
};
use wire::{Context, Decision, Fault, Identity, ResourcePolicy};

pub(crate) async fn set_repository_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: SetRepositoryPolicyRequest,
) -> Result<SetRepositoryPolicyResponse, Fault> {
    let action = "ecr:SetRepositoryPolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = input.policy_text;
    let malformed = |error| {
        faults::parameter(format!(
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: \
             'Invalid repository policy provided': {error}"
        ))
    };
    ecr.iam.check_resource_policy(&text).map_err(malformed)?;
    let owned = ResourcePolicy { account: found.place.account(), policy: Some(&text) };
    let after =
        ecr.iam.decide_with_resource_policy(&ctx.principal, action, &found.place.arn(), &[], owned);
    if after != Decision::Allow && !input.force.unwrap_or(false) {
        return Err(faults::parameter(
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'The policy would keep you from setting \
             another one; set it with force to do so all the same'",
        ));
    }
    let kept = text.clone();
    let changed = change(ecr, &found, move |repository| repository.policy = Some(kept)).await?;
    Ok(SetRepositoryPolicyResponse {
        registry_id: Some(changed.place.account().to_owned()),
        repository_name: Some(changed.place.name.clone()),
        policy_text: Some(text),
    })
}

pub(crate) async fn get_repository_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: GetRepositoryPolicyRequest,
) -> Result<GetRepositoryPolicyResponse, Fault> {
    let action = "ecr:GetRepositoryPolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = found.policy.clone().ok_or_else(|| faults::no_policy(&found.place))?;
    Ok(GetRepositoryPolicyResponse {
        registry_id: Some(found.place.account().to_owned()),
        repository_name: Some(found.place.name.clone()),
        policy_text: Some(text),
    })
}

pub(crate) async fn delete_repository_policy(
    ecr: &Ecr,
    ctx: &Context,
    input: DeleteRepositoryPolicyRequest,
) -> Result<DeleteRepositoryPolicyResponse, Fault> {
    let action = "ecr:DeleteRepositoryPolicy";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let text = found.policy.clone().ok_or_else(|| faults::no_policy(&found.place))?;
    change(ecr, &found, |repository| repository.policy = None).await?;
    Ok(DeleteRepositoryPolicyResponse {
        registry_id: Some(found.place.account().to_owned()),
        repository_name: Some(found.place.name.clone()),
        policy_text: Some(text),
    })
}
