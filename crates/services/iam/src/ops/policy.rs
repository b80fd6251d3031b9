//! Customer managed policies and their versions; AWS's own can be read.

use super::{
    holder::dense,
    inline_policy::encoded,
    listing::{page, tagged, tags_out},
};
use crate::{
    Iam,
    api::*,
    aws_managed, faults,
    model::{Policy as Record, PolicyVersion as Version, Role as RoleRecord, User as UserRecord},
    policy::Kind,
};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Context, Fault};
use world::Timestamp;

/// A document's greatest size, without white space.
const MOST_CHARACTERS: usize = 6144;
/// The most versions of one policy.
const MOST_VERSIONS: usize = 5;

/// On how many users and roles a policy is.
fn attachments(iam: &Iam, account: &str, arn: &str) -> i32 {
    let snapshot = iam.store.read();
    let prefix = format!("{account}/");
    let users = snapshot.scan_prefix::<UserRecord>(&prefix);
    let users = users.filter(|user| user.grants.attached.contains(arn)).count();
    let roles = snapshot.scan_prefix::<RoleRecord>(&prefix);
    let roles = roles.filter(|role| role.grants.attached.contains(arn)).count();
    i32::try_from(users + roles).unwrap_or(i32::MAX)
}

fn answer(policy: &Record, attachments: i32) -> Policy {
    Policy {
        policy_name: Some(policy.name.clone()),
        policy_id: Some(policy.id.clone()),
        arn: Some(policy.arn()),
        path: Some(policy.path.clone()),
        default_version_id: Some(format!("v{}", policy.default_version)),
        attachment_count: Some(attachments),
        permissions_boundary_usage_count: Some(0),
        is_attachable: Some(true),
        description: policy.description.clone(),
        create_date: Some(policy.created),
        update_date: Some(policy.updated),
        tags: tags_out(&policy.tags),
    }
}

fn managed_answer(managed: &aws_managed::Managed, attachments: i32) -> Policy {
    Policy {
        policy_name: Some(managed.name.to_owned()),
        arn: Some(managed.arn()),
        path: Some(managed.path.to_owned()),
        default_version_id: Some("v1".to_owned()),
        attachment_count: Some(attachments),
        permissions_boundary_usage_count: Some(0),
        is_attachable: Some(true),
        ..Policy::default()
    }
}

fn version_answer(policy: &Record, version: &Version, with_document: bool) -> PolicyVersion {
    PolicyVersion {
        document: with_document.then(|| encoded(&version.document)),
        version_id: Some(format!("v{}", version.number)),
        is_default_version: Some(version.number == policy.default_version),
        create_date: Some(version.created),
    }
}

fn find(iam: &Iam, ctx: &Context, arn: &str) -> Result<Arc<Record>, Fault> {
    let name = arn.rsplit('/').next().unwrap_or_default();
    let policy = iam.store.read().get::<Record>(&Record::key_of(ctx.account(), name));
    policy.filter(|policy| policy.arn() == arn).ok_or_else(|| faults::no_policy(arn))
}

/// A policy that may be changed: the account's own.
fn find_own(iam: &Iam, ctx: &Context, arn: &str) -> Result<Arc<Record>, Fault> {
    match aws_managed::find(arn) {
        Some(_) => Err(faults::unmodifiable(arn)),
        None => find(iam, ctx, arn),
    }
}

fn checked(iam: &Iam, document: &str) -> Result<(), Fault> {
    iam.document(document, Kind::Identity).map_err(faults::malformed)?;
    match dense(document) > MOST_CHARACTERS {
        true => Err(faults::limit("PolicySize", MOST_CHARACTERS)),
        false => Ok(()),
    }
}

fn number(arn: &str, version: &str) -> Result<u32, Fault> {
    let number = version.strip_prefix('v').and_then(|number| number.parse().ok());
    number.ok_or_else(|| faults::no_version(arn, version))
}

/// Changes a policy that was found.
async fn change<R: Send + 'static>(
    iam: &Iam,
    policy: Arc<Record>,
    change: impl FnOnce(&mut Record) -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    let changed = iam.store.write(move |tx| {
        let now = tx.get::<Record>(&Record::key_of(&policy.account, &policy.name));
        let mut now = Arc::unwrap_or_clone(now.ok_or_else(|| faults::no_policy(&policy.arn()))?);
        let result = change(&mut now)?;
        tx.put(now);
        Ok(result)
    });
    changed.await
}

pub(crate) async fn create_policy(
    iam: &Iam,
    ctx: &Context,
    input: CreatePolicyRequest,
) -> Result<CreatePolicyResponse, Fault> {
    let path = input.path.unwrap_or_else(|| "/".to_owned());
    let arn = format!("arn:aws:iam::{}:policy{path}{}", ctx.account(), input.policy_name);
    ctx.authorise("iam:CreatePolicy", &arn)?;
    checked(iam, &input.policy_document)?;
    let policy = Record {
        account: ctx.account().to_owned(),
        name: input.policy_name,
        path,
        id: format!("ANPA{}", iam.key_text(17)),
        created: ctx.now,
        updated: ctx.now,
        description: input.description,
        tags: tagged(BTreeMap::new(), input.tags)?,
        versions: vec![Version { number: 1, document: input.policy_document, created: ctx.now }],
        default_version: 1,
        next_version: 2,
    };
    let made = answer(&policy, 0);
    iam.store
        .write(move |tx| {
            if tx.get::<Record>(&Record::key_of(&policy.account, &policy.name)).is_some() {
                return Err(faults::policy_exists(&policy.name));
            }
            tx.put(policy);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(CreatePolicyResponse { policy: Some(made) })
}

pub(crate) async fn get_policy(
    iam: &Iam,
    ctx: &Context,
    input: GetPolicyRequest,
) -> Result<GetPolicyResponse, Fault> {
    let arn = input.policy_arn;
    ctx.authorise("iam:GetPolicy", &arn)?;
    let count = attachments(iam, ctx.account(), &arn);
    let policy = match aws_managed::find(&arn) {
        Some(managed) => managed_answer(managed, count),
        None => answer(&*find(iam, ctx, &arn)?, count),
    };
    Ok(GetPolicyResponse { policy: Some(policy) })
}

pub(crate) async fn list_policies(
    iam: &Iam,
    ctx: &Context,
    input: ListPoliciesRequest,
) -> Result<ListPoliciesResponse, Fault> {
    ctx.authorise("iam:ListPolicies", &format!("arn:aws:iam::{}:policy/", ctx.account()))?;
    let scope = input.scope.unwrap_or(PolicyScopeType::All);
    let mut policies: BTreeMap<String, Policy> = BTreeMap::new();
    if scope != PolicyScopeType::Aws {
        let snapshot = iam.store.read();
        for policy in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.account())) {
            let count = attachments(iam, ctx.account(), &policy.arn());
            policies.insert(policy.arn(), Policy { tags: None, ..answer(&policy, count) });
        }
    }
    if scope != PolicyScopeType::Local {
        for managed in aws_managed::ALL {
            let count = attachments(iam, ctx.account(), &managed.arn());
            policies.insert(managed.arn(), managed_answer(managed, count));
        }
    }
    let prefix = input.path_prefix.unwrap_or_else(|| "/".to_owned());
    let only_attached = input.only_attached.unwrap_or(false);
    policies.retain(|_, policy| {
        let attached = policy.attachment_count.is_some_and(|count| count > 0);
        policy.path.as_deref().is_some_and(|path| path.starts_with(&prefix))
            && (attached || !only_attached)
    });
    let (policies, is_truncated, marker) =
        page("ListPolicies", input.marker.as_deref(), input.max_items, policies.into_iter())?;
    Ok(ListPoliciesResponse { policies: Some(policies), is_truncated, marker })
}

pub(crate) async fn delete_policy(
    iam: &Iam,
    ctx: &Context,
    input: DeletePolicyRequest,
) -> Result<(), Fault> {
    ctx.authorise("iam:DeletePolicy", &input.policy_arn)?;
    let policy = find_own(iam, ctx, &input.policy_arn)?;
    let arn = input.policy_arn;
    iam.store
        .write(move |tx| {
            let key = Record::key_of(&policy.account, &policy.name);
            let now = tx.get::<Record>(&key).ok_or_else(|| faults::no_policy(&arn))?;
            let users = tx.scan::<UserRecord>();
            let roles = tx.scan::<RoleRecord>();
            let attached = users.map(|user| user.grants.attached.contains(&arn));
            if attached.chain(roles.map(|role| role.grants.attached.contains(&arn))).any(|is| is) {
                return Err(faults::attached_policy());
            }
            if now.versions.len() > 1 {
                return Err(faults::versions_left());
            }
            tx.delete::<Record>(&key);
            Ok(())
        })
        .await
}

pub(crate) async fn create_policy_version(
    iam: &Iam,
    ctx: &Context,
    input: CreatePolicyVersionRequest,
) -> Result<CreatePolicyVersionResponse, Fault> {
    ctx.authorise("iam:CreatePolicyVersion", &input.policy_arn)?;
    let policy = find_own(iam, ctx, &input.policy_arn)?;
    checked(iam, &input.policy_document)?;
    let now: Timestamp = ctx.now;
    let made = change(iam, policy, move |policy| {
        if policy.versions.len() >= MOST_VERSIONS {
            return Err(faults::limit("VersionsPerPolicy", MOST_VERSIONS));
        }
        let number = policy.next_version;
        policy.next_version += 1;
        policy.versions.push(Version { number, document: input.policy_document, created: now });
        if input.set_as_default.unwrap_or(false) {
            policy.default_version = number;
            policy.updated = now;
        }
        let version = policy.versions.last().expect("one was just pushed");
        Ok(version_answer(policy, version, false))
    })
    .await?;
    Ok(CreatePolicyVersionResponse { policy_version: Some(made) })
}

pub(crate) async fn get_policy_version(
    iam: &Iam,
    ctx: &Context,
    input: GetPolicyVersionRequest,
) -> Result<GetPolicyVersionResponse, Fault> {
    let arn = input.policy_arn;
    ctx.authorise("iam:GetPolicyVersion", &arn)?;
    let number = number(&arn, &input.version_id)?;
    let version = match aws_managed::find(&arn) {
        Some(managed) if number == 1 => PolicyVersion {
            document: Some(encoded(managed.document)),
            version_id: Some("v1".to_owned()),
            is_default_version: Some(true),
            create_date: None,
        },
        Some(_) => return Err(faults::no_version(&arn, &input.version_id)),
        None => {
            let policy = find(iam, ctx, &arn)?;
            let version = policy.versions.iter().find(|version| version.number == number);
            let version = version.ok_or_else(|| faults::no_version(&arn, &input.version_id))?;
            version_answer(&policy, version, true)
        }
    };
    Ok(GetPolicyVersionResponse { policy_version: Some(version) })
}

pub(crate) async fn list_policy_versions(
    iam: &Iam,
    ctx: &Context,
    input: ListPolicyVersionsRequest,
) -> Result<ListPolicyVersionsResponse, Fault> {
    ctx.authorise("iam:ListPolicyVersions", &input.policy_arn)?;
    let policy = find(iam, ctx, &input.policy_arn)?;
    let versions = policy.versions.iter().rev();
    // Newest first, so the key counts down.
    let versions = versions.map(|version| {
        (format!("{:010}", u32::MAX - version.number), version_answer(&policy, version, false))
    });
    let (versions, is_truncated, marker) =
        page("ListPolicyVersions", input.marker.as_deref(), input.max_items, versions)?;
    Ok(ListPolicyVersionsResponse { versions: Some(versions), is_truncated, marker })
}

pub(crate) async fn set_default_policy_version(
    iam: &Iam,
    ctx: &Context,
    input: SetDefaultPolicyVersionRequest,
) -> Result<(), Fault> {
    ctx.authorise("iam:SetDefaultPolicyVersion", &input.policy_arn)?;
    let policy = find_own(iam, ctx, &input.policy_arn)?;
    let number = number(&input.policy_arn, &input.version_id)?;
    let now = ctx.now;
    change(iam, policy, move |policy| {
        if !policy.versions.iter().any(|version| version.number == number) {
            return Err(faults::no_version(&input.policy_arn, &input.version_id));
        }
        policy.default_version = number;
        policy.updated = now;
        Ok(())
    })
    .await
}

pub(crate) async fn delete_policy_version(
    iam: &Iam,
    ctx: &Context,
    input: DeletePolicyVersionRequest,
) -> Result<(), Fault> {
    ctx.authorise("iam:DeletePolicyVersion", &input.policy_arn)?;
    let policy = find_own(iam, ctx, &input.policy_arn)?;
    let number = number(&input.policy_arn, &input.version_id)?;
    change(iam, policy, move |policy| {
        if policy.default_version == number {
            return Err(faults::default_version());
        }
        let before = policy.versions.len();
        policy.versions.retain(|version| version.number != number);
        match policy.versions.len() < before {
            true => Ok(()),
            false => Err(faults::no_version(&input.policy_arn, &input.version_id)),
        }
    })
    .await
}
