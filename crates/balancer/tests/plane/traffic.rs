//! What clients and targets see.

use super::harness::*;
use balancer::{
    Report,
    config::{Action, Cause, Condition, Does, Forward, Group, Health, Listener, Rule, Target},
};
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    sync::atomic::Ordering,
    time::Duration,
};

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
    let rule = |condition, action: &Action| Rule {
        priority: 1,
        conditions: vec![condition],
        action: action.clone(),
    };
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
        tls: None,
        prior_knowledge: false,
        does: Does::Tcp { forward, idle: Duration::from_secs(60) },
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
