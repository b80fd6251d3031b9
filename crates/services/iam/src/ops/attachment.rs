//! Managed policies attached to users and roles.

use super::{holder::Holder, listing::page};
use crate::{Iam, api::*, model::Grants};
use wire::{Context, Fault};

pub(crate) async fn attach_user_policy(
    iam: &Iam,
    ctx: &Context,
    input: AttachUserPolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:AttachUserPolicy";
    Holder::User.attach(iam, ctx, &input.user_name, action, input.policy_arn).await
}

pub(crate) async fn attach_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: AttachRolePolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:AttachRolePolicy";
    Holder::Role.attach(iam, ctx, &input.role_name, action, input.policy_arn).await
}

pub(crate) async fn detach_user_policy(
    iam: &Iam,
    ctx: &Context,
    input: DetachUserPolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:DetachUserPolicy";
    Holder::User.detach(iam, ctx, &input.user_name, action, input.policy_arn).await
}

pub(crate) async fn detach_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: DetachRolePolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:DetachRolePolicy";
    Holder::Role.detach(iam, ctx, &input.role_name, action, input.policy_arn).await
}

/// The attached policies under `prefix`, by ARN.
fn attached(grants: Grants, prefix: Option<String>) -> Vec<(String, AttachedPolicy)> {
    let prefix = prefix.unwrap_or_else(|| "/".to_owned());
    let policies = grants.attached.into_iter().filter_map(|arn| {
        let (_, path_and_name) = arn.split_once(":policy")?;
        if !path_and_name.starts_with(&prefix) {
            return None;
        }
        let policy_name = arn.rsplit('/').next().map(str::to_owned);
        Some((arn.clone(), AttachedPolicy { policy_name, policy_arn: Some(arn) }))
    });
    policies.collect()
}

pub(crate) async fn list_attached_user_policies(
    iam: &Iam,
    ctx: &Context,
    input: ListAttachedUserPoliciesRequest,
) -> Result<ListAttachedUserPoliciesResponse, Fault> {
    let action = "iam:ListAttachedUserPolicies";
    let grants = Holder::User.grants(iam, ctx, &input.user_name, action)?;
    let all = attached(grants, input.path_prefix).into_iter();
    let (policies, is_truncated, marker) =
        page("ListAttachedUserPolicies", input.marker.as_deref(), input.max_items, all)?;
    let attached_policies = Some(policies);
    Ok(ListAttachedUserPoliciesResponse { attached_policies, is_truncated, marker })
}

pub(crate) async fn list_attached_role_policies(
    iam: &Iam,
    ctx: &Context,
    input: ListAttachedRolePoliciesRequest,
) -> Result<ListAttachedRolePoliciesResponse, Fault> {
    let action = "iam:ListAttachedRolePolicies";
    let grants = Holder::Role.grants(iam, ctx, &input.role_name, action)?;
    let all = attached(grants, input.path_prefix).into_iter();
    let (policies, is_truncated, marker) =
        page("ListAttachedRolePolicies", input.marker.as_deref(), input.max_items, all)?;
    let attached_policies = Some(policies);
    Ok(ListAttachedRolePoliciesResponse { attached_policies, is_truncated, marker })
}
