//! What users and roles have in common: both hold policies.

use crate::{
    Iam, faults,
    model::{Grants, Role, User},
    policy::Kind,
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

/// The most managed policies on one user or role.
const MOST_ATTACHED: usize = 10;

/// Which kind of holder an operation is about.
#[derive(Clone, Copy)]
pub(super) enum Holder {
    User,
    Role,
}

impl Holder {
    fn kind(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }

    /// The holder's ARN and grants; when there is no such holder, an ARN to authorise with all the same.
    fn find(self, iam: &Iam, ctx: &Context, name: &str) -> (String, Option<Grants>) {
        let found = match self {
            Self::User => {
                iam.user(ctx.account(), name).map(|user| (user.arn(), user.grants.clone()))
            }
            Self::Role => {
                iam.role(ctx.account(), name).map(|role| (role.arn(), role.grants.clone()))
            }
        };
        match found {
            Some((arn, grants)) => (arn, Some(grants)),
            None => (format!("arn:aws:iam::{}:{}/{name}", ctx.account(), self.kind()), None),
        }
    }

    /// The grants of the holder `name`, for a caller who may do `action` on it.
    pub(super) fn grants(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
    ) -> Result<Grants, Fault> {
        let (arn, grants) = self.find(iam, ctx, name);
        ctx.authorise(action, &arn)?;
        grants.ok_or_else(|| faults::no_entity(self.kind(), name))
    }

    /// Changes the grants of the holder `name`.
    pub(super) async fn change(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        change: impl FnOnce(&mut Grants) -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), Fault> {
        ctx.authorise(action, &self.find(iam, ctx, name).0)?;
        let (account, name) = (ctx.account().to_owned(), name.to_owned());
        iam.store
            .write(move |tx: &mut Tx| {
                let missing = || faults::no_entity(self.kind(), &name);
                match self {
                    Self::User => {
                        let user = tx.get::<User>(&User::key_of(&account, &name));
                        let mut user = Arc::unwrap_or_clone(user.ok_or_else(missing)?);
                        change(&mut user.grants)?;
                        tx.put(user);
                    }
                    Self::Role => {
                        let role = tx.get::<Role>(&Role::key_of(&account, &name));
                        let mut role = Arc::unwrap_or_clone(role.ok_or_else(missing)?);
                        change(&mut role.grants)?;
                        tx.put(role);
                    }
                }
                Ok(())
            })
            .await
    }

    /// Puts an inline policy.
    pub(super) async fn put(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        policy: (String, String),
    ) -> Result<(), Fault> {
        let (policy_name, document) = policy;
        iam.document(&document, Kind::Identity).map_err(faults::malformed)?;
        // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html (characters, without white space)
        let limit = match self {
            Self::User => 2048,
            Self::Role => 10_240,
        };
        let quota = format!("{} policy size", self.kind());
        self.change(iam, ctx, name, action, move |grants| {
            grants.inline.insert(policy_name, document);
            let size: usize = grants.inline.values().map(|text| dense(text)).sum();
            match size > limit {
                true => Err(faults::limit(&quota, limit)),
                false => Ok(()),
            }
        })
        .await
    }

    /// Deletes an inline policy.
    pub(super) async fn delete(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        policy: String,
    ) -> Result<(), Fault> {
        self.change(iam, ctx, name, action, move |grants| {
            let gone = grants.inline.remove(&policy);
            gone.map(drop).ok_or_else(|| faults::no_inline(self.kind(), &policy))
        })
        .await
    }

    /// The inline policy of that name.
    pub(super) fn inline(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        policy: &str,
    ) -> Result<String, Fault> {
        let grants = self.grants(iam, ctx, name, action)?;
        grants.inline.get(policy).cloned().ok_or_else(|| faults::no_inline(self.kind(), policy))
    }

    /// Attaches a managed policy.
    pub(super) async fn attach(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        arn: String,
    ) -> Result<(), Fault> {
        if iam.managed_document(ctx.account(), &arn).is_none() {
            // Whether a policy exists is told only to those who may attach it.
            ctx.authorise(action, &self.find(iam, ctx, name).0)?;
            return Err(faults::no_policy(&arn));
        }
        self.change(iam, ctx, name, action, move |grants| {
            grants.attached.insert(arn);
            match grants.attached.len() > MOST_ATTACHED {
                true => Err(faults::limit("PoliciesPerEntity", MOST_ATTACHED)),
                false => Ok(()),
            }
        })
        .await
    }

    /// Detaches a managed policy.
    pub(super) async fn detach(
        self,
        iam: &Iam,
        ctx: &Context,
        name: &str,
        action: &str,
        arn: String,
    ) -> Result<(), Fault> {
        self.change(iam, ctx, name, action, move |grants| match grants.attached.remove(&arn) {
            true => Ok(()),
            false => Err(faults::not_attached(&arn)),
        })
        .await
    }
}

/// A document's size as AWS counts it: without white space.
pub(super) fn dense(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}
