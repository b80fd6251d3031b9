//! Credentials for registries: given by the caller, or found in the files that `podman login`,
//! `skopeo login` and `docker login` write (containers-auth.json(5)).

use crate::blobs::read_bounded;
use base64::Engine;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name and password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token to be exchanged for access tokens.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// Gives the credentials for a registry (`host[:port]`) and repository; `None` for none.
pub type CredentialsFor = Arc<dyn Fn(&str, &str) -> Option<Credentials> + Send + Sync>;

/// The merged credentials of some files.
#[derive(Clone, Default, Debug)]
pub struct AuthFiles {
    entries: BTreeMap<String, Credentials>,
    warnings: Vec<String>,
}

/// A credentials file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Not what `login` writes.
    #[error("{} is not a valid file of credentials", .0.display())]
    Invalid(PathBuf),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl AuthFiles {
    /// The files of the user this process runs as, those that exist; earlier ones count first.
    pub fn of_this_user() -> Result<Self, AuthFileError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        if let Some(only) = variable("REGISTRY_AUTH_FILE") {
            return Self::load(&[only]);
        }
        let uid = rustix::process::getuid().as_raw();
        let mut paths = vec![match variable("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("containers/auth.json"),
            None => PathBuf::from(format!("/run/containers/{uid}/auth.json")),
        }];
        if let Some(home) = variable("HOME") {
            paths.push(home.join(".config/containers/auth.json"));
            paths.push(match variable("DOCKER_CONFIG") {
                Some(dir) => dir.join("config.json"),
                None => home.join(".docker/config.json"),
            });
        }
        Self::load(&paths)
    }

    /// Reads the given files; missing ones are no error.
    pub fn load(paths: &[PathBuf]) -> Result<Self, AuthFileError> {
        let mut merged = AuthFiles::default();
        for path in paths {
            match read_bounded(path, MAX_FILE_BYTES) {
                Ok(Some(bytes)) => merged.add(&bytes, path)?,
                Ok(None) => return Err(AuthFileError::Invalid(path.clone())),
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(AuthFileError::Read { path: path.clone(), source }),
            }
        }
        Ok(merged)
    }

    fn add(&mut self, bytes: &[u8], path: &Path) -> Result<(), AuthFileError> {
        // The source's text could quote a password, so it is not kept.
        let invalid = || AuthFileError::Invalid(path.to_path_buf());
        let document: Document = serde_json::from_slice(bytes).map_err(|_| invalid())?;
        let helpers = document.cred_helpers.into_values().chain(document.creds_store);
        for helper in helpers {
            let place = path.display();
            self.warnings.push(format!("{place}: credential helper {helper:?} is not supported"));
        }
        for (key, entry) in document.auths {
            let token = entry.identitytoken.filter(|token| !token.is_empty());
            let credentials = match (token, entry.auth.filter(|auth| !auth.is_empty())) {
                (Some(token), _) => Credentials::IdentityToken(token),
                (None, None) => continue, // kept by a helper
                (None, Some(auth)) => {
                    let engine = base64::engine::general_purpose::STANDARD;
                    let decoded = engine.decode(auth.trim()).map_err(|_| invalid())?;
                    let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
                    let (user, password) = decoded.split_once(':').ok_or_else(invalid)?;
                    let password = password.trim_end_matches('\0').to_string();
                    Credentials::Basic { user: user.into(), password }
                }
            };
            self.entries.entry(normal_key(&key)).or_insert(credentials);
        }
        Ok(())
    }

    /// What is configured but not supported, in words.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The credentials whose key fits `registry/repository` best.
    pub fn find(&self, registry: &str, repository: &str) -> Option<Credentials> {
        let full = format!("{registry}/{repository}");
        let mut key = full.as_str();
        loop {
            if let Some(found) = self.entries.get(key) {
                return Some(found.clone());
            }
            key = &key[..key.rfind('/')?];
        }
    }

    /// As a callback.
    pub fn into_callback(self) -> CredentialsFor {
        Arc::new(move |registry, repository| self.find(registry, repository))
    }
}

/// Docker writes keys as URLs, and its own registry under an old name.
fn normal_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let key = match bare {
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key.trim_end_matches('/'),
    };
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_key_wins_and_passwords_stay_hidden() {
        let mut files = AuthFiles::default();
        let text = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "r.example": {"auth": "YTpiOmM="},
            "r.example/team": {"identitytoken": "tok"},
            "empty.example": {}
        }, "credsStore": "desktop"}"#;
        files.add(text, Path::new("a")).unwrap();
        let basic = |user: &str, password: &str| {
            Some(Credentials::Basic { user: user.into(), password: password.into() })
        };
        assert_eq!(files.find("docker.io", "library/x"), basic("u", "p"));
        assert_eq!(files.find("r.example", "other/x"), basic("a", "b:c"));
        let token = files.find("r.example", "team/x");
        assert_eq!(token, Some(Credentials::IdentityToken("tok".into())));
        assert_eq!(files.find("empty.example", "x"), None);
        assert_eq!(files.find("r.example.evil", "x"), None);
        assert_eq!(files.warnings().len(), 1);
        assert!(!format!("{files:?}").contains("b:c") && !format!("{files:?}").contains("tok\""));
        assert!(files.add(br#"{"auths": {"x": {"auth": "!"}}}"#, Path::new("a")).is_err());
    }
}
