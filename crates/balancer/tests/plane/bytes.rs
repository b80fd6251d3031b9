//! Whatever bytes come: targets see whole requests of one reading only, and others are served.

use super::{harness::*, http2};
use balancer::config::{Target, Version};
use hyper::Request;
use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// What comes before a head's end; `None` is a head that no target may be sent.
type Head<'a> = Option<Vec<(&'a str, &'a str)>>;

fn head(text: &str) -> Head<'_> {
    let mut lines = text.split("\r\n");
    let first = lines.next()?;
    let words: Vec<&str> = first.split(' ').collect();
    let [method, path, "HTTP/1.1"] = words[..] else { return None };
    let good = !method.is_empty() && path.starts_with('/') && !text.contains(['\0', '\x0b']);
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ")?;
        let clean =
            !name.is_empty() && !name.contains([' ', '\t', ':']) && !value.contains(['\r', '\n']);
        clean.then_some((name, value))
    });
    let headers = headers.collect::<Option<Vec<_>>>()?;
    good.then_some(headers)
}

/// How long the first request in `bytes` is, when it is all there; an error when it is none.
fn request(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
    // Values may have bytes that are no ASCII (RFC 9110, section 5.5).
    let text: String = bytes[..end].iter().map(|byte| *byte as char).collect();
    let headers = head(&text).ok_or_else(shown)?;
    let all = |name: &str| -> Vec<&str> {
        let of = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        of.map(|(_, value)| *value).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    if all("host").len() != 1 || lengths.len() + codings.len() > 1 {
        return Err(shown());
    }
    let mut at = end + 4;
    if let [length] = lengths[..] {
        let length: usize = length.parse().map_err(|_| shown())?;
        return Ok((bytes.len() >= at + length).then_some(at + length));
    }
    if codings.is_empty() {
        return Ok(Some(at));
    }
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or_else(shown)?;
        let next = at + line + 2 + size + 2;
        if bytes.len() < next {
            return Ok(None);
        }
        if &bytes[next - 2..next] != b"\r\n" {
            return Err(shown());
        }
        at = next;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// A target that answers every whole request, and keeps what was none.
fn judge() -> (SocketAddrV4, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    let address = SocketAddrV4::new(LOCAL, listener.local_addr().expect("bound").port());
    let broken = Arc::new(Mutex::new(Vec::new()));
    let kept = broken.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept) = (stream.expect("a connection"), kept.clone());
            thread::spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    all.extend_from_slice(&buffer[..count]);
                    loop {
                        match request(&all) {
                            Ok(None) => break,
                            Ok(Some(length)) => {
                                all.drain(..length);
                                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                                if stream.write_all(answer).is_err() {
                                    return;
                                }
                            }
                            Err(what) => {
                                kept.lock().unwrap_or_else(PoisonError::into_inner).push(what);
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    (address, broken)
}

/// A generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Something like a request, or several, in which little is as it should be.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    const METHODS: [&str; 6] = ["GET", "POST", "PUT", "get", "G ET", ""];
    const PATHS: [&str; 7] = ["/", "/a?b=c", "*", "http://a/", "//", "/\u{e9}", "a"];
    const VERSIONS: [&str; 5] = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", ""];
    const NAMES: [&str; 11] = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "X-A",
        "content-length",
        "Host ",
        " X",
        "X\0",
        "Expect",
        "Upgrade",
    ];
    const VALUES: [&str; 16] = [
        "a",
        "0",
        "3",
        "5",
        "chunked",
        "identity, chunked",
        "chunked, identity",
        "xchunked",
        "+3",
        "3, 3",
        "99999999999999999999",
        "close",
        "upgrade, x-a",
        "100-continue",
        "a\r\n b",
        "\u{1}",
    ];
    const ENDS: [&str; 6] = ["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n"];
    const BODIES: [&str; 9] = [
        "",
        "abc",
        "abcde",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n",
        "-1\r\n",
        "3\nabc\n0\n\n",
        "ffffffffffffffffff\r\n",
        "0\r\n\r\nGET /inside HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(3) {
        let mostly = dice.below(4) > 0;
        let mut say = |text: &str| bytes.extend_from_slice(text.as_bytes());
        match mostly {
            true => say(&format!("{} / HTTP/1.1\r\nHost: a\r\n", dice.of(&["GET", "POST"]))),
            false => say(&format!(
                "{} {} {}{}",
                dice.of(&METHODS),
                dice.of(&PATHS),
                dice.of(&VERSIONS),
                dice.of(&ENDS)
            )),
        }
        for _ in 0..dice.below(4) {
            let colon = dice.of(&[": ", ":", " : ", ""]);
            say(&format!("{}{colon}{}{}", dice.of(&NAMES), dice.of(&VALUES), dice.of(&ENDS)));
        }
        say(dice.of(&ENDS));
        say(dice.of(&BODIES));
    }
    for _ in 0..dice.below(3) {
        let at = dice.below(bytes.len());
        bytes[at] = dice.below(256) as u8;
    }
    bytes
}

#[tokio::test]
async fn targets_see_whole_requests_only() {
    let (address, broken) = judge();
    let port = free_port();
    let mut group = group(&[]);
    group.check.as_mut().expect("it has one").path = None;
    group.targets = vec![Target { address, draining: false }];
    let mut wanted = config(port, vec![], to(&[("g", 1)]), &[("g", group)]);
    wanted.balancers[0].http.idle_timeout = Duration::from_secs(5);
    let mut plane = Plane::start(wanted).await;
    plane.healthy(1).await;
    let mut other = Client::new(port);
    let mut dice = Dice(0x5eed);
    for round in 0..3000 {
        let bytes = nonsense(&mut dice);
        let mut stream = TcpStream::connect((LOCAL, port)).expect("a connection");
        // Whoever refuses early may have closed before all of it was sent.
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let _ = stream.read_to_end(&mut Vec::new());
        let broken = std::mem::take(&mut *broken.lock().unwrap_or_else(PoisonError::into_inner));
        let sent = String::from_utf8_lossy(&bytes);
        assert!(broken.is_empty(), "round {round}: {sent:?} became {broken:?}");
        if round % 100 == 0 {
            assert_eq!(other.ask("/", "").body, "ok", "another connection, in round {round}");
        }
    }
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_harm_nobody() {
    let remote = http2::remote().await;
    let port = free_port();
    let mut plane = Plane::start(http2::config(port, http2::of(&remote, Version::Http2))).await;
    plane.healthy(1).await;
    let mut hasty = http2::dial(port).await;
    for _ in 0..20_000 {
        let request: Request<http2::Sent> = http2::get("/");
        if hasty.ready().await.is_err() {
            break;
        }
        let asked = hasty.send_request(request);
        // Sent with the next turn, and taken back.
        let asked = tokio::time::timeout(Duration::ZERO, asked);
        let _ = asked.await;
    }
    let answer = http2::dial(port).await.send_request(http2::get("/")).await;
    assert_eq!(answer.expect("others are served").status(), 200);
    drop(hasty);
    plane.until(|report| report.figures.balancers["b1"].active <= 1).await;
}
