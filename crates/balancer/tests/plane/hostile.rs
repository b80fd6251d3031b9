//! Requests that mean harm: refused, or passed on in one reading only; and others are served meanwhile.
//! <https://datatracker.ietf.org/doc/html/rfc9112#section-11.2>

use super::harness::*;
use balancer::config::Target;
use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// A target that keeps every byte, and answers whenever what it got ends with an empty line.
fn recorder() -> (SocketAddrV4, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    let address = SocketAddrV4::new(LOCAL, listener.local_addr().expect("bound").port());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let all = kept.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all) = (stream.expect("a connection"), all.clone());
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let mut all = all.lock().expect("not poisoned");
                    all.extend_from_slice(&buffer[..count]);
                    let whole = all.ends_with(b"\r\n\r\n");
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if whole && stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, kept)
}

async fn plane(idle: Duration) -> (Plane, u16, Arc<Mutex<Vec<u8>>>) {
    let (address, kept) = recorder();
    let port = free_port();
    let mut group = group(&[]);
    group.check.as_mut().expect("it has one").path = None;
    group.targets = vec![Target { address, draining: false }];
    let mut config = config(port, vec![], to(&[("g", 1)]), &[("g", group)]);
    config.balancers[0].http.idle_timeout = idle;
    let mut plane = Plane::start(config).await;
    plane.healthy(1).await;
    (plane, port, kept)
}

/// Everything that comes back until the connection ends, or an answer is there.
fn answer(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect((LOCAL, port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    // Whoever refuses early may have closed before all of it was sent.
    let _ = stream.write_all(request);
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
        }
        if all.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn requests_of_two_readings_reach_no_target() {
    let (_plane, port, kept) = plane(Duration::from_secs(60)).await;
    let mut other = Client::new(port);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70 << 10));
    let long_name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: y\r\n\r\n", "x".repeat(17 << 10));
    let all = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        format!("X: {}\r\n", "y".repeat(700)).repeat(99)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(300));
    for (what, request) in [
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        ),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
        ("a length with a tail", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\nhello"),
        (
            "another encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked, but not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
        ("a zero byte", "GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("a tunnel", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an unknown version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{a}hello, TLS\r\n\r\n"),
        ("a header that is too long", &long),
        ("a name that is too long", &long_name),
        ("headers that are too long together", &all),
        ("too many headers", &many),
    ] {
        let answer = answer(port, request.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(answer.is_empty() || ["400", "431"].contains(&status), "{what}: {answer}");
        let passed_on = std::mem::take(&mut *kept.lock().expect("not poisoned"));
        assert!(passed_on.is_empty(), "{what}: {}", String::from_utf8_lossy(&passed_on));
        assert_eq!(other.ask("/", "").body, "ok", "another connection, after {what}");
        kept.lock().expect("not poisoned").clear();
    }
}

#[tokio::test]
async fn a_body_is_framed_in_one_way_only() {
    let (_plane, port, kept) = plane(Duration::from_secs(60)).await;
    let smuggled = "POST /outer HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
                    29\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n\r\n0\r\n\r\n";
    let answer = answer(port, smuggled.as_bytes());
    // The target answers when it has the head; the body may come after that.
    let until = Instant::now() + Duration::from_secs(20);
    let whole = |all: &[u8]| all.is_empty() || all.ends_with(b"\r\n0\r\n\r\n");
    while !whole(&kept.lock().expect("not poisoned")) && Instant::now() < until {
        thread::yield_now();
    }
    let kept = String::from_utf8_lossy(&kept.lock().expect("not poisoned")).to_lowercase();
    if kept.is_empty() {
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    } else {
        // As one request whose body is chunked: what is inside stays inside.
        let (head, body) = kept.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("post /outer") && head.contains("transfer-encoding: chunked"),
            "{kept}"
        );
        assert!(!head.contains("content-length"), "{kept}");
        assert!(body.starts_with("29\r\nget /smuggled") && body.ends_with("0\r\n\r\n"), "{kept}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_frame_ends_there() {
    let (_plane, port, kept) = plane(Duration::from_secs(60)).await;
    let head = "POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloGET /after HTTP/1.1\r\nHost: a\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
    ] {
        let answer = answer(port, format!("{head}{body}").as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 200"), "{body}: {answer}");
        let kept = std::mem::take(&mut *kept.lock().expect("not poisoned"));
        let kept = String::from_utf8_lossy(&kept);
        assert!(!kept.contains("/after") && !kept.ends_with("0\r\n\r\n"), "{body}: {kept}");
    }
    assert_eq!(Client::new(port).ask("/", "").body, "ok");
}

#[tokio::test]
async fn who_sends_too_slowly_is_cut_off() {
    let (_plane, port, _) = plane(Duration::from_secs(1)).await;
    let mut slow: Vec<TcpStream> = Vec::new();
    for head in [
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\nX: ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhel",
    ] {
        let mut stream = TcpStream::connect((LOCAL, port)).expect("a connection");
        stream.write_all(head.as_bytes()).expect("written");
        slow.push(stream);
    }
    assert_eq!(Client::new(port).ask("/", "").body, "ok", "others are served meanwhile");
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        // The end comes by itself, with or without a word.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an end");
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.starts_with("HTTP/1.1 200"), "{rest}");
    }
}
