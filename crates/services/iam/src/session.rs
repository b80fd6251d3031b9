//! Temporary credentials. A session's token holds the whole session, sealed: nothing is stored, nothing needs to be
//! cleaned up, and it holds across restarts.

use crate::{Iam, model::Role, policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::Sealed;
use thiserror::Error;
use wire::{Principal, PrincipalKind};
use world::Timestamp;

/// The context that tokens are sealed with.
const CONTEXT: &str = "iam.session";
/// What stands before a token, for people who find one.
const PREFIX: &str = "NGST";

/// Temporary credentials.
#[derive(Clone)]
pub struct Session {
    /// `ASIA…`.
    pub access_key_id: String,
    /// The secret key.
    pub secret: String,
    /// The token that must come with every request.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Who signs with it.
    pub principal: Principal,
}

/// Whose session it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SessionKind {
    /// A user's own (GetSessionToken).
    User {
        /// The user's name.
        name: String,
    },
    /// A role's.
    Role {
        /// The role's name.
        name: String,
        /// The session's name.
        session: String,
    },
}

/// Why there is no session.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SessionError {
    /// There is no such role.
    #[error("the role {0} does not exist")]
    NoRole(String),
    /// The role's trust policy does not allow it.
    #[error("the role {0} does not trust {1}")]
    NotTrusted(String, String),
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sealable {
    pub access_key_id: String,
    pub secret: String,
    pub account: String,
    pub kind: SessionKind,
    pub policies: Vec<String>,
    pub expires: Timestamp,
}

impl Iam {
    /// Makes a session of `kind` in `account`, narrowed by `policies` (documents that have been validated).
    pub fn session(
        &self,
        account: &str,
        kind: SessionKind,
        policies: Vec<String>,
        life: Duration,
    ) -> Session {
        let sealable = Sealable {
            access_key_id: format!("ASIA{}", self.key_text(16)),
            secret: self.secret_text(),
            account: account.to_owned(),
            kind,
            policies,
            expires: self.world.now() + life,
        };
        let json = serde_json::to_vec(&sealable).expect("a session is plain data");
        let sealed = serde_json::to_value(self.sealer.seal(CONTEXT, &json));
        let sealed = sealed.expect("sealed bytes are base64 text in JSON");
        let token = format!("{PREFIX}{}", sealed.as_str().expect("see above"));
        Session {
            principal: self.principal_of(&sealable).expect("its user or role was just looked up"),
            access_key_id: sealable.access_key_id,
            secret: sealable.secret,
            token,
            expires: sealable.expires,
        }
    }

    pub(crate) fn open_token(&self, token: &str) -> Option<Sealable> {
        let sealed: Sealed = serde_json::from_value(token.strip_prefix(PREFIX)?.into()).ok()?;
        let json = self.sealer.open(CONTEXT, &sealed).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// The principal of a session, while its user or role is still there.
    pub(crate) fn principal_of(&self, session: &Sealable) -> Option<Principal> {
        let account = session.account.clone();
        match &session.kind {
            SessionKind::User { name } => {
                let user = self.user(&account, name)?;
                Some(Principal {
                    arn: user.arn(),
                    user_id: user.id.clone(),
                    kind: PrincipalKind::User { name: user.name.clone() },
                    account,
                    session_policies: session.policies.clone(),
                })
            }
            SessionKind::Role { name, session: session_name } => {
                let role = self.role(&account, name)?;
                Some(Principal {
                    arn: format!(
                        "arn:aws:sts::{account}:assumed-role/{}/{session_name}",
                        role.name
                    ),
                    user_id: format!("{}:{session_name}", role.id),
                    kind: PrincipalKind::AssumedRole {
                        role: role.name.clone(),
                        session: session_name.clone(),
                    },
                    account,
                    session_policies: session.policies.clone(),
                })
            }
        }
    }

    /// The role of an ARN.
    pub fn role_by_arn(&self, arn: &str) -> Option<std::sync::Arc<Role>> {
        let rest = arn.strip_prefix("arn:aws:iam::")?;
        let (account, path) = rest.split_once(":role/")?;
        let role = self.role(account, path.rsplit('/').next()?)?;
        (role.arn() == arn).then_some(role)
    }

    /// A session of the role of `arn` for an AWS service that the role trusts, as ECS makes one for a task.
    pub fn assume_for_service(
        &self,
        arn: &str,
        service: &'static str,
        session: &str,
        life: Duration,
    ) -> Result<Session, SessionError> {
        let role = self.role_by_arn(arn).ok_or_else(|| SessionError::NoRole(arn.to_owned()))?;
        let asker = Principal {
            account: role.account.clone(),
            kind: PrincipalKind::Service { name: service },
            arn: service.to_owned(),
            user_id: service.to_owned(),
            session_policies: Vec::new(),
        };
        if !matches!(self.trusts(&role, &asker, &[]), policy::Effect::Allow { .. }) {
            return Err(SessionError::NotTrusted(arn.to_owned(), service.to_owned()));
        }
        let kind = SessionKind::Role { name: role.name.clone(), session: session.to_owned() };
        Ok(self.session(&role.account, kind, Vec::new(), life))
    }

    /// What a role's trust policy says of `asker`.
    pub fn trusts(
        &self,
        role: &Role,
        asker: &Principal,
        keys: &[(String, Vec<String>)],
    ) -> policy::Effect {
        let Ok(document) = self.document(&role.trust, policy::Kind::Trust) else {
            return policy::Effect::Nothing;
        };
        let keys = crate::identity::lower(keys);
        let arn = role.arn();
        let request = policy::Request {
            principal: asker,
            action: "sts:AssumeRole",
            resource: &arn,
            keys: &keys,
        };
        policy::evaluate([document.as_ref()], &request)
    }
}
