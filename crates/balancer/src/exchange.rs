//! A request and its answer, as they are counted and logged when they are over.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html>

use crate::{
    http::Client,
    meter::Count,
    reply::{Moved, Own, Reply},
    table::Listening,
    worker::{Chosen, Worker},
};
use chrono::{DateTime, SecondsFormat, Utc};
use hyper::{HeaderMap, Request, Response, StatusCode, Version, header};
use std::{
    fmt::Write,
    net::SocketAddrV4,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

/// The client was gone before there was an answer.
const GONE: u16 = 460;
/// The longest request line and other words of a client in a log, in bytes.
const LONGEST: usize = 4096;

/// A request, from its head to the last byte of its answer. When this is dropped it is over.
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    chosen: Chosen,
    /// Zero until there is an answer.
    status: u16,
    /// Whether a target gave it.
    of_target: bool,
    /// In bytes: heads, as they would be written in HTTP/1.1, and bodies.
    head: u64,
    sent: u64,
    moved: Moved,
    /// Where access logs are wanted.
    entry: Option<Box<Entry>>,
}

/// What only the log tells.
struct Entry {
    client: Rc<Client>,
    kind: &'static str,
    came: SystemTime,
    began: Instant,
    request: String,
    agent: String,
    domain: String,
    trace: String,
    priority: Option<u32>,
    action: &'static str,
    location: String,
    group: String,
    target: Option<SocketAddrV4>,
    target_status: Option<u16>,
    sent_on: Option<Instant>,
    answered: Option<Instant>,
}

/// The bytes of headers in HTTP/1.1.
fn length(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

/// Client's words between quotation marks: printable ASCII, the rest as AWS and nginx write it.
fn quoted(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.iter().take(LONGEST) {
        match byte {
            b'"' | b'\\' | 0..=31 | 127.. => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(*byte as char),
        }
    }
    match out.is_empty() {
        true => "-".to_owned(),
        false => out,
    }
}

impl Exchange {
    pub(crate) fn begin<B>(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        chosen: Chosen,
        request: &Request<B>,
    ) -> Self {
        let line = request.uri().path_and_query().map_or(1, |path| path.as_str().len());
        let head = length(request.headers()) + (line + request.method().as_str().len() + 14) as u64;
        let entry =
            chosen.access_log.is_some().then(|| Box::new(Entry::new(client, &chosen, request)));
        let moved = client.moved.inside();
        let (worker, status, sent) = (worker.clone(), 0, 0);
        Self { worker, chosen, status, of_target: false, head, sent, moved, entry }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(crate) fn moved(&self) -> &Moved {
        &self.moved
    }

    /// What decided, and what it did; 0 is the default of the listener.
    pub(crate) fn decided(&mut self, priority: u32, action: &'static str) {
        if let Some(entry) = &mut self.entry {
            (entry.priority, entry.action) = (Some(priority), action);
        }
    }

    pub(crate) fn traced(&mut self, trace: &str) {
        if let Some(entry) = &mut self.entry {
            entry.trace = quoted(trace.as_bytes());
        }
    }

    pub(crate) fn chose(&mut self, group: &str, target: SocketAddrV4) {
        if let Some(entry) = &mut self.entry {
            group.clone_into(&mut entry.group);
            entry.target = Some(target);
        }
    }

    /// The request goes to its target now.
    pub(crate) fn sends(&mut self) {
        if let Some(entry) = &mut self.entry {
            entry.sent_on = Some(Instant::now());
        }
    }

    /// The head of the target's answer is there.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.of_target = true;
        if let Some(entry) = &mut self.entry {
            (entry.target_status, entry.answered) = (Some(status.as_u16()), Some(Instant::now()));
        }
    }

    /// More of the answer's body is on its way to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The answer's head, with which this waits for the end.
    pub(crate) fn tell(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        self.sent = length(headers) + 17;
        if let Some(entry) = &mut self.entry
            && let Some(location) = headers.get(header::LOCATION).filter(|_| !self.of_target)
        {
            entry.location = quoted(location.as_bytes());
        }
    }

    /// An answer that no target gave.
    pub(crate) fn own(mut self, answer: Response<Own>) -> Response<Reply> {
        self.tell(answer.status(), answer.headers());
        answer.map(|own| Reply::own(own, self))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (meter, number) = (&self.chosen.meter, self.worker.number);
        if self.status == 0 {
            self.status = GONE;
        }
        if !self.of_target {
            meter.own_answer(number, self.status);
        }
        let received = self.head + self.moved.bytes();
        meter.add(number, Count::Requests, 1);
        meter.add(number, Count::Bytes, received + self.sent);
        if let (Some(entry), Some(log)) = (&self.entry, &self.chosen.access_log) {
            let line = entry.line(&log.name, self.status, received, self.sent);
            self.worker.book.write(&self.chosen.balancer, &log.head, &line);
        }
    }
}

impl Entry {
    fn new<B>(client: &Rc<Client>, listening: &Listening, request: &Request<B>) -> Self {
        let headers = request.headers();
        let upgrades = headers.contains_key(header::UPGRADE);
        let grpc = headers.get(header::CONTENT_TYPE);
        let grpc = grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let kind = match (client.secure(), request.version()) {
            (true, Version::HTTP_2) if grpc => "grpcs",
            (_, Version::HTTP_2) => "h2",
            (true, _) if upgrades => "wss",
            (true, _) => "https",
            (false, _) if upgrades => "ws",
            (false, _) => "http",
        };
        let host = crate::matching::host_of(request.uri(), headers).unwrap_or_default();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let (method, scheme, version) = (request.method(), client.scheme(), request.version());
        let port = listening.port;
        let version = match version {
            Version::HTTP_2 => "HTTP/2.0".to_owned(),
            other => format!("{other:?}"),
        };
        let line = format!("{method} {scheme}://{host}:{port}{path} {version}");
        let agent = headers.get(header::USER_AGENT).map_or(&[][..], |agent| agent.as_bytes());
        Self {
            client: client.clone(),
            kind,
            came: SystemTime::now(),
            began: Instant::now(),
            request: quoted(line.as_bytes()),
            agent: quoted(agent),
            domain: client
                .tls
                .as_ref()
                .map_or_else(|| "-".to_owned(), |tls| quoted(tls.domain.as_bytes())),
            trace: "-".to_owned(),
            priority: None,
            action: "-",
            location: "-".to_owned(),
            group: "-".to_owned(),
            target: None,
            target_status: None,
            sent_on: None,
            answered: None,
        }
    }

    fn line(&self, balancer: &str, status: u16, received: u64, sent: u64) -> String {
        let seconds = |took: Option<Duration>| match took {
            Some(took) => format!("{:.3}", took.as_secs_f64()),
            None => "-1".to_owned(),
        };
        let target = self.target.map_or_else(|| "-".to_owned(), |target| target.to_string());
        let target_status = self.target_status.map_or_else(|| "-".to_owned(), |s| s.to_string());
        let priority = self.priority.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let tls = self.client.tls.as_ref();
        let (cipher, protocol) = tls.map_or(("-", "-"), |tls| (tls.cipher, tls.protocol));
        let certificate = tls.map_or("-", |tls| tls.certificate.as_str());
        let first = self.answered.zip(self.sent_on).map(|(answered, sent)| answered - sent);
        // What is told to the client is told at once.
        let last = self.answered.map(|_| Duration::ZERO);
        let took = self.sent_on.map(|sent| sent - self.began);
        format!(
            "{kind} {time} {balancer} {client} {target} {took} {first} {last} {status} {target_status} {received} \
             {sent} \"{request}\" \"{agent}\" {cipher} {protocol} {group} \"{trace}\" \"{domain}\" \
             \"{certificate}\" {priority} {came} \"{action}\" \"{location}\" \"-\" \"{target}\" \
             \"{target_status}\" \"-\" \"-\" TID_{connection:032x}\n",
            kind = self.kind,
            time = stamp(SystemTime::now()),
            client = self.client.peer,
            took = seconds(took),
            first = seconds(first),
            last = seconds(last),
            request = self.request,
            agent = self.agent,
            group = self.group,
            trace = self.trace,
            domain = self.domain,
            came = stamp(self.came),
            action = self.action,
            location = self.location,
            connection = self.client.number,
        )
    }
}

/// ISO 8601, with microseconds.
fn stamp(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Micros, true)
}
