//! Instance profiles: how EC2's machines get a role. Nothing here has machines; templates that are for both have them.

use super::{
    listing::{page, tagged, tags_out},
    role::answer as role_answer,
};
use crate::{
    Iam,
    api::*,
    faults,
    model::{InstanceProfile as Record, Role},
};
use std::{collections::BTreeMap, sync::Arc};
use store::Record as _;
use wire::{Context, Fault};

fn arn(ctx: &Context, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:instance-profile{path}{name}", ctx.account())
}

fn answer(iam: &Iam, profile: &Record) -> InstanceProfile {
    let role = profile.role.as_ref().and_then(|name| iam.role(&profile.account, name));
    InstanceProfile {
        path: Some(profile.path.clone()),
        instance_profile_name: Some(profile.name.clone()),
        instance_profile_id: Some(profile.id.clone()),
        arn: Some(profile.arn()),
        create_date: Some(profile.created),
        roles: Some(role.iter().map(|role| role_answer(role)).collect()),
        tags: tags_out(&profile.tags),
    }
}

fn find(iam: &Iam, ctx: &Context, name: &str, action: &str) -> Result<Arc<Record>, Fault> {
    let key = Record::key_of(ctx.account(), name);
    let profile = iam.store.read().get::<Record>(&key);
    let arn = profile.as_ref().map_or_else(|| arn(ctx, "/", name), |profile| profile.arn());
    ctx.authorise(action, &arn)?;
    profile.ok_or_else(|| faults::no_entity("instance profile", name))
}

pub(crate) async fn create_instance_profile(
    iam: &Iam,
    ctx: &Context,
    input: CreateInstanceProfileRequest,
) -> Result<CreateInstanceProfileResponse, Fault> {
    let path = input.path.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:CreateInstanceProfile", &arn(ctx, &path, &input.instance_profile_name))?;
    let profile = Record {
        account: ctx.account().to_owned(),
        name: input.instance_profile_name,
        path,
        id: format!("AIPA{}", iam.key_text(17)),
        created: ctx.now,
        role: None,
        tags: tagged(BTreeMap::new(), input.tags)?,
    };
    let made = answer(iam, &profile);
    iam.store
        .write(move |tx| {
            if tx.get::<Record>(&profile.key()).is_some() {
                return Err(faults::exists("Instance Profile", &profile.name));
            }
            tx.put(profile);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(CreateInstanceProfileResponse { instance_profile: Some(made) })
}

pub(crate) async fn get_instance_profile(
    iam: &Iam,
    ctx: &Context,
    input: GetInstanceProfileRequest,
) -> Result<GetInstanceProfileResponse, Fault> {
    let found = find(iam, ctx, &input.instance_profile_name, "iam:GetInstanceProfile")?;
    Ok(GetInstanceProfileResponse { instance_profile: Some(answer(iam, &found)) })
}

pub(crate) async fn list_instance_profiles(
    iam: &Iam,
    ctx: &Context,
    input: ListInstanceProfilesRequest,
) -> Result<ListInstanceProfilesResponse, Fault> {
    let prefix = input.path_prefix.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:ListInstanceProfiles", &arn(ctx, &prefix, ""))?;
    let snapshot = iam.store.read();
    let all = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.account()));
    let all = all.filter(|profile| profile.path.starts_with(&prefix));
    let all = all.map(|profile| (profile.key(), answer(iam, &profile)));
    let (instance_profiles, is_truncated, marker) =
        page("ListInstanceProfiles", input.marker.as_deref(), input.max_items, all)?;
    let instance_profiles = Some(instance_profiles);
    Ok(ListInstanceProfilesResponse { instance_profiles, is_truncated, marker })
}

pub(crate) async fn list_instance_profiles_for_role(
    iam: &Iam,
    ctx: &Context,
    input: ListInstanceProfilesForRoleRequest,
) -> Result<ListInstanceProfilesForRoleResponse, Fault> {
    let role = iam.role(ctx.account(), &input.role_name);
    let missing = || format!("arn:aws:iam::{}:role/{}", ctx.account(), input.role_name);
    let arn = role.as_ref().map_or_else(missing, |role| role.arn());
    ctx.authorise("iam:ListInstanceProfilesForRole", &arn)?;
    let role = role.ok_or_else(|| faults::no_entity("role", &input.role_name))?;
    let snapshot = iam.store.read();
    let all = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.account()));
    let all = all.filter(|profile| profile.role.as_ref() == Some(&role.name));
    let all = all.map(|profile| (profile.key(), answer(iam, &profile)));
    let (instance_profiles, is_truncated, marker) =
        page("ListInstanceProfilesForRole", input.marker.as_deref(), input.max_items, all)?;
    let instance_profiles = Some(instance_profiles);
    Ok(ListInstanceProfilesForRoleResponse { instance_profiles, is_truncated, marker })
}

pub(crate) async fn add_role_to_instance_profile(
    iam: &Iam,
    ctx: &Context,
    input: AddRoleToInstanceProfileRequest,
) -> Result<(), Fault> {
    let found = find(iam, ctx, &input.instance_profile_name, "iam:AddRoleToInstanceProfile")?;
    let role = iam.role(ctx.account(), &input.role_name);
    let role = role.ok_or_else(|| faults::no_entity("role", &input.role_name))?;
    ctx.authorise_with(
        "iam:PassRole",
        &role.arn(),
        &[("iam:PassedToService", "ec2.amazonaws.com")],
    )?;
    let (key, name) = (found.key(), role.name.clone());
    iam.store
        .write(move |tx| {
            let now = tx.get::<Record>(&key);
            let now = now.ok_or_else(|| faults::no_entity("instance profile", &found.name))?;
            tx.get::<Role>(&Role::key_of(&now.account, &name))
                .ok_or_else(|| faults::no_entity("role", &name))?;
            if now.role.is_some() {
                return Err(faults::limit("InstanceSessionsPerInstanceProfile", 1));
            }
            tx.update::<Record>(&key, |profile| profile.role = Some(name));
            Ok(())
        })
        .await
}

pub(crate) async fn remove_role_from_instance_profile(
    iam: &Iam,
    ctx: &Context,
    input: RemoveRoleFromInstanceProfileRequest,
) -> Result<(), Fault> {
    let found = find(iam, ctx, &input.instance_profile_name, "iam:RemoveRoleFromInstanceProfile")?;
    let (key, role) = (found.key(), input.role_name);
    iam.store
        .write(move |tx| {
            let now = tx.get::<Record>(&key).and_then(|profile| profile.role.clone());
            if !now.is_some_and(|now| now.eq_ignore_ascii_case(&role)) {
                return Err(faults::no_entity("role", &role));
            }
            tx.update::<Record>(&key, |profile| profile.role = None);
            Ok(())
        })
        .await
}

pub(crate) async fn delete_instance_profile(
    iam: &Iam,
    ctx: &Context,
    input: DeleteInstanceProfileRequest,
) -> Result<(), Fault> {
    let found = find(iam, ctx, &input.instance_profile_name, "iam:DeleteInstanceProfile")?;
    let key = found.key();
    iam.store
        .write(move |tx| {
            let now = tx.get::<Record>(&key);
            let now = now.ok_or_else(|| faults::no_entity("instance profile", &found.name))?;
            if now.role.is_some() {
                return Err(faults::conflict("remove roles from instance profile"));
            }
            tx.delete::<Record>(&key);
            Ok(())
        })
        .await
}
