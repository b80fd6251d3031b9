//! What the data plane is told: plain data, so that it can be kept on disk and compared.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

/// What the data plane is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// So it should be.
    Configure(Config),
    /// There is nothing to be done any more.
    End,
}

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Counts up; answers name it.
    pub version: u64,
    /// Names targets in cookies, so that those neither tell addresses nor can be made up: any text that stays the same.
    pub secret: String,
    /// The address of the host on which listeners are told apart by the name that is asked for.
    pub shared: Option<IpAddr>,
    /// How often files of access logs are closed, so that they can be delivered.
    #[serde(default = "log_period")]
    pub log_period: Duration,
    /// The load balancers.
    pub balancers: Vec<Balancer>,
    /// The target groups, by id.
    pub groups: BTreeMap<String, Group>,
}

/// As on AWS.
fn log_period() -> Duration {
    Duration::from_secs(300)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 0,
            secret: String::new(),
            shared: None,
            log_period: log_period(),
            balancers: Vec::new(),
            groups: BTreeMap::new(),
        }
    }
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// Its id.
    pub id: String,
    /// The names that clients know it by, in lower case.
    pub names: Vec<String>,
    /// Where it listens, and from where it connects to targets.
    pub nodes: Vec<Node>,
    /// Whether it listens on [`Config::shared`] too.
    pub on_shared: bool,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// How it treats HTTP.
    pub http: HttpSettings,
    /// Whether requests are logged, and how.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
}

/// How a load balancer's requests are logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// What the lines call the load balancer: `app/NAME/ID`.
    pub name: String,
    /// The first line of each file, for whoever delivers it.
    pub head: String,
}

/// An address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its network namespace is pinned; none is the host's.
    pub netns: Option<PathBuf>,
    /// Its address in there.
    pub ip: Ipv4Addr,
    /// Where connections to the address arrive, whatever port they are for, when the namespace's firewall diverts them:
    /// others may then listen on the same ports of all addresses.
    #[serde(default)]
    pub diverted: Option<u16>,
}

/// How a load balancer treats HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSettings {
    /// A connection on which nothing is sent for so long is closed.
    pub idle_timeout: Duration,
    /// A client's connection that is older than that is closed after the next answer.
    pub keep_alive: Duration,
    /// What becomes of X-Forwarded-For.
    pub forwarded_for: ForwardedFor,
    /// Whether X-Forwarded-For tells the client's port, too.
    pub client_port: bool,
    /// Whether headers with names outside `[A-Za-z0-9-]` are dropped.
    pub drop_invalid_headers: bool,
}

/// What becomes of X-Forwarded-For.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedFor {
    /// The client's address comes after what is there.
    Append,
    /// It is passed on as it is.
    Preserve,
    /// It is taken away.
    Remove,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Its id.
    pub id: String,
    /// Its port.
    pub port: u16,
    /// How it is secured, when it is.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// HTTP/2 is spoken from the first byte on (RFC 9113, section 3.3). Inside of TLS that is agreed on there.
    #[serde(default)]
    pub prior_knowledge: bool,
    /// What is spoken on it, and what happens.
    pub does: Does,
}

/// How a listener is secured: TLS 1.3, and 1.2 unless it asks for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The first is for clients that name none of them.
    pub certificates: Vec<Certificate>,
    /// Nothing older than TLS 1.3.
    pub only_13: bool,
    /// What may be spoken inside (ALPN), the preferred first; where there is nothing, clients are not answered on it.
    #[serde(default)]
    pub protocols: Vec<String>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What access logs call it: its ARN.
    #[serde(default)]
    pub label: String,
    /// The names that it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// It and those that vouch for it, PEM.
    pub chain: String,
    /// Its private key, PEM.
    pub key: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What a listener does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// HTTP: the first rule that matches decides.
    Http {
        /// In the order of their priorities.
        rules: Vec<Rule>,
        /// When none matches.
        default: Action,
    },
    /// Connections are passed on as they are.
    Tcp {
        /// Where to.
        forward: Forward,
        /// A connection on which nothing passes for so long is forgotten.
        idle: Duration,
    },
    /// Datagrams are passed on: those of one client to one target.
    Udp {
        /// Where to.
        forward: Forward,
        /// A client that neither says nor hears anything for so long is forgotten.
        idle: Duration,
    },
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// What access logs call it.
    #[serde(default)]
    pub priority: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What then happens.
    pub action: Action,
}

/// A condition: one of its values must match. `*` and `?` are wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The name that is asked for; case does not count.
    Host(Vec<String>),
    /// The path; case counts.
    Path(Vec<String>),
    /// The values of a header; case does not count.
    Header {
        /// Its name.
        name: String,
        /// One of these.
        values: Vec<String>,
    },
    /// The method, exactly.
    Method(Vec<String>),
    /// A key (none is any) and its value in the query; case does not count.
    Query(Vec<(Option<String>, String)>),
    /// The client's address is in one of these blocks: base and prefix length.
    Source(Vec<(IpAddr, u8)>),
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A target answers it.
    Forward(Forward),
    /// The client is sent elsewhere. `#{protocol}`, `#{host}`, `#{port}`, `#{path}` and `#{query}` are the request's.
    Redirect {
        /// 301 or 302.
        status: u16,
        /// `HTTP`, `HTTPS` or `#{protocol}`.
        protocol: String,
        /// The host.
        host: String,
        /// The port.
        port: String,
        /// The path.
        path: String,
        /// The query, without the question mark.
        query: String,
    },
    /// An answer of its own.
    Fixed {
        /// The status.
        status: u16,
        /// The body's type.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Ids of target groups, and their shares.
    pub groups: Vec<(String, u32)>,
    /// How long a client stays with a group, when it does.
    pub sticky: Option<Duration>,
}

/// How targets are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Speaks {
    /// The version of HTTP; means nothing where connections are passed on as they are.
    pub version: Version,
    /// Inside of TLS. Targets' certificates are not checked, as on AWS.
    pub tls: bool,
}

/// A version of HTTP towards targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without TLS from the first byte on.
    Http2,
    /// HTTP/2 for remote procedure calls.
    Grpc,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What access logs call it: its ARN.
    #[serde(default)]
    pub label: String,
    /// How its targets are spoken to.
    #[serde(default)]
    pub speaks: Speaks,
    /// Which target is next.
    pub algorithm: Algorithm,
    /// For how long a target that has become well gets fewer requests than its turn, when it does.
    #[serde(default)]
    pub slow_start: Option<Duration>,
    /// How long a client stays with a target, when it does.
    pub sticky: Option<Duration>,
    /// Whether targets are told the client's address (PROXY protocol version 2); for TCP.
    pub proxy_protocol: bool,
    /// How targets are looked after; where they are not, all of them are well.
    pub check: Option<Check>,
    /// The targets.
    pub targets: Vec<Target>,
}

/// Which target is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastOutstanding,
}

/// How targets are looked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// How targets are asked.
    #[serde(default)]
    pub speaks: Speaks,
    /// What is asked for; none is a mere connection.
    pub path: Option<String>,
    /// The port; none is the target's.
    pub port: Option<u16>,
    /// From one check to the next.
    pub interval: Duration,
    /// What takes longer has failed.
    pub timeout: Duration,
    /// So many good ones in a row make an unhealthy target healthy.
    pub healthy: u32,
    /// So many bad ones in a row make a target unhealthy.
    pub unhealthy: u32,
    /// The good statuses, of HTTP or of gRPC: first and last.
    pub statuses: Vec<(u16, u16)>,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its address.
    pub address: SocketAddrV4,
    /// It gets nothing new.
    pub draining: bool,
}

/// What the data plane says: all of it, whenever some of it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the configuration that it goes by.
    pub version: u64,
    /// Which build of the program it is ([`crate::build`]).
    #[serde(default)]
    pub build: String,
    /// Listeners' ids, and why they do not listen where they should.
    pub errors: Vec<(String, String)>,
    /// All targets of groups that a listener sends to.
    pub targets: Vec<TargetReport>,
    /// What passed.
    #[serde(default)]
    pub figures: Figures,
}

/// What passed, by id, since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Of load balancers.
    pub balancers: BTreeMap<String, BalancerFigures>,
    /// Of target groups.
    pub groups: BTreeMap<String, GroupFigures>,
}

/// What passed through a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerFigures {
    /// Requests that are over.
    pub requests: u64,
    /// Connections that clients made.
    pub connections: u64,
    /// Those that are open.
    pub active: u64,
    /// Bytes from and to clients; of HTTP as HTTP/1.1 has them.
    pub bytes: u64,
    /// Redirects, and other answers of its own from 300 to 399.
    pub own_3xx: u64,
    /// Answers of its own from 400 to 499.
    pub own_4xx: u64,
    /// Answers of its own from 500 on.
    pub own_5xx: u64,
    /// Clients that did not agree on TLS.
    pub tls_errors: u64,
}

/// What passed to the targets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupFigures {
    /// How often a target was chosen, for a request or a connection.
    pub requests: u64,
    /// Answers up to 299.
    pub answers_2xx: u64,
    /// Answers from 300 to 399.
    pub answers_3xx: u64,
    /// Answers from 400 to 499.
    pub answers_4xx: u64,
    /// Answers from 500 on.
    pub answers_5xx: u64,
    /// Connections that could not be made.
    pub connection_errors: u64,
    /// Until the heads of answers came, in microseconds, all together.
    pub time_us: u64,
    /// How many answers took at least so many microseconds, and less than the next entry.
    pub times: BTreeMap<u64, u64>,
}

impl GroupFigures {
    /// What this part of all answers (0 to 1) took at most, in microseconds, as exactly as times are told apart. None
    /// without an answer.
    pub fn quantile_us(&self, part: f64) -> Option<u64> {
        let all: u64 = self.times.values().sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let mut steps = self.times.iter();
        steps.find_map(|(least, count)| {
            seen += count;
            (seen >= wanted).then_some(*least)
        })
    }
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its group's id.
    pub group: String,
    /// Its address.
    pub address: SocketAddrV4,
    /// Its health.
    pub health: Health,
    /// What the last check that was not well found.
    pub cause: Option<Cause>,
    /// It is draining, and nothing of it is in flight.
    pub drained: bool,
}

/// A target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not known yet.
    Initial,
    /// Well.
    Healthy,
    /// Ill.
    Unhealthy,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another status, of HTTP or of gRPC, than the good ones.
    Status(u16),
    /// No answer in time.
    Timeout,
    /// No connection, or no HTTP.
    Failed,
}
