//! HTTP/2 and remote procedure calls, with clients and targets that speak nothing else.

use super::harness::*;
use balancer::{
    Config,
    config::{Cause, Check, Group, Health, Speaks, Target, Version},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, channel::Channel};
use hyper::{
    HeaderMap, Request, Response, body::Incoming, client::conn::http2 as client,
    header::HeaderValue, server::conn::http2 as server, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddrV4,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

pub(super) type Sent = Either<Full<Bytes>, Channel<Bytes>>;

/// A target: says back every piece as it comes, and ends calls with the status that `status` has.
pub(super) struct Remote {
    address: SocketAddrV4,
    status: Arc<AtomicUsize>,
    /// What was asked, and on which connection.
    heads: Arc<Mutex<Vec<(String, HeaderMap, usize)>>>,
}

pub(super) async fn remote() -> Remote {
    let listener = TcpListener::bind((LOCAL, 0)).await.expect("a port");
    let remote = Remote {
        address: SocketAddrV4::new(LOCAL, listener.local_addr().expect("bound").port()),
        status: Arc::default(),
        heads: Arc::default(),
    };
    let (status, heads) = (remote.status.clone(), remote.heads.clone());
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (status, heads) = (status.clone(), heads.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let head = (request.uri().to_string(), request.headers().clone(), number);
                heads.lock().expect("not poisoned").push(head);
                let status = status.load(Ordering::SeqCst);
                async move { Ok::<_, Infallible>(echo(request, status)) }
            });
            let connection = server::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(500)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    remote
}

fn echo(request: Request<Incoming>, status: usize) -> Response<Channel<Bytes>> {
    let (mut send, body) = Channel::new(8);
    tokio::spawn(async move {
        let mut given = request.into_body();
        while let Some(Ok(frame)) = given.frame().await {
            if send.send(frame).await.is_err() {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status));
        // Who asked may be gone.
        let _ = send.send_trailers(trailers).await;
    });
    Response::new(body)
}

pub(super) async fn dial(port: u16) -> client::SendRequest<Sent> {
    let stream = TcpStream::connect((LOCAL, port)).await.expect("a connection");
    let io = TokioIo::new(stream);
    let (sender, connection) =
        client::handshake(TokioExecutor::new(), io).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn call(path: &str, body: Sent) -> Request<Sent> {
    Request::post(format!("http://web.localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request")
}

pub(super) fn of(remote: &Remote, version: Version) -> Group {
    let speaks = Speaks { version, tls: false };
    Group {
        speaks,
        check: Some(Check {
            speaks,
            path: Some("/check".to_owned()),
            port: None,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            healthy: 2,
            unhealthy: 2,
            statuses: match version {
                Version::Grpc => vec![(0, 0)],
                _ => vec![(200, 200)],
            },
        }),
        targets: vec![Target { address: remote.address, draining: false }],
        ..group(&[])
    }
}

pub(super) fn config(port: u16, group: Group) -> Config {
    let mut config = super::harness::config(port, vec![], to(&[("g", 1)]), &[("g", group)]);
    config.balancers[0].listeners[0].prior_knowledge = true;
    config
}

#[tokio::test]
async fn calls_stream_both_ways_and_end_with_a_status() {
    let remote = remote().await;
    let port = free_port();
    let mut plane = Plane::start(config(port, of(&remote, Version::Grpc))).await;
    plane.healthy(1).await;
    let mut sender = dial(port).await;
    let (mut send, body) = Channel::new(1);
    let answer = sender.send_request(call("/pkg.Echo/Talk", Either::Right(body)));
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for word in ["one", "two", "three"] {
        send.send_data(Bytes::from(word)).await.expect("it listens");
        let frame = body.frame().await.expect("more").expect("a frame");
        assert_eq!(frame.into_data().expect("data"), word, "it comes back before the next is sent");
    }
    drop(send);
    let frame = body.frame().await.expect("more").expect("a frame");
    let trailers = frame.into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    let heads = remote.heads.lock().expect("not poisoned").clone();
    let (uri, headers, _) =
        heads.iter().find(|(uri, ..)| uri.contains("Talk")).expect("it was asked");
    assert_eq!(uri, "http://web.localhost/pkg.Echo/Talk");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert!(headers.get("host").is_none() && headers.get("connection").is_none(), "{headers:?}");
}

#[tokio::test]
async fn requests_share_connections_to_a_target() {
    let remote = remote().await;
    let port = free_port();
    let mut plane = Plane::start(config(port, of(&remote, Version::Http2))).await;
    plane.healthy(1).await;
    let ask = |mut sender: client::SendRequest<Sent>, number: usize| async move {
        let text = Bytes::from(format!("number {number}"));
        let request = call("/", Either::Left(Full::new(text.clone())));
        let mut request = request;
        request.headers_mut().remove("content-type");
        let answer = sender.send_request(request).await.expect("an answer");
        let all = answer.into_body().collect().await.expect("it ends");
        assert_eq!(all.trailers().expect("trailers")["grpc-status"], "0");
        assert_eq!(all.to_bytes(), text);
    };
    let (first, second) = (dial(port).await, dial(port).await);
    let several = (0..200).map(|number| ask([&first, &second][number % 2].clone(), number));
    let several: Vec<_> = several.map(tokio::spawn).collect();
    for asked in several {
        asked.await.expect("it is answered");
    }
    // A check has a connection of its own; of the others a thread has one for 100 that are under way.
    let heads = remote.heads.lock().expect("not poisoned").clone();
    let asked = heads.iter().filter(|(uri, ..)| !uri.ends_with("/check"));
    let connections: BTreeSet<usize> = asked.map(|(.., connection)| *connection).collect();
    assert!(connections.len() <= 4, "{connections:?}");
}

#[tokio::test]
async fn what_targets_do_not_speak_is_told() {
    let remote = remote().await;
    let backend = backend("old");
    for (version, request, expected) in [
        (Version::Grpc, call("/", Either::Left(Full::default())), 200),
        (Version::Grpc, get("/"), 464),
        (Version::Http2, get("/"), 200),
        (Version::Http1, call("/", Either::Left(Full::default())), 464),
        (Version::Http1, get("/"), 200),
    ] {
        let port = free_port();
        let group = match version {
            Version::Http1 => group(&[&backend]),
            _ => of(&remote, version),
        };
        let mut plane = Plane::start(config(port, group)).await;
        plane.healthy(1).await;
        let answer = dial(port).await.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), expected, "{version:?}");
    }
    let port = free_port();
    let old = super::harness::config(
        port,
        vec![],
        to(&[("g", 1)]),
        &[("g", of(&remote, Version::Http2))],
    );
    let mut plane = Plane::start(old).await;
    plane.healthy(1).await;
    assert_eq!(Client::new(port).ask("/", "").status(), "464");
}

pub(super) fn get(path: &str) -> Request<Sent> {
    let uri = format!("http://web.localhost{path}");
    Request::get(uri).body(Either::Left(Full::default())).expect("a request")
}

#[tokio::test]
async fn a_check_goes_by_the_status_of_a_call() {
    let remote = remote().await;
    let port = free_port();
    let mut plane = Plane::start(config(port, of(&remote, Version::Grpc))).await;
    plane.healthy(1).await;
    remote.status.store(14, Ordering::SeqCst);
    plane.healthy(0).await;
    let [target] = &plane.report.targets[..] else { panic!("one target") };
    assert_eq!((target.health, target.cause.clone()), (Health::Unhealthy, Some(Cause::Status(14))));
    remote.status.store(0, Ordering::SeqCst);
    plane.healthy(1).await;
}
