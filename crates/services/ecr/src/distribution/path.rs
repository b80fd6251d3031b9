//! Paths and queries of the registry.

use crate::{content::Asked, model::Place, name};
use hyper::{HeaderMap, header::HOST};
use images::Digest;
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, collections::BTreeMap};

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Manifest(Place, Asked),
    Blob(Place, Digest),
    Uploads(Place),
    /// An upload session by its id.
    Upload(Place, String),
    Tags(Place),
    Referrers(Place, Digest),
}

/// Whether a path is the registry's: `/v2/`, or a repository's in an account. Other services' APIs begin with `/v2/`
/// too, but not with an account.
pub(super) fn is_ours(path: &str) -> bool {
    match path.strip_prefix("/v2") {
        None => false,
        Some("" | "/") => true,
        Some(rest) => {
            let account = rest.strip_prefix('/').and_then(|rest| rest.split('/').next());
            account
                .is_some_and(|first| first.len() == 12 && first.bytes().all(|b| b.is_ascii_digit()))
        }
    }
}

/// The realm that the name of the host says, as it does on AWS.
pub(super) fn host_realm(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    name::aws_realm(host.split_once(':').map_or(host, |(host, _)| host))
}

/// A path below a host whose name says the realm, as one that says it itself. One that does so already stays: locations
/// that we answer do.
pub(super) fn with_realm<'a>(path: &'a str, realm: Option<&str>) -> Cow<'a, str> {
    let rest = path.strip_prefix("/v2/").filter(|rest| !rest.is_empty());
    match (rest, realm) {
        (Some(rest), Some(realm))
            if rest.strip_prefix(realm).is_none_or(|rest| !rest.starts_with('/')) =>
        {
            Cow::Owned(format!("/v2/{realm}/{rest}"))
        }
        _ => Cow::Borrowed(path),
    }
}

impl Route {
    pub(super) fn read(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        if rest.is_empty() || rest == "/" {
            return Some(Self::Base);
        }
        let rest = rest.strip_prefix('/')?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return name::place(name).map(Self::Tags);
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads"))
        {
            return name::place(name).map(Self::Uploads);
        }
        let (before, last) = rest.rsplit_once('/')?;
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            return name::place(name).map(|place| Self::Upload(place, last.to_owned()));
        }
        let (name, kind) = before.rsplit_once('/')?;
        let place = name::place(name)?;
        match kind {
            "manifests" => Asked::read(last).map(|asked| Self::Manifest(place, asked)),
            "blobs" => last.parse().ok().map(|digest| Self::Blob(place, digest)),
            "referrers" => last.parse().ok().map(|digest| Self::Referrers(place, digest)),
            _ => None,
        }
    }
}

/// The query of a URI, decoded.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn read(text: &str) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn routes() {
        let place = Place { realm: "123456789012/r-1".into(), name: "team/app".into() };
        let read = |rest: &str| Route::read(&format!("/v2/123456789012/r-1/team/app{rest}"));
        let digest = Digest::of(b"x");
        assert_eq!(Route::read("/v2/"), Some(Route::Base));
        assert_eq!(read("/tags/list"), Some(Route::Tags(place.clone())));
        assert_eq!(
            read("/manifests/v1"),
            Some(Route::Manifest(place.clone(), Asked::Tag("v1".into())))
        );
        let by_digest = Route::Manifest(place.clone(), Asked::Digest(digest.clone()));
        assert_eq!(read(&format!("/manifests/{digest}")), Some(by_digest));
        assert_eq!(read(&format!("/blobs/{digest}")), Some(Route::Blob(place.clone(), digest)));
        assert_eq!(read("/blobs/uploads/"), Some(Route::Uploads(place.clone())));
        assert_eq!(read("/blobs/uploads/id"), Some(Route::Upload(place, "id".into())));
        for odd in ["", "/manifests/", "/manifests/sha256:x", "/blobs/x", "/x/y", "/manifests/a/b"]
        {
            assert_eq!(read(odd), None, "{odd}");
        }
        assert_eq!(Route::read("/v2/_catalog"), None);
        assert!(
            is_ours("/v2/123456789012/r/a") && is_ours("/v2/") && !is_ours("/v2/email/identities")
        );
    }

    #[test]
    fn hosts_that_say_the_realm() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "123456789012.dkr.ecr.r-1.amazonaws.com:443".parse().unwrap());
        let realm = host_realm(&headers).unwrap();
        let path = |path| with_realm(path, Some(&realm)).into_owned();
        assert_eq!(path("/v2/"), "/v2/");
        assert_eq!(path("/v2/team/app/tags/list"), "/v2/123456789012/r-1/team/app/tags/list");
        let whole = "/v2/123456789012/r-1/app/blobs/uploads/x";
        assert_eq!(path(whole), whole);
        assert_eq!(path("/v2/123456789012/r-10/x"), "/v2/123456789012/r-1/123456789012/r-10/x");
        headers.insert(HOST, "127.0.0.1:4566".parse().unwrap());
        assert_eq!(host_realm(&headers), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in "/v2/[a-z0-9/:%._-]{0,80}", query in ".{0,60}") {
            Route::read(&path);
            Query::read(&query);
        }
    }
}
