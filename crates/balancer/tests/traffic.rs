//! The data plane with real connections: what clients and targets see.

use balancer::{
    Config, Connection, Report,
    config::{
        Action, Algorithm, Balancer, Cause, Check, Condition, Does, Forward, ForwardedFor, Group,
        Health, HttpSettings, Listener, Node, Rule, Target,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A message: its first line, its headers (names in lower case) and its body.
#[derive(Debug)]
struct Message {
    first: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> &str {
        self.first.split(' ').nth(1).expect("a status")
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Message> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |line: &String| {
        let (key, value) = line.split_once(':').expect("a header");
        (key.to_lowercase(), value.trim().to_owned())
    };
    let first = lines.remove(0);
    let headers: Vec<_> = lines.iter().map(header).collect();
    let length = headers.iter().find(|(key, _)| key == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a length"))];
    stream.read_exact(&mut body).ok()?;
    Some(Message { first, headers, body: String::from_utf8(body).expect("text") })
}

/// A target: answers with its name and what it was sent.
struct Backend {
    address: SocketAddrV4,
    connections: Arc<AtomicUsize>,
    /// What `/health` answers.
    status: Arc<Mutex<u16>>,
    /// Requests for `/wait` are answered one for each message.
    release: mpsc::Sender<()>,
}

fn backend(name: &'static str) -> Backend {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    let address = SocketAddrV4::new(LOCAL, listener.local_addr().expect("bound").port());
    let connections = Arc::new(AtomicUsize::new(0));
    let status = Arc::new(Mutex::new(200));
    let (release, waiting) = mpsc::channel();
    let waiting = Arc::new(Mutex::new(waiting));
    let (counted, health) = (connections.clone(), status.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let (counted, health, waiting) = (counted.clone(), health.clone(), waiting.clone());
            thread::spawn(move || serve(name, stream, &counted, &health, &waiting));
        }
    });
    Backend { address, connections, status, release }
}

fn serve(
    name: &str,
    stream: TcpStream,
    connections: &AtomicUsize,
    health: &Mutex<u16>,
    waiting: &Mutex<mpsc::Receiver<()>>,
) {
    let mut write = stream.try_clone().expect("a second handle");
    let mut stream = BufReader::new(stream);
    let mut number = 0;
    while let Some(request) = read(&mut stream) {
        number += 1;
        let path = request.first.split(' ').nth(1).expect("a path").to_owned();
        if number == 1 && path != "/health" {
            connections.fetch_add(1, Ordering::SeqCst);
        }
        let mut status = 200;
        match &*path {
            "/health" => status = *health.lock().expect("not poisoned"),
            "/break" => return,
            // Answers, and closes without having said so: the next request on it finds it closed.
            "/last" => {
                write!(write, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").expect("written");
                return;
            }
            "/wait" => waiting.lock().expect("not poisoned").recv().expect("released"),
            "/upgrade" => {
                write!(write, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                    .expect("written");
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
                    write!(write, "{name} {line}").expect("written");
                    line.clear();
                }
                return;
            }
            _ => {}
        }
        let headers = request.headers.iter().map(|(key, value)| format!("{key}: {value}\n"));
        let body =
            format!("{name}\n{}\n{}\n{}", request.first, headers.collect::<String>(), request.body);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\nKeep-Alive: timeout=5\r\n\r\n"
        );
        if write.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// A data plane in a thread, and the control plane's end of it.
struct Plane {
    connection: Connection,
    config: Config,
    report: Report,
    _directory: Arc<tempfile::TempDir>,
}

impl Plane {
    async fn start(config: Config) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let of_thread = directory.clone();
        thread::spawn(move || balancer::run(of_thread.path()));
        let connection = loop {
            match Connection::open(directory.path()).await {
                Ok(connection) => break connection,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut plane = Self {
            connection,
            config: Config::default(),
            report: Report::default(),
            _directory: directory,
        };
        plane.apply(config).await;
        plane
    }

    async fn apply(&mut self, mut config: Config) {
        config.version = self.config.version + 1;
        self.connection.orders.configure(&config).await.expect("it listens");
        let version = config.version;
        self.config = config;
        self.until(|report| report.version == version).await;
    }

    async fn until(&mut self, what: impl Fn(&Report) -> bool) {
        while !what(&self.report) {
            self.report = self.connection.reports.next().await.expect("it reports");
        }
    }

    async fn healthy(&mut self, count: usize) {
        let well = |report: &Report| {
            report.targets.iter().filter(|target| target.health == Health::Healthy).count()
        };
        self.until(|report| well(report) == count).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind((LOCAL, 0)).and_then(|l| l.local_addr()).expect("a port").port()
}

fn group(targets: &[&Backend]) -> Group {
    Group {
        algorithm: Algorithm::RoundRobin,
        sticky: None,
        proxy_protocol: false,
        check: Check {
            path: Some("/health".to_owned()),
            port: None,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            healthy: 2,
            unhealthy: 2,
            statuses: vec![(200, 299)],
        },
        targets: targets
            .iter()
            .map(|backend| Target { address: backend.address, draining: false })
            .collect(),
    }
}

fn to(groups: &[(&str, u32)]) -> Action {
    let groups = groups.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect();
    Action::Forward(Forward { groups, sticky: None })
}

fn config(port: u16, rules: Vec<Rule>, default: Action, groups: &[(&str, Group)]) -> Config {
    let http = HttpSettings {
        idle_timeout: Duration::from_secs(60),
        keep_alive: Duration::from_secs(3600),
        forwarded_for: ForwardedFor::Append,
        client_port: false,
        drop_invalid_headers: false,
    };
    let listener = Listener { id: "l1".into(), port, does: Does::Http { rules, default } };
    Config {
        version: 0,
        secret: "a secret".into(),
        shared: None,
        balancers: vec![Balancer {
            id: "b1".into(),
            names: vec!["web.localhost".into()],
            nodes: vec![Node { netns: None, ip: LOCAL }],
            on_shared: false,
            listeners: vec![listener],
            http,
        }],
        groups: groups
            .iter()
            .map(|(id, group)| ((*id).to_owned(), group.clone()))
            .collect::<BTreeMap<_, _>>(),
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        Self(BufReader::new(TcpStream::connect((LOCAL, port)).expect("a connection")))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("written");
    }

    fn ask(&mut self, path: &str, headers: &str) -> Message {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: web.localhost\r\n{headers}\r\n"));
        read(&mut self.0).expect("an answer")
    }
}

fn name(message: &Message) -> &str {
    message.body.lines().next().unwrap_or_default()
}

#[tokio::test]
async fn requests_reach_targets_in_turn_over_kept_connections() {
    let (a, b) = (backend("a"), backend("b"));
    let port = free_port();
    let mut plane =
        Plane::start(config(port, vec![], to(&[("g", 1)]), &[("g", group(&[&a, &b]))])).await;
    plane.healthy(2).await;
    let mut client = Client::new(port);
    let mut seen = HashMap::new();
    for _ in 0..10 {
        let answer =
            client.ask("/x?y=1", "Connection: x-mine\r\nX-Mine: 1\r\nX-Forwarded-For: 1.2.3.4\r\n");
        assert_eq!(answer.status(), "200");
        assert_eq!(answer.header("keep-alive"), None, "that is between neighbours only");
        *seen.entry(name(&answer).to_owned()).or_insert(0) += 1;
        let told = &answer.body;
        assert!(told.contains("GET /x?y=1 HTTP/1.1\n"), "{told}");
        assert!(told.contains("x-forwarded-for: 1.2.3.4, 127.0.0.1\n"), "{told}");
        assert!(told.contains("x-forwarded-proto: http\n"), "{told}");
        assert!(told.contains(&format!("x-forwarded-port: {port}\n")), "{told}");
        assert!(told.contains("x-amzn-trace-id: Root=1-"), "{told}");
        assert!(told.contains("host: web.localhost\n") && !told.contains("x-mine"), "{told}");
    }
    assert_eq!(seen, HashMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]));
    for backend in [&a, &b] {
        assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "one client, one connection");
    }
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    let answer = read(&mut client.0).expect("an answer");
    assert!(answer.body.ends_with("\nhello"), "{answer:?}");
}

#[tokio::test]
async fn rules_decide_and_answers_of_its_own_are_as_on_aws() {
    let a = backend("a");
    let port = free_port();
    let fixed =
        Action::Fixed { status: 418, content_type: "text/plain".into(), body: "tea".into() };
    let redirect = Action::Redirect {
        status: 301,
        protocol: "HTTPS".into(),
        host: "new.#{host}".into(),
        port: "443".into(),
        path: "/moved/#{path}".into(),
        query: "#{query}".into(),
    };
    let rule =
        |condition, action: &Action| Rule { conditions: vec![condition], action: action.clone() };
    let rules = vec![
        rule(Condition::Path(vec!["/tea*".into()]), &fixed),
        rule(Condition::Header { name: "x-old".into(), values: vec!["1".into()] }, &redirect),
        rule(Condition::Query(vec![(Some("to".into()), "nowhere".into())]), &to(&[("empty", 1)])),
        rule(Condition::Method(vec!["DELETE".into()]), &to(&[("off", 0)])),
    ];
    let mut dead = group(&[]);
    let gone = free_port();
    dead.targets = vec![Target { address: SocketAddrV4::new(LOCAL, gone), draining: false }];
    let rules =
        [rules, vec![rule(Condition::Host(vec!["dead.*".into()]), &to(&[("dead", 1)]))]].concat();
    let groups =
        [("g", group(&[&a])), ("empty", group(&[])), ("off", group(&[&a])), ("dead", dead)];
    let mut plane = Plane::start(config(port, rules, to(&[("g", 1)]), &groups)).await;
    plane.until(|report| report.targets.iter().any(|t| t.cause == Some(Cause::Failed))).await;
    let mut client = Client::new(port);
    let tea = client.ask("/teapot", "");
    assert_eq!(
        (tea.status(), &*tea.body, tea.header("server")),
        ("418", "tea", Some("awselb/2.0"))
    );
    let moved = client.ask("/a/b?c=d", "X-Old: 1\r\n");
    assert_eq!(moved.status(), "301");
    assert_eq!(moved.header("location"), Some("https://new.web.localhost:443/moved/a/b?c=d"));
    let nowhere = client.ask("/?to=nowhere", "");
    assert_eq!(nowhere.status(), "503");
    assert!(nowhere.body.contains("<h1>503 Service Unavailable</h1>"), "{nowhere:?}");
    assert_eq!(client.ask("/", "").status(), "200");
    client.send("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(read(&mut client.0).expect("an answer").status(), "503", "no share at all");
    client.send("GET / HTTP/1.1\r\nHost: dead.x\r\n\r\n");
    assert_eq!(read(&mut client.0).expect("an answer").status(), "502", "nobody listens there");
    assert_eq!(client.ask("/break", "").status(), "502", "it hung up on a new connection");
    client.send("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(read(&mut client.0).expect("an answer").status(), "405");
    let long = format!("/{}", "a".repeat(17_000));
    assert_eq!(client.ask(&long, "").status(), "414");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(read(&mut client.0).expect("an answer").status(), "400", "two hosts");
    let forwarders = format!("X-Forwarded-For: {}\r\n", ["1.1.1.1"; 31].join(","));
    assert_eq!(client.ask("/", &forwarders).status(), "463");
}

#[tokio::test]
async fn a_connection_that_the_target_closed_costs_no_request() {
    let a = backend("a");
    let port = free_port();
    let mut plane =
        Plane::start(config(port, vec![], to(&[("g", 1)]), &[("g", group(&[&a]))])).await;
    plane.healthy(1).await;
    let mut client = Client::new(port);
    for _ in 0..50 {
        assert_eq!(client.ask("/last", "").body, "last");
        assert_eq!(client.ask("/next", "").status(), "200");
    }
}

#[tokio::test]
async fn ill_targets_get_nothing_until_all_are_ill() {
    let (a, b) = (backend("a"), backend("b"));
    let port = free_port();
    let mut plane =
        Plane::start(config(port, vec![], to(&[("g", 1)]), &[("g", group(&[&a, &b]))])).await;
    plane.healthy(2).await;
    *a.status.lock().expect("not poisoned") = 500;
    // The backend says 500 for its health only from here on; it is asked with its own status line.
    plane.healthy(1).await;
    let ill =
        plane.report.targets.iter().find(|t| t.health == Health::Unhealthy).expect("one is ill");
    assert_eq!((ill.address, ill.cause.clone()), (a.address, Some(Cause::Status(500))));
    let mut client = Client::new(port);
    for _ in 0..6 {
        assert_eq!(name(&client.ask("/", "")), "b");
    }
    *b.status.lock().expect("not poisoned") = 404;
    plane.healthy(0).await;
    let answers: Vec<String> = (0..4).map(|_| name(&client.ask("/", "")).to_owned()).collect();
    assert!(answers.contains(&"a".to_owned()) && answers.contains(&"b".to_owned()), "{answers:?}");
    *a.status.lock().expect("not poisoned") = 204;
    plane.healthy(1).await;
    assert_eq!(name(&client.ask("/", "")), "a");
}

#[tokio::test]
async fn a_draining_target_finishes_what_it_has_and_gets_nothing_new() {
    let (a, b) = (backend("a"), backend("b"));
    let port = free_port();
    let mut plane =
        Plane::start(config(port, vec![], to(&[("g", 1)]), &[("g", group(&[&a]))])).await;
    plane.healthy(1).await;
    let mut waiting = Client::new(port);
    waiting.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = Client::new(port);
    assert_eq!(name(&client.ask("/", "")), "a");
    let mut next = plane.config.clone();
    let group = next.groups.get_mut("g").expect("it has it");
    group.targets[0].draining = true;
    group.targets.push(Target { address: b.address, draining: false });
    plane.apply(next).await;
    let of_a =
        |report: &Report, address| report.targets.iter().find(|t| t.address == address).cloned();
    assert!(!of_a(&plane.report, a.address).expect("it is told").drained, "a request is in flight");
    for _ in 0..5 {
        assert_eq!(name(&client.ask("/", "")), "b", "also on a connection that was there before");
    }
    a.release.send(()).expect("it waits");
    assert_eq!(name(&read(&mut waiting.0).expect("an answer")), "a");
    plane.until(|report| of_a(report, a.address).is_some_and(|target| target.drained)).await;
}

#[tokio::test]
async fn weights_and_stickiness_hold() {
    let (a, b) = (backend("a"), backend("b"));
    let port = free_port();
    let mut plane = Plane::start(config(
        port,
        vec![],
        to(&[("ga", 9), ("gb", 1)]),
        &[("ga", group(&[&a])), ("gb", group(&[&b]))],
    ))
    .await;
    plane.healthy(2).await;
    let mut client = Client::new(port);
    let to_b = (0..200).filter(|_| name(&client.ask("/", "")) == "b").count();
    assert!((15..=25).contains(&to_b), "{to_b} of 200 are about a tenth");

    let mut sticky = plane.config.clone();
    let both = Group { sticky: Some(Duration::from_secs(60)), ..group(&[&a, &b]) };
    sticky.groups = BTreeMap::from([("g".to_owned(), both)]);
    sticky.balancers[0].listeners[0].does = Does::Http { rules: vec![], default: to(&[("g", 1)]) };
    plane.apply(sticky).await;
    plane.healthy(2).await;
    let first = client.ask("/", "");
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().expect("a pair");
    assert!(cookie.starts_with("AWSALB=") && !cookie.contains("127.0.0.1"), "{cookie}");
    for _ in 0..10 {
        let again = client.ask("/", &format!("Cookie: x=1; {cookie}\r\n"));
        assert_eq!(name(&again), name(&first));
    }
}

#[tokio::test]
async fn upgraded_connections_and_plain_ones_are_passed_on() {
    let a = backend("a");
    let (port, tcp) = (free_port(), free_port());
    let mut both = config(port, vec![], to(&[("g", 1)]), &[("g", group(&[&a]))]);
    let forward = Forward { groups: vec![("g".into(), 1)], sticky: None };
    both.balancers[0].listeners.push(Listener {
        id: "l2".into(),
        port: tcp,
        does: Does::Tcp { forward },
    });
    let mut plane = Plane::start(both).await;
    plane.healthy(1).await;
    let mut client = Client::new(port);
    let answer = client.ask("/upgrade", "Connection: Upgrade\r\nUpgrade: echo\r\n");
    assert_eq!((answer.status(), answer.header("upgrade")), ("101", Some("echo")));
    for line in ["one\n", "two\n"] {
        client.send(line);
        let mut echo = String::new();
        client.0.read_line(&mut echo).expect("an echo");
        assert_eq!(echo, format!("a {line}"));
    }
    let answer = Client::new(tcp).ask("/plain", "");
    assert_eq!(name(&answer), "a");
    assert!(!answer.body.contains("x-forwarded"), "{answer:?}");
}

#[tokio::test]
async fn balancers_share_an_address_and_a_taken_port_is_told() {
    let (a, b) = (backend("a"), backend("b"));
    let port = free_port();
    let mut shared =
        config(port, vec![], to(&[("a", 1)]), &[("a", group(&[&a])), ("b", group(&[&b]))]);
    shared.shared = Some("127.0.0.2".parse().expect("an address"));
    shared.balancers[0].on_shared = true;
    let mut other = shared.balancers[0].clone();
    (other.id, other.names) = ("b2".into(), vec!["other.localhost".into()]);
    other.nodes[0].ip = Ipv4Addr::new(127, 0, 0, 3);
    other.listeners[0].id = "l2".into();
    other.listeners[0].does = Does::Http { rules: vec![], default: to(&[("b", 1)]) };
    shared.balancers.push(other);
    let taken = TcpListener::bind(("127.0.0.3", port)).expect("nobody has it");
    let mut plane = Plane::start(shared).await;
    plane.healthy(2).await;
    let told = &plane.report.errors;
    assert!(told.len() == 1 && told[0].0 == "l2" && told[0].1.contains("127.0.0.3"), "{told:?}");
    let mut client =
        Client(BufReader::new(TcpStream::connect(("127.0.0.2", port)).expect("a connection")));
    for (host, expected) in [("web.localhost", "a"), ("OTHER.localhost:80", "b")] {
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(name(&read(&mut client.0).expect("an answer")), expected);
    }
    client.send("GET / HTTP/1.1\r\nHost: unknown\r\n\r\n");
    assert_eq!(read(&mut client.0).expect("an answer").status(), "421");
    // The port is tried again when it may be free.
    drop(taken);
    plane.until(|report| report.errors.is_empty()).await;
    let again = TcpStream::connect(("127.0.0.3", port)).expect("it listens now");
    assert_eq!(name(&Client(BufReader::new(again)).ask("/", "")), "b");
}
