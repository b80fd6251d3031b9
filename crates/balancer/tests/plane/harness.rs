//! Clients, targets and a data plane in threads of this process.

use balancer::{
    Config, Connection, Report,
    config::{
        Action, Algorithm, Balancer, Check, Does, Forward, ForwardedFor, Group, Health,
        HttpSettings, Listener, Node, Rule, Speaks, Target,
    },
};
use std::{
    collections::BTreeMap,
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

pub(super) const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A message: its first line, its headers (names in lower case) and its body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Message {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn status(&self) -> &str {
        self.first.split(' ').nth(1).expect("a status")
    }
}

pub(super) fn read(stream: &mut BufReader<TcpStream>) -> Option<Message> {
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
pub(super) struct Backend {
    pub(super) address: SocketAddrV4,
    pub(super) connections: Arc<AtomicUsize>,
    /// What `/health` answers.
    pub(super) status: Arc<Mutex<u16>>,
    /// Requests for `/wait` are answered one for each message.
    pub(super) release: mpsc::Sender<()>,
}

pub(super) fn backend(name: &'static str) -> Backend {
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

pub(super) fn serve(
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
pub(super) struct Plane {
    pub(super) connection: Connection,
    pub(super) config: Config,
    pub(super) report: Report,
    pub(super) _directory: Arc<tempfile::TempDir>,
}

impl Plane {
    pub(super) async fn start(config: Config) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let of_thread = directory.clone();
        thread::spawn(move || balancer::run(of_thread.path(), false));
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

    pub(super) async fn apply(&mut self, mut config: Config) {
        config.version = self.config.version + 1;
        self.connection.orders.configure(&config).await.expect("it listens");
        let version = config.version;
        self.config = config;
        self.until(|report| report.version == version).await;
    }

    pub(super) async fn until(&mut self, what: impl Fn(&Report) -> bool) {
        while !what(&self.report) {
            self.report = self.connection.reports.next().await.expect("it reports");
        }
    }

    pub(super) async fn healthy(&mut self, count: usize) {
        let well = |report: &Report| {
            report.targets.iter().filter(|target| target.health == Health::Healthy).count()
        };
        self.until(|report| well(report) == count).await;
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind((LOCAL, 0)).and_then(|l| l.local_addr()).expect("a port").port()
}

pub(super) fn group(targets: &[&Backend]) -> Group {
    Group {
        label: "a group".into(),
        speaks: Speaks::default(),
        algorithm: Algorithm::RoundRobin,
        slow_start: None,
        sticky: None,
        proxy_protocol: false,
        check: Some(Check {
            speaks: Speaks::default(),
            path: Some("/health".to_owned()),
            port: None,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            healthy: 2,
            unhealthy: 2,
            statuses: vec![(200, 299)],
        }),
        targets: targets
            .iter()
            .map(|backend| Target { address: backend.address, draining: false })
            .collect(),
    }
}

pub(super) fn to(groups: &[(&str, u32)]) -> Action {
    let groups = groups.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect();
    Action::Forward(Forward { groups, sticky: None })
}

pub(super) fn config(
    port: u16,
    rules: Vec<Rule>,
    default: Action,
    groups: &[(&str, Group)],
) -> Config {
    let http = HttpSettings {
        idle_timeout: Duration::from_secs(60),
        keep_alive: Duration::from_secs(3600),
        forwarded_for: ForwardedFor::Append,
        client_port: false,
        drop_invalid_headers: false,
    };
    let listener = Listener {
        id: "l1".into(),
        port,
        tls: None,
        prior_knowledge: false,
        does: Does::Http { rules, default },
    };
    Config {
        version: 0,
        secret: "a secret".into(),
        log_period: Duration::from_secs(300),
        shared: None,
        balancers: vec![Balancer {
            id: "b1".into(),
            names: vec!["web.localhost".into()],
            nodes: vec![Node { netns: None, ip: LOCAL, diverted: None }],
            on_shared: false,
            listeners: vec![listener],
            http,
            access_log: None,
        }],
        groups: groups
            .iter()
            .map(|(id, group)| ((*id).to_owned(), group.clone()))
            .collect::<BTreeMap<_, _>>(),
    }
}

pub(super) struct Client(pub(super) BufReader<TcpStream>);

impl Client {
    pub(super) fn new(port: u16) -> Self {
        Self(BufReader::new(TcpStream::connect((LOCAL, port)).expect("a connection")))
    }

    pub(super) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("written");
    }

    pub(super) fn ask(&mut self, path: &str, headers: &str) -> Message {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: web.localhost\r\n{headers}\r\n"));
        read(&mut self.0).expect("an answer")
    }
}

pub(super) fn name(message: &Message) -> &str {
    message.body.lines().next().unwrap_or_default()
}
