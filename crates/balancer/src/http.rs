//! HTTP from a client to a target, as an Application Load Balancer passes it on.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html>

use crate::{
    answer::{self, fixed, page, redirect},
    config::{self, ForwardedFor},
    cookie::{GROUP, TARGET, given, set},
    exchange::Exchange,
    group::{Busy, Group},
    meter::{Count, GroupCount, Meter},
    pool::Link,
    reply::{Forwarded, Moved, Reply},
    table::{Act, Listening, Route},
    tls::Agreed,
    tunnel,
    worker::{Chosen, Worker},
};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use hyper_util::rt::TokioIo;
use std::{cell::OnceCell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

/// The longest request line, in bytes.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
const LONGEST_LINE: usize = 16 << 10;
/// The longest header, and the longest of all together, in bytes.
const LONGEST_HEADER: usize = 16 << 10;
const LONGEST_HEADERS: usize = 64 << 10;
/// The most addresses in X-Forwarded-For.
const MOST_FORWARDERS: usize = 30;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A client's connection.
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// What logs call it.
    pub(crate) number: u128,
    pub(crate) began: Instant,
    /// How it speaks TLS, when it does.
    pub(crate) tls: Option<Agreed>,
    /// It is counted, from the moment on that its load balancer is known.
    pub(crate) open: OnceCell<Open>,
    /// When something last moved.
    pub(crate) moved: Moved,
}

/// A connection that is open, as it is counted.
pub(crate) struct Open(Arc<Meter>, usize);

impl Open {
    pub(crate) fn new(listening: &Listening, worker: &Worker) -> Self {
        listening.meter.add(worker.number, Count::Connections, 1);
        Self(listening.meter.clone(), worker.number)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.add(self.1, Count::ConnectionsEnded, 1);
    }
}

impl Client {
    pub(crate) fn secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure() { "https" } else { "http" }
    }
}

/// Answers a request on a listener.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    chosen: Chosen,
    request: Request<Incoming>,
) -> Response<Reply> {
    let version = request.version();
    let exchange = Exchange::begin(worker, client, chosen.clone(), &request);
    client.open.get_or_init(|| Open::new(&chosen, worker));
    let mut answer = match refuse(&request) {
        Some(status) => exchange.own(page(status)),
        None => decide(client, &chosen, exchange, request).await,
    };
    let ends = client.began.elapsed() >= chosen.http.keep_alive || worker.is_leaving();
    if version < Version::HTTP_2 && ends {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// What no target gets to see.
fn refuse(request: &Request<Incoming>) -> Option<StatusCode> {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, str::len);
    let forwarders = request.headers().get_all(FORWARDED_FOR).iter();
    let forwarders: usize =
        forwarders.map(|value| value.as_bytes().split(|b| *b == b',').count()).sum();
    if request.method() == Method::TRACE {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    if length > LONGEST_LINE {
        return Some(StatusCode::URI_TOO_LONG);
    }
    if forwarders > MOST_FORWARDERS {
        return Some(answer::TOO_MANY_FORWARDERS);
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let needs_host = request.version() == Version::HTTP_11 && uri.authority().is_none();
    // Another number of hosts than one is how requests are smuggled past rules.
    let path = uri.path();
    let names_server = request.method() == Method::OPTIONS && path == "*";
    let bad = hosts > 1
        || !path.starts_with('/') && !names_server
        || needs_host && hosts == 0
        || request.version() == Version::HTTP_2 && is_of_two_minds(request)
        || request.method() == Method::CONNECT
        || are_too_long(request.headers());
    bad.then_some(StatusCode::BAD_REQUEST)
}

/// Whether a request names one host in its pseudo-header, and another in its header (RFC 9113, section 8.3.1).
fn is_of_two_minds(request: &Request<Incoming>) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    match (authority, host) {
        (Some(authority), Some(host)) => !authority.eq_ignore_ascii_case(host),
        (None, None) => true,
        _ => false,
    }
}

fn are_too_long(headers: &HeaderMap) -> bool {
    let lengths = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let (mut longest, mut all) = (0, 0);
    for length in lengths {
        longest = longest.max(length);
        all += length;
    }
    longest > LONGEST_HEADER || all > LONGEST_HEADERS
}

async fn decide(
    client: &Client,
    listening: &Listening,
    mut exchange: Exchange,
    request: Request<Incoming>,
) -> Response<Reply> {
    let (parts, body) = request.into_parts();
    let Some((priority, act)) = listening.decide(&parts, client.peer.ip()) else {
        return exchange.own(page(StatusCode::BAD_REQUEST));
    };
    match act {
        Act::Forward(route) => {
            exchange.decided(priority, "forward");
            let request = Request::from_parts(parts, body);
            forward(client, listening, route, exchange, request).await
        }
        Act::Answer(config::Action::Fixed { status, content_type, body }) => {
            exchange.decided(priority, "fixed-response");
            exchange.own(fixed(*status, content_type, body))
        }
        Act::Answer(other) => {
            exchange.decided(priority, "redirect");
            exchange.own(redirect(other, &parts, client.scheme(), listening.port))
        }
    }
}

/// Passes a request on to a target, and its answer back.
async fn forward(
    client: &Client,
    listening: &Listening,
    route: &Route,
    mut exchange: Exchange,
    mut request: Request<Incoming>,
) -> Response<Reply> {
    let cookie = |name| given(request.headers(), name);
    let Some(group) = route.choose(route.sticky.and_then(|_| cookie(GROUP))) else {
        return exchange.own(page(StatusCode::SERVICE_UNAVAILABLE));
    };
    if !understands(group.speaks.version, &request) {
        return exchange.own(page(answer::OTHER_PROTOCOL));
    }
    let Some(busy) = group.choose(group.sticky.and_then(|_| cookie(TARGET))) else {
        return exchange.own(page(StatusCode::SERVICE_UNAVAILABLE));
    };
    exchange.chose(&group.label, busy.target().address);
    let mut cookies = Vec::new();
    if let Some(lasts) = route.sticky {
        cookies.extend(set(GROUP, &group.token, lasts));
    }
    if let Some(lasts) = group.sticky {
        cookies.extend(set(TARGET, &busy.target().token, lasts));
    }
    let may = request.version() == Version::HTTP_11;
    let upgrade = (may && upgrades(request.headers())).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let sent = match outgoing(client, listening, group, &mut exchange, parts, upgrade.is_some()) {
        Some(parts) => ask(listening, group, &busy, &mut exchange, parts, body).await,
        None => Err(StatusCode::BAD_REQUEST),
    };
    let (mut answer, link) = match sent {
        Ok(answered) => answered,
        Err(status) => return with(cookies, exchange.own(page(status))),
    };
    match (answer.status(), upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => {
            let upstream = hyper::upgrade::on(&mut answer);
            exchange.tell(answer.status(), answer.headers());
            let patience = listening.http.idle_timeout;
            tokio::task::spawn_local(async move {
                // The target is busy, and its connection open, until this is over.
                let (_busy, _link) = (busy, link);
                let Ok((a, b)) = tokio::try_join!(upgrade, upstream) else { return };
                let (a, b) = (TokioIo::new(a), TokioIo::new(b));
                if let Err(error) = tunnel::join(a, b, patience, exchange.moved()).await {
                    tracing::debug!(%error, "an upgraded connection ended early");
                }
            });
            with(cookies, answer.map(|_| Reply::upgraded()))
        }
        // Nobody asked for it.
        (status, _) if status.is_informational() => {
            with(cookies, exchange.own(page(StatusCode::BAD_GATEWAY)))
        }
        _ => {
            strip(answer.headers_mut(), false);
            exchange.tell(answer.status(), answer.headers());
            let patience = listening.http.idle_timeout;
            let answer = answer.map(|body| Reply::of_target(body, patience, link, busy, exchange));
            with(cookies, answer)
        }
    }
}

fn with(cookies: Vec<HeaderValue>, mut answer: Response<Reply>) -> Response<Reply> {
    for cookie in cookies {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

/// Whether targets that are spoken to like this can answer a request.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html>
fn understands(version: config::Version, request: &Request<Incoming>) -> bool {
    let http2 = request.version() == Version::HTTP_2;
    match version {
        config::Version::Http1 => !is_grpc(request.headers()),
        config::Version::Http2 => http2,
        config::Version::Grpc => http2 && request.method() == Method::POST,
    }
}

/// Whether this is a remote procedure call, and not one in the form for browsers.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether the client asks for another protocol on this connection.
fn upgrades(headers: &HeaderMap) -> bool {
    let mut asks = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    headers.contains_key(header::UPGRADE)
        && asks.any(|v| v.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
}

/// Takes away what is between two neighbours only (RFC 9110, section 7.6.1); an upgrade is passed on.
fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::UPGRADE)
        .collect();
    for name in named {
        // What frames a body is ours to say, whatever a neighbour calls it.
        if name != header::CONTENT_LENGTH && name != header::HOST {
            headers.remove(name);
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TE);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::TRAILER);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
}

/// The head that a target gets; none when the host is no host.
fn outgoing(
    client: &Client,
    listening: &Listening,
    group: &Group,
    exchange: &mut Exchange,
    mut parts: Parts,
    upgrade: bool,
) -> Option<Parts> {
    let trailers = asks_for_trailers(&parts.headers);
    if !parts.headers.contains_key(header::HOST) {
        // HTTP/1.0 need not say whom it asks; targets are told all the same.
        let own = listening.names.first().map_or("localhost", String::as_str);
        let host = parts.uri.authority().map_or(own, |authority| authority.as_str());
        let host = HeaderValue::from_str(host).ok()?;
        parts.headers.insert(header::HOST, host);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    if group.speaks.version == config::Version::Http1 {
        parts.version = Version::HTTP_11;
    } else {
        let host = parts.headers.remove(header::HOST)?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let scheme = if group.speaks.tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path);
        parts.uri = uri.build().ok()?;
        parts.version = Version::HTTP_2;
    }
    strip(&mut parts.headers, upgrade);
    if listening.http.drop_invalid_headers {
        drop_invalid(&mut parts.headers);
    }
    forwarded_for(client, listening, &mut parts.headers);
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme()));
    parts.headers.insert(FORWARDED_PORT, HeaderValue::from(listening.port));
    let trace = parts.headers.get(TRACE_ID).and_then(|value| value.to_str().ok());
    let trace = exchange.worker().trace(trace);
    exchange.traced(&trace);
    if let Ok(trace) = HeaderValue::try_from(trace) {
        parts.headers.insert(TRACE_ID, trace);
    }
    if trailers && parts.version == Version::HTTP_2 {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Some(parts)
}

/// Whether the client takes trailers, as calls of gRPC need them (RFC 9110, section 10.1.4).
fn asks_for_trailers(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    all.any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("trailers")))
}

/// HTTP/2 may split cookies; HTTP/1.1 has them in one header (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Drops headers whose names have other characters than letters, digits and hyphens.
fn drop_invalid(headers: &mut HeaderMap) {
    let good = |name: &HeaderName| {
        name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let bad: Vec<HeaderName> = headers.keys().filter(|name| !good(name)).cloned().collect();
    for name in bad {
        headers.remove(name);
    }
}

fn forwarded_for(client: &Client, listening: &Listening, headers: &mut HeaderMap) {
    match listening.http.forwarded_for {
        ForwardedFor::Preserve => {}
        ForwardedFor::Remove => {
            headers.remove(FORWARDED_FOR);
        }
        ForwardedFor::Append => {
            let own = match listening.http.client_port {
                true => client.peer.to_string(),
                false => client.peer.ip().to_string(),
            };
            let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
            let mut all: Vec<&str> = before.collect();
            all.push(&own);
            if let Ok(value) = HeaderValue::try_from(all.join(", ")) {
                headers.insert(FORWARDED_FOR, value);
            }
        }
    }
}

/// Sends a request to the target and waits for the head of its answer. A status is what the client is told instead.
async fn ask(
    listening: &Listening,
    group: &Group,
    busy: &Busy,
    exchange: &mut Exchange,
    parts: Parts,
    body: Incoming,
) -> Result<(Response<Incoming>, Link), StatusCode> {
    let (address, speaks) = (busy.target().address, group.speaks);
    let (worker, moved) = (exchange.worker().clone(), exchange.moved().clone());
    let mut waiting = worker.pool.waiting(listening, address, speaks);
    let bare = body.is_end_stream();
    // Asking for the same again does no harm, and there is no body that is gone.
    let again = (waiting.is_some() && bare && parts.method.is_idempotent()).then(|| parts.clone());
    let patience = listening.http.idle_timeout;
    let body = match bare {
        true => Forwarded::empty(),
        false => Forwarded::new(body, patience, moved.clone()),
    };
    let mut request = Request::from_parts(parts, body);
    let mut again = again;
    loop {
        let mut link = match waiting.take() {
            Some(link) => link,
            // On the heap, as everything that is rare: the rest is what each request takes.
            None => Box::pin(worker.pool.connect(listening, address, speaks)).await.map_err(
                |error| {
                    tracing::debug!(%error, target = %address, "a target takes no connection");
                    group.meter.add(worker.number, GroupCount::ConnectionErrors, 1);
                    match error.kind() {
                        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                        _ => StatusCode::BAD_GATEWAY,
                    }
                },
            )?,
        };
        exchange.sends();
        let sent = Instant::now();
        let outcome = {
            let mut sending = std::pin::pin!(link.send(request));
            loop {
                let until = moved.at() + patience;
                match tokio::time::timeout_at(until.into(), &mut sending).await {
                    Ok(outcome) => break outcome,
                    Err(_) if moved.at() + patience > until => {}
                    Err(_) => return Err(StatusCode::GATEWAY_TIMEOUT),
                }
            }
        };
        let mut error = match outcome {
            Ok(answer) => {
                group.meter.answer(worker.number, answer.status().as_u16(), sent.elapsed());
                exchange.answered(answer.status());
                return Ok((answer, link));
            }
            Err(error) => error,
        };
        // The target closed a connection that waited, just as it was to be used.
        request = match (error.take_message(), again.take()) {
            (Some(unsent), _) if link.used => unsent,
            (None, Some(parts)) => Request::from_parts(parts, Forwarded::empty()),
            _ => {
                let error = error.error();
                tracing::debug!(%error, target = %address, "a target gives no answer");
                return Err(StatusCode::BAD_GATEWAY);
            }
        };
    }
}
