//! Policies in line with users and roles.

use super::{holder::Holder, listing::page};
use crate::{Iam, api::*};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wire::{Context, Fault};

/// IAM answers documents URL-encoded (RFC 3986).
pub(super) fn encoded(document: &str) -> String {
    utf8_percent_encode(document, NON_ALPHANUMERIC).to_string()
}

pub(crate) async fn put_user_policy(
    iam: &Iam,
    ctx: &Context,
    input: PutUserPolicyRequest,
) -> Result<(), Fault> {
    let policy = (input.policy_name, input.policy_document);
    Holder::User.put(iam, ctx, &input.user_name, "iam:PutUserPolicy", policy).await
}

pub(crate) async fn put_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: PutRolePolicyRequest,
) -> Result<(), Fault> {
    let policy = (input.policy_name, input.policy_document);
    Holder::Role.put(iam, ctx, &input.role_name, "iam:PutRolePolicy", policy).await
}

pub(crate) async fn delete_user_policy(
    iam: &Iam,
    ctx: &Context,
    input: DeleteUserPolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:DeleteUserPolicy";
    Holder::User.delete(iam, ctx, &input.user_name, action, input.policy_name).await
}

pub(crate) async fn delete_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: DeleteRolePolicyRequest,
) -> Result<(), Fault> {
    let action = "iam:DeleteRolePolicy";
    Holder::Role.delete(iam, ctx, &input.role_name, action, input.policy_name).await
}

pub(crate) async fn get_user_policy(
    iam: &Iam,
    ctx: &Context,
    input: GetUserPolicyRequest,
) -> Result<GetUserPolicyResponse, Fault> {
    let action = "iam:GetUserPolicy";
    let document = Holder::User.inline(iam, ctx, &input.user_name, action, &input.policy_name)?;
    Ok(GetUserPolicyResponse {
        user_name: Some(input.user_name),
        policy_name: Some(input.policy_name),
        policy_document: Some(encoded(&document)),
    })
}

pub(crate) async fn get_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: GetRolePolicyRequest,
) -> Result<GetRolePolicyResponse, Fault> {
    let action = "iam:GetRolePolicy";
    let document = Holder::Role.inline(iam, ctx, &input.role_name, action, &input.policy_name)?;
    Ok(GetRolePolicyResponse {
        role_name: Some(input.role_name),
        policy_name: Some(input.policy_name),
        policy_document: Some(encoded(&document)),
    })
}

pub(crate) async fn list_user_policies(
    iam: &Iam,
    ctx: &Context,
    input: ListUserPoliciesRequest,
) -> Result<ListUserPoliciesResponse, Fault> {
    let grants = Holder::User.grants(iam, ctx, &input.user_name, "iam:ListUserPolicies")?;
    let names = grants.inline.into_keys().map(|name| (name.clone(), name));
    let (policy_names, is_truncated, marker) =
        page("ListUserPolicies", input.marker.as_deref(), input.max_items, names)?;
    Ok(ListUserPoliciesResponse { policy_names: Some(policy_names), is_truncated, marker })
}

pub(crate) async fn list_role_policies(
    iam: &Iam,
    ctx: &Context,
    input: ListRolePoliciesRequest,
) -> Result<ListRolePoliciesResponse, Fault> {
    let grants = Holder::Role.grants(iam, ctx, &input.role_name, "iam:ListRolePolicies")?;
    let names = grants.inline.into_keys().map(|name| (name.clone(), name));
    let (policy_names, is_truncated, marker) =
        page("ListRolePolicies", input.marker.as_deref(), input.max_items, names)?;
    Ok(ListRolePoliciesResponse { policy_names: Some(policy_names), is_truncated, marker })
}
