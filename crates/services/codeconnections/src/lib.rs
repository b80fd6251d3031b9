//! CodeConnections: repositories of git hosts elsewhere, for pipelines and builds. Records are `codeconnections.*`.
//!
//! On AWS a person lets AWS into their account at the provider, in the console. Here git itself speaks to the host: a
//! connection is there as soon as it is made, and who may see a repository is told by a secret that a tag of the
//! connection names ([`CREDENTIALS`]).

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod clone;
pub mod model;
mod ops;
pub mod remote;
pub mod resources;

pub use clone::{CloneReference, Origin};

use api::ProviderType;
use model::{Connection, Host};
use remote::{Login, Remote};
use serde_json::{Value as Json, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{ReadError, Store};
use wire::{Context, Fault, Front};
use world::World;

/// The tag whose value is the ARN or the name of a secret of Secrets Manager's: `{"username": …, "password": …}`,
/// `{"privateKey": …, "knownHosts": …}` for SSH, or a token and nothing else. AWS knows no such tag, and takes it as
/// any.
pub const CREDENTIALS: &str = "neargate:credentials";

/// The service's state.
pub struct CodeConnections {
    store: Store,
    world: World,
    /// The directory whose repositories hosts of this machine may have.
    local: Option<PathBuf>,
}

/// A repository that a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where git finds it.
    pub url: String,
    /// The secret to log in with, if there is one.
    pub secret: Option<String>,
    /// Whose host it is.
    pub provider: ProviderType,
}

impl CodeConnections {
    /// The service over `store`. Repositories of this machine itself, as git has them, are those below `local`, or
    /// none. Fails when a stored record cannot be read.
    pub fn new(store: Store, world: World, local: Option<PathBuf>) -> Result<Arc<Self>, ReadError> {
        store.declare::<Connection>()?;
        store.declare::<Host>()?;
        Ok(Arc::new(Self { store, world, local }))
    }

    /// The repository `id` (`owner/name`) of a connection, if the caller may use that
    /// (`codeconnections:UseConnection`, or as it was called before, `codestar-connections:UseConnection`).
    pub fn place(&self, ctx: &Context, connection: &str, id: &str) -> Result<Place, Fault> {
        let repository = [("codeconnections:FullRepositoryId", id)];
        ctx.authorise_with("codeconnections:UseConnection", connection, &repository).or_else(
            |fault| {
                let repository = [("codestar-connections:FullRepositoryId", id)];
                let action = "codestar-connections:UseConnection";
                ctx.authorise_with(action, connection, &repository).map_err(|_| fault)
            },
        )?;
        let snapshot = self.store.read();
        let found = snapshot.get::<Connection>(connection);
        let found = found.filter(|found| found.realm == ctx.realm());
        let found = found.ok_or_else(|| ops::no_connection(connection))?;
        let base = match &found.host {
            Some(host) => {
                let host = snapshot.get::<Host>(host).ok_or_else(|| ops::no_host(host))?;
                host.endpoint.trim_end_matches('/').to_owned()
            }
            None => public(found.provider).unwrap_or_default().to_owned(),
        };
        if !is_repository(id) {
            return Err(ops::invalid(format!("{id} is not the name of a repository")));
        }
        let url = match found.provider {
            ProviderType::AzureDevOps => match id.rsplit_once('/') {
                Some((project, name)) => format!("{base}/{project}/_git/{name}"),
                None => return Err(ops::invalid(format!("{id} is not organization/project/name"))),
            },
            _ if found.host.is_none() => format!("{base}/{id}.git"),
            _ => format!("{base}/{id}"),
        };
        if let Some(path) = url.strip_prefix(LOCAL) {
            self.check_local(path)?;
        }
        let secret = found.tags.get(CREDENTIALS).cloned();
        Ok(Place { url, secret, provider: found.provider })
    }
}

/// What the URL of a host begins with that is a directory of this machine.
pub(crate) const LOCAL: &str = "file://";

/// The name of who logs in with a token and nothing else: hosts do not look at it, but want one.
const TOKEN_USER: &str = "x-access-token";

/// What a secret says, as its reader may see it.
async fn login(front: &Front, ctx: &Context, secret: &str) -> Result<Login, Fault> {
    let asked = json!({"SecretId": secret});
    let found = front.call(ctx.clone(), "secretsmanager", "GetSecretValue", asked).await?;
    let text = found["SecretString"].as_str().unwrap_or_default();
    let whole = serde_json::from_str::<Json>(text).unwrap_or_default();
    let part = |name: &str| whole[name].as_str().map(str::to_owned);
    let password = part("username").zip(part("password"));
    let password = password.map(|(name, password)| Login::Password { name, password });
    let key = || {
        let (private, known_hosts) = (part("privateKey")?, part("knownHosts")?);
        Some(Login::Key { private, known_hosts })
    };
    Ok(password.or_else(key).unwrap_or_else(|| Login::Password {
        name: TOKEN_USER.to_owned(),
        password: text.trim().to_owned(),
    }))
}

impl CodeConnections {
    /// The repository `id` of a connection, ready to be fetched from, if the caller may use that connection and read
    /// its secret.
    pub async fn remote(
        &self,
        front: &Front,
        ctx: &Context,
        connection: &str,
        id: &str,
    ) -> Result<(Place, Remote), Fault> {
        let place = self.place(ctx, connection, id)?;
        let login = match &place.secret {
            Some(secret) => Some(login(front, ctx, secret).await?),
            None => None,
        };
        let remote = Remote { url: place.url.clone(), login, checked: true };
        Ok((place, remote))
    }

    /// Whether a path of this machine is below the directory that was named for that, wherever links lead.
    fn check_local(&self, path: &str) -> Result<(), Fault> {
        let unnamed = || {
            ops::invalid(
                "Neargate was not told of a directory with git repositories (--git-directory).",
            )
        };
        let local = self.local.as_ref().ok_or_else(unnamed)?;
        let whole = |path: &Path| path.canonicalize().ok();
        let within = whole(Path::new(path)).zip(whole(local));
        match within.is_some_and(|(path, local)| path.starts_with(local)) {
            true => Ok(()),
            false => Err(ops::invalid(format!(
                "{path} is not in the directory with git repositories (--git-directory)."
            ))),
        }
    }
}

/// Where the providers are whose host need not be named.
fn public(provider: ProviderType) -> Option<&'static str> {
    match provider {
        ProviderType::GitHub => Some("https://github.com"),
        ProviderType::GitLab => Some("https://gitlab.com"),
        ProviderType::Bitbucket => Some("https://bitbucket.org"),
        ProviderType::AzureDevOps => Some("https://dev.azure.com"),
        ProviderType::GitHubEnterpriseServer | ProviderType::GitLabSelfManaged => None,
    }
}

/// Whether this can be the path of a repository at its host, which stays within it.
fn is_repository(id: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '%');
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(letter);
    id.len() <= 512 && id.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_stay_at_their_host() {
        for good in ["owner/name", "name", "a/b/c.git", "~user/x-y_z"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/..", "a b", "a?b", "a#b", "@host/a", "a:b"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
