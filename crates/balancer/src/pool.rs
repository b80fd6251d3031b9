//! Connections to targets. Each worker keeps its own: nothing is shared, nothing is locked.

use crate::{reply::Forwarded, socket, table::Listening};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddrV4,
    rc::Rc,
    time::{Duration, Instant},
};

/// A target that does not take a connection for so long does not answer, as on AWS.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is closed.
const UNUSED: Duration = Duration::from_secs(30);
/// The unused connections to one target.
const MOST_UNUSED: usize = 1024;

/// Which connections are alike: the node that they start from, and the target.
type Key = (u64, SocketAddrV4);

struct Unused {
    sender: SendRequest<Forwarded>,
    since: Instant,
}

/// A worker's connections that wait for requests.
#[derive(Clone, Default)]
pub(crate) struct Pool(Rc<RefCell<HashMap<Key, Vec<Unused>>>>);

/// A connection to a target.
pub(crate) struct Link {
    key: Key,
    pub(crate) sender: SendRequest<Forwarded>,
    /// It has carried a request before.
    pub(crate) used: bool,
    pool: Pool,
}

impl Link {
    /// Keeps the connection for the next request. Its answer has been read whole.
    pub(crate) fn keep(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut pool = self.pool.0.borrow_mut();
        let unused = pool.entry(self.key).or_default();
        if unused.len() < MOST_UNUSED {
            unused.push(Unused { sender: self.sender, since: Instant::now() });
        }
    }
}

impl Pool {
    /// A connection that waits, or none.
    pub(crate) fn waiting(&self, listening: &Listening, target: SocketAddrV4) -> Option<Link> {
        let key = (listening.node, target);
        let mut pool = self.0.borrow_mut();
        let unused = pool.get_mut(&key)?;
        // The last is the one that the target is least likely to close just now. One that is not ready is about to be.
        while let Some(last) =
            unused.iter().rposition(|u| u.sender.is_ready() || u.sender.is_closed())
        {
            let Unused { sender, .. } = unused.swap_remove(last);
            if sender.is_ready() {
                return Some(Link { key, sender, used: true, pool: self.clone() });
            }
        }
        None
    }

    /// A new connection.
    pub(crate) async fn connect(
        &self,
        listening: &Listening,
        target: SocketAddrV4,
    ) -> io::Result<Link> {
        let stream = open(listening, target).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake::<_, Forwarded>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Whoever sent a request on it is told.
            let _ = connection.with_upgrades().await;
        });
        Ok(Link { key: (listening.node, target), sender, used: false, pool: self.clone() })
    }

    /// Closes what nobody used for long, and connections to targets that `known` does not know.
    pub(crate) fn sweep(&self, known: impl Fn(SocketAddrV4) -> bool) {
        let mut pool = self.0.borrow_mut();
        pool.retain(|(_, target), unused| {
            unused.retain(|u| !u.sender.is_closed() && u.since.elapsed() < UNUSED);
            known(*target) && !unused.is_empty()
        });
    }
}

/// A connection to a target, as bytes.
pub(crate) async fn open(
    listening: &Listening,
    target: SocketAddrV4,
) -> io::Result<tokio::net::TcpStream> {
    let socket = socket::connecting(listening.namespace.as_deref())?;
    match tokio::time::timeout(CONNECT, socket.connect(target.into())).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
