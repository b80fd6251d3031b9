//! What registries answer, when it is not what was asked for.

use crate::{Reference, SourceError};
use reqwest::{Response, StatusCode, header};
use std::time::Duration;

/// Turns the answers after which one should try again into errors.
pub(super) async fn transient(
    response: Response,
    reference: &Reference,
) -> Result<Response, SourceError> {
    let status = response.status();
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Ok(response);
    }
    expect(response, reference, &[]).await
}

/// Passes an answer with one of the `good` statuses, and makes an error of any other.
pub(super) async fn expect(
    response: Response,
    reference: &Reference,
    good: &[StatusCode],
) -> Result<Response, SourceError> {
    let status = response.status();
    if good.contains(&status) {
        return Ok(response);
    }
    let host = reference.registry().to_string();
    let after = header_text(&response, header::RETRY_AFTER);
    let after = after.and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
    let detail = words(response).await;
    Err(match status {
        StatusCode::UNAUTHORIZED => SourceError::Unauthorised { host, detail },
        StatusCode::FORBIDDEN => {
            SourceError::Denied { host, repository: reference.repository().into(), detail }
        }
        StatusCode::TOO_MANY_REQUESTS => SourceError::RateLimited { host, detail, after },
        status if status.is_server_error() => {
            SourceError::Server { host, status: status.as_u16(), detail }
        }
        status => SourceError::Protocol { host, detail: format!("status {status}: {detail}") },
    })
}

/// What an error answer says, shortened: the distribution specification's messages, or just the
/// status.
pub(super) async fn words(mut response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let mut body = Vec::new();
    // A broken or endless error body leaves us with the status, which is enough.
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > 8192 {
            break;
        }
    }
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    match answer.and_then(|answer| answer.errors.into_iter().next()) {
        Some(Item { code, message }) => {
            let text = format!("{code}: {message}");
            text.chars().filter(|c| !c.is_control()).take(300).collect()
        }
        None => status.to_string(),
    }
}

pub(super) fn header_text(response: &Response, name: header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(String::from)
}
