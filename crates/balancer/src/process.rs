//! The process: takes configurations, keeps the last on disk, and tells what it knows.

use crate::{
    SOCKET,
    access_log::Book,
    config::{Config, Figures, Order, Report, TargetReport},
    hand_over::{self, Taken},
    health::Checker,
    socket::{self, Listener},
    table::{Current, Maker, Place, Table},
    worker,
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write},
    net::SocketAddrV4,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    task::LocalSet,
};

/// How often is looked whether targets that drain have nothing in flight any more.
const DRAINING: Duration = Duration::from_millis(50);
/// How often is told how many requests there were.
const COUNTING: Duration = Duration::from_millis(250);
/// How often is tried again to listen where that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a process that has handed over sees connections through.
const LEAVING: Duration = Duration::from_secs(600);
/// The longest configuration, in bytes.
const LONGEST: usize = 64 << 20;

/// Why the process does not run.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// A file of its directory.
    #[error("cannot {step} {path}")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("another balancer runs in {0}")]
    Taken(PathBuf),
    /// The process that runs in the directory does not hand over.
    #[error("the balancer that runs does not hand over")]
    TakeOver(#[source] io::Error),
    /// Threads, randomness, signals.
    #[error("cannot set the process up")]
    System(#[source] io::Error),
}

/// Which build of the program this is: another file, another build.
pub fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| match fs::metadata("/proc/self/exe") {
        Ok(of) => format!("{}-{}-{}-{}", of.dev(), of.ino(), of.size(), of.mtime_nsec()),
        Err(error) => {
            tracing::warn!(%error, "this program's own file cannot be looked at");
            String::new()
        }
    })
}

/// Runs the data plane in `directory` until a signal ends it. With `take_over` the process that runs there hands its
/// sockets over, and ends when what is under way in it is over.
pub fn run(directory: &Path, take_over: bool) -> Result<(), ProcessError> {
    let told = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ProcessError::File { step, path, source }
    };
    // For its owner only: it holds private keys, and the socket that takes orders.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(told("make", directory))?;
    let private = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    private.map_err(told("close", directory))?;
    raise_descriptors();
    let taken = take_over.then(|| hand_over::take(directory)).transpose();
    let taken = taken.map_err(ProcessError::TakeOver)?;
    let path = directory.join("lock");
    let (file, control, open) = match taken {
        Some(Taken { lock, control, open }) => (lock.into(), Some(control), open),
        None => (fs::File::create(&path).map_err(told("make", &path))?, None, HashMap::new()),
    };
    // What was handed over is locked already, and so it is again.
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let lock = lock.map_err(|_| ProcessError::Taken(directory.to_owned()))?;
    let runtime = runtime().map_err(ProcessError::System)?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let mut plane = Plane::start(directory, open).map_err(ProcessError::System)?;
        plane.restore();
        let path = directory.join(SOCKET);
        let control = match control {
            Some(control) => of_std(control).map_err(told("listen on", &path))?,
            None => bind(&path).map_err(told("listen on", &path))?,
        };
        let path = directory.join(hand_over::SOCKET);
        let successor = bind(&path).map_err(told("listen on", &path))?;
        plane.serve(control, successor, lock.as_fd()).await.map_err(ProcessError::System)
    })?;
    if let End::HandedOver = ended {
        // Letting go of it would let go of the other process's, too.
        std::mem::forget(lock);
    }
    Ok(())
}

/// Listens where a process that is gone may have listened.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

fn of_std(control: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    control.set_nonblocking(true)?;
    UnixListener::from_std(control)
}

/// Why a process is over.
enum End {
    Told,
    HandedOver,
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Every connection takes two descriptors.
fn raise_descriptors() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let raised =
        getrlimit(RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

struct Plane {
    file: PathBuf,
    table: Arc<Current>,
    maker: Maker,
    config: Config,
    book: Arc<Book>,
    workers: Vec<mpsc::UnboundedSender<worker::Order>>,
    open: HashMap<Place, Arc<Listener>>,
    /// What was handed over, until it is known what of it is wanted.
    inherited: HashMap<Place, Arc<Listener>>,
    /// Everything was handed over: there is nothing to listen on any more.
    leaving: bool,
    /// Why there is no socket.
    failed: BTreeMap<Place, String>,
    checkers: HashMap<(String, SocketAddrV4), Checker>,
    changed: Arc<Notify>,
}

impl Plane {
    fn start(directory: &Path, inherited: HashMap<Place, Arc<Listener>>) -> io::Result<Self> {
        let table = Arc::new(Current::default());
        let book = Arc::new(Book::open(directory)?);
        let count = thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Vec::new();
        for number in 0..count {
            let (send, orders) = mpsc::unbounded_channel();
            let (table, book) = (table.clone(), book.clone());
            let mut random = [0; 8];
            let rng = ring::rand::SystemRandom::new();
            ring::rand::SecureRandom::fill(&rng, &mut random)
                .map_err(|_| io::Error::other("no randomness"))?;
            let runtime = runtime()?;
            let work = move || {
                let random = u64::from_ne_bytes(random);
                let start = worker::Start { number, table, book, random, orders };
                LocalSet::new().block_on(&runtime, worker::run(start));
            };
            thread::Builder::new().name(format!("worker {number}")).spawn(work)?;
            workers.push(send);
        }
        Ok(Self {
            file: directory.join("config.json"),
            table,
            book,
            maker: Maker::new(count),
            config: Config::default(),
            workers,
            open: HashMap::new(),
            inherited,
            leaving: false,
            failed: BTreeMap::new(),
            checkers: HashMap::new(),
            changed: Arc::default(),
        })
    }

    /// Goes on with what it was told before it ended.
    fn restore(&mut self) {
        self.read();
        // What is not wanted any more.
        self.inherited.clear();
    }

    /// Makes it as the file says.
    fn read(&mut self) {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return tracing::error!(%error, "the last configuration cannot be read");
            }
        };
        match serde_json::from_slice(&text) {
            Ok(config) => self.apply(config),
            Err(error) => tracing::error!(%error, "the last configuration is damaged"),
        }
    }

    fn keep(&self, config: &Config) -> io::Result<()> {
        let next = self.file.with_extension("next");
        // It holds private keys.
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec(config)?)?;
        file.sync_all()?;
        fs::rename(next, &self.file)
    }

    fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes it so.
    fn apply(&mut self, config: Config) {
        let before = self.table.table();
        let table = Arc::new(self.maker.make(&config, &before));
        self.table.set(table.clone());
        self.config = config;
        if !self.leaving {
            self.listen(&table);
        }
        self.look_after(&table);
        self.changed.notify_one();
    }

    fn order(&self, order: impl Fn() -> worker::Order) {
        for worker in &self.workers {
            worker.send(order()).expect("a worker lives as long as the process");
        }
    }

    fn listen(&mut self, table: &Table) {
        let gone: Vec<Place> =
            self.open.keys().filter(|place| !table.places.contains_key(place)).cloned().collect();
        for place in gone {
            self.order(|| worker::Order::Close(place.clone()));
            self.open.remove(&place);
        }
        self.failed.clear();
        for (place, listening) in &table.places {
            if self.open.contains_key(place) {
                continue;
            }
            // What is on the shared address starts in the host's namespace, where connections come from.
            let inside = listening.first().filter(|_| place.netns.is_some());
            let namespace = inside.and_then(|listening| listening.namespace.as_deref());
            let inherited = self.inherited.remove(place).map(Ok);
            let listen = || socket::listen(namespace, place).map(Arc::new);
            match inherited.unwrap_or_else(listen) {
                Ok(socket) => {
                    self.order(|| worker::Order::Open(place.clone(), socket.clone()));
                    self.open.insert(place.clone(), socket);
                }
                Err(error) => {
                    let reason = format!("cannot listen on {}: {error}", place.at);
                    self.failed.insert(place.clone(), reason);
                }
            }
        }
    }

    fn look_after(&mut self, table: &Table) {
        let mut before = std::mem::take(&mut self.checkers);
        for (id, namespace) in &table.checked {
            let (Some(group), Some(config)) = (table.groups.get(id), self.config.groups.get(id))
            else {
                continue;
            };
            let Some(check) = &config.check else { continue };
            for target in &group.serving {
                let key = (id.clone(), target.address);
                let known = before.remove(&key);
                let fits = |known: &Checker| known.fits(target, check, namespace);
                let checker = known
                    .filter(fits)
                    .unwrap_or_else(|| Checker::start(target, check, namespace, &self.changed));
                self.checkers.insert(key, checker);
            }
        }
    }

    fn report(&self) -> Report {
        use std::sync::atomic::Ordering::Relaxed;
        let table = self.table.table();
        let mut targets = Vec::new();
        let mut ids: Vec<&String> = table.checked.iter().map(|(id, _)| id).collect();
        // Targets of groups that nobody sends to any more drain, too.
        let draining = table.groups.iter().filter(|(_, group)| !group.draining.is_empty());
        ids.extend(draining.map(|(id, _)| id));
        ids.sort();
        ids.dedup();
        for id in ids {
            let Some(group) = table.groups.get(id) else { continue };
            let known = group.serving.iter().map(|target| (target, false));
            for (target, draining) in known.chain(group.draining.iter().map(|t| (t, true))) {
                let checker = self.checkers.get(&(id.clone(), target.address));
                targets.push(TargetReport {
                    group: id.clone(),
                    address: target.address,
                    health: target.health(),
                    cause: checker.and_then(Checker::cause),
                    drained: draining && target.in_flight.load(Relaxed) == 0,
                });
            }
        }
        let mut errors = table.errors.clone();
        for (place, reason) in &self.failed {
            let listening = table.places.get(place).into_iter().flatten();
            errors.extend(listening.map(|listening| (listening.id.clone(), reason.clone())));
        }
        errors.sort();
        let balancers = table.meters.iter().map(|(id, meter)| (id.clone(), meter.figures()));
        let groups = table.groups.iter();
        let groups = groups.map(|(id, group)| (id.clone(), group.meter.figures(group.chosen())));
        let figures = Figures { balancers: balancers.collect(), groups: groups.collect() };
        let build = build().to_owned();
        Report { version: table.version, build, errors, targets, figures }
    }

    fn drains(&self) -> bool {
        let table = self.table.table();
        table.groups.values().any(|group| !group.draining.is_empty())
    }

    /// Hands everything over to whoever asked for it; answers whether it is done.
    async fn hand_over(
        &self,
        to: &UnixStream,
        lock: BorrowedFd<'_>,
        control: BorrowedFd<'_>,
    ) -> bool {
        self.book.leave();
        match hand_over::give(to, lock, control, &self.open).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the sockets cannot be handed over");
                self.book.stay();
                false
            }
        }
    }

    /// Sees through what is under way, by the configuration that the other process is given.
    async fn leave(&mut self, ended: &mut Signal) {
        self.leaving = true;
        for place in std::mem::take(&mut self.open).into_keys() {
            self.order(|| worker::Order::Close(place.clone()));
        }
        self.order(|| worker::Order::Leave);
        let modified = |file: &Path| fs::metadata(file).and_then(|of| of.modified()).ok();
        let mut known = modified(&self.file);
        let until = Instant::now() + LEAVING;
        let mut clock = clock(COUNTING);
        loop {
            tokio::select! {
                _ = ended.recv() => break,
                _ = clock.tick() => {}
            }
            let now = modified(&self.file);
            if now.is_none() {
                break; // the other process was told that there is nothing to be done any more
            }
            if now != known {
                known = now;
                self.read();
            }
            let connections = self.table.connections();
            if connections == 0 {
                break;
            }
            if Instant::now() >= until {
                tracing::warn!(connections, "connections are cut that did not end in time");
                break;
            }
        }
        self.book.close();
    }

    async fn serve(
        &mut self,
        control: UnixListener,
        successor: UnixListener,
        lock: BorrowedFd<'_>,
    ) -> io::Result<End> {
        let mut ended = signal(SignalKind::terminate())?;
        // The terminal that it was started from is not its own.
        let _interrupted = signal(SignalKind::interrupt())?;
        let changed = self.changed.clone();
        // Only the last control plane that connected is listened to.
        let mut peer: Option<Peer> = None;
        let mut said = None;
        // Clocks that go on whatever else happens.
        let (mut draining, mut counting, mut again) =
            (clock(DRAINING), clock(COUNTING), clock(AGAIN));
        let mut logging = clock(self.config.log_period);
        loop {
            if logging.period() != self.config.log_period {
                logging = clock(self.config.log_period);
            }
            let (drains, failed) = (self.drains(), !self.failed.is_empty());
            tokio::select! {
                _ = ended.recv() => {
                    self.book.close();
                    return Ok(End::Told);
                }
                accepted = control.accept() => {
                    peer = Some(Peer::new(accepted?.0));
                    said = None;
                }
                asked = successor.accept() => {
                    if self.hand_over(&asked?.0, lock, control.as_fd()).await {
                        drop((control, successor, peer));
                        self.leave(&mut ended).await;
                        return Ok(End::HandedOver);
                    }
                }
                order = Peer::next(&mut peer) => match order {
                    Ok(Order::End) => {
                        self.book.close();
                        return self.forget().map(|()| End::Told);
                    }
                    Ok(Order::Configure(config)) => {
                        if let Err(error) = self.keep(&config) {
                            tracing::error!(%error, "the configuration cannot be kept on disk");
                        }
                        self.apply(config);
                    }
                    Err(error) => {
                        tracing::info!(%error, "the control plane is away");
                        peer = None;
                    }
                },
                () = changed.notified() => {}
                _ = draining.tick(), if drains => {}
                _ = counting.tick(), if peer.is_some() => {}
                _ = logging.tick() => self.book.close(),
                _ = again.tick(), if failed => {
                    let table = self.table.table();
                    self.listen(&table);
                }
            }
            let Some(to) = &mut peer else { continue };
            let report = self.report();
            if said.as_ref() != Some(&report) {
                match to.tell(&report).await {
                    Ok(()) => said = Some(report),
                    Err(_) => peer = None,
                }
            }
        }
    }
}

fn clock(period: Duration) -> tokio::time::Interval {
    let mut clock = tokio::time::interval(period);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    clock
}

/// A control plane.
struct Peer {
    orders: mpsc::Receiver<io::Result<Order>>,
    write: tokio::net::unix::OwnedWriteHalf,
    reading: tokio::task::JoinHandle<()>,
}

impl Peer {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (send, orders) = mpsc::channel(1);
        let reading = tokio::task::spawn_local(async move {
            let mut read = BufReader::new(read);
            loop {
                let order = read_order(&mut read).await;
                let ended = order.is_err();
                if send.send(order).await.is_err() || ended {
                    return;
                }
            }
        });
        Self { orders, write, reading }
    }

    /// The next order; never, without a control plane.
    async fn next(peer: &mut Option<Self>) -> io::Result<Order> {
        match peer {
            None => std::future::pending().await,
            Some(peer) => {
                let next = peer.orders.recv().await;
                next.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }

    async fn tell(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.write.write_all(&line).await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read_order(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Order> {
    let line = read_line(read).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// A line, without its end.
pub(crate) async fn read_line(
    read: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt;
    let mut line = Vec::new();
    let mut bounded = read.take(LONGEST as u64);
    bounded.read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
