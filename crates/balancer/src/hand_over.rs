//! Sockets from a process to the one that takes over: nobody who connects meanwhile is refused.

use crate::{socket::Listener, table::Place};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, sockopt,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

/// The unix socket in a process's directory: whoever connects to it is given everything.
pub(crate) const SOCKET: &str = "hand-over";
/// The most sockets of one message; Linux takes 253.
const MOST: usize = 128;
/// How long the other process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What sockets are for, in the order in which they come, after the lock and the control socket.
#[derive(Serialize, Deserialize)]
struct HandedOver {
    handed_over: Vec<Place>,
}

/// What a process took over.
pub(crate) struct Taken {
    /// Holding it keeps others out of the directory.
    pub(crate) lock: OwnedFd,
    pub(crate) control: UnixListener,
    pub(crate) open: HashMap<Place, Arc<Listener>>,
}

/// Sends all sockets to whoever is at the other end.
pub(crate) async fn give(
    to: &tokio::net::UnixStream,
    lock: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
    open: &HashMap<Place, Arc<Listener>>,
) -> io::Result<()> {
    let told = HandedOver { handed_over: open.keys().cloned().collect() };
    let mut line = serde_json::to_vec(&told)?;
    line.push(b'\n');
    let mut sent = 0;
    while sent < line.len() {
        sent += send(to, &line[sent..], &[]).await?;
    }
    let sockets = told.handed_over.iter().map(|place| open[place].as_fd());
    let all: Vec<BorrowedFd<'_>> = [lock, control].into_iter().chain(sockets).collect();
    for some in all.chunks(MOST) {
        send(to, b"\n", some).await?;
    }
    Ok(())
}

async fn send(
    to: &tokio::net::UnixStream,
    bytes: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let sending = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            let fits = rights.push(SendAncillaryMessage::ScmRights(sockets));
            assert!(fits, "no caller sends more than {MOST} at once");
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut rights, flags)?)
    };
    to.async_io(tokio::io::Interest::WRITABLE, sending).await
}

/// Asks the process that runs in a directory for its sockets.
pub(crate) fn take(directory: &Path) -> io::Result<Taken> {
    let stream = UnixStream::connect(directory.join(SOCKET))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut text, mut sockets) = (Vec::new(), Vec::new());
    let places = loop {
        receive(&stream, &mut text, &mut sockets)?;
        let Some(end) = text.iter().position(|byte| *byte == b'\n') else { continue };
        let told: HandedOver = serde_json::from_slice(&text[..end])?;
        if sockets.len() >= told.handed_over.len() + 2 {
            break told.handed_over;
        }
    };
    let mut sockets = sockets.into_iter();
    let (lock, control) = sockets.next().zip(sockets.next()).ok_or(io::ErrorKind::InvalidData)?;
    let mut open = HashMap::new();
    for (place, socket) in places.into_iter().zip(sockets) {
        let listener = match sockopt::socket_type(&socket)? {
            SocketType::DGRAM => Listener::Udp(socket.into()),
            _ => Listener::Tcp(socket.into()),
        };
        open.insert(place, Arc::new(listener));
    }
    Ok(Taken { lock, control: control.into(), open })
}

fn receive(stream: &UnixStream, text: &mut Vec<u8>, sockets: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let received = rustix::net::recvmsg(stream, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            sockets.extend(some);
        }
    }
    match received.bytes {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            text.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}
