//! Who git says that it is: HTTP's basic authentication with what `aws codecommit credential-helper` signs, or with a
//! user's git credentials (IAM's service-specific ones).

use crate::CodeCommit;
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, header::AUTHORIZATION};
use wire::{Identity, Principal, sigv4};

/// The service that signatures and credentials are for.
const SERVICE: &str = "codecommit";
const CREDENTIAL_SERVICE: &str = "codecommit.amazonaws.com";
/// What a password of the credential helper begins with: `20260102T030405`, before a `Z` and the signature.
const TIME_LENGTH: usize = 15;
/// Longer user names (an access key with a session's token) and passwords are nobody's.
const LONGEST: usize = 8192;

/// Why nobody is logged in.
pub(crate) enum NoLogin {
    /// Nothing was said.
    Missing,
    /// It is wrong.
    Wrong,
}

/// What a client signs in a request's stead: host (without a port) and path of the clone URL.
pub(crate) struct Place<'a> {
    pub host: &'a str,
    pub region: &'a str,
    pub path: &'a str,
}

impl CodeCommit {
    pub(crate) fn login(&self, headers: &HeaderMap, place: &Place) -> Result<Principal, NoLogin> {
        let given = headers.get(AUTHORIZATION).ok_or(NoLogin::Missing)?;
        let (user, password) = given.to_str().ok().and_then(basic).ok_or(NoLogin::Wrong)?;
        let own = self.iam.service_login(CREDENTIAL_SERVICE, &user, &password);
        own.or_else(|| self.signed(&user, &password, place)).ok_or(NoLogin::Wrong)
    }

    /// `AKID` or `AKID%TOKEN`, with `TIMEZSIGNATURE`.
    fn signed(&self, user: &str, password: &str, place: &Place) -> Option<Principal> {
        let (key, token) = match user.split_once('%') {
            Some((key, token)) => (key, Some(token)),
            None => (user, None),
        };
        let (time, rest) = password.split_at_checked(TIME_LENGTH)?;
        let signature = rest.strip_prefix('Z')?;
        let now = self.world.now();
        let credential = self.iam.credential(key, token, now).ok()?;
        let canonical = format!("GIT\n{}\n\nhost:{}\n\nhost\n", place.path, place.host);
        let scope = (place.region, SERVICE);
        let secret = &credential.secret;
        sigv4::verify_canonical(&canonical, time, scope, signature, secret, now)
            .then_some(credential.principal)
    }
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, pair) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || pair.len() > LONGEST {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
