//! Access tokens: <https://distribution.github.io/distribution/spec/auth/token/>.

use super::answer::{expect, words};
use super::client::{RegistrySource, is_loopback};
use super::{Credentials, Endpoint};
use crate::source::{SourceError, connection_error};
use base64::Engine;
use reqwest::{StatusCode, Url, header};
use std::time::Duration;

/// The most of an answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// What the specification says a token lasts if the answer does not.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// What a token is asked for with.
pub(super) struct Token {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    pub(super) credentials: Option<Credentials>,
}

/// What a token service answers.
#[derive(serde::Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl RegistrySource {
    /// Fetches a token; gives how long it may be used, too.
    pub(super) async fn token(
        &self,
        endpoint: &Endpoint,
        wanted: Token,
    ) -> Result<(String, Duration), SourceError> {
        let registry = endpoint.reference.registry();
        let insecure = endpoint.insecure || is_loopback(registry);
        let bad = |detail: &str| protocol(registry, detail);
        let url = Url::parse(&wanted.realm).map_err(|_| bad("its token realm is no URL"))?;
        if url.scheme() != "https" && !(insecure && url.scheme() == "http") {
            return Err(bad("its token realm is not on TLS"));
        }
        let client = self.client(insecure);
        let host = url.host_str().unwrap_or_default().to_string();
        let sent = request(client, url, &wanted).send().await;
        let response = sent.map_err(|failed| connection_error(&host, failed))?;
        match response.status() {
            StatusCode::OK => {}
            // Some issuers say so even to a wrong password.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let detail = words(response).await;
                return Err(SourceError::Unauthorised { host: registry.into(), detail });
            }
            _ => {
                expect(response, &endpoint.reference, &[]).await?;
                unreachable!("no status was good");
            }
        }
        let bytes = self.body(response, &host, MAX_ANSWER_BYTES).await?;
        read(&bytes.ok_or_else(|| bad("its token is too large"))?, registry)
    }
}

fn protocol(registry: &str, detail: &str) -> SourceError {
    SourceError::Protocol { host: registry.into(), detail: detail.into() }
}

fn request(client: &reqwest::Client, mut url: Url, wanted: &Token) -> reqwest::RequestBuilder {
    let service = wanted.service.as_deref();
    if let Some(Credentials::IdentityToken(token)) = &wanted.credentials {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service.unwrap_or_default()),
            ("scope", &wanted.scope),
            ("client_id", "neargate"),
            ("refresh_token", token),
        ];
        let kind = "application/x-www-form-urlencoded";
        return client.post(url).header(header::CONTENT_TYPE, kind).body(form_body(&form));
    }
    url.query_pairs_mut().append_pair("scope", &wanted.scope);
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    match &wanted.credentials {
        Some(Credentials::Basic { user, password }) => {
            client.get(url).header(header::AUTHORIZATION, basic(user, password))
        }
        _ => client.get(url),
    }
}

fn read(answer: &[u8], registry: &str) -> Result<(String, Duration), SourceError> {
    let bad = |detail: &str| protocol(registry, detail);
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| bad("its token is no JSON"))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| bad("its token service gives no token"))?;
    if !token.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err(bad("its token does not fit into a header"));
    }
    let life = answer.expires_in.map_or(TOKEN_LIFE, |s| Duration::from_secs(s.min(86_400)));
    // Used a little less long, for the way there.
    Ok((token, life.mul_f32(0.9)))
}

pub(super) fn basic(user: &str, password: &str) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    format!("Basic {}", engine.encode(format!("{user}:{password}")))
}

fn form_body(pairs: &[(&str, &str)]) -> String {
    let encode =
        |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    pairs.join("&")
}
