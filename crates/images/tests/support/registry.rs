//! A registry over HTTP on a loopback port, with faults to order.

use super::Content;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use world::World;

/// What goes wrong with the next requests for blobs or manifests, one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    /// The connection breaks after so many bytes of the answer.
    Cut(usize),
    /// The byte at this place of the answer is another.
    Flip(usize),
    Status(u16),
    /// 429 with `Retry-After: 0`.
    RateLimit,
    /// The range that was asked for is ignored.
    WholeAnyway,
}

/// What the registry demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    Bearer,
    Basic,
}

pub struct State {
    pub content: Content,
    pub faults: VecDeque<Fault>,
    pub door: Door,
    /// Method, path and range of every request.
    pub log: Vec<String>,
    /// Bytes of blobs that were sent.
    pub blob_bytes: u64,
    /// Blobs are redirected to this host.
    pub redirect: Option<String>,
    /// An `Authorization` header arrived with a redirected request.
    pub leaked: bool,
}

#[derive(Clone)]
pub struct Registry {
    pub host: String,
    pub state: Arc<Mutex<State>>,
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl Registry {
    pub async fn start(world: &World, content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = State {
            content,
            faults: VecDeque::new(),
            door: Door::Open,
            log: Vec::new(),
            blob_bytes: 0,
            redirect: None,
            leaked: false,
        };
        let registry = Registry { host, state: Arc::new(Mutex::new(state)) };
        let (served, spawner) = (registry.clone(), world.clone());
        world.spawn("test registry", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                spawner.spawn("test connection", async move {
                    let service = service_fn(move |request| {
                        let answer = served.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // Cut connections end with an error here: that is what they are for.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        registry
    }

    pub fn reference(&self, name: &str) -> images::Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn faults(&self, faults: &[Fault]) {
        self.set(|state| state.faults = faults.iter().copied().collect());
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    pub fn blob_bytes(&self) -> u64 {
        self.state.lock().unwrap().blob_bytes
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path().to_string();
        let get =
            |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
        let range = get(header::RANGE).unwrap_or_default();
        let proof = get(header::AUTHORIZATION).unwrap_or_default();
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("{} {range}", request.uri()).trim_end().to_string());
        if path == "/token" {
            return token(&proof);
        }
        if path.starts_with("/elsewhere/") {
            state.leaked |= !proof.is_empty();
        } else if let Some(refusal) = self.guard(state.door, &proof) {
            return refusal;
        }
        if path == "/v2/" {
            return json(200, "{}");
        }
        let fault = state.faults.pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Status(status) => return json(status, "{}"),
            Fault::RateLimit => {
                let mut answer = json(429, r#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#);
                answer.headers_mut().insert(header::RETRY_AFTER, "0".parse().unwrap());
                return answer;
            }
            _ => {}
        }
        let (_, name) = path.rsplit_once('/').unwrap();
        if path.contains("/manifests/") {
            return match state.content.manifests.get(name) {
                Some((kind, bytes)) => respond(200, kind, bytes.clone(), fault),
                None => json(404, r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}"#),
            };
        }
        if let Some(host) = &state.redirect
            && path.starts_with("/v2/")
        {
            let mut answer = json(307, "");
            let location = format!("http://{host}/elsewhere/{name}");
            answer.headers_mut().insert(header::LOCATION, location.parse().unwrap());
            return answer;
        }
        let Some(blob) = state.content.blobs.get(name).cloned() else {
            return json(404, r#"{"errors": [{"code": "BLOB_UNKNOWN", "message": "no"}]}"#);
        };
        let start = range.strip_prefix("bytes=").and_then(|r| r.trim_end_matches('-').parse().ok());
        let start = match fault {
            Fault::WholeAnyway => None,
            _ => start,
        };
        let body = blob[start.unwrap_or(0)..].to_vec();
        state.blob_bytes += match fault {
            Fault::Cut(at) => at.min(body.len()) as u64,
            _ => body.len() as u64,
        };
        let status = if start.is_some() { 206 } else { 200 };
        let mut answer = respond(status, "application/octet-stream", body, fault);
        if let Some(start) = start {
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            answer.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
        }
        answer
    }

    fn guard(&self, door: Door, proof: &str) -> Option<Answer> {
        let challenge = match door {
            Door::Bearer if proof != "Bearer opensesame" => {
                format!(r#"Bearer realm="http://{}/token",service="test""#, self.host)
            }
            Door::Basic if proof != "Basic dXNlcjpzZWNyZXQ=" => r#"Basic realm="test""#.to_string(),
            _ => return None,
        };
        let mut answer = json(401, r#"{"errors": [{"code": "UNAUTHORIZED", "message": "who?"}]}"#);
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        Some(answer)
    }
}

/// For user:secret only.
fn token(proof: &str) -> Answer {
    let wrong = r#"{"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}"#;
    match proof {
        "Basic dXNlcjpzZWNyZXQ=" => json(200, r#"{"token": "opensesame", "expires_in": 300}"#),
        _ => json(401, wrong),
    }
}

fn json(status: u16, body: &str) -> Answer {
    respond(status, "application/json", body.as_bytes().to_vec(), Fault::None)
}

fn respond(status: u16, kind: &str, mut body: Vec<u8>, fault: Fault) -> Answer {
    let builder = Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len());
    match fault {
        Fault::Cut(at) => {
            let pieces = vec![
                Ok(Frame::data(Bytes::from(body[..at.min(body.len())].to_vec()))),
                Err(std::io::Error::other("cut")),
            ];
            // The pieces must leave before the connection breaks.
            let stream = futures_util::stream::iter(pieces).then(|piece| async {
                tokio::task::yield_now().await;
                piece
            });
            builder.body(BodyExt::boxed(StreamBody::new(stream))).unwrap()
        }
        Fault::Flip(at) if at < body.len() => {
            body[at] ^= 0x40;
            builder.body(whole(body)).unwrap()
        }
        _ => builder.body(whole(body)).unwrap(),
    }
}

fn whole(body: Vec<u8>) -> BoxBody<Bytes, std::io::Error> {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}
