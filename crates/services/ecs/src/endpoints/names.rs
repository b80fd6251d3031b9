//! The name service of a VPC: answers the private names of addresses, and those of load balancers, itself, and
//! hands every other question on to the host's own name servers. UDP only; an answer that does not fit says so
//! (TC), and the asker's TCP attempt is refused.

use network::{NAME_SERVICE, NetworkError};
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

const SERVER_FAILURE: u8 = 2;
/// The most addresses in an answer, so that it fits.
const MOST_ADDRESSES: usize = 16;

/// Gives the addresses of a name, in lower case.
type Known = dyn Fn(&str) -> Vec<Ipv4Addr> + Send + Sync;

/// Answers questions that come to `socket`; `known` gives the addresses of names that the VPC has, none for others.
pub(super) fn serve(
    world: &World,
    socket: std::net::UdpSocket,
    known: impl Fn(&str) -> Vec<Ipv4Addr> + Send + Sync + 'static,
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
                if let Some(answer) = answer(&world, &*known, question).await
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

async fn answer(world: &World, known: &Known, question: Vec<u8>) -> Option<Vec<u8>> {
    let (name, kind, end) = parse(&question)?;
    let own = private_address(&name).map_or_else(|| known(&name), |address| vec![address]);
    if !own.is_empty() {
        return Some(own_answer(&question, end, kind, &own));
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

fn own_answer(question: &[u8], end: usize, kind: u16, addresses: &[Ipv4Addr]) -> Vec<u8> {
    const A: u16 = 1;
    const ANY: u16 = 255;
    if kind != A && kind != ANY {
        return header(question, end, 0, 0);
    }
    let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    let mut message = header(question, end, 0, addresses.len() as u16);
    for address in addresses {
        message.extend([0xc0, 12]); // the name: as in the question
        message.extend(A.to_be_bytes());
        message.extend(1u16.to_be_bytes()); // the Internet
        message.extend(TTL_S.to_be_bytes());
        message.extend(4u16.to_be_bytes());
        message.extend(address.octets());
    }
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

    #[test]
    fn private_names_are_answered() {
        let question = question("IP-10-1-2-3.ec2.internal", 1);
        let (name, kind, end) = parse(&question).unwrap();
        let address = private_address(&name).unwrap();
        let answer = own_answer(&question, end, kind, &[address]);
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
                own_answer(&bytes, end, kind, &[Ipv4Addr::LOCALHOST]);
            }
        }
    }
}
