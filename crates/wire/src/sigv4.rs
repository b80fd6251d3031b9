//! Signature Version 4: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.
//!
//! Both forms are read, the Authorization header and the presigned query string. Each way to be wrong has
//! AWS's own answer.

use crate::{fault::Fault, shape::Family};
use hyper::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{digest, hmac};
use std::time::Duration;
use world::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the client's clock may be from ours.
const SKEW: Duration = Duration::from_secs(15 * 60);
/// The longest life of a presigned URL.
const LONGEST_EXPIRY_S: u64 = 7 * 24 * 3600;
/// The payload hash that stands for "not signed".
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// RFC 3986's unreserved characters stay as they are.
const URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, for whole paths.
const URI_PATH: &AsciiSet = &URI.remove(b'/');

/// What a request says of its signature, before anything of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The access key's id.
    pub access_key_id: String,
    /// `YYYYMMDD` of the credential scope.
    pub date: String,
    /// The region of the credential scope.
    pub region: String,
    /// The service of the credential scope.
    pub service: String,
    /// The token of a session.
    pub session_token: Option<String>,
    signed_headers: Vec<String>,
    signature: String,
    time: Timestamp,
    /// Presigned: how long it holds.
    expires: Option<Duration>,
}

/// The part of a request that is signed, besides its body.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query string.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// Every way in which a signature can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// There is none.
    Missing,
    /// There is one that lacks parts or has malformed ones.
    Incomplete(String),
    /// The access key or session token stands for nobody.
    UnknownKey,
    /// The session is over.
    ExpiredToken,
    /// It was made too long ago, or its presigned life is over.
    Expired(String),
    /// It was made in the future.
    NotYetCurrent(String),
    /// It does not fit the request.
    Mismatch(String),
    /// It was made for another service.
    WrongService(&'static str),
}

const DOES_NOT_MATCH: &str = "The request signature we calculated does not match the signature you provided. \
     Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";
const INVALID_TOKEN: &str = "The security token included in the request is invalid.";

impl SignatureFault {
    /// AWS's answer in the dialect of the service.
    pub fn fault(self, family: Family) -> Fault {
        // Codes: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html and
        // https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
        use Family::{Ec2, Json, Query};
        let (code, status, message) = match (self, family) {
            (Self::Missing, Json) => {
                ("MissingAuthenticationTokenException", 400, "Missing Authentication Token".into())
            }
            (Self::Missing, Query) => (
                "MissingAuthenticationToken",
                403,
                "Request is missing Authentication Token".to_owned(),
            ),
            (Self::Missing, Ec2) => (
                "MissingAuthenticationToken",
                403,
                "The request must contain either a valid (registered) AWS access key ID or X.509 certificate."
                    .into(),
            ),
            (Self::Incomplete(message), Json) => ("IncompleteSignatureException", 400, message),
            (Self::Incomplete(message), _) => ("IncompleteSignature", 400, message),
            (Self::UnknownKey, Json) => ("UnrecognizedClientException", 400, INVALID_TOKEN.into()),
            (Self::UnknownKey, Query) => {
                ("InvalidClientTokenId", 403, "The security token included in the request is invalid".into())
            }
            (Self::ExpiredToken, Json) => (
                "ExpiredTokenException",
                400,
                "The security token included in the request is expired".into(),
            ),
            (Self::ExpiredToken, Query) => (
                "ExpiredToken",
                403,
                "The security token included in the request is expired".into(),
            ),
            (Self::ExpiredToken, Ec2) => ("RequestExpired", 400, "Request has expired.".into()),
            (Self::Expired(message) | Self::NotYetCurrent(message), Json) => {
                ("InvalidSignatureException", 400, message)
            }
            (Self::Expired(message) | Self::NotYetCurrent(message), Query) => {
                ("SignatureDoesNotMatch", 403, message)
            }
            (Self::Expired(_) | Self::NotYetCurrent(_), Ec2) => {
                ("RequestExpired", 400, "Request has expired.".into())
            }
            (Self::Mismatch(message), Json) => ("InvalidSignatureException", 400, message),
            (Self::Mismatch(message), Query) => ("SignatureDoesNotMatch", 403, message),
            (Self::WrongService(service), family) => {
                let message = format!("Credential should be scoped to correct service: '{service}'. ");
                match family {
                    Json => ("InvalidSignatureException", 400, message),
                    Query => ("SignatureDoesNotMatch", 403, message),
                    Ec2 => ("AuthFailure", 401, message),
                }
            }
            (Self::UnknownKey | Self::Mismatch(_), Ec2) => (
                "AuthFailure",
                401,
                "AWS was not able to validate the provided access credentials".into(),
            ),
        };
        Fault::new(code, message).status(status)
    }
}

/// Reads the authorization of a request, from its header or its query string.
pub fn read(head: Head) -> Result<Authorization, SignatureFault> {
    if let Some(header) = head.headers.get("authorization") {
        let text = header.to_str().map_err(|_| incomplete("Authorization header is not ASCII."))?;
        return read_header(head, text);
    }
    match query_value(head.uri, "X-Amz-Algorithm") {
        Some(_) => read_query(head),
        None => Err(SignatureFault::Missing),
    }
}

fn incomplete(message: impl Into<String>) -> SignatureFault {
    SignatureFault::Incomplete(message.into())
}

fn read_header(head: Head, text: &str) -> Result<Authorization, SignatureFault> {
    let Some(rest) = text.strip_prefix(ALGORITHM) else {
        return Err(incomplete(format!(
            "Unsupported AWS 'algorithm': only {ALGORITHM} is supported."
        )));
    };
    let part = |name: &str| {
        let mut parts = rest.split(',').map(str::trim);
        let value = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(|| {
            incomplete(format!(
                "Authorization header requires '{name}' parameter. Authorization={ALGORITHM}"
            ))
        })
    };
    let credential = part("Credential")?;
    let signed_headers = part("SignedHeaders")?;
    let signature = part("Signature")?;
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let date = header("x-amz-date").or_else(|| header("date")).ok_or_else(|| {
        incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        )
    })?;
    let session_token = header("x-amz-security-token").map(str::to_owned);
    assemble(credential, signed_headers, signature, date, session_token, None)
}

fn read_query(head: Head) -> Result<Authorization, SignatureFault> {
    let value = |name: &str| {
        query_value(head.uri, name).ok_or_else(|| {
            incomplete(format!("AWS query-string parameters must include '{name}'."))
        })
    };
    if value("X-Amz-Algorithm")? != ALGORITHM {
        return Err(incomplete(format!(
            "Unsupported AWS 'algorithm': only {ALGORITHM} is supported."
        )));
    }
    let expires_s = match query_value(head.uri, "X-Amz-Expires") {
        None => SKEW.as_secs(),
        Some(text) => {
            text.parse().ok().filter(|seconds| *seconds <= LONGEST_EXPIRY_S).ok_or_else(|| {
                incomplete("X-Amz-Expires must be a number of seconds below 604801.")
            })?
        }
    };
    assemble(
        &value("X-Amz-Credential")?,
        &value("X-Amz-SignedHeaders")?,
        &value("X-Amz-Signature")?,
        &value("X-Amz-Date")?,
        query_value(head.uri, "X-Amz-Security-Token"),
        Some(Duration::from_secs(expires_s)),
    )
}

fn assemble(
    credential: &str,
    signed_headers: &str,
    signature: &str,
    date: &str,
    session_token: Option<String>,
    expires: Option<Duration>,
) -> Result<Authorization, SignatureFault> {
    let scope: Vec<&str> = credential.split('/').collect();
    let [access_key_id, day, region, service, "aws4_request"] = scope[..] else {
        return Err(incomplete(
            "Credential must have exactly 5 slash-delimited elements, \
             e.g. keyid/date/region/service/term.",
        ));
    };
    let word = |text: &str| {
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())
    };
    if ![access_key_id, day, region, service].into_iter().all(word) {
        return Err(incomplete("Credential has an empty or malformed element."));
    }
    let time = parse_basic(date).ok_or_else(|| {
        incomplete(
            "Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601.",
        )
    })?;
    let basic = time.basic();
    if !basic.starts_with(day) || day.len() != 8 {
        return Err(SignatureFault::Mismatch(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
             '{day}' != '{}', from '{basic}'.",
            &basic[..8]
        )));
    }
    Ok(Authorization {
        access_key_id: access_key_id.to_owned(),
        date: day.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        session_token,
        signed_headers: signed_headers.split(';').map(str::to_ascii_lowercase).collect(),
        signature: signature.to_owned(),
        time,
        expires,
    })
}

/// Reads `20260102T030405Z`, and the HTTP date that some old clients sign.
fn parse_basic(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    if b.len() == 16 && b[8] == b'T' && b[15] == b'Z' && text.is_ascii() {
        let (d, t) = (&text[..8], &text[9..15]);
        let rfc =
            format!("{}-{}-{}T{}:{}:{}Z", &d[..4], &d[4..6], &d[6..], &t[..2], &t[2..4], &t[4..]);
        return Timestamp::parse_rfc3339(&rfc);
    }
    Timestamp::parse_rfc2822(text)
}

impl Authorization {
    /// Checks the time and the signature. `payload_hash` is what stands in the canonical request's last line: the
    /// lower-case hex SHA-256 of the body, or one of AWS's words for bodies that are not hashed.
    pub fn verify(
        &self,
        head: Head,
        payload_hash: &str,
        secret: &str,
        now: Timestamp,
    ) -> Result<(), SignatureFault> {
        self.check_signed_headers(head.headers)?;
        self.check_time(now)?;
        let canonical = self.canonical_request(head, payload_hash)?;
        let key = signing_key(secret, &self.date, &self.region, &self.service);
        let expected = decode_hex(&self.signature);
        let expected = expected.ok_or_else(|| SignatureFault::Mismatch(DOES_NOT_MATCH.into()))?;
        hmac::verify(&key, self.string_to_sign(&canonical).as_bytes(), &expected)
            .map_err(|_| SignatureFault::Mismatch(DOES_NOT_MATCH.into()))
    }

    /// The signature, for continuing it over chunks.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Whether it came in the query string.
    pub fn is_presigned(&self) -> bool {
        self.expires.is_some()
    }

    /// What changes a request's meaning must be signed: the host and all of `x-amz-*`.
    fn check_signed_headers(&self, headers: &HeaderMap) -> Result<(), SignatureFault> {
        let signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        if !signed("host") {
            return Err(SignatureFault::Mismatch(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".into(),
            ));
        }
        for name in headers.keys().map(|name| name.as_str()) {
            // Session tokens may stay unsigned (some services want that); they are bound to the key anyway.
            if name.starts_with("x-amz-") && name != "x-amz-security-token" && !signed(name) {
                return Err(SignatureFault::Mismatch(format!(
                    "'{name}' must be a 'SignedHeader' in the AWS Authorization."
                )));
            }
        }
        Ok(())
    }

    fn check_time(&self, now: Timestamp) -> Result<(), SignatureFault> {
        let (signed, current) = (self.time.basic(), now.basic());
        let life = self.expires.unwrap_or(SKEW);
        if now.since(self.time) > life {
            let last = Timestamp::from_millis(now.millis() - life.as_millis() as i64).basic();
            return Err(SignatureFault::Expired(format!(
                "Signature expired: {signed} is now earlier than {last} ({current} - {} min.)",
                life.as_secs() / 60
            )));
        }
        if self.time.since(now) > SKEW {
            let last = (now + SKEW).basic();
            return Err(SignatureFault::NotYetCurrent(format!(
                "Signature not yet current: {signed} is still later than {last} ({current} + 15 min.)"
            )));
        }
        Ok(())
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    fn string_to_sign(&self, canonical: &str) -> String {
        format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.time.basic(),
            self.scope(),
            sha256_hex(canonical.as_bytes())
        )
    }

    fn canonical_request(&self, head: Head, payload_hash: &str) -> Result<String, SignatureFault> {
        let mut names = self.signed_headers.clone();
        names.sort();
        let mut lines = String::new();
        for name in &names {
            let values = head.headers.get_all(name.as_str()).iter();
            let values: Result<Vec<String>, _> =
                values.map(|value| value.to_str().map(collapse_spaces)).collect();
            let values = values.map_err(|_| SignatureFault::Mismatch(DOES_NOT_MATCH.into()))?;
            lines.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        Ok(format!(
            "{}\n{}\n{}\n{lines}\n{}\n{payload_hash}",
            head.method,
            canonical_path(head.uri.path(), &self.service),
            canonical_query(head.uri),
            names.join(";"),
        ))
    }
}

/// Checks a signature that is not of an HTTP request: `canonical` is what was signed in the request's stead, at `time`
/// as the signer wrote it (`YYYYMMDDTHHMMSS` or with a `Z`), for `scope` (region and service). As with requests, the
/// signer's clock may be 15 minutes off.
pub fn verify_canonical(
    canonical: &str,
    time: &str,
    (region, service): (&str, &str),
    signature: &str,
    secret: &str,
    now: Timestamp,
) -> bool {
    let Some(date) = time.get(..8) else { return false };
    let Some(signed) = parse_basic(&format!("{}Z", time.trim_end_matches('Z'))) else {
        return false;
    };
    if now.since(signed) > SKEW || signed.since(now) > SKEW {
        return false;
    }
    let hash = sha256_hex(canonical.as_bytes());
    let text = format!("{ALGORITHM}\n{time}\n{date}/{region}/{service}/aws4_request\n{hash}");
    let key = signing_key(secret, date, region, service);
    decode_hex(signature).is_some_and(|given| hmac::verify(&key, text.as_bytes(), &given).is_ok())
}

/// S3 signs the path as sent; the others sign it normalised and encoded once more.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        return utf8_percent_encode(&decoded, URI_PATH).to_string();
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." {
            kept.pop();
        } else {
            kept.push(segment);
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    utf8_percent_encode(&format!("/{}{slash}", kept.join("/")), URI_PATH).to_string()
}

fn canonical_query(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| (recode(name), recode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn recode(text: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    percent_encoding::percent_encode(&decoded, URI).to_string()
}

fn collapse_spaces(text: &str) -> String {
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn query_value(uri: &Uri, wanted: &str) -> Option<String> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
    percent_decode_str(value).decode_utf8().ok().map(|text| text.into_owned())
}

fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let secret = format!("AWS4{secret}");
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    for part in [date, region, service, "aws4_request"] {
        let tag = hmac::sign(&key, part.as_bytes());
        key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
    }
    key
}

/// The lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A presigned URL's query string (without `?`) for a GET of `path` on `host`, good for `expires`.
pub fn presign_get(
    key: (&str, &str),
    scope: (&str, &str),
    host: &str,
    path: &str,
    time: Timestamp,
    expires: Duration,
) -> String {
    let ((access_key_id, secret), (region, service)) = (key, scope);
    let basic = time.basic();
    let date = &basic[..8];
    let credential = format!("{access_key_id}/{date}/{region}/{service}/aws4_request");
    let query = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={basic}&X-Amz-Expires={}\
         &X-Amz-SignedHeaders=host",
        utf8_percent_encode(&credential, URI),
        expires.as_secs()
    );
    let canonical = format!(
        "GET\n{}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED_PAYLOAD}",
        canonical_path(path, service)
    );
    let to_sign = format!(
        "{ALGORITHM}\n{basic}\n{date}/{region}/{service}/aws4_request\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let tag = hmac::sign(&signing_key(secret, date, region, service), to_sign.as_bytes());
    format!("{query}&X-Amz-Signature={}", hex(tag.as_ref()))
}

#[cfg(test)]
mod tests;
