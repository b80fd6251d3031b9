//! One connection: HTTP/1.1 with bounds on everything a client can make large or slow.

use crate::{fault::Fault, front::Front, shape::Family};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use world::World;

/// The body of an answer.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body that is all there.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// What a connection may ask of us.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest request body, in bytes.
    pub body_bytes: usize,
    /// The longest request head, in bytes.
    pub head_bytes: usize,
    /// The most headers.
    pub headers: usize,
    /// How long a client may take to send a head.
    pub head_time: Duration,
    /// How long a client may pause within a body.
    pub pause: Duration,
    /// How long a client may take for a whole body.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            head_bytes: 64 << 10,
            headers: 100,
            head_time: Duration::from_secs(15),
            pause: Duration::from_secs(20),
            body_time: Duration::from_secs(120),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, as seen where the connection came in.
    pub ip: IpAddr,
    /// The VPC it came in from, when it is a task's.
    pub vpc: Option<Arc<str>>,
}

/// Serves one connection until it ends. Errors of the connection itself (the client hung up, sent no HTTP, was too
/// slow) end it and are traced; they are the client's affair.
pub async fn serve_connection<S>(stream: S, peer: Peer, front: Arc<Front>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = front.limits().clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, peer) = (front.clone(), peer.clone());
        async move { Ok::<_, Infallible>(front.handle(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Why a body was not read.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the client was too slow")]
    TooSlow,
    #[error("the connection broke off")]
    Broken,
}

impl BodyError {
    pub(crate) fn fault(&self, family: Family) -> Fault {
        match self {
            Self::TooLong(limit) => Fault::too_large(family, *limit),
            Self::TooSlow => {
                Fault::new("RequestTimeout", "The request body did not arrive in time.").status(408)
            }
            Self::Broken => Fault::serialization(family, "The request body broke off."),
        }
    }
}

/// Reads a whole body within the limits.
pub(crate) async fn read_body(
    body: Incoming,
    limits: &Limits,
    world: &World,
) -> Result<Bytes, BodyError> {
    let whole = read_frames(body, limits, world);
    world.timeout(limits.body_time, whole).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_frames(
    mut body: Incoming,
    limits: &Limits,
    world: &World,
) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    loop {
        let frame = world.timeout(limits.pause, body.frame()).await.ok_or(BodyError::TooSlow)?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > limits.body_bytes {
            return Err(BodyError::TooLong(limits.body_bytes));
        }
        all.extend_from_slice(&data);
    }
}
