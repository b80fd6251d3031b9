//! Answers of the registry, good and bad.

use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE},
};
use serde_json::json;
use std::fmt::Display;
use wire::{Body, Fault, full_body};

pub(super) type Reply = Result<Response<Body>, Refusal>;

/// Why a request was not served.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    challenge: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), challenge: None }
    }

    pub(super) fn unsupported(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// Something about an upload; the session stays.
    pub(super) fn upload(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(super) fn digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(super) fn blob_unknown(digest: impl Display) -> Self {
        let message = format!("The layer with digest '{digest}' does not exist in this repository");
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
    }

    pub(super) fn manifest_too_large(limit_bytes: usize) -> Self {
        let message = format!("A manifest can have at most {limit_bytes} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    }

    /// Nobody is logged in.
    pub(super) fn login(host: &str, why: &str) -> Self {
        let challenge = format!("Basic realm=\"http://{host}/\",service=\"ecr.amazonaws.com\"");
        let refusal = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why);
        Self { challenge: Some(challenge), ..refusal }
    }

    pub(super) fn response(self) -> Response<Body> {
        let error = json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut response = Response::new(full_body(error.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let challenge = self.challenge.and_then(|text| HeaderValue::from_str(&text).ok());
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// AWS's faults, as docker shows them: the specification's code, ECR's own words.
impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let (status, code) = match &*fault.code {
            "RepositoryNotFoundException" => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            "ImageNotFoundException" => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            "LayersNotFoundException" | "ReferencedImagesNotFoundException" => {
                (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
            }
            "ImageTagAlreadyExistsException" => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            "ImageDigestDoesNotMatchException" | "InvalidLayerException" => {
                (StatusCode::BAD_REQUEST, "DIGEST_INVALID")
            }
            "InvalidLayerPartException" => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID")
            }
            "UploadNotFoundException" => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            "LimitExceededException" => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            "AccessDeniedException" => (StatusCode::FORBIDDEN, "DENIED"),
            "InvalidParameterException" => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            _ => (
                StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                "UNKNOWN",
            ),
        };
        Self::new(status, code, fault.message)
    }
}

/// A good answer in the making.
pub(super) struct Good(Response<Body>);

pub(super) fn reply(status: StatusCode) -> Good {
    let mut response = Response::new(full_body(""));
    *response.status_mut() = status;
    Good(response)
}

impl Good {
    /// With a header. What cannot stand in one (a line break in a name from outside) is left out.
    pub(super) fn header(mut self, name: &'static str, value: impl Display) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.0.headers_mut().insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(super) fn text(self, content_type: &str, text: impl Into<bytes::Bytes>) -> Reply {
        self.header("content-type", content_type).body(full_body(text))
    }

    pub(super) fn body(self, body: Body) -> Reply {
        let Self(mut response) = self;
        *response.body_mut() = body;
        Ok(response)
    }

    pub(super) fn empty(self) -> Reply {
        Ok(self.0)
    }
}
