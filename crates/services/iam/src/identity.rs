//! Who a key is, and what they may.

use crate::{
    Iam, aws_managed,
    model::{AccessKey, Grants, Policy, Role, ServiceCredential, User},
    policy::{Document, Effect, Kind, Malformed, Request, evaluate},
};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Credential, Decision, Denial, Identity, Principal, PrincipalKind, ResourcePolicy};
use world::Timestamp;

/// So many documents are kept parsed.
const MOST_DOCUMENTS: usize = 4096;
/// What access key ids are written in.
const KEY_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The name of the user whose key is made at the first start.
const ADMIN: &str = "admin";

/// Condition keys by their lower-case names.
pub(crate) fn lower(keys: &[(String, Vec<String>)]) -> BTreeMap<String, Vec<String>> {
    keys.iter().map(|(key, values)| (key.to_ascii_lowercase(), values.clone())).collect()
}

fn user_principal(user: &User) -> Principal {
    Principal {
        account: user.account.clone(),
        arn: user.arn(),
        user_id: user.id.clone(),
        kind: PrincipalKind::User { name: user.name.clone() },
        session_policies: Vec::new(),
    }
}

impl Iam {
    pub(crate) fn user(&self, account: &str, name: &str) -> Option<Arc<User>> {
        self.store.read().get::<User>(&User::key_of(account, name))
    }

    pub(crate) fn role(&self, account: &str, name: &str) -> Option<Arc<Role>> {
        self.store.read().get::<Role>(&Role::key_of(account, name))
    }

    pub(crate) fn key_text(&self, length: usize) -> String {
        self.world.text(length, KEY_LETTERS)
    }

    pub(crate) fn secret_text(&self) -> String {
        self.secret_of_length(40)
    }

    pub(crate) fn secret_of_length(&self, length: usize) -> String {
        self.world.text(length, SECRET_LETTERS)
    }

    /// Whose name and password for `service` (`codecommit.amazonaws.com`) these are, if they are anyone's.
    pub fn service_login(
        &self,
        service: &str,
        user_name: &str,
        password: &str,
    ) -> Option<Principal> {
        let snapshot = self.store.read();
        let mut all = snapshot.scan::<ServiceCredential>();
        let found = all.find(|one| one.service == service && one.service_user == user_name)?;
        let context = ServiceCredential::seal_context(&found.id);
        let kept = match self.sealer.open(&context, &found.password) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(credential = found.id, %error, "a password cannot be unsealed");
                return None;
            }
        };
        // How long it takes does not depend on where they differ.
        let differ = kept.iter().zip(password.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        if kept.len() != password.len() || differ != 0 || !found.active {
            return None;
        }
        let user = self.user(&found.account, &found.user)?;
        Some(user_principal(&user))
    }

    /// A key of the account's administrator, for `neargate env`: `given`, or the one that is there, or a random one.
    /// The first time it makes the user `admin` with AdministratorAccess.
    pub async fn administrator_key(
        &self,
        account: &str,
        given: Option<(&str, &str)>,
    ) -> Result<(String, String), store::WriteError<std::convert::Infallible>> {
        let (id, secret) = match given {
            Some((id, secret)) => (id.to_owned(), secret.to_owned()),
            None => match self.existing_key(account) {
                Some(pair) => return Ok(pair),
                None => (format!("AKIA{}", self.key_text(16)), self.secret_text()),
            },
        };
        let now = self.world.now();
        let user = User {
            account: account.to_owned(),
            name: ADMIN.to_owned(),
            path: "/".to_owned(),
            id: format!("AIDA{}", self.key_text(17)),
            created: now,
            tags: BTreeMap::new(),
            grants: Grants {
                attached: ["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()].into(),
                ..Grants::default()
            },
        };
        let key = AccessKey {
            secret: self.sealer.seal(&id, secret.as_bytes()),
            id: id.clone(),
            account: account.to_owned(),
            user: ADMIN.to_owned(),
            active: true,
            created: now,
        };
        self.store
            .try_write(move |tx| {
                if tx.get::<User>(&User::key_of(&user.account, ADMIN)).is_none() {
                    tx.put(user);
                }
                tx.put(key);
                Ok(())
            })
            .await?;
        Ok((id, secret))
    }

    fn existing_key(&self, account: &str) -> Option<(String, String)> {
        let snapshot = self.store.read();
        let mut keys: Vec<Arc<AccessKey>> = snapshot
            .scan::<AccessKey>()
            .filter(|key| key.account == account && key.user == ADMIN && key.active)
            .collect();
        keys.sort_by_key(|key| key.created);
        let key = keys.first()?;
        Some((key.id.clone(), self.secret_of(key)?))
    }

    /// What is secret of an account's access key.
    pub(crate) fn secret_access_key(&self, account: &str, id: &str) -> Option<String> {
        let key = self.store.read().get::<AccessKey>(id).filter(|key| key.account == account)?;
        self.secret_of(&key)
    }

    pub(crate) fn secret_of(&self, key: &AccessKey) -> Option<String> {
        match self.sealer.open(&key.id, &key.secret) {
            Ok(secret) => String::from_utf8(secret).ok(),
            Err(error) => {
                tracing::error!(key = key.id, %error, "an access key's secret cannot be unsealed");
                None
            }
        }
    }

    /// The parsed document of `text`, kept for the next time.
    pub(crate) fn document(&self, text: &str, kind: Kind) -> Result<Arc<Document>, Malformed> {
        let mut documents = self.documents.lock().expect("no holder of this lock can panic");
        if let Some(document) = documents.get(text) {
            return Ok(document.clone());
        }
        let document = Arc::new(Document::parse(text, kind)?);
        if documents.len() >= MOST_DOCUMENTS {
            documents.clear();
        }
        documents.insert(text.to_owned(), document.clone());
        Ok(document)
    }

    /// The document of a managed policy, AWS's or the account's own.
    pub fn managed_document(&self, account: &str, arn: &str) -> Option<String> {
        if let Some(managed) = aws_managed::find(arn) {
            return Some(managed.document.to_owned());
        }
        let name = arn.rsplit('/').next().unwrap_or_default();
        let policy = self.store.read().get::<Policy>(&Policy::key_of(account, name))?;
        (policy.arn() == arn).then(|| policy.document().to_owned())
    }

    /// The documents that `grants` amount to. One that cannot be read any more is an error to be told, and must not
    /// quietly drop a deny: then nothing is allowed.
    fn documents_of(&self, account: &str, grants: &Grants) -> Option<Vec<Arc<Document>>> {
        let mut texts: Vec<String> = grants.inline.values().cloned().collect();
        for arn in &grants.attached {
            texts.push(self.managed_document(account, arn)?);
        }
        self.parsed(&texts)
    }

    fn parsed(&self, texts: &[String]) -> Option<Vec<Arc<Document>>> {
        let documents = texts.iter().map(|text| self.document(text, Kind::Identity));
        match documents.collect() {
            Ok(documents) => Some(documents),
            Err(error) => {
                tracing::error!(%error, "a stored policy cannot be read; it allows nothing");
                None
            }
        }
    }

    fn grants_of(&self, principal: &Principal) -> Option<Grants> {
        match &principal.kind {
            PrincipalKind::User { name } => {
                self.user(&principal.account, name).map(|user| user.grants.clone())
            }
            PrincipalKind::AssumedRole { role, .. } => {
                self.role(&principal.account, role).map(|role| role.grants.clone())
            }
            PrincipalKind::Root | PrincipalKind::Service { .. } => None,
        }
    }

    /// What is wrong with a resource's policy, in AWS's words.
    pub fn check_resource_policy(&self, text: &str) -> Result<(), Malformed> {
        self.document(text, Kind::Resource).map(drop)
    }
}

impl Identity for Iam {
    fn credential(
        &self,
        access_key_id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Credential, Denial> {
        if let Some(token) = token {
            let session = self.open_token(token).ok_or(Denial::Unknown)?;
            if session.access_key_id != access_key_id {
                return Err(Denial::Unknown);
            }
            if session.expires < now {
                return Err(Denial::Expired);
            }
            let principal = self.principal_of(&session).ok_or(Denial::Unknown)?;
            return Ok(Credential { secret: session.secret, principal });
        }
        let key = self.store.read().get::<AccessKey>(access_key_id).ok_or(Denial::Unknown)?;
        let user = self.user(&key.account, &key.user).ok_or(Denial::Unknown)?;
        if !key.active {
            return Err(Denial::Unknown);
        }
        let secret = self.secret_of(&key).ok_or(Denial::Unknown)?;
        Ok(Credential { secret, principal: user_principal(&user) })
    }

    fn decide_with_resource_policy(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        keys: &[(String, Vec<String>)],
        owned: ResourcePolicy,
    ) -> Decision {
        let own = self.decide(principal, action, resource, keys);
        let abroad = owned.account != principal.account;
        let effect = match owned.policy.map(|text| self.document(text, Kind::Resource)) {
            None => Effect::Nothing,
            Some(Ok(document)) => {
                let keys = lower(keys);
                let request = Request { principal, action, resource, keys: &keys };
                evaluate([document.as_ref()], &request)
            }
            Some(Err(error)) => {
                tracing::error!(resource, %error, "a stored resource policy cannot be read; it allows nothing");
                return Decision::ImplicitDeny("resource-based policy");
            }
        };
        match (effect, own) {
            (_, Decision::ExplicitDeny(policy)) => Decision::ExplicitDeny(policy),
            (Effect::Deny, _) => Decision::ExplicitDeny("a resource-based policy"),
            // Between accounts both sides must allow it; within one, either.
            (Effect::Allow { .. }, own) if abroad => own,
            (Effect::Allow { .. }, _) => Decision::Allow,
            (Effect::Nothing, _) if abroad => Decision::ImplicitDeny("resource-based policy"),
            (Effect::Nothing, own) => own,
        }
    }

    fn decide(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        keys: &[(String, Vec<String>)],
    ) -> Decision {
        if matches!(principal.kind, PrincipalKind::Root | PrincipalKind::Service { .. }) {
            return Decision::Allow;
        }
        let grants = self.grants_of(principal);
        let own = grants.and_then(|grants| self.documents_of(&principal.account, &grants));
        let Some(own) = own else { return Decision::ImplicitDeny("identity-based policy") };
        let keys = lower(keys);
        let request = Request { principal, action, resource, keys: &keys };
        match evaluate(own.iter().map(Arc::as_ref), &request) {
            Effect::Deny => return Decision::ExplicitDeny("an identity-based policy"),
            Effect::Nothing => return Decision::ImplicitDeny("identity-based policy"),
            Effect::Allow { .. } => {}
        }
        if principal.session_policies.is_empty() {
            return Decision::Allow;
        }
        let Some(session) = self.parsed(&principal.session_policies) else {
            return Decision::ImplicitDeny("session policy");
        };
        match evaluate(session.iter().map(Arc::as_ref), &request) {
            Effect::Allow { .. } => Decision::Allow,
            Effect::Deny => Decision::ExplicitDeny("a session policy"),
            Effect::Nothing => Decision::ImplicitDeny("session policy"),
        }
    }
}
