//! Who am I, and sessions.

use crate::{Sts, api::*, faults};
use iam::{
    Session, SessionKind,
    policy::{Document, Effect, Kind},
};
use std::time::Duration;
use wire::{Context, Fault, PrincipalKind};

/// The life of a role's session when none is asked for, in seconds.
const ROLE_S: i32 = 3600;
/// The life of a user's session when none is asked for, in seconds.
const USER_S: i32 = 43_200;
/// The size that AWS allows for session policies together, in characters.
const MOST_POLICY: usize = 2048;
/// What a session of GetSessionToken without MFA cannot do.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>
const USER_SESSION: &str = r#"{"Version":"2012-10-17","Statement":[
    {"Effect":"Allow","Action":"*","Resource":"*"},
    {"Effect":"Deny","Action":"iam:*","Resource":"*"},
    {"Effect":"Deny","Action":["sts:GetSessionToken","sts:GetFederationToken"],"Resource":"*"}]}"#;

pub(crate) async fn get_caller_identity(
    _sts: &Sts,
    ctx: &Context,
    _input: GetCallerIdentityRequest,
) -> Result<GetCallerIdentityResponse, Fault> {
    ctx.needs_no_permission();
    Ok(GetCallerIdentityResponse {
        user_id: Some(ctx.principal.user_id.clone()),
        account: Some(ctx.account().to_owned()),
        arn: Some(ctx.principal.arn.clone()),
    })
}

fn credentials(session: &Session) -> Option<Credentials> {
    Some(Credentials {
        access_key_id: Some(session.access_key_id.clone()),
        secret_access_key: Some(session.secret.clone()),
        session_token: Some(session.token.clone()),
        expiration: Some(session.expires),
    })
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).expect("validation checked the least value"))
}

pub(crate) async fn assume_role(
    sts: &Sts,
    ctx: &Context,
    input: AssumeRoleRequest,
) -> Result<AssumeRoleResponse, Fault> {
    let arn = &input.role_arn;
    if ctx.principal.kind == PrincipalKind::Root {
        ctx.needs_no_permission();
        return Err(faults::root_assumes());
    }
    let mut keys = Vec::new();
    if let Some(external_id) = &input.external_id {
        keys.push(("sts:ExternalId".to_owned(), vec![external_id.clone()]));
    }
    let role = sts.iam.role_by_arn(arn);
    let trusted = match &role {
        Some(role) => sts.iam.trusts(role, &ctx.principal, &keys),
        None => Effect::Nothing,
    };
    let same_account = role.as_ref().is_some_and(|role| role.account == ctx.account());
    match trusted {
        // Named itself by a role of its own account, the caller needs no policy of its own.
        Effect::Allow { by_name: true } if same_account => ctx.needs_no_permission(),
        Effect::Allow { .. } => {
            ctx.authorise("sts:AssumeRole", arn).map_err(|_| faults::assume_denied(ctx, arn))?
        }
        Effect::Deny | Effect::Nothing => {
            ctx.needs_no_permission();
            return Err(faults::assume_denied(ctx, arn));
        }
    }
    let role = role.expect("a role that trusts exists");
    let life = input.duration_seconds.unwrap_or(ROLE_S);
    let chained = matches!(ctx.principal.kind, PrincipalKind::AssumedRole { .. });
    if chained && life > ROLE_S {
        return Err(faults::chained_too_long());
    }
    if life > role.max_session_s {
        return Err(faults::too_long(role.max_session_s));
    }
    let policies = session_policies(sts, ctx, input.policy, input.policy_arns)?;
    let kind = SessionKind::Role { name: role.name.clone(), session: input.role_session_name };
    let session = sts.iam.session(&role.account, kind, policies, seconds(life));
    Ok(AssumeRoleResponse {
        credentials: credentials(&session),
        assumed_role_user: Some(AssumedRoleUser {
            assumed_role_id: Some(session.principal.user_id.clone()),
            arn: Some(session.principal.arn.clone()),
        }),
        ..AssumeRoleResponse::default()
    })
}

fn session_policies(
    sts: &Sts,
    ctx: &Context,
    inline: Option<String>,
    arns: Option<Vec<PolicyDescriptorType>>,
) -> Result<Vec<String>, Fault> {
    let mut policies: Vec<String> = Vec::new();
    if let Some(inline) = inline {
        Document::parse(&inline, Kind::Identity).map_err(faults::malformed)?;
        policies.push(inline);
    }
    for descriptor in arns.into_iter().flatten() {
        let Some(arn) = descriptor.arn else { continue };
        let document = sts.iam.managed_document(ctx.account(), &arn);
        policies.push(document.ok_or_else(|| faults::no_policy(&arn))?);
    }
    match policies.iter().map(String::len).sum::<usize>() > MOST_POLICY {
        true => Err(faults::packed_too_large()),
        false => Ok(policies),
    }
}

pub(crate) async fn get_session_token(
    sts: &Sts,
    ctx: &Context,
    input: GetSessionTokenRequest,
) -> Result<GetSessionTokenResponse, Fault> {
    // AWS asks no policy here: the session can do no more than its user.
    ctx.needs_no_permission();
    let name = match &ctx.principal.kind {
        PrincipalKind::User { name } if ctx.principal.session_policies.is_empty() => name.clone(),
        _ => return Err(faults::session_asks()),
    };
    let life = seconds(input.duration_seconds.unwrap_or(USER_S));
    let policies = vec![USER_SESSION.to_owned()];
    let session = sts.iam.session(ctx.account(), SessionKind::User { name }, policies, life);
    Ok(GetSessionTokenResponse { credentials: credentials(&session) })
}
