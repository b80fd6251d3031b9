//! Sockets in other network namespaces. A socket stays in the namespace that it was made in, whoever uses it.

use crate::table::Place;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs::File,
    io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::OnceLock,
};

/// The connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A network namespace, open.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// The one that is pinned at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }
}

/// A socket made in `namespace` (the process's own when there is none). The calling thread is back in its own when
/// this returns.
fn inside(namespace: Option<&Namespace>, protocol: Protocol) -> io::Result<Socket> {
    let kind = if protocol == Protocol::UDP { Type::DGRAM } else { Type::STREAM };
    let make = || Socket::new(Domain::IPV4, kind.nonblocking(), Some(protocol));
    let Some(namespace) = namespace else { return make() };
    static OWN: OnceLock<File> = OnceLock::new();
    let own = match OWN.get() {
        Some(own) => own,
        None => {
            let file = File::open("/proc/self/ns/net")?;
            OWN.get_or_init(|| file)
        }
    };
    setns(namespace.0.as_fd(), CloneFlags::CLONE_NEWNET)?;
    let made = make();
    // A thread that is lost in another namespace must not go on.
    setns(own.as_fd(), CloneFlags::CLONE_NEWNET).expect("a thread may return to its namespace");
    made
}

/// What clients come to. It does not block.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Listens.
pub(crate) fn listen(namespace: Option<&Namespace>, place: &Place) -> io::Result<Listener> {
    if place.udp {
        let socket = inside(namespace, Protocol::UDP)?;
        socket.bind(&place.at.into())?;
        return Ok(Listener::Udp(socket.into()));
    }
    let socket = inside(namespace, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&place.at.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(socket.into()))
}

/// A socket for datagrams to a target.
pub(crate) fn datagrams(namespace: Option<&Namespace>) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(inside(namespace, Protocol::UDP)?.into())
}

/// A socket that is ready to connect.
pub(crate) fn connecting(namespace: Option<&Namespace>) -> io::Result<tokio::net::TcpSocket> {
    let socket = inside(namespace, Protocol::TCP)?;
    socket.set_tcp_nodelay(true)?;
    Ok(tokio::net::TcpSocket::from_std_stream(socket.into()))
}
