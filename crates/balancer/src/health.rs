//! Whether targets are well.

use crate::{
    config::{Cause, Check, Health, Speaks, Version},
    group::Target,
    pool::OnThisThread,
    socket::{self, Namespace},
    tls,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
    header,
};
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

/// The longest message that a call answers a check with, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// From one question to the next while a new target does not listen yet: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A target's checks.
pub(crate) struct Checker {
    target: Arc<Target>,
    check: Check,
    namespace: Option<Arc<Namespace>>,
    cause: Rc<RefCell<Option<Cause>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Checker {
    /// Looks after a target, from now on and until this is dropped. Must be called inside a local set;
    /// `changed` is told when there is something new.
    pub(crate) fn start(
        target: &Arc<Target>,
        check: &Check,
        namespace: &Option<Arc<Namespace>>,
        changed: &Arc<Notify>,
    ) -> Self {
        let cause: Rc<RefCell<Option<Cause>>> = Rc::default();
        let looking = look_after(
            target.clone(),
            check.clone(),
            namespace.clone(),
            cause.clone(),
            changed.clone(),
        );
        Self {
            target: target.clone(),
            check: check.clone(),
            namespace: namespace.clone(),
            cause,
            task: tokio::task::spawn_local(looking),
        }
    }

    /// Whether this is what looks after the target as it should be.
    pub(crate) fn fits(
        &self,
        target: &Arc<Target>,
        check: &Check,
        namespace: &Option<Arc<Namespace>>,
    ) -> bool {
        let same_place = match (&self.namespace, namespace) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        Arc::ptr_eq(&self.target, target) && self.check == *check && same_place
    }

    /// What the last check that was not well found.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause.borrow().clone()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look_after(
    target: Arc<Target>,
    check: Check,
    namespace: Option<Arc<Namespace>>,
    cause: Rc<RefCell<Option<Cause>>>,
    changed: Arc<Notify>,
) {
    let (mut good, mut bad) = (0_u32, 0_u32);
    let mut note = |found: Option<Cause>| {
        match &found {
            None => (good, bad) = (good.saturating_add(1), 0),
            Some(_) => (good, bad) = (0, bad.saturating_add(1)),
        }
        let before = target.health();
        let after = next(before, good, bad, &check);
        target.set_health(after);
        if cause.replace(found.clone()) != found || after != before {
            changed.notify_one();
        }
        after == Health::Initial && found == Some(Cause::Failed)
    };
    loop {
        let due = Instant::now() + check.interval;
        let not_there_yet = note(once(&target, &check, namespace.as_deref()).await.err());
        if not_there_yet && until_well(&target, &check, namespace.as_deref(), due).await {
            note(None);
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Asks a new target that does not listen yet again and again before its next check is due; whether one was well. A
/// program takes a moment to listen: this is how its target is healthy as soon as it does, not an interval (30 s unless
/// asked otherwise) later. What is not well counts in checks only.
async fn until_well(
    target: &Target,
    check: &Check,
    namespace: Option<&Namespace>,
    due: Instant,
) -> bool {
    let mut pause = FIRST_PAUSE;
    while Instant::now() + pause < due {
        tokio::time::sleep(pause).await;
        if once(target, check, namespace).await.is_ok() {
            return true;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    false
}

/// A target's health after another check, of which so many were well or not in a row. A new target needs one that is
/// well, as on AWS.
fn next(before: Health, good: u32, bad: u32, check: &Check) -> Health {
    match before {
        Health::Initial if good >= 1 => Health::Healthy,
        Health::Unhealthy if good >= check.healthy => Health::Healthy,
        Health::Initial | Health::Healthy if bad >= check.unhealthy => Health::Unhealthy,
        same => same,
    }
}

async fn once(target: &Target, check: &Check, namespace: Option<&Namespace>) -> Result<(), Cause> {
    let asking = ask(target, check, namespace);
    tokio::time::timeout(check.timeout, asking).await.unwrap_or(Err(Cause::Timeout))
}

async fn ask(target: &Target, check: &Check, namespace: Option<&Namespace>) -> Result<(), Cause> {
    let port = check.port.unwrap_or(target.address.port());
    let address = SocketAddr::new((*target.address.ip()).into(), port);
    let socket = socket::connecting(namespace).map_err(|_| Cause::Failed)?;
    let stream = socket.connect(address).await.map_err(|_| Cause::Failed)?;
    let Some(path) = &check.path else { return Ok(()) };
    let asked = Asked { path, address, speaks: check.speaks };
    let status = match check.speaks.tls {
        false => asked.status(stream).await,
        true => match tls::connect(stream, target.address, check.speaks.version).await {
            Ok(stream) => asked.status(stream).await,
            Err(_) => None,
        },
    };
    let status = status.ok_or(Cause::Failed)?;
    let good = check.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status));
    if good { Ok(()) } else { Err(Cause::Status(status)) }
}

/// A question to a target.
struct Asked<'a> {
    path: &'a str,
    address: SocketAddr,
    speaks: Speaks,
}

impl Asked<'_> {
    /// The status that is answered: HTTP's, or gRPC's. None is no answer of the kind.
    async fn status<S>(&self, stream: S) -> Option<u16>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let request = self.request()?;
        // The answer's head, or its end, is all that counts; with it the connection is dropped.
        if self.speaks.version == Version::Http1 {
            let (mut sender, connection) = http1::handshake(io).await.ok()?;
            let mut asking = std::pin::pin!(sender.send_request(request));
            let answer = tokio::select! {
                answer = &mut asking => answer,
                _ = connection => asking.await,
            };
            return Some(answer.ok()?.status().as_u16());
        }
        let (mut sender, connection) = http2::handshake(OnThisThread, io).await.ok()?;
        let asking = async {
            let answer = sender.send_request(request).await.ok()?;
            match self.speaks.version {
                Version::Grpc => grpc_status(answer).await,
                _ => Some(answer.status().as_u16()),
            }
        };
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            status = &mut asking => status,
            _ = connection => asking.await,
        }
    }

    fn request(&self) -> Option<Request<Full<Bytes>>> {
        let request = Request::builder()
            .header(header::USER_AGENT, "ELB-HealthChecker/2.0")
            .header(header::ACCEPT_ENCODING, "gzip, compressed");
        if self.speaks.version == Version::Http1 {
            let request = request.uri(self.path).header(header::HOST, self.address.to_string());
            return request.header(header::CONNECTION, "close").body(Full::default()).ok();
        }
        let scheme = if self.speaks.tls { "https" } else { "http" };
        let request = request.uri(format!("{scheme}://{}{}", self.address, self.path));
        let request = request.version(hyper::Version::HTTP_2);
        if self.speaks.version == Version::Http2 {
            return request.body(Full::default()).ok();
        }
        // A call with an empty message: not compressed, and no bytes long.
        request
            .method(hyper::Method::POST)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .ok()
    }
}

/// What a call ended with: told in the head when there is nothing else, or after the body.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
async fn grpc_status(answer: Response<Incoming>) -> Option<u16> {
    let read = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    if answer.status() != hyper::StatusCode::OK {
        return None;
    }
    if let Some(status) = read(answer.headers()) {
        return Some(status);
    }
    let mut body = Limited::new(answer.into_body(), LONGEST_ANSWER);
    while let Some(frame) = body.frame().await {
        if let Some(trailers) = frame.ok()?.trailers_ref() {
            return read(trailers);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn check() -> Check {
        Check {
            speaks: Speaks::default(),
            path: None,
            port: None,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy: 5,
            unhealthy: 2,
            statuses: vec![(200, 200)],
        }
    }

    #[tokio::test]
    async fn a_new_target_is_well_as_soon_as_it_listens() {
        tokio::task::LocalSet::new().run_until(becomes_well()).await;
    }

    async fn becomes_well() {
        let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = place.local_addr().unwrap() else { unreachable!() };
        drop(place);
        let target = Arc::new(Target::new(address, Health::Initial, String::new()));
        // No second check would come.
        let check = Check { interval: Duration::from_secs(3600), ..check() };
        let changed = Arc::new(Notify::new());
        let checker = Checker::start(&target, &check, &None, &changed);
        changed.notified().await;
        assert_eq!((target.health(), checker.cause()), (Health::Initial, Some(Cause::Failed)));
        let _place = TcpListener::bind(address).await.unwrap();
        changed.notified().await;
        assert_eq!((target.health(), checker.cause()), (Health::Healthy, None));
    }

    #[test]
    fn thresholds_are_as_on_aws() {
        let check = check();
        let next = |before, good, bad| next(before, good, bad, &check);
        assert_eq!(next(Health::Initial, 1, 0), Health::Healthy);
        assert_eq!(next(Health::Initial, 0, 1), Health::Initial);
        assert_eq!(next(Health::Initial, 0, 2), Health::Unhealthy);
        assert_eq!(next(Health::Unhealthy, 4, 0), Health::Unhealthy);
        assert_eq!(next(Health::Unhealthy, 5, 0), Health::Healthy);
        assert_eq!(next(Health::Healthy, 0, 1), Health::Healthy);
        assert_eq!(next(Health::Healthy, 0, 2), Health::Unhealthy);
    }
}
