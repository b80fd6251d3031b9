//! S3's own protocol: requests that are signed for S3 come here, and are served by the s3s crate.

use crate::{S3, access::Access, ops::Operations};
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Body as _, Incoming},
    header::{HeaderName, HeaderValue, USER_AGENT},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use s3s::{
    Body as S3Body, S3Result,
    auth::{S3Auth, SecretKey},
    host::{S3Host, VirtualHost},
    service::{S3Service, S3ServiceBuilder},
};
use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use wire::{Body, Context, Denial, Identity, Peer, RawHandler, full_body};
use world::World;

tokio::task_local! {
    /// Who makes the request that is being served. s3s asks for secrets by access key alone, and a session's
    /// secret is in its token.
    static CALLER: Caller;
}

/// Who makes a request, once its signature is found to be theirs.
#[derive(Clone)]
struct Caller {
    signer: Result<Arc<Signer>, Denial>,
    ip: IpAddr,
    user_agent: String,
    request_id: String,
}

struct Signer {
    access_key_id: String,
    secret: String,
    principal: wire::Principal,
    region: String,
}

/// Says that a bucket is to be made with tags.
pub(crate) const TAGS: &str = "x-neargate-bucket-tags";

/// Where S3's requests come in.
pub struct Door {
    s3: Arc<S3>,
    service: S3Service,
}

impl Door {
    /// The door of a service.
    pub fn new(s3: Arc<S3>) -> Self {
        let mut builder = S3ServiceBuilder::new(Operations(s3.clone()));
        builder.set_auth(Secrets);
        builder.set_access(Access(s3.clone()));
        builder.set_host(Hosts);
        Self { service: builder.build(), s3 }
    }
}

/// The context of the request that is being served.
pub(crate) fn context(s3: &S3) -> Option<Context> {
    let caller = CALLER.try_with(Clone::clone).ok()?;
    let signer = caller.signer.ok()?;
    let now = s3.world.now();
    let mut context =
        Context::internal(signer.principal.clone(), &signer.region, now, s3.iam.clone());
    (context.source_ip, context.secure) = (caller.ip, caller.ip.is_loopback());
    context.user_agent = caller.user_agent;
    context.request_id = caller.request_id;
    Some(context)
}

/// What names the key and the scope of a request: its Authorization header, or a presigned URL.
struct Signature {
    access_key_id: String,
    token: Option<String>,
    region: Option<String>,
}

fn query(uri: &Uri, wanted: &str) -> Option<String> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    percent_decode_str(value).decode_utf8().ok().map(|text| text.into_owned())
}

/// Whose signature a request has, if it is one for S3.
fn signature(headers: &HeaderMap, uri: &Uri) -> Option<Signature> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let token = header("x-amz-security-token").map(str::to_owned);
    let token = token.or_else(|| query(uri, "x-amz-security-token"));
    let given = header("authorization").unwrap_or_default();
    let credential = given
        .split_once("Credential=")
        .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned());
    if let Some(credential) = credential.or_else(|| query(uri, "X-Amz-Credential")) {
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key_id, _, region, "s3", "aws4_request"] = scope[..] else { return None };
        let (access_key_id, region) = (access_key_id.to_owned(), Some(region.to_owned()));
        return Some(Signature { access_key_id, token, region });
    }
    // Version 2, which old clients and boto3's presigned URLs still use.
    let key = given.strip_prefix("AWS ").and_then(|rest| rest.split(':').next());
    let key = key.map(str::to_owned).or_else(|| query(uri, "AWSAccessKeyId"));
    key.map(|access_key_id| Signature { access_key_id, token, region: None })
}

impl RawHandler for Door {
    fn accepts(&self, head: &Parts) -> bool {
        signature(&head.headers, &head.uri).is_some()
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let request_id = self.s3.world.hex(16).to_uppercase();
        let caller = self.caller(&request, peer.ip, &request_id);
        let (service, world) = (self.service.clone(), self.s3.world.clone());
        Box::pin(async move {
            let (send, receive) = oneshot::channel();
            // It ends what it began when the client hangs up.
            world.clone().spawn("s3 request", async move {
                let request = whole(request, &world).await;
                let answer = CALLER.scope(caller, service.call(request)).await;
                // Nobody waits any more when the client has hung up; the work itself is done.
                let _ = send.send(answer);
            });
            let mut answer = match receive.await {
                Ok(Ok(answer)) => answer.map(|body| body.map_err(std::io::Error::other).boxed()),
                Ok(Err(error)) => {
                    let error: s3s::StdError = error.into();
                    tracing::error!(%error, request_id, "a request to S3 could not be served");
                    broken()
                }
                Err(_) => {
                    tracing::error!(request_id, "an operation of S3 panicked");
                    broken()
                }
            };
            let headers = answer.headers_mut();
            let id = HeaderValue::from_str(&request_id).expect("hexadecimal digits are a header");
            headers.insert(HeaderName::from_static("x-amz-request-id"), id);
            answer
        })
    }
}

/// The longest body of a CreateBucket, in bytes.
const LONGEST_CONFIGURATION: usize = 64 << 10;
/// How long a client may take for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The request for s3s. The tags of a bucket that is made are newer than s3s, which would pass over them in
/// silence; they are told by a header that the access check refuses.
async fn whole(request: Request<Incoming>, world: &World) -> Request<S3Body> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().trim_matches('/');
    let makes_bucket =
        head.method == Method::PUT && !path.contains('/') && head.uri.query().is_none();
    if !makes_bucket || body.is_end_stream() {
        return Request::from_parts(head, S3Body::from(body));
    }
    let bounded = Limited::new(body, LONGEST_CONFIGURATION).collect();
    // A body that does not arrive, or is too long, is none: its signature does not fit, and that is told.
    let collected = world.timeout(PATIENCE, bounded).await.and_then(Result::ok);
    let bytes = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if String::from_utf8_lossy(&bytes).contains("<Tags") {
        head.headers.insert(TAGS, HeaderValue::from_static("given"));
    }
    Request::from_parts(head, S3Body::from(bytes))
}

impl Door {
    fn caller(&self, request: &Request<Incoming>, ip: IpAddr, request_id: &str) -> Caller {
        let signer = signature(request.headers(), request.uri()).ok_or(Denial::Unknown);
        let signer = signer.and_then(|signature| {
            let (key, token) = (signature.access_key_id, signature.token);
            let now = self.s3.world.now();
            let found = self.s3.iam.credential(&key, token.as_deref(), now)?;
            let region = signature.region.unwrap_or_else(|| "us-east-1".to_owned());
            let (secret, principal) = (found.secret, found.principal);
            Ok(Arc::new(Signer { access_key_id: key, secret, principal, region }))
        });
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Caller {
            signer,
            ip,
            user_agent: user_agent.unwrap_or_default().chars().take(512).collect(),
            request_id: request_id.to_owned(),
        }
    }
}

fn broken() -> Response<Body> {
    let mut answer = Response::new(full_body(""));
    *answer.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

/// Gives s3s the caller's secret, and nobody else's.
struct Secrets;

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let caller = CALLER.try_with(|caller| caller.signer.clone());
        match caller.unwrap_or(Err(Denial::Unknown)) {
            Ok(signer) if signer.access_key_id == access_key => {
                Ok(SecretKey::from(signer.secret.as_str()))
            }
            Err(Denial::Expired) => {
                Err(s3s::s3_error!(ExpiredToken, "The provided token has expired."))
            }
            _ => Err(s3s::s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
        }
    }
}

/// Buckets in host names: `BUCKET.localhost`, `BUCKET.s3.REGION.localhost`; with any other host they are in the path.
struct Hosts;

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let bucket = name
            .strip_suffix(".localhost")
            .map(|rest| rest.split_once(".s3").map_or(rest, |(bucket, _)| bucket));
        match bucket.filter(|bucket| !bucket.is_empty() && *bucket != "s3") {
            Some(bucket) => Ok(VirtualHost::new(host).with_bucket(bucket)),
            None => Ok(VirtualHost::new(host)),
        }
    }
}
