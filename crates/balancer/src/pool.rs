//! Connections to targets. Each worker keeps its own: nothing is shared, nothing is locked.

use crate::{
    config::{Speaks, Version},
    reply::Forwarded,
    socket,
    table::Listening,
    tls,
};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddrV4,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A target that does not take a connection for so long does not answer, as on AWS.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that nobody used for so long is closed.
const UNUSED: Duration = Duration::from_secs(30);
/// The unused connections to one target.
const MOST_UNUSED: usize = 1024;
/// The requests that are under way on one HTTP/2 connection: servers refuse more than some number, often this one.
const MOST_STREAMS: usize = 100;

/// Which connections are alike: the node that they start from, the target, and what is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    node: u64,
    target: SocketAddrV4,
    speaks: Speaks,
}

/// A worker's connections.
#[derive(Clone, Default)]
pub(crate) struct Pool(Rc<RefCell<HashMap<Key, Kept>>>);

/// The connections of one kind.
#[derive(Default)]
struct Kept {
    unused: Vec<Unused>,
    shared: Vec<Shared>,
    /// Held while a connection to be shared is made: those who come meanwhile wait for it.
    making: Rc<tokio::sync::Mutex<()>>,
}

/// A connection of HTTP/1.1 that waits for a request.
struct Unused {
    sender: http1::SendRequest<Forwarded>,
    since: Instant,
}

/// A connection of HTTP/2: requests are under way on it beside each other.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Forwarded>,
    streams: Rc<Cell<usize>>,
    used: Rc<Cell<Instant>>,
}

/// A connection to a target, for one request.
pub(crate) struct Link {
    key: Key,
    sender: Sender,
    /// It has carried a request before.
    pub(crate) used: bool,
    pool: Pool,
}

enum Sender {
    Alone(http1::SendRequest<Forwarded>),
    Beside(Stream),
}

/// A request's place on a shared connection.
struct Stream(Shared);

impl Stream {
    fn new(shared: &Shared) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

impl Link {
    /// Sends a request. The error gives it back when nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<Forwarded>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Forwarded>>> {
        match &mut self.sender {
            Sender::Alone(sender) => sender.try_send_request(request).await,
            Sender::Beside(stream) => stream.0.sender.try_send_request(request).await,
        }
    }

    /// Keeps the connection for the next request. Its answer has been read whole.
    pub(crate) fn keep(self) {
        let Sender::Alone(sender) = self.sender else { return };
        if sender.is_closed() {
            return;
        }
        let mut pool = self.pool.0.borrow_mut();
        let unused = &mut pool.entry(self.key).or_default().unused;
        if unused.len() < MOST_UNUSED {
            unused.push(Unused { sender, since: Instant::now() });
        }
    }
}

impl Kept {
    fn next(&mut self) -> Option<Sender> {
        self.shared.retain(|shared| !shared.sender.is_closed());
        let mut free = self.shared.iter().filter(|shared| shared.streams.get() < MOST_STREAMS);
        if let Some(shared) = free.next() {
            return Some(Sender::Beside(Stream::new(shared)));
        }
        // The last is the one that the target is least likely to close just now. One that is not ready is about to be.
        while let Some(last) =
            self.unused.iter().rposition(|u| u.sender.is_ready() || u.sender.is_closed())
        {
            let Unused { sender, .. } = self.unused.swap_remove(last);
            if sender.is_ready() {
                return Some(Sender::Alone(sender));
            }
        }
        None
    }
}

impl Pool {
    /// A connection that is there, or none.
    pub(crate) fn waiting(
        &self,
        listening: &Listening,
        target: SocketAddrV4,
        speaks: Speaks,
    ) -> Option<Link> {
        let key = Key { node: listening.node, target, speaks };
        let sender = self.0.borrow_mut().get_mut(&key)?.next()?;
        Some(Link { key, sender, used: true, pool: self.clone() })
    }

    /// A new connection.
    pub(crate) async fn connect(
        &self,
        listening: &Listening,
        target: SocketAddrV4,
        speaks: Speaks,
    ) -> io::Result<Link> {
        let key = Key { node: listening.node, target, speaks };
        let sender = match speaks.version {
            Version::Http1 => self.make(listening, key).await?,
            _ => in_time(self.share(listening, key)).await?,
        };
        Ok(Link { key, sender, used: false, pool: self.clone() })
    }

    /// A place on a connection that is shared: one that somebody else has just made, or a new one.
    async fn share(&self, listening: &Listening, key: Key) -> io::Result<Sender> {
        let making = self.0.borrow_mut().entry(key).or_default().making.clone();
        let _making = making.lock().await;
        let made = self.0.borrow_mut().get_mut(&key).and_then(Kept::next);
        match made {
            Some(sender) => Ok(sender),
            None => self.make(listening, key).await,
        }
    }

    async fn make(&self, listening: &Listening, key: Key) -> io::Result<Sender> {
        let stream = open(listening, key.target).await?;
        match key.speaks.tls {
            false => self.greet(key, stream).await,
            true => {
                let stream = tls::connect(stream, key.target, key.speaks.version);
                self.greet(key, in_time(stream).await?).await
            }
        }
    }

    async fn greet<S>(&self, key: Key, stream: S) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Whoever sent a request on a connection is told how it ends.
        if key.speaks.version == Version::Http1 {
            let (sender, connection) = http1::Builder::new()
                .handshake::<_, Forwarded>(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
            return Ok(Sender::Alone(sender));
        }
        let (sender, connection) = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .handshake::<_, Forwarded>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        let used = Rc::new(Cell::new(Instant::now()));
        let shared = Shared { sender, streams: Rc::default(), used };
        let stream = Stream::new(&shared);
        self.0.borrow_mut().entry(key).or_default().shared.push(shared);
        Ok(Sender::Beside(stream))
    }

    /// Closes what nobody used for long, and connections to targets that `known` does not know.
    pub(crate) fn sweep(&self, known: impl Fn(SocketAddrV4) -> bool) {
        let mut pool = self.0.borrow_mut();
        pool.retain(|key, kept| {
            kept.unused.retain(|u| !u.sender.is_closed() && u.since.elapsed() < UNUSED);
            kept.shared.retain(|s| {
                let idle = s.streams.get() == 0 && s.used.get().elapsed() >= UNUSED;
                !s.sender.is_closed() && !idle
            });
            let used = !kept.unused.is_empty() || !kept.shared.is_empty();
            known(key.target) && (used || Rc::strong_count(&kept.making) > 1)
        });
    }
}

/// Runs what hyper does beside on the thread of the connection.
#[derive(Clone)]
pub(crate) struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A connection to a target, as bytes.
pub(crate) async fn open(listening: &Listening, target: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = socket::connecting(listening.namespace.as_deref())?;
    in_time(socket.connect(target.into())).await
}

/// The error of what takes longer than a target may take.
pub(crate) async fn in_time<T>(opening: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
