//! Where functions run: something that answers Lambda's Invoke over HTTP.

use crate::model::Function;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use std::{fmt, str::FromStr, time::Duration};
use tokio::net::TcpStream;
use world::World;

/// The longest answer, in bytes. <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub(crate) const LONGEST: usize = 6_291_556;
/// The longest that a function runs, and a little for its start.
const LONGEST_RUN: Duration = Duration::from_secs(16 * 60);
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// `http://HOST:PORT`, and a path that all others are under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("this is not a URL: {error}"))?;
        let authority = uri.authority().map(|authority| authority.as_str().to_owned());
        match (uri.scheme_str(), authority, uri.query()) {
            (Some("http"), Some(authority), None) if !authority.contains('@') => {
                Ok(Self { authority, path: uri.path().trim_end_matches('/').to_owned() })
            }
            _ => Err("functions are asked by a URL such as http://127.0.0.1:3001".to_owned()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// What came of asking.
pub(crate) enum Answer {
    /// The function ran: its answer, or with an error's kind (`Unhandled`) what it says of that.
    Ran { payload: Bytes, error: Option<String>, log: Option<String>, version: Option<String> },
    /// It was not run, with the status and what was said.
    Refused(u16, String),
    /// Nobody understandable was there.
    Missed(String),
}

/// What is asked.
pub(crate) struct Asked<'a> {
    pub function: &'a Function,
    pub payload: Bytes,
    pub context: Option<&'a str>,
    pub tail: bool,
}

impl Endpoint {
    /// Runs a function to its end.
    pub(crate) async fn invoke(&self, world: &World, asked: &Asked<'_>) -> Answer {
        let whole = self.ask(world, asked);
        match world.timeout(LONGEST_RUN, whole).await {
            Some(Ok(answer)) => answer,
            Some(Err(why)) => Answer::Missed(why),
            None => Answer::Missed(format!("it did not end in {} s", LONGEST_RUN.as_secs())),
        }
    }

    async fn ask(&self, world: &World, asked: &Asked<'_>) -> Result<Answer, String> {
        let Function { name, qualifier, .. } = asked.function;
        let qualifier = qualifier.iter().map(|qualifier| format!("?Qualifier={qualifier}"));
        let qualifier: String = qualifier.collect();
        let path = format!("{}/2015-03-31/functions/{name}/invocations{qualifier}", self.path);
        let mut request = Request::post(path)
            .header(HOST, &self.authority)
            .header("content-type", "application/json")
            .header("x-amz-invocation-type", "RequestResponse");
        if let Some(context) = asked.context {
            request = request.header("x-amz-client-context", context);
        }
        if asked.tail {
            request = request.header("x-amz-log-type", "Tail");
        }
        let request = request.body(Full::new(asked.payload.clone())).map_err(told)?;
        let port =
            self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let place = if port { self.authority.clone() } else { format!("{}:80", self.authority) };
        let stream = world.timeout(CONNECT, TcpStream::connect(place)).await;
        let stream = stream.ok_or("no connection came about in time")?.map_err(told)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(told)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((head, body))
        };
        // The connection does its work for as long as somebody looks after it, and ends with the exchange.
        let (head, body) = tokio::select! {
            done = exchange => done?,
            Err(error) = connection => return Err(error.to_string()),
        };
        let header = |name: &str| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        if !head.status.is_success() {
            let said = String::from_utf8_lossy(&body).chars().take(1024).collect();
            return Ok(Answer::Refused(head.status.as_u16(), said));
        }
        Ok(Answer::Ran {
            payload: body,
            error: header("x-amz-function-error"),
            log: header("x-amz-log-result"),
            version: header("x-amz-executed-version"),
        })
    }
}

fn told(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_name_an_endpoint() {
        let read = Endpoint::from_str("http://127.0.0.1:3001/").unwrap();
        assert_eq!((&*read.authority, &*read.path), ("127.0.0.1:3001", ""));
        assert_eq!(Endpoint::from_str("http://sam.internal/a/b").unwrap().path, "/a/b");
        for text in ["", "127.0.0.1:3001", "https://a", "http://u:p@a", "http://a/?b", "ftp://a"] {
            assert!(Endpoint::from_str(text).is_err(), "{text}");
        }
    }
}
