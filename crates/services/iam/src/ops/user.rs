//! Users.

use super::listing::{page, tagged, tags_out};
use crate::{
    Iam,
    api::*,
    faults,
    model::{AccessKey, Grants, ServiceCredential, User as Record},
};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault, PrincipalKind};

fn answer(user: &Record) -> User {
    User {
        path: Some(user.path.clone()),
        user_name: Some(user.name.clone()),
        user_id: Some(user.id.clone()),
        arn: Some(user.arn()),
        create_date: Some(user.created),
        tags: tags_out(&user.tags),
        ..User::default()
    }
}

fn arn(ctx: &Context, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{}:user{path}{name}", ctx.account())
}

/// The named user, for a caller who may do `action` on it.
pub(super) fn find(
    iam: &Iam,
    ctx: &Context,
    name: &str,
    action: &str,
) -> Result<Arc<Record>, Fault> {
    let user = iam.user(ctx.account(), name);
    let arn = user.as_ref().map_or_else(|| arn(ctx, "/", name), |user| user.arn());
    ctx.authorise(action, &arn)?;
    user.ok_or_else(|| faults::no_entity("user", name))
}

/// The user that is meant when none is named: the caller.
pub(super) fn named_or_caller(ctx: &Context, name: Option<String>) -> Result<String, Fault> {
    match (name, &ctx.principal.kind) {
        (Some(name), _) => Ok(name),
        (None, PrincipalKind::User { name }) => Ok(name.clone()),
        (None, _) => Err(faults::no_user_name()),
    }
}

pub(crate) async fn create_user(
    iam: &Iam,
    ctx: &Context,
    input: CreateUserRequest,
) -> Result<CreateUserResponse, Fault> {
    let path = input.path.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:CreateUser", &arn(ctx, &path, &input.user_name))?;
    let user = Record {
        account: ctx.account().to_owned(),
        name: input.user_name,
        path,
        id: format!("AIDA{}", iam.key_text(17)),
        created: ctx.now,
        tags: tagged(BTreeMap::new(), input.tags)?,
        grants: Grants::default(),
    };
    let made = answer(&user);
    iam.store
        .write(move |tx| {
            if tx.get::<Record>(&Record::key_of(&user.account, &user.name)).is_some() {
                return Err(faults::exists("User", &user.name));
            }
            tx.put(user);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(CreateUserResponse { user: Some(made) })
}

pub(crate) async fn get_user(
    iam: &Iam,
    ctx: &Context,
    input: GetUserRequest,
) -> Result<GetUserResponse, Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:GetUser")?;
    Ok(GetUserResponse { user: Some(answer(&user)) })
}

pub(crate) async fn list_users(
    iam: &Iam,
    ctx: &Context,
    input: ListUsersRequest,
) -> Result<ListUsersResponse, Fault> {
    let prefix = input.path_prefix.unwrap_or_else(|| "/".to_owned());
    ctx.authorise("iam:ListUsers", &arn(ctx, &prefix, ""))?;
    let snapshot = iam.store.read();
    let users = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.account()));
    let users = users.filter(|user| user.path.starts_with(&prefix));
    let users = users.map(|user| (user.name.to_lowercase(), User { tags: None, ..answer(&user) }));
    let (users, is_truncated, marker) =
        page("ListUsers", input.marker.as_deref(), input.max_items, users)?;
    Ok(ListUsersResponse { users: Some(users), is_truncated, marker })
}

pub(crate) async fn delete_user(
    iam: &Iam,
    ctx: &Context,
    input: DeleteUserRequest,
) -> Result<(), Fault> {
    let user = find(iam, ctx, &input.user_name, "iam:DeleteUser")?;
    let (account, name) = (user.account.clone(), user.name.clone());
    iam.store
        .write(move |tx| {
            let key = Record::key_of(&account, &name);
            let user = tx.get::<Record>(&key).ok_or_else(|| faults::no_entity("user", &name))?;
            let keys = tx.scan::<AccessKey>();
            if keys.into_iter().any(|key| key.account == account && key.user == user.name) {
                return Err(faults::conflict("delete access keys"));
            }
            let credentials = tx.scan::<ServiceCredential>();
            if credentials.into_iter().any(|one| one.account == account && one.user == user.name) {
                return Err(faults::conflict("delete service specific credentials"));
            }
            if !user.grants.inline.is_empty() {
                return Err(faults::conflict("delete policies"));
            }
            if !user.grants.attached.is_empty() {
                return Err(faults::conflict("detach all policies"));
            }
            tx.delete::<Record>(&key);
            Ok(())
        })
        .await
}

/// Changes a user's tags.
async fn retag(
    iam: &Iam,
    user: Arc<Record>,
    change: impl FnOnce(BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault>
    + Send
    + 'static,
) -> Result<(), Fault> {
    iam.store
        .write(move |tx| {
            let now = tx.get::<Record>(&Record::key_of(&user.account, &user.name));
            let now = now.ok_or_else(|| faults::no_entity("user", &user.name))?;
            let mut now = Arc::unwrap_or_clone(now);
            now.tags = change(now.tags)?;
            tx.put(now);
            Ok(())
        })
        .await
}

pub(crate) async fn tag_user(iam: &Iam, ctx: &Context, input: TagUserRequest) -> Result<(), Fault> {
    let user = find(iam, ctx, &input.user_name, "iam:TagUser")?;
    retag(iam, user, move |tags| tagged(tags, Some(input.tags))).await
}

pub(crate) async fn untag_user(
    iam: &Iam,
    ctx: &Context,
    input: UntagUserRequest,
) -> Result<(), Fault> {
    let user = find(iam, ctx, &input.user_name, "iam:UntagUser")?;
    retag(iam, user, move |mut tags| {
        tags.retain(|key, _| !input.tag_keys.contains(key));
        Ok(tags)
    })
    .await
}

pub(crate) async fn list_user_tags(
    iam: &Iam,
    ctx: &Context,
    input: ListUserTagsRequest,
) -> Result<ListUserTagsResponse, Fault> {
    let user = find(iam, ctx, &input.user_name, "iam:ListUserTags")?;
    let tags = tags_out(&user.tags).unwrap_or_default();
    let tags = tags.into_iter().map(|tag| (tag.key.clone(), tag));
    let (tags, is_truncated, marker) =
        page("ListUserTags", input.marker.as_deref(), input.max_items, tags)?;
    Ok(ListUserTagsResponse { tags: Some(tags), is_truncated, marker })
}
