//! Image names as docker writes them: `host[:port]/repository[:tag][@digest]`, where the host may
//! be left out. The grammar is that of the distribution project's reference format.

use crate::{Digest, InvalidDigest};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The registry that is meant when none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A full image name. Displayed with its registry, and with its tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    short: Option<String>,
}

/// Not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Nothing at all, or nothing but a tag or digest.
    #[error("the image name is empty")]
    Empty,
    /// Longer than 255 bytes without tag and digest.
    #[error("the image name is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// The host or its port.
    #[error("the registry host is not a valid host[:port]")]
    Registry,
    /// The repository's path.
    #[error(
        "a repository name is made of lower-case letters, digits and single separators (. _ __ -) \
         between slashes"
    )]
    Repository,
    /// The tag.
    #[error("a tag is up to 128 letters, digits, _ . and -, and starts with neither . nor -")]
    Tag,
    /// The digest.
    #[error("the digest is not valid")]
    Digest(#[source] InvalidDigest),
    /// 64 hexadecimal digits alone would look like an image id.
    #[error("64 hexadecimal digits cannot be a repository name")]
    LooksLikeId,
}

impl Reference {
    /// `host[:port]`, without a scheme; `docker.io` when the name had none.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry; with `library/` before the official images of docker.io.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when the name had neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name as it was given when it named no registry, without tag and digest: what
    /// `registries.conf` calls a short name.
    pub fn short_name(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What goes to the registry to say which manifest: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => unreachable!("parsing gives every name a tag or a digest"),
        }
    }

    /// The same repository at `digest`, with no tag.
    pub fn at_digest(&self, digest: &Digest) -> Self {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same tag and digest under another `host[:port]/repository`, with no short name. The part
    /// before the first slash is the host, whatever it looks like.
    pub fn renamed(&self, name: &str) -> Result<Self, InvalidReference> {
        let (host, path) = name.split_once('/').ok_or(InvalidReference::Repository)?;
        if name.len() > MAX_NAME_BYTES {
            return Err(InvalidReference::TooLong);
        }
        if !is_host(host) {
            return Err(InvalidReference::Registry);
        }
        if !is_repository(path) {
            return Err(InvalidReference::Repository);
        }
        let (registry, repository) = normalise(host, path)?;
        Ok(Reference { registry, repository, short: None, ..self.clone() })
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(InvalidReference::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Tag);
        }
        let (host, path) = split_name(name)?;
        let short = host.is_none().then(|| path.to_string());
        if host.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidReference::LooksLikeId);
        }
        let (registry, repository) = normalise(host.unwrap_or(DEFAULT_REGISTRY), path)?;
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_string()),
            (tag, _) => tag.map(String::from),
        };
        Ok(Reference { registry, repository, tag, digest, short })
    }
}

/// Splits `[host/]path` and checks both halves.
fn split_name(name: &str) -> Result<(Option<&str>, &str), InvalidReference> {
    if name.is_empty() {
        return Err(InvalidReference::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidReference::TooLong);
    }
    let (host, path) = match name.split_once('/') {
        Some((first, path)) if looks_like_host(first) => (Some(first), path),
        _ => (None, name),
    };
    if host.is_some_and(|host| !is_host(host)) {
        return Err(InvalidReference::Registry);
    }
    if !is_repository(path) {
        return Err(InvalidReference::Repository);
    }
    Ok((host, path))
}

/// The names in full, which must keep to the limit as well.
fn normalise(registry: &str, repository: &str) -> Result<(String, String), InvalidReference> {
    let registry = match registry {
        "index.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let prefix = if official { "library/" } else { "" };
    let repository = format!("{prefix}{repository}");
    match registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
        true => Err(InvalidReference::TooLong),
        false => Ok((registry.to_string(), repository)),
    }
}

fn looks_like_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// True for `host[:port]`, with the host a DNS name, an IPv4 address or an IPv6 one in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((address, rest)) = inner.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest {
                "" => return true,
                _ => ("v6", rest.strip_prefix(':').unwrap_or("bad")),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, port),
            None => (text, "1"),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    host.split('.').all(label) && digits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// True for the path of a repository, without host, tag and digest.
pub fn is_repository(path: &str) -> bool {
    path.len() <= MAX_NAME_BYTES && path.split('/').all(is_path_component)
}

/// True for a tag.
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG_BYTES).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Runs of lower-case letters and digits joined by one dot, one or two underscores, or dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component.split(alphanumeric).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn names_get_what_they_leave_out() {
        let digest = Digest::of(b"");
        assert_eq!(full("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("team/app:v1"), "docker.io/team/app:v1");
        assert_eq!(full("index.docker.io/nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("localhost/a"), "localhost/a:latest");
        assert_eq!(full("localhost:5000/a/b:t"), "localhost:5000/a/b:t");
        assert_eq!(full("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(full("Host/a"), "Host/a:latest");
        let pinned = format!("r.example/a@{digest}");
        assert_eq!(full(&pinned), pinned);
        assert_eq!(full(&format!("a:b@{digest}")), format!("docker.io/library/a:b@{digest}"));
        assert_eq!("a/b".parse::<Reference>().unwrap().short_name(), Some("a/b"));
        assert_eq!("x.y/a".parse::<Reference>().unwrap().short_name(), None);
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let id = "a".repeat(64);
        let long = format!("r.example/{}", "a".repeat(250));
        let bad = [
            "",
            ":t",
            "@",
            "a:",
            "a@sha256:00",
            "UPPER",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a\0",
            "r.example:x/a",
            "r.example:/a",
            "r.example:70000/a",
            "-x.y/a",
            "a:-t",
            "a:t/../b",
            "../a",
            "r.example/../a",
            "[::1/a",
            "[zz]/a",
            "a@b@c",
            "é",
            &id,
            &long,
        ];
        for text in bad {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
        // Short enough as it is written, but not in full (found by fuzzing).
        assert!("a".repeat(250).parse::<Reference>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,300}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(full(&reference.to_string()), reference.to_string());
            }
        }

        #[test]
        fn well_formed_names_survive(
            host in "[a-z][a-z0-9]{0,9}\\.[a-z]{2,5}(:[1-9][0-9]{1,3})?",
            path in "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,5})?(/[a-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let text = format!("{host}/{path}:{tag}");
            let reference: Reference = text.parse().unwrap();
            let repository = reference.repository();
            let official = host == "docker.io" && !path.contains('/');
            prop_assert!(repository == path || official);
            prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        }
    }
}
