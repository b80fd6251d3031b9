//! A worker: one thread that accepts connections and sees them through. Workers share listening sockets and the table,
//! and nothing else.

use crate::{
    access_log::Book,
    answer,
    http::{self, Client, Open},
    matching,
    meter::Count,
    pool::{OnThisThread, Pool},
    reply::{Moved, Reply},
    socket::Listener,
    table::{Current, Listening, Place, Table, Work},
    tcp,
    tls::{Agreed, Hello},
    udp,
};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc::UnboundedReceiver, watch},
    task::JoinHandle,
};

use tokio_rustls::server::TlsStream;

/// How often connections that wait are looked through, and a new table is noticed without a request.
pub(crate) const SWEEP: Duration = Duration::from_millis(500);
/// How long accepting rests when the process has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// The most requests of one HTTP/2 connection that are under way.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-listeners.html>
const MOST_STREAMS: u32 = 128;
/// The most headers.
const MOST_HEADERS: usize = 200;

/// What a worker is told.
pub(crate) enum Order {
    /// Accept connections here.
    Open(Place, Arc<Listener>),
    /// No longer.
    Close(Place),
    /// Another process takes over: connections end with what is under way on them.
    Leave,
}

/// What all connections of a worker share.
pub(crate) struct Worker {
    /// Which one it is, from 0.
    pub(crate) number: usize,
    pub(crate) pool: Pool,
    pub(crate) book: Arc<Book>,
    table: Arc<Current>,
    /// The turn of the table as it was last looked at.
    seen: Cell<u64>,
    random: u64,
    count: Cell<u32>,
    /// Another process has taken over.
    leaving: watch::Sender<bool>,
}

/// A listener of the table of one turn.
#[derive(Clone)]
pub(crate) struct Chosen {
    here: Rc<Here>,
    at: usize,
}

impl Deref for Chosen {
    type Target = Listening;

    fn deref(&self) -> &Listening {
        &self.here.listening[self.at]
    }
}

impl Worker {
    /// A number that no other connection has.
    fn connection(&self) -> u128 {
        self.count.set(self.count.get().wrapping_add(1));
        u128::from(self.random) << 64 | u128::from(self.count.get())
    }

    /// A value for X-Amzn-Trace-Id: a new root, or our own part in front of the one that came.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-request-tracing.html>
    pub(crate) fn trace(&self, given: Option<&str>) -> String {
        self.count.set(self.count.get().wrapping_add(1));
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        let id = format!("1-{:08x}-{:016x}{:08x}", seconds as u32, self.random, self.count.get());
        match given {
            Some(given) if given.contains("Self=") => given.to_owned(),
            Some(given) if !given.is_empty() => format!("Self={id};{given}"),
            _ => format!("Root={id}"),
        }
    }

    /// The turn of the table of the moment. With another one, connections to targets that are gone are closed.
    /// Whether connections are to end.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    pub(crate) fn turn(&self) -> u64 {
        let turn = self.table.turn();
        if self.seen.replace(turn) != turn {
            let newest = self.table.table();
            let serving = |address| {
                let mut all = newest.groups.values().flat_map(|group| &group.serving);
                all.any(|target| target.address == address)
            };
            self.pool.sweep(serving);
        }
        turn
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.table()
    }

    fn sweep(&self) {
        self.turn();
        self.pool.sweep(|_| true);
    }
}

/// What a worker is given.
pub(crate) struct Start {
    pub(crate) number: usize,
    pub(crate) table: Arc<Current>,
    pub(crate) book: Arc<Book>,
    pub(crate) random: u64,
    pub(crate) orders: UnboundedReceiver<Order>,
}

/// Runs a worker until nobody gives it orders any more.
pub(crate) async fn run(start: Start) {
    let Start { number, table, book, random, mut orders } = start;
    let seen = Cell::new(table.turn());
    let (pool, count) = (Pool::default(), Cell::new(0));
    let leaving = watch::Sender::new(false);
    let worker = Rc::new(Worker { number, pool, book, table, seen, random, count, leaving });
    let mut accepting: HashMap<Place, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Open(place, socket)) => {
                    let accept = accept(worker.clone(), place.clone(), socket);
                    let task = tokio::task::spawn_local(async move {
                        if let Err(error) = accept.await {
                            tracing::error!(%error, "a listener cannot be served");
                        }
                    });
                    if let Some(before) = accepting.insert(place, task) {
                        before.abort();
                    }
                }
                Some(Order::Close(place)) => {
                    if let Some(task) = accepting.remove(&place) {
                        task.abort();
                    }
                }
                Some(Order::Leave) => drop(worker.leaving.send_replace(true)),
            },
            () = tokio::time::sleep(SWEEP) => worker.sweep(),
        }
    }
}

async fn accept(worker: Rc<Worker>, place: Place, socket: Arc<Listener>) -> io::Result<()> {
    let socket = match &*socket {
        Listener::Tcp(socket) => tokio::net::TcpListener::from_std(socket.try_clone()?)?,
        // A client's datagrams belong together: one worker has them all.
        Listener::Udp(_) if worker.number > 0 => return Ok(()),
        Listener::Udp(socket) => {
            let socket = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
            udp::serve(worker, place, socket).await;
            return Ok(());
        }
    };
    let place = Rc::new(place);
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                tokio::task::spawn_local(serve(worker.clone(), place.clone(), stream, peer));
            }
            Err(error) if tcp::is_exhausted(&error) => tokio::time::sleep(EXHAUSTED).await,
            Err(error) => tracing::debug!(%error, "a connection ended before it was accepted"),
        }
    }
}

/// Those that listen at a place, of the table of one turn. A connection keeps it, so that requests touch nothing that
/// workers share.
struct Here {
    turn: u64,
    listening: Vec<Arc<Listening>>,
}

impl Here {
    fn now(worker: &Worker, place: &Place) -> Rc<Self> {
        // The turn first: a table that comes in between is found with the next request.
        let turn = worker.turn();
        let listening = worker.table.table().places.get(place).cloned().unwrap_or_default();
        Rc::new(Self { turn, listening })
    }

    /// The listener that a request is for: the only one here, or the one whose name is asked for.
    fn find(self: &Rc<Self>, id: Option<&str>, request: &Request<Incoming>) -> Option<Chosen> {
        let at = match (&self.listening[..], id) {
            ([], _) => None,
            ([_], _) => Some(0),
            (several, Some(id)) => several.iter().position(|listening| listening.id == id),
            (several, None) => {
                let asked = matching::host_of(request.uri(), request.headers())?;
                several.iter().position(|listening| listening.names.contains(&asked))
            }
        };
        at.map(|at| Chosen { here: self.clone(), at })
    }
}

async fn serve(worker: Rc<Worker>, place: Rc<Place>, stream: TcpStream, peer: SocketAddr) {
    let _connected = worker.table.connected();
    let here = Here::now(&worker, &place);
    let Some(mut first) = here.listening.first().cloned() else { return };
    let mut id = None;
    if first.diverted {
        let Some(asked) = meant(&here, &stream) else { return tcp::reset(&stream) };
        id = Some(asked.id.clone());
        first = asked;
    }
    let passes_on = |listening: &Listening| matches!(*listening.work, Work::Tcp { .. });
    if passes_on(&first) && first.secured.is_none() {
        return Box::pin(tcp::serve(&worker, stream, peer, &first)).await;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client is gone already");
    }
    if first.secured.is_none() {
        let http2 = first.prior_knowledge;
        let entry = Entry { place, here, id, http2, tls: None };
        return converse(worker, entry, &first, stream, peer).await;
    }
    match Box::pin(secure(&here, stream)).await {
        Ok((chosen, agreed, stream)) => {
            let listening = here.listening[chosen].clone();
            if passes_on(&listening) {
                return Box::pin(tcp::serve_secured(&worker, stream, peer, &listening)).await;
            }
            let id = Some(listening.id.clone());
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let entry = Entry { place, here, id, http2, tls: Some(agreed) };
            Box::pin(converse(worker, entry, &listening, stream, peer)).await;
        }
        Err(error) => {
            first.meter.add(worker.number, Count::TlsErrors, 1);
            tracing::debug!(%error, "a client and this did not agree on TLS");
        }
    }
}

/// The listener whose port a diverted connection was made to.
fn meant(here: &Here, stream: &TcpStream) -> Option<Arc<Listening>> {
    let asked = socket2::SockRef::from(stream).original_dst_v4().ok()?.as_socket()?.port();
    here.listening.iter().find(|listening| listening.port == asked).cloned()
}

/// Agrees on TLS as the listener whose name, or whose certificate's name, the client asks for; else as the first.
async fn secure(
    here: &Here,
    stream: TcpStream,
) -> io::Result<(usize, Agreed, TlsStream<TcpStream>)> {
    let hello = Hello::read(stream).await?;
    let asked = hello.host();
    let for_host = |listening: &Arc<Listening>, host: &String| {
        let secured = listening.secured.as_ref();
        secured.is_some_and(|s| listening.names.contains(host) || s.is_for(host))
    };
    let chosen =
        asked.as_ref().and_then(|host| here.listening.iter().position(|l| for_host(l, host)));
    let chosen = chosen.unwrap_or(0);
    let secured = here.listening[chosen].secured.as_ref();
    let secured = secured.ok_or_else(|| io::Error::other("this listener is not secured"))?;
    let stream = hello.agree(secured).await?;
    Ok((chosen, Agreed::new(secured, asked, &stream), stream))
}

/// Where a connection came in, and what was settled when it did.
struct Entry {
    place: Rc<Place>,
    here: Rc<Here>,
    /// The listener's id, when it is settled which it is.
    id: Option<String>,
    http2: bool,
    tls: Option<Agreed>,
}

/// Answers a client's requests.
async fn converse<S>(
    worker: Rc<Worker>,
    entry: Entry,
    first: &Listening,
    stream: S,
    peer: SocketAddr,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Entry { place, here, id, http2, tls } = entry;
    let (number, began) = (worker.connection(), Instant::now());
    let (moved, open) = (Moved::now(), OnceCell::new());
    if here.listening.len() == 1 {
        open.get_or_init(|| Open::new(first, &worker));
    }
    let client = Rc::new(Client { peer, number, began, tls, open, moved });
    let (of_service, of_leaving) = (client.clone(), worker.leaving.subscribe());
    let here = RefCell::new(here);
    let service = service_fn(move |request: Request<Incoming>| {
        let (worker, client) = (worker.clone(), of_service.clone());
        client.moved.note();
        if here.borrow().turn != worker.turn() {
            *here.borrow_mut() = Here::now(&worker, &place);
        }
        let (here, id) = (here.borrow().clone(), id.clone());
        // A connection that waits is to take no memory for the request that it may carry next.
        Box::pin(async move {
            let answer = match here.find(id.as_deref(), &request) {
                Some(chosen) => {
                    http::handle(&worker, &client, chosen, request).await.map(Either::Left)
                }
                None => misdirected().map(Either::Right),
            };
            Ok::<_, Infallible>(answer)
        })
    });
    if http2 {
        let (idle, leaving) = (first.http.idle_timeout, of_leaving);
        let connection = several_at_once(&client, idle, leaving, service, stream);
        return Box::pin(connection).await;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(first.http.idle_timeout)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client's connection ended early");
    }
}

/// What clients get: of a load balancer, or of none.
type Body = Either<Reply, Full<Bytes>>;

/// HTTP/2: requests of one connection beside each other.
async fn several_at_once<S, V>(
    client: &Client,
    idle: Duration,
    mut leaving: watch::Receiver<bool>,
    service: V,
    stream: S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
    V::Future: 'static,
{
    let connection = http2::Builder::new(OnThisThread)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LONGEST_HEAD as u32)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut told = *leaving.borrow();
    if told {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        let rest = (client.moved.at() + idle).saturating_duration_since(Instant::now());
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection ended early");
                }
                return;
            }
            Ok(()) = leaving.changed(), if !told => {
                connection.as_mut().graceful_shutdown();
                told = true;
            }
            () = tokio::time::sleep(rest.max(SWEEP)) => {
                // What is under way is seen through; then, or when nothing comes any more, it is over.
                if client.moved.at().elapsed() >= idle {
                    if told {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    client.moved.note();
                    told = true;
                }
            }
        }
    }
}

/// The listener is gone, or several share the address and none has the name that was asked for.
fn misdirected() -> Response<Full<Bytes>> {
    answer::page(StatusCode::MISDIRECTED_REQUEST).map(|own| Full::new(own.0.unwrap_or_default()))
}
