//! Who asks, from where, and whether they may.

use crate::{fault::Fault, shape::Family};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use world::Timestamp;

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account that it belongs to, twelve digits.
    pub account: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// The ARN that GetCallerIdentity tells and policies name.
    pub arn: String,
    /// The unique id that GetCallerIdentity tells: `AIDA…`, `AROA…:session`, or the account.
    pub user_id: String,
    /// Policies (JSON) that narrow a session, none for long-lived keys.
    pub session_policies: Vec<String>,
}

/// What kind of principal signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// The account itself. Nothing is denied to it.
    Root,
    /// An IAM user.
    User {
        /// The user's name.
        name: String,
    },
    /// A session of an IAM role.
    AssumedRole {
        /// The role's name.
        role: String,
        /// The session's name.
        session: String,
    },
    /// A part of Neargate acting for itself (a reconciler), as an AWS service would.
    Service {
        /// As policies name it, `ecs-tasks.amazonaws.com`.
        name: &'static str,
    },
}

/// What an access key stands for.
pub struct Credential {
    /// The key that signatures are made with.
    pub secret: String,
    /// Who signs with it.
    pub principal: Principal,
}

/// Why an access key stands for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No such key, or it is inactive, or its session token is wrong.
    Unknown,
    /// The session is over.
    Expired,
}

/// The answer of the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Some policy allows it and none denies it.
    Allow,
    /// A statement denies it; the text names the kind of policy ("an identity-based policy").
    ExplicitDeny(&'static str),
    /// Nothing allows it; the text names the kind of policy that would have to ("identity-based policy").
    ImplicitDeny(&'static str),
}

/// Whose a resource is, and what its own policy says.
#[derive(Clone, Copy, Debug)]
pub struct ResourcePolicy<'a> {
    /// The account that the resource belongs to, twelve digits.
    pub account: &'a str,
    /// The policy (JSON), if it has one.
    pub policy: Option<&'a str>,
}

/// Where credentials and policies are kept. The `iam` service implements it; calls read memory only.
pub trait Identity: Send + Sync + 'static {
    /// What `access_key_id` (and, for sessions, `token`) stands for at `now`.
    fn credential(
        &self,
        access_key_id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Credential, Denial>;

    /// Whether `principal` may do `action` (`ecs:RunTask`) on `resource` (an ARN or `*`). `keys` are the condition
    /// keys of this request with their values, global ones included.
    fn decide(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        keys: &[(String, Vec<String>)],
    ) -> Decision;

    /// [`Identity::decide`] where the resource can have a policy of its own, as repositories and buckets have.
    fn decide_with_resource_policy(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        keys: &[(String, Vec<String>)],
        owned: ResourcePolicy,
    ) -> Decision;
}

/// What a handler knows of the request besides its content. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Who asks.
    pub principal: Principal,
    /// The region that the request was signed for.
    pub region: String,
    /// The id that the answer carries.
    pub request_id: String,
    /// When the request came in.
    pub now: Timestamp,
    /// The address it came from.
    pub source_ip: IpAddr,
    /// What the client calls itself.
    pub user_agent: String,
    /// Nobody on a network could read it: it came over TLS, or never left the machine.
    pub secure: bool,
    /// What an AWS service asks on behalf of, when one asks: the ARN of a rule, a pipeline, an alarm.
    pub source_arn: Option<String>,
    pub(crate) family: Family,
    pub(crate) identity: Arc<dyn Identity>,
    pub(crate) authorised: Arc<AtomicBool>,
}

impl Context {
    /// A context for work that no request started: a reconciler's, or a test's. It acts as `principal`.
    pub fn internal(
        principal: Principal,
        region: &str,
        now: Timestamp,
        identity: Arc<dyn Identity>,
    ) -> Self {
        Self {
            principal,
            region: region.to_owned(),
            request_id: String::new(),
            now,
            source_ip: IpAddr::from([127, 0, 0, 1]),
            user_agent: "neargate".to_owned(),
            secure: true,
            source_arn: None,
            family: Family::Json,
            identity,
            authorised: Arc::default(),
        }
    }

    /// The account that the request is made in.
    pub fn account(&self) -> &str {
        &self.principal.account
    }

    /// `account/region`, the first part of every regional record's key.
    pub fn realm(&self) -> String {
        format!("{}/{}", self.principal.account, self.region)
    }

    /// An ARN in this account and region: `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`.
    pub fn arn(&self, service: &str, resource: impl std::fmt::Display) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.principal.account)
    }

    /// Answers AccessDenied unless the caller may do `action` (`ecs:RunTask`) on `resource` (an ARN, or `*` for
    /// operations without one). Every handler calls this before it does or tells anything.
    pub fn authorise(&self, action: &str, resource: &str) -> Result<(), Fault> {
        self.authorise_with(action, resource, &[])
    }

    /// [`Context::authorise`] with the service's own condition keys (`iam:PassedToService`).
    pub fn authorise_with(
        &self,
        action: &str,
        resource: &str,
        keys: &[(&str, &str)],
    ) -> Result<(), Fault> {
        // arn:partition:service:region:account:resource; what has no account is the caller's own, as far as it is here.
        let owner = resource.split(':').nth(4).filter(|account| !account.is_empty());
        let mut all = self.global_keys(owner.unwrap_or(&self.principal.account));
        all.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()])));
        self.answer(action, resource, self.identity.decide(&self.principal, action, resource, &all))
    }

    /// [`Context::authorise`] for a resource that can have a policy of its own, perhaps of another account.
    pub fn authorise_owned(
        &self,
        action: &str,
        resource: &str,
        owned: ResourcePolicy,
    ) -> Result<(), Fault> {
        let (principal, keys) = (&self.principal, self.global_keys(owned.account));
        let identity = &self.identity;
        let decision =
            identity.decide_with_resource_policy(principal, action, resource, &keys, owned);
        self.answer(action, resource, decision)
    }

    fn answer(&self, action: &str, resource: &str, decision: Decision) -> Result<(), Fault> {
        self.authorised.store(true, Ordering::Relaxed);
        let denied = match decision {
            Decision::Allow => return Ok(()),
            Decision::ExplicitDeny(policy) => format!("with an explicit deny in {policy}"),
            Decision::ImplicitDeny(policy) => {
                format!("because no {policy} allows the {action} action")
            }
        };
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} {denied}",
            self.principal.arn
        );
        Err(Fault::access_denied(self.family, message))
    }

    /// Says that anyone who can sign may do this, for the few operations of which AWS says so.
    pub fn needs_no_permission(&self) {
        self.authorised.store(true, Ordering::Relaxed);
    }

    /// AWS's global condition keys that this request has.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html>
    fn global_keys(&self, owner: &str) -> Vec<(String, Vec<String>)> {
        let principal = &self.principal;
        let kind = match &principal.kind {
            PrincipalKind::Root => "Account",
            PrincipalKind::User { .. } => "User",
            PrincipalKind::AssumedRole { .. } => "AssumedRole",
            PrincipalKind::Service { .. } => "Service",
        };
        let mut keys = vec![
            ("aws:PrincipalArn", principal_arn(principal)),
            ("aws:PrincipalAccount", principal.account.clone()),
            ("aws:PrincipalType", kind.to_owned()),
            ("aws:ResourceAccount", owner.to_owned()),
            ("aws:userid", principal.user_id.clone()),
            ("aws:RequestedRegion", self.region.clone()),
            ("aws:CurrentTime", self.now.rfc3339()),
            ("aws:EpochTime", (self.now.millis() / 1000).to_string()),
            ("aws:SourceIp", self.source_ip.to_string()),
            ("aws:SecureTransport", self.secure.to_string()),
            ("aws:UserAgent", self.user_agent.clone()),
        ];
        if let PrincipalKind::User { name } = &principal.kind {
            keys.push(("aws:username", name.clone()));
        }
        if let Some(arn) = &self.source_arn {
            let account = arn.split(':').nth(4).unwrap_or_default();
            keys.push(("aws:SourceArn", arn.clone()));
            keys.push(("aws:SourceAccount", account.to_owned()));
        }
        keys.into_iter().map(|(key, value)| (key.to_owned(), vec![value])).collect()
    }
}

/// For a role's session, `aws:PrincipalArn` is the role.
fn principal_arn(principal: &Principal) -> String {
    match &principal.kind {
        PrincipalKind::AssumedRole { role, .. } => {
            format!("arn:aws:iam::{}:role/{role}", principal.account)
        }
        _ => principal.arn.clone(),
    }
}
