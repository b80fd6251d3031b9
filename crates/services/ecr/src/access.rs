//! Who may do what to a repository, and the tokens that docker logs in with.

use crate::{
    Ecr, faults,
    model::{Place, Repository},
};
use images::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{net::IpAddr, sync::Arc, time::Duration};
use store::Sealed;
use wire::{Context, Family, Fault, Principal, PrincipalKind, ResourcePolicy};
use world::Timestamp;

/// How long a login holds.
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>
pub(crate) const LOGIN_TIME: Duration = Duration::from_secs(12 * 3600);
/// How long a layer's URL holds.
const DOWNLOAD_TIME: Duration = Duration::from_secs(3600);
/// The user name of every login.
pub(crate) const LOGIN_NAME: &str = "AWS";

/// What the two kinds of tokens are sealed for: one does not pass for the other.
const LOGIN: &str = "ecr.login";
const DOWNLOAD: &str = "ecr.download";

/// A login: who may act with it, until when. What they may is asked anew each time.
#[derive(Serialize, Deserialize)]
struct Login {
    account: String,
    kind: Kind,
    arn: String,
    user_id: String,
    session_policies: Vec<String>,
    expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Root,
    User { name: String },
    Role { role: String, session: String },
}

/// The right to read one layer.
#[derive(Serialize, Deserialize)]
struct Download {
    place: Place,
    digest: Digest,
    expires: Timestamp,
}

impl Ecr {
    /// The repository `name` of the registry `registry_id` (the caller's own unless given), if the caller may do
    /// `action` to it. It need not be there: who may not know is told of their permissions, not of the repository.
    pub(crate) fn find(
        &self,
        ctx: &Context,
        registry_id: Option<&str>,
        name: &str,
        action: &str,
    ) -> Result<Arc<Repository>, Fault> {
        let account = registry_id.unwrap_or(ctx.account());
        let place = Place { realm: format!("{account}/{}", ctx.region), name: name.to_owned() };
        let found = self.store.read().get::<Repository>(&place.key());
        self.authorise(ctx, &place, found.as_deref(), action)?;
        found.ok_or_else(|| faults::no_repository(&place))
    }

    pub(crate) fn authorise(
        &self,
        ctx: &Context,
        place: &Place,
        repository: Option<&Repository>,
        action: &str,
    ) -> Result<(), Fault> {
        let policy = repository.and_then(|repository| repository.policy.as_deref());
        let owned = ResourcePolicy { account: place.account(), policy };
        ctx.authorise_owned(action, &place.arn(), owned)
    }

    /// What `principal` does in `region` from `ip`, outside of the front door's own protocols.
    pub(crate) fn context(
        &self,
        principal: Principal,
        region: &str,
        ip: Option<IpAddr>,
    ) -> Context {
        let identity = self.iam.clone();
        let mut context = Context::internal(principal, region, self.world.now(), identity);
        if let Some(ip) = ip {
            context.source_ip = ip;
        }
        context
    }

    /// The password of a login as the caller, and when it expires.
    pub(crate) fn login(&self, ctx: &Context) -> Result<(String, Timestamp), Fault> {
        let principal = &ctx.principal;
        let kind = match &principal.kind {
            PrincipalKind::Root => Kind::Root,
            PrincipalKind::User { name } => Kind::User { name: name.clone() },
            PrincipalKind::AssumedRole { role, session } => {
                Kind::Role { role: role.clone(), session: session.clone() }
            }
            PrincipalKind::Service { .. } => return Err(Fault::internal(Family::Json)),
        };
        let expires = ctx.now + LOGIN_TIME;
        let login = Login {
            account: principal.account.clone(),
            kind,
            arn: principal.arn.clone(),
            user_id: principal.user_id.clone(),
            session_policies: principal.session_policies.clone(),
            expires,
        };
        Ok((self.seal(LOGIN, &login)?, expires))
    }

    /// Who logged in with `password`, if it is one of ours and holds.
    pub(crate) fn logged_in(&self, password: &str) -> Option<Principal> {
        let login: Login = self.unseal(LOGIN, password)?;
        let kind = match login.kind {
            Kind::Root => PrincipalKind::Root,
            Kind::User { name } => PrincipalKind::User { name },
            Kind::Role { role, session } => PrincipalKind::AssumedRole { role, session },
        };
        (self.world.now() < login.expires).then_some(Principal {
            account: login.account,
            kind,
            arn: login.arn,
            user_id: login.user_id,
            session_policies: login.session_policies,
        })
    }

    /// A token to read one layer with.
    pub(crate) fn download_token(&self, place: &Place, digest: &Digest) -> Result<String, Fault> {
        let expires = self.world.now() + DOWNLOAD_TIME;
        let download = Download { place: place.clone(), digest: digest.clone(), expires };
        self.seal(DOWNLOAD, &download)
    }

    /// Whether `token` gives the right to read this layer now.
    pub(crate) fn may_download(&self, token: &str, place: &Place, digest: &Digest) -> bool {
        let download: Option<Download> = self.unseal(DOWNLOAD, token);
        download.is_some_and(|download| {
            download.place == *place
                && download.digest == *digest
                && self.world.now() < download.expires
        })
    }

    fn seal(&self, context: &str, token: &impl Serialize) -> Result<String, Fault> {
        let failed = |error: serde_json::Error| {
            tracing::error!(%error, "a token could not be written");
            Fault::internal(Family::Json)
        };
        let bytes = serde_json::to_vec(token).map_err(failed)?;
        let sealed = serde_json::to_value(self.sealer.seal(context, &bytes)).map_err(failed)?;
        Ok(sealed.as_str().unwrap_or_default().to_owned())
    }

    fn unseal<T: DeserializeOwned>(&self, context: &str, text: &str) -> Option<T> {
        let sealed: Sealed = serde_json::from_value(text.into()).ok()?;
        // Whatever is wrong with it, it is no token of ours; the cause would help only who made it up.
        let bytes = self.sealer.open(context, &sealed).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
