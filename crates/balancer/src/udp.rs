//! Datagrams: those of one client go to one target, and what that says comes back, until nothing passes for a while.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/network-load-balancers.html>

use crate::{
    config::Health,
    group::{Busy, Group},
    http::Open,
    meter::Count,
    reply::Moved,
    socket,
    table::{Listening, Place, Work},
    worker::{SWEEP, Worker},
};
use std::{
    cell::RefCell, collections::HashMap, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration,
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// The longest datagram, in bytes.
const LONGEST: usize = 64 << 10;
/// The most flows of one listener: each has a socket. What comes from further clients is dropped.
const MOST_FLOWS: usize = 16_384;
/// A flow whose target gets nothing new is over when nothing came back for so long.
const QUIET: Duration = Duration::from_secs(1);

/// A client, and the target that it speaks with.
struct Flow {
    upstream: Rc<UdpSocket>,
    busy: Busy,
    moved: Moved,
    back: JoinHandle<()>,
    _open: Open,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.back.abort();
    }
}

/// The flows of a listener, and where what targets say is read to, for all of them.
#[derive(Clone)]
struct Flows {
    all: Rc<RefCell<HashMap<SocketAddr, Flow>>>,
    buffer: Rc<RefCell<Vec<u8>>>,
}

/// Passes datagrams on until this is dropped.
pub(crate) async fn serve(worker: Rc<Worker>, place: Place, socket: UdpSocket) {
    let buffer = Rc::new(RefCell::new(vec![0; LONGEST]));
    let (flows, socket) = (Flows { all: Rc::default(), buffer }, Rc::new(socket));
    let mut turn = worker.turn();
    let mut listening = now(&worker, &place);
    let mut buffer = vec![0; LONGEST];
    let mut leaving: Vec<Flow> = Vec::new();
    let mut clock = tokio::time::interval(SWEEP);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => Some(received),
            _ = clock.tick() => None,
        };
        if worker.turn() != turn {
            (turn, listening) = (worker.turn(), now(&worker, &place));
            let left = |flow: &Flow| !listening.as_ref().is_some_and(|l| serves(l, &flow.busy));
            leaving.extend(flows.all.borrow_mut().extract_if(|_, flow| left(flow)).map(|(_, f)| f));
        }
        let (length, client) = match received {
            None => {
                leaving.retain(|flow| flow.moved.at().elapsed() < QUIET);
                continue;
            }
            Some(Ok(received)) => received,
            Some(Err(error)) => {
                // What an earlier answer came to is told here; nothing is wrong with the socket.
                tracing::debug!(%error, "a datagram could not be delivered");
                continue;
            }
        };
        let Some(listening) = &listening else { continue };
        let known =
            flows.all.borrow().get(&client).is_some_and(|flow| !is_left(listening, &flow.busy));
        if !known {
            let flow = begin(&worker, listening, &flows, client, &socket).await;
            let mut flows = flows.all.borrow_mut();
            flows.remove(&client);
            match flow {
                Ok(Some(flow)) if flows.len() < MOST_FLOWS => flows.insert(client, flow),
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(%error, "a target takes no datagrams");
                    continue;
                }
            };
        }
        let flow =
            flows.all.borrow().get(&client).map(|flow| (flow.upstream.clone(), flow.moved.clone()));
        let Some((upstream, moved)) = flow else { continue };
        moved.note();
        listening.meter.add(worker.number, Count::Bytes, length as u64);
        if let Err(error) = upstream.send(&buffer[..length]).await {
            tracing::debug!(%error, "a datagram could not be delivered");
        }
    }
}

fn now(worker: &Worker, place: &Place) -> Option<Arc<Listening>> {
    worker.table().places.get(place)?.first().cloned()
}

fn groups(listening: &Listening) -> impl Iterator<Item = &Arc<Group>> {
    let route = match &*listening.work {
        Work::Udp { route, .. } => Some(route),
        _ => None,
    };
    route.into_iter().flat_map(|route| route.groups.iter().map(|(group, _)| group))
}

/// Whether what a flow's target is in still sends to it.
fn serves(listening: &Listening, busy: &Busy) -> bool {
    let own = |group: &Arc<Group>| {
        group.serving.iter().any(|target| target.address == busy.target().address)
    };
    groups(listening).any(own)
}

/// Whether a flow is better off with another target: its own is ill, and another is well.
fn is_left(listening: &Listening, busy: &Busy) -> bool {
    let well =
        |group: &Arc<Group>| group.serving.iter().any(|target| target.health() == Health::Healthy);
    busy.target().health() == Health::Unhealthy && groups(listening).any(well)
}

async fn begin(
    worker: &Rc<Worker>,
    listening: &Arc<Listening>,
    flows: &Flows,
    client: SocketAddr,
    socket: &Rc<UdpSocket>,
) -> io::Result<Option<Flow>> {
    let Work::Udp { route, idle } = &*listening.work else { return Ok(None) };
    let Some(busy) = route.choose(None).and_then(|group| group.choose(None)) else {
        return Ok(None);
    };
    let upstream = socket::datagrams(listening.namespace.as_deref())?;
    upstream.connect(busy.target().address).await?;
    let (upstream, moved) = (Rc::new(upstream), Moved::now());
    let back = Back {
        worker: worker.clone(),
        listening: listening.clone(),
        flows: flows.clone(),
        client,
        socket: socket.clone(),
        upstream: upstream.clone(),
        moved: moved.clone(),
        idle: *idle,
    };
    let open = Open::new(listening, worker);
    let back = tokio::task::spawn_local(back.pass());
    Ok(Some(Flow { upstream, busy, moved, back, _open: open }))
}

/// The way back, of one flow.
struct Back {
    worker: Rc<Worker>,
    listening: Arc<Listening>,
    flows: Flows,
    client: SocketAddr,
    socket: Rc<UdpSocket>,
    upstream: Rc<UdpSocket>,
    moved: Moved,
    idle: Duration,
}

impl Back {
    /// Passes on what the target says, and forgets the flow when nothing passes any more.
    async fn pass(self) {
        loop {
            let until = self.moved.at() + self.idle;
            match tokio::time::timeout_at(until.into(), self.upstream.readable()).await {
                Ok(Ok(())) => self.pass_one(),
                Ok(Err(error)) => tracing::debug!(%error, "a target takes no datagrams"),
                Err(_) if self.moved.at() + self.idle > until => {}
                Err(_) => break,
            }
        }
        // This task ends with the flow.
        let mut flows = self.flows.all.borrow_mut();
        let own = |flow: &Flow| Rc::ptr_eq(&flow.upstream, &self.upstream);
        if flows.get(&self.client).is_some_and(own) {
            flows.remove(&self.client);
        }
    }

    fn pass_one(&self) {
        let mut buffer = self.flows.buffer.borrow_mut();
        let length = match self.upstream.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // The target does not listen (yet); the client may try again.
            Err(error) => return tracing::debug!(%error, "a target takes no datagrams"),
        };
        self.moved.note();
        self.listening.meter.add(self.worker.number, Count::Bytes, length as u64);
        // Where there is no room a datagram is lost, as on any network.
        if let Err(error) = self.socket.try_send_to(&buffer[..length], self.client) {
            tracing::debug!(%error, "a datagram could not be delivered");
        }
    }
}
