//! The name service of a VPC: answers the private names of addresses, those of load balancers and those of Cloud Map
//! itself, and hands every other question on to the host's own name servers. UDP only: of its own records it answers as
//! many as fit, for each of them will do.

use network::{NAME_SERVICE, NetworkError};
use servicediscovery::{DnsAnswer, DnsData, Resolved};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UdpSocket, sync::Semaphore};
use world::World;

/// The longest message that UDP carries here (EDNS included).
const MOST_MESSAGE: usize = 4096;
/// How long a host's name server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// So many questions are under way at once; further ones are dropped, and asked again.
const MOST_QUESTIONS: usize = 256;
/// How long an answer about an address holds, in seconds.
const TTL_S: u32 = 60;

/// The longest message to who does not say that longer ones may come (RFC 1035, 4.2.1).
const MESSAGE: usize = 512;

const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
/// Types of records, and of questions.
const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const SRV: u16 = 33;
const OPT: u16 = 41;
const ANY: u16 = 255;

/// Says what a name, in lower case, stands for to who asks from an address.
type Known = dyn Fn(&str, IpAddr) -> Resolved + Send + Sync;

/// Answers questions that come to `socket`; `known` says what names stand for that the VPC has.
pub(super) fn serve(
    world: &World,
    socket: std::net::UdpSocket,
    known: impl Fn(&str, IpAddr) -> Resolved + Send + Sync + 'static,
) -> Result<(), NetworkError> {
    let known: Arc<Known> = Arc::new(known);
    let address = (NAME_SERVICE, 53).into();
    let told = |source| NetworkError::Socket { address, source };
    let socket = Arc::new(UdpSocket::from_std(socket).map_err(told)?);
    let permits = Arc::new(Semaphore::new(MOST_QUESTIONS));
    let spawner = world.clone();
    world.spawn("name service", async move {
        let mut buffer = [0u8; MOST_MESSAGE];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
            let (question, socket, world) =
                (buffer[..length].to_vec(), socket.clone(), spawner.clone());
            let known = known.clone();
            spawner.spawn("question", async move {
                let known = |name: &str| known(name, from.ip());
                if let Some(answer) = answer(&world, known, question).await
                    && let Err(error) = socket.send_to(&answer, from).await
                {
                    tracing::debug!(%error, "a name's answer could not be sent");
                }
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn answer(
    world: &World,
    known: impl Fn(&str) -> Resolved,
    question: Vec<u8>,
) -> Option<Vec<u8>> {
    let (name, kind, end) = parse(&question)?;
    let own = private_address(&name).map_or_else(|| known(&name), |address| addresses(&[address]));
    match own {
        Resolved::Foreign => {}
        Resolved::NoName(ttl) => return Some(no_name(&question, end, ttl)),
        Resolved::Records(records) => return Some(own_answer(&question, end, kind, &records)),
    }
    for server in host_servers() {
        if let Some(Some(answer)) = world.timeout(PATIENCE, ask(server, &question)).await {
            return Some(answer);
        }
    }
    Some(header(&question, end, SERVER_FAILURE, 0))
}

/// The one question of a message: its name in lower case, its type, and where it ends. `None` for what is no
/// question.
fn parse(message: &[u8]) -> Option<(String, u16, usize)> {
    let flags = *message.get(2)?;
    let questions = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    if flags & 0xf8 != 0 || questions != 1 {
        return None;
    }
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Names in questions are never compressed; a label has 63 letters at most.
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        if name.len() + length > 253 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    message.get(at + 3)?;
    Some((name, kind, at + 4))
}

/// `ip-10-0-0-1.ec2.internal` and `ip-10-0-0-1.REGION.compute.internal` stand for the address in them.
fn private_address(name: &str) -> Option<Ipv4Addr> {
    let (host, domain) = name.split_once('.')?;
    if domain != "ec2.internal" && !domain.ends_with(".compute.internal") {
        return None;
    }
    host.strip_prefix("ip-")?.replace('-', ".").parse().ok()
}

/// The header of an answer with the question repeated.
fn header(question: &[u8], end: usize, code: u8, answers: u16) -> Vec<u8> {
    let mut message = question[..end].to_vec();
    // An answer, recursion available, recursion desired as it was asked.
    message[2] = 0x80 | question[2] & 0x01;
    message[3] = 0x80 | code;
    message[6..8].copy_from_slice(&answers.to_be_bytes());
    message[8..12].fill(0);
    message
}

/// Addresses as records.
pub(super) fn addresses(addresses: &[Ipv4Addr]) -> Resolved {
    let record = |address: &Ipv4Addr| DnsAnswer { ttl: TTL_S, data: DnsData::A(*address) };
    Resolved::Records(addresses.iter().map(record).collect())
}

/// How long an answer may be: what an EDNS record right behind the question says (RFC 6891).
fn room(message: &[u8], end: usize) -> usize {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    // The root's name is one zero; an OPT record's class is the size.
    let is_opt = message.get(end) == Some(&0) && number(end + 1) == Some(OPT);
    match number(end + 3).filter(|_| is_opt) {
        Some(size) => usize::from(size).clamp(MESSAGE, MOST_MESSAGE),
        None => MESSAGE,
    }
}

/// A name as messages hold it; none when it is no name.
fn labels(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        out.push(length);
        out.extend(label.bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// What comes behind a record's name.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(1u16.to_be_bytes()); // the Internet
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

fn own_answer(question: &[u8], end: usize, kind: u16, records: &[DnsAnswer]) -> Vec<u8> {
    let room = room(question, end);
    let mut answers = Vec::new();
    let mut count = 0u16;
    for answer in records {
        let (own, data) = match &answer.data {
            DnsData::A(address) => (A, Some(address.octets().to_vec())),
            DnsData::Cname(name) => (CNAME, labels(name)),
            DnsData::Srv { port, target } => {
                let target = labels(target).map(|target| {
                    // Priority and weight are one, as Cloud Map has them.
                    let head = [1u16, 1, *port].map(u16::to_be_bytes).concat();
                    [head, target].concat()
                });
                (SRV, target)
            }
        };
        // Another name is an answer to every question.
        let wanted = kind == own || kind == ANY || own == CNAME;
        let Some(data) = data.filter(|_| wanted) else { continue };
        let record = record(own, answer.ttl, &data);
        if end + answers.len() + 2 + record.len() > room {
            break;
        }
        answers.extend([0xc0, 12]); // the name: as in the question
        answers.extend(record);
        count += 1;
    }
    [header(question, end, 0, count), answers].concat()
}

/// There is no such name, for `ttl` seconds: an SOA record says so (RFC 2308).
fn no_name(question: &[u8], end: usize, ttl: u32) -> Vec<u8> {
    let mut message = header(question, end, NAME_ERROR, 0);
    message[8..10].copy_from_slice(&1u16.to_be_bytes());
    let numbers = [1, 7200, 900, 1_209_600, ttl].map(u32::to_be_bytes).concat();
    // Who serves it and who answers for it: the root, for nobody asks.
    let data = [vec![0, 0], numbers].concat();
    message.extend([0xc0, 12]);
    message.extend(record(SOA, ttl, &data));
    message
}

/// The host's name servers, as they are now: laptops move.
fn host_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let address = line.trim().strip_prefix("nameserver")?.trim();
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::from((address, 53)))
    });
    servers.take(3).collect()
}

/// Asks one server. Each question has a socket, and so a port, of its own: forged answers have to guess it.
async fn ask(server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(question).await.ok()?;
    let mut buffer = vec![0u8; MOST_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        if length >= 12 && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Some(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        message
    }

    fn records(of: &[Ipv4Addr]) -> Vec<DnsAnswer> {
        match addresses(of) {
            Resolved::Records(records) => records,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut message = question("many.example", 255);
        let (_, kind, end) = parse(&message).unwrap();
        let target = format!("{}.example", "a".repeat(60));
        let srv = DnsAnswer { ttl: 5, data: DnsData::Srv { port: 80, target } };
        let all = vec![srv; 8];
        let count = |answer: &[u8]| u16::from_be_bytes([answer[6], answer[7]]);
        let short = own_answer(&message, end, kind, &all);
        assert!(short.len() <= 512 && (1..8).contains(&count(&short)), "{}", count(&short));
        message.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(count(&own_answer(&message, end, kind, &all)), 8);
        assert_eq!(count(&own_answer(&message, end, A, &all)), 0, "it has no address");
        let none = no_name(&message, end, 15);
        assert_eq!((none[3] & 0xf, none[9]), (NAME_ERROR, 1));
        assert_eq!(none[none.len() - 4..], 15u32.to_be_bytes());
        assert_eq!(labels(&"a".repeat(64)), None);
    }

    #[test]
    fn private_names_are_answered() {
        let question = question("IP-10-1-2-3.ec2.internal", 1);
        let (name, kind, end) = parse(&question).unwrap();
        let address = private_address(&name).unwrap();
        let answer = own_answer(&question, end, kind, &records(&[address]));
        assert_eq!(answer[..2], [0xab, 0xcd]);
        assert_eq!(answer[6..8], [0, 1]);
        assert_eq!(answer[answer.len() - 4..], [10, 1, 2, 3]);
        assert_eq!(private_address("ip-10-1-2.ec2.internal"), None);
        assert_eq!(private_address("example.com"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_question_or_none(bytes in proptest::collection::vec(0u8.., 0..64)) {
            if let Some((_, kind, end)) = parse(&bytes) {
                own_answer(&bytes, end, kind, &records(&[Ipv4Addr::LOCALHOST]));
                no_name(&bytes, end, 1);
            }
        }
    }
}
