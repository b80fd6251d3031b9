//! Connections passed on as they are.

use crate::{
    config::Version,
    http::Open,
    meter::{Count, GroupCount},
    pool,
    reply::Moved,
    table::{Listening, Work},
    tls, tunnel,
    worker::Worker,
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Passes a connection on to a target until it is over.
pub(crate) async fn serve(
    worker: &Worker,
    client: TcpStream,
    peer: SocketAddr,
    listening: &Listening,
) {
    pass(worker, client, |client| client, peer, listening).await;
}

/// The same with what is inside of TLS.
pub(crate) async fn serve_secured(
    worker: &Worker,
    client: TlsStream<TcpStream>,
    peer: SocketAddr,
    listening: &Listening,
) {
    pass(worker, client, |client| client.get_ref().0, peer, listening).await;
}

/// Passes on what `client` says; `outer` is the connection that it says it on.
async fn pass<S>(
    worker: &Worker,
    mut client: S,
    outer: fn(&S) -> &TcpStream,
    peer: SocketAddr,
    listening: &Listening,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Work::Tcp { route, idle } = &*listening.work else { return };
    let (_open, moved) = (Open::new(listening, worker), Moved::now());
    let target = route.choose(None).and_then(|group| Some((group, group.choose(None)?)));
    // Dropping the client's connection with nothing sent is what a port without targets looks like.
    let Some((group, busy)) = target else { return reset(outer(&client)) };
    let target = busy.target().address;
    let passed = async {
        let upstream = pool::open(listening, target).await;
        let mut upstream = upstream.inspect_err(|_| {
            group.meter.add(worker.number, GroupCount::ConnectionErrors, 1);
        })?;
        outer(&client).set_nodelay(true)?;
        if group.proxy_protocol {
            upstream.write_all(&proxy_header(peer, outer(&client).local_addr()?)).await?;
        }
        let joined = match group.speaks.tls {
            false => tunnel::join(&mut client, &mut upstream, *idle, &moved).await,
            true => {
                match pool::in_time(tls::connect(&mut upstream, target, Version::Http1)).await {
                    Ok(inside) => tunnel::join(&mut client, inside, *idle, &moved).await,
                    Err(error) => Err(error),
                }
            }
        };
        if joined.is_err() {
            reset(&upstream);
        }
        joined
    };
    let passed = passed.await;
    listening.meter.add(worker.number, Count::Bytes, moved.bytes());
    if let Err(error) = passed {
        tracing::debug!(%error, "a connection ended early");
        reset(outer(&client));
    }
}

/// The other side is to see that this was no proper end.
pub(crate) fn reset(stream: &TcpStream) {
    let ended = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection is already gone");
    }
}

/// The header of the PROXY protocol, version 2.
/// <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>
fn proxy_header(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let (family, addresses) = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            (0x11, [&from.ip().octets()[..], &to.ip().octets()[..]].concat())
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            (0x21, [&from.ip().octets()[..], &to.ip().octets()[..]].concat())
        }
        _ => (0, Vec::new()),
    };
    header.push(family);
    let ports = match family {
        0 => Vec::new(),
        _ => [from.port().to_be_bytes(), to.port().to_be_bytes()].concat(),
    };
    let length = u16::try_from(addresses.len() + ports.len()).expect("a few bytes");
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(ports);
    header
}

/// The error of a listener whose connections cannot be accepted just now.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(nix::errno::Errno::from_raw);
    use nix::errno::Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(code, Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_header_is_as_specified() {
        let header = proxy_header(
            "10.0.0.1:1000".parse().expect("an address"),
            "10.0.0.2:80".parse().expect("an address"),
        );
        let signature = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
        assert_eq!(header[..12], signature);
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(header[16..], [10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80]);
    }
}
