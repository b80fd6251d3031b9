//! Git over HTTP (<https://git-scm.com/docs/http-protocol>, the smart one), on hosts called
//! `git-codecommit.REGION.…`: who it is, what they may, and then the installed git's own `http-backend`.

mod input;
mod output;

use crate::{
    CodeCommit, commands,
    login::{NoLogin, Place},
    model::Repository,
    ops,
};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE},
    http::request::Parts,
};
use input::Input;
use std::{future::Future, pin::Pin, sync::Arc};
use wire::{Body, Context, Fault, Peer, RawHandler, full_body};

const HOST_PREFIX: &str = "git-codecommit.";
const PATH_PREFIX: &str = "/v1/repos/";

/// The repositories that git speaks to.
pub struct GitDoor(pub Arc<CodeCommit>);

/// Why a request was not served.
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    fn response(self) -> Response<Body> {
        // Git shows plain text of a refusal to whoever runs it.
        let mut response = Response::new(full_body(format!("{}\n", self.message)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status == StatusCode::UNAUTHORIZED {
            let asked = HeaderValue::from_static("Basic realm=\"AWS CodeCommit\"");
            headers.insert(WWW_AUTHENTICATE, asked);
        }
        response
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let status = match &*fault.code {
            "AccessDeniedException" => StatusCode::FORBIDDEN,
            "RepositoryDoesNotExistException" | "InvalidRepositoryNameException" => {
                StatusCode::NOT_FOUND
            }
            _ => StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        Self::new(status, fault.message)
    }
}

/// What of git a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Pull,
    Push,
}

/// A request whose head was understood.
struct Call {
    service: Service,
    /// The references as they are, or the exchange itself.
    advertise: bool,
    repository: String,
}

impl Call {
    fn read(head: &Parts) -> Result<Self, Refusal> {
        let missing = || Refusal::new(StatusCode::NOT_FOUND, "There is no such path.");
        let rest = head.uri.path().strip_prefix(PATH_PREFIX).ok_or_else(missing)?;
        let (repository, path) = rest.split_once('/').ok_or_else(missing)?;
        let (advertise, service) = match (path, &head.method) {
            ("info/refs", &Method::GET) => match head.uri.query() {
                Some("service=git-upload-pack") => (true, Service::Pull),
                Some("service=git-receive-pack") => (true, Service::Push),
                _ => {
                    return Err(Refusal::new(
                        StatusCode::FORBIDDEN,
                        "Only git's smart HTTP protocol is spoken here.",
                    ));
                }
            },
            ("git-upload-pack", &Method::POST) => (false, Service::Pull),
            ("git-receive-pack", &Method::POST) => (false, Service::Push),
            _ => return Err(missing()),
        };
        Ok(Self { service, advertise, repository: repository.to_owned() })
    }

    fn action(&self) -> &'static str {
        match self.service {
            Service::Pull => "codecommit:GitPull",
            Service::Push => "codecommit:GitPush",
        }
    }

    /// The path of the repository's that `http-backend` is asked for.
    fn path(&self) -> &'static str {
        match (self.advertise, self.service) {
            (true, _) => "/info/refs",
            (false, Service::Pull) => "/git-upload-pack",
            (false, Service::Push) => "/git-receive-pack",
        }
    }
}

/// The host without its port, in lower case.
fn host(head: &Parts) -> Option<String> {
    let host = head.uri.host().map(str::to_owned).or_else(|| {
        let host = head.headers.get(HOST)?.to_str().ok()?;
        Some(host.split(':').next().unwrap_or_default().to_owned())
    });
    host.map(|host| host.to_ascii_lowercase())
}

/// The region in `git-codecommit.REGION.…`.
fn region(host: &str) -> Option<&str> {
    host.strip_prefix(HOST_PREFIX)?.split('.').next().filter(|region| !region.is_empty())
}

impl RawHandler for GitDoor {
    fn accepts(&self, head: &Parts) -> bool {
        head.uri.path().starts_with(PATH_PREFIX)
            && host(head).is_some_and(|host| region(&host).is_some())
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let answer = self.0.clone().git(head, body, peer).await;
            answer.unwrap_or_else(Refusal::response)
        })
    }
}

impl CodeCommit {
    async fn git(
        self: Arc<Self>,
        head: Parts,
        body: Incoming,
        peer: Peer,
    ) -> Result<Response<Body>, Refusal> {
        let call = Call::read(&head)?;
        let ctx = self.enter(&head, &call, peer)?;
        let repository = ops::find(&self, &ctx, &call.repository, call.action())?;
        let gzip = head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let gzip = match gzip {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(_) => {
                return Err(Refusal::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "Bodies come plain or with gzip.",
                ));
            }
        };
        let mut input = Input::new(body, gzip, self.world.clone());
        if call.service == Service::Push && !call.advertise {
            self.allow_references(&ctx, &repository, &mut input).await?;
        }
        let permit = self.git.turn().await.ok_or_else(|| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Too many clients are at it; try again.")
        })?;
        let bare = self.git.bare(&repository.id);
        let child =
            bare.http_backend(&environment(&head, &ctx), call.path()).map_err(Fault::from)?;
        let pushed = (call.service == Service::Push && !call.advertise).then(|| output::Push {
            repository: repository.id.clone(),
            caller: ctx.principal.arn.clone(),
        });
        let parts = output::start(self.clone(), child, input, pushed, permit).await?;
        let (status, headers, answer) = parts;
        let mut response = Response::new(BodyExt::boxed(answer));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Who asks, and for which region.
    fn enter(&self, head: &Parts, call: &Call, peer: Peer) -> Result<Context, Refusal> {
        let host = host(head).unwrap_or_default();
        let region = region(&host).unwrap_or_default();
        let path = format!("{PATH_PREFIX}{}", call.repository);
        let place = Place { host: &host, region, path: &path };
        let principal = self.login(&head.headers, &place).map_err(|none| match none {
            NoLogin::Missing => Refusal::new(
                StatusCode::UNAUTHORIZED,
                "Log in with `aws codecommit credential-helper` or with git credentials of IAM.",
            ),
            // As on AWS: git does not ask again, and says what it was told.
            NoLogin::Wrong => Refusal::new(
                StatusCode::FORBIDDEN,
                "The user name or password is not valid, or the signature is more than 15 minutes old.",
            ),
        })?;
        let mut ctx = Context::internal(principal, region, self.world.now(), self.iam.clone());
        ctx.source_ip = peer.ip;
        ctx.user_agent = text(&head.headers, "user-agent").unwrap_or_default();
        Ok(ctx)
    }

    /// Asks for every reference of a push whether the caller may change it: policies can name them
    /// (`codecommit:References`).
    /// <https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-conditional-branch.html>
    async fn allow_references(
        &self,
        ctx: &Context,
        repository: &Repository,
        input: &mut Input,
    ) -> Result<(), Refusal> {
        let names = loop {
            match commands::references(input.seen()) {
                Ok(names) => break names,
                Err(commands::Unread::Signed) => {
                    return Err(Refusal::bad("Signed pushes are not supported."));
                }
                Err(commands::Unread::More)
                    if input.seen().len() < commands::MOST_BYTES && input.see_more().await? => {}
                Err(_) => return Err(Refusal::bad("This is not a push of git's.")),
            }
        };
        for name in names {
            let keys = [("codecommit:References", name.as_str())];
            ctx.authorise_with("codecommit:GitPush", &repository.arn(), &keys)?;
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The request as CGI tells it (RFC 3875).
fn environment(head: &Parts, ctx: &Context) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("REQUEST_METHOD", head.method.to_string()),
        ("QUERY_STRING", head.uri.query().unwrap_or_default().to_owned()),
        ("CONTENT_TYPE", text(&head.headers, "content-type").unwrap_or_default()),
        ("REMOTE_USER", ctx.principal.arn.clone()),
        ("REMOTE_ADDR", ctx.source_ip.to_string()),
    ];
    let plain = |text: &String| {
        text.len() < 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=:-.".contains(&b))
    };
    let protocol = text(&head.headers, "git-protocol").filter(plain);
    environment.extend(protocol.map(|protocol| ("GIT_PROTOCOL", protocol)));
    environment
}
