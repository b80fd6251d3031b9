//! Roles.

use super::{
    inline_policy::encoded,
    listing::{page, tagged, tags_out},
};
use crate::{
    Iam,
    api::*,
    faults,
    model::{Grants, InstanceProfile, Role as Record},
    policy::Kind,
};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault};

/// The longest session unless the role says otherwise, in seconds.
const SESSION_S: i32 = 3600;

pub(super) fn answer(role: &Record) -> Role {
    Role {
        path: Some(role.path.clone()),
        role_name: Some(role.name.clone()),
        role_id: Some(role.id.clone()),
        arn: Some(role.arn()),
        create_date: Some(role.created),
        assume_role_policy_document: Some(encoded(&role.trust)),
        description: role.description.clone(),
        max_session_duration: Some(role.max_session_s),
        tags: tags_out(&role.tags),
        ..Role::default()
    }
}

fn arn(ctx: &Context, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:role{path}{name}", ctx.account())
}

fn find(iam: &Iam, ctx: &Context, name: &str, action: &str) -> Result<Arc<Record>, Fault> {
    let role = iam.role(ctx.account(), name);
    let arn = role.as_ref().map_or_else(|| arn(ctx, "/", name), |role| role.arn());
    ctx.authorise(action, &arn)?;
    role.ok_or_else(|| faults::no_entity("role", name))
}

/// Changes a role that was found.
async fn change(
    iam: &Iam,
    role: Arc<Record>,
    change: impl FnOnce(&mut Record) -> Result<(), Fault> + Send + 'static,
) -> Result<(), Fault> {
    iam.store
        .write(move |tx| {
            let now = tx.get::<Record>(&Record::key_of(&role.account, &role.name));
            let now = now.ok_or_else(|| faults::no_entity("role", &role.name))?;
            let mut now = Arc::unwrap_or_clone(now);
            change(&mut now)?;
            tx.put(now);
            Ok(())
        })
        .await
}

pub(crate) async fn create_role(
    iam: &Iam,
    ctx: &Context,
    input: CreateRoleRequest,
) -> Result<CreateRoleResponse, Fault> {
    let path = input.path.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:CreateRole", &arn(ctx, &path, &input.role_name))?;
    let trust = input.assume_role_policy_document;
    iam.document(&trust, Kind::Trust).map_err(faults::malformed)?;
    let role = Record {
        account: ctx.account().to_owned(),
        name: input.role_name,
        path,
        id: format!("AROA{}", iam.key_text(17)),
        created: ctx.now,
        description: input.description,
        trust,
        max_session_s: input.max_session_duration.unwrap_or(SESSION_S),
        tags: tagged(BTreeMap::new(), input.tags)?,
        grants: Grants::default(),
    };
    let made = answer(&role);
    iam.store
        .write(move |tx| {
            if tx.get::<Record>(&Record::key_of(&role.account, &role.name)).is_some() {
                return Err(faults::exists("Role", &role.name));
            }
            tx.put(role);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(CreateRoleResponse { role: Some(made) })
}

pub(crate) async fn get_role(
    iam: &Iam,
    ctx: &Context,
    input: GetRoleRequest,
) -> Result<GetRoleResponse, Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:GetRole")?;
    Ok(GetRoleResponse { role: Some(answer(&role)) })
}

pub(crate) async fn list_roles(
    iam: &Iam,
    ctx: &Context,
    input: ListRolesRequest,
) -> Result<ListRolesResponse, Fault> {
    let prefix = input.path_prefix.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:ListRoles", &arn(ctx, &prefix, ""))?;
    let snapshot = iam.store.read();
    let roles = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.account()));
    let roles = roles.filter(|role| role.path.starts_with(&prefix));
    let roles = roles.map(|role| (role.name.to_lowercase(), Role { tags: None, ..answer(&role) }));
    let (roles, is_truncated, marker) =
        page("ListRoles", input.marker.as_deref(), input.max_items, roles)?;
    Ok(ListRolesResponse { roles: Some(roles), is_truncated, marker })
}

pub(crate) async fn update_role(
    iam: &Iam,
    ctx: &Context,
    input: UpdateRoleRequest,
) -> Result<UpdateRoleResponse, Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:UpdateRole")?;
    change(iam, role, move |role| {
        if let Some(description) = input.description {
            role.description = Some(description);
        }
        role.max_session_s = input.max_session_duration.unwrap_or(SESSION_S);
        Ok::<_, Fault>(())
    })
    .await?;
    Ok(UpdateRoleResponse {})
}

pub(crate) async fn update_assume_role_policy(
    iam: &Iam,
    ctx: &Context,
    input: UpdateAssumeRolePolicyRequest,
) -> Result<(), Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:UpdateAssumeRolePolicy")?;
    iam.document(&input.policy_document, Kind::Trust).map_err(faults::malformed)?;
    change(iam, role, move |role| {
        role.trust = input.policy_document;
        Ok(())
    })
    .await
}

pub(crate) async fn delete_role(
    iam: &Iam,
    ctx: &Context,
    input: DeleteRoleRequest,
) -> Result<(), Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:DeleteRole")?;
    iam.store
        .write(move |tx| {
            let key = Record::key_of(&role.account, &role.name);
            let now = tx.get::<Record>(&key);
            let now = now.ok_or_else(|| faults::no_entity("role", &role.name))?;
            if !now.grants.inline.is_empty() {
                return Err(faults::conflict("delete policies"));
            }
            if !now.grants.attached.is_empty() {
                return Err(faults::conflict("detach all policies"));
            }
            let mut profiles = tx.scan_prefix::<InstanceProfile>(&format!("{}/", now.account));
            if profiles.any(|profile| profile.role.as_ref() == Some(&now.name)) {
                return Err(faults::conflict("remove roles from instance profile"));
            }
            drop(profiles);
            tx.delete::<Record>(&key);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_role(iam: &Iam, ctx: &Context, input: TagRoleRequest) -> Result<(), Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:TagRole")?;
    change(iam, role, move |role| {
        role.tags = tagged(std::mem::take(&mut role.tags), Some(input.tags))?;
        Ok(())
    })
    .await
}

pub(crate) async fn untag_role(
    iam: &Iam,
    ctx: &Context,
    input: UntagRoleRequest,
) -> Result<(), Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:UntagRole")?;
    change(iam, role, move |role| {
        role.tags.retain(|key, _| !input.tag_keys.contains(key));
        Ok(())
    })
    .await
}

pub(crate) async fn list_role_tags(
    iam: &Iam,
    ctx: &Context,
    input: ListRoleTagsRequest,
) -> Result<ListRoleTagsResponse, Fault> {
    let role = find(iam, ctx, &input.role_name, "iam:ListRoleTags")?;
    let tags = tags_out(&role.tags).unwrap_or_default();
    let tags = tags.into_iter().map(|tag| (tag.key.clone(), tag));
    let (tags, is_truncated, marker) =
        page("ListRoleTags", input.marker.as_deref(), input.max_items, tags)?;
    Ok(ListRoleTagsResponse { tags: Some(tags), is_truncated, marker })
}
