//! The OCI distribution API under `/v2/ACCOUNT/REGION/NAME`, with ECR's permissions and its words.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod answer;
mod blobs;
mod manifests;
mod path;
mod uploads;

use crate::{
    Ecr,
    access::LOGIN_NAME,
    model::{Place, Repository},
};
pub(crate) use blobs::TOKEN;

use answer::{Refusal, Reply, reply};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use path::{Query, Route};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use wire::{Body, Context, Peer, Principal, RawHandler};

/// How long a client may pause within a body.
const PAUSE: Duration = Duration::from_secs(60);
const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The registry that docker, podman, buildah and skopeo speak to.
pub struct Registry(pub Arc<Ecr>);

/// A request whose path was understood.
struct Call {
    method: Method,
    headers: HeaderMap,
    query: Query,
    /// `account/region`, where the host's name says it, as on AWS.
    realm: Option<String>,
    peer: Peer,
    body: Incoming,
}

impl RawHandler for Registry {
    fn accepts(&self, head: &hyper::http::request::Parts) -> bool {
        let path = head.uri.path();
        path::is_ours(path) || path.starts_with("/v2") && path::host_realm(&head.headers).is_some()
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let query = Query::read(head.uri.query().unwrap_or_default());
            let realm = path::host_realm(&head.headers);
            let path = path::with_realm(head.uri.path(), realm.as_deref());
            let (method, headers) = (head.method, head.headers);
            let call = Call { method, headers, query, realm, peer, body };
            let answer = match Route::read(&path) {
                Some(route) => self.0.answer(route, call).await,
                None => Err(Refusal::unsupported("This path is none of the registry's.")),
            };
            let mut response = answer.unwrap_or_else(Refusal::response);
            response.headers_mut().insert(VERSION, HeaderValue::from_static("registry/2.0"));
            response
        })
    }
}

impl Ecr {
    async fn answer(self: &Arc<Self>, route: Route, call: Call) -> Reply {
        match (route, call.method.as_str()) {
            (Route::Base, "GET" | "HEAD") => {
                self.principal(&call.headers)?;
                reply(StatusCode::OK).text("application/json", "{}")
            }
            (Route::Manifest(place, asked), "GET" | "HEAD") => {
                self.get_manifest(&call, place, asked).await
            }
            (Route::Manifest(place, asked), "PUT") => self.put_manifest(call, place, asked).await,
            (Route::Manifest(place, asked), "DELETE") => {
                self.delete_manifest(&call, place, asked).await
            }
            (Route::Tags(place), "GET") => self.list_tags(&call, &place),
            (Route::Referrers(place, digest), "GET") => self.referrers(&call, &place, &digest),
            (Route::Blob(place, digest), "GET" | "HEAD") => {
                self.get_blob(&call, place, digest).await
            }
            (Route::Blob(place, digest), "DELETE") => self.delete_blob(&call, place, digest).await,
            (Route::Uploads(place), "POST") => self.start_upload(call, place).await,
            (Route::Upload(place, id), "GET") => self.upload_status(&call, &place, &id).await,
            (Route::Upload(place, id), "PATCH") => self.continue_upload(call, place, id).await,
            (Route::Upload(place, id), "PUT") => self.finish_upload(call, place, id).await,
            (Route::Upload(place, id), "DELETE") => self.cancel_upload(&call, &place, &id).await,
            _ => Err(Refusal::unsupported("The registry has no such operation on this path.")),
        }
    }

    /// Who is logged in; otherwise the answer that asks for a login.
    fn principal(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let refused = |why: &'static str| Refusal::login(&self.host, why);
        let Some(given) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return Err(refused("Not Authorized"));
        };
        let pair = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let pair = pair.and_then(|(_, pair)| STANDARD.decode(pair.trim()).ok());
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        let password = pair.as_deref().and_then(|pair| pair.split_once(':'));
        let password =
            password.filter(|(name, _)| *name == LOGIN_NAME).map(|(_, password)| password);
        let principal = password.and_then(|password| self.logged_in(password));
        principal.ok_or_else(|| {
            refused("Your authorization token has expired or is not valid. Reauthenticate and try again.")
        })
    }

    /// The repository, if whoever is logged in may do `action` to it; and in whose name.
    fn enter(
        &self,
        call: &Call,
        place: &Place,
        action: &str,
    ) -> Result<(Context, Arc<Repository>), Refusal> {
        let principal = self.principal(&call.headers)?;
        let ctx = self.context(principal, place.region(), Some(call.peer.ip));
        let repository = self.find(&ctx, Some(place.account()), &place.name, action)?;
        Ok((ctx, repository))
    }

    /// Hands the frames of a body on until it ends. A client that hangs up or rests too long is an error.
    async fn frames<F>(
        &self,
        mut body: Incoming,
        mut take: impl FnMut(bytes::Bytes) -> F,
    ) -> Result<(), Refusal>
    where
        F: Future<Output = Result<(), Refusal>>,
    {
        loop {
            let frame = self.world.timeout(PAUSE, body.frame()).await;
            let frame = frame.ok_or_else(|| Refusal::upload("The body did not arrive in time."))?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|_| Refusal::upload("The body broke off."))?;
            if let Ok(data) = frame.into_data() {
                take(data).await?;
            }
        }
    }
}
