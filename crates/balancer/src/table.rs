//! What requests are answered by: the configuration with what is known of each target. A table is never changed; a new
//! one takes its place, and takes over the targets that stay.

use crate::{
    config::{AccessLog, Action, Balancer, Condition, Config, Does, Forward, HttpSettings, Tls},
    group::{Group, group, spread},
    meter::Meter,
    socket::Namespace,
    tls::Secured,
};
use hyper::http::request::Parts;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

/// A place where connections are accepted: a network namespace (none is the host's), and an address in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) netns: Option<PathBuf>,
    pub(crate) at: SocketAddr,
    /// Of UDP, and not of TCP.
    pub(crate) udp: bool,
}

/// A rule, with its groups at hand.
#[derive(Debug)]
pub(crate) struct Rule {
    priority: u32,
    conditions: Vec<Condition>,
    pub(crate) action: Arc<Act>,
}

/// What happens to a request, with its groups at hand.
#[derive(Debug)]
pub(crate) enum Act {
    Forward(Route),
    /// Anything but a forward.
    Answer(Action),
}

/// Where requests go.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) groups: Vec<(Arc<Group>, u32)>,
    pub(crate) sticky: Option<Duration>,
    next: AtomicU64,
}

impl Route {
    /// The group of the next request, by share; `cookie` names one that the client was given. None when all shares are
    /// zero.
    pub(crate) fn choose(&self, cookie: Option<&str>) -> Option<&Arc<Group>> {
        if let Some(token) = cookie
            && let Some((known, _)) = self.groups.iter().find(|(g, w)| g.token == token && *w > 0)
        {
            return Some(known);
        }
        let total: u64 = self.groups.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let turn = spread(self.next.fetch_add(1, Relaxed));
        let mut point = ((u128::from(turn) * u128::from(total)) >> 64) as u64;
        self.groups
            .iter()
            .find(|(_, weight)| match point.checked_sub(u64::from(*weight)) {
                Some(rest) => {
                    point = rest;
                    false
                }
                None => true,
            })
            .map(|(group, _)| group)
    }
}

/// What a listener does.
#[derive(Debug)]
pub(crate) enum Work {
    Http { rules: Vec<Rule>, default: Arc<Act> },
    Tcp { route: Route, idle: Duration },
    Udp { route: Route, idle: Duration },
}

/// A listener at one of its places.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) id: String,
    /// Its load balancer's id.
    pub(crate) balancer: String,
    pub(crate) meter: Arc<Meter>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) port: u16,
    pub(crate) names: Vec<String>,
    pub(crate) http: HttpSettings,
    /// Where connections to targets start.
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// Tells connections of different namespaces apart.
    pub(crate) node: u64,
    pub(crate) work: Arc<Work>,
    /// How it is secured, when it is.
    pub(crate) secured: Option<Arc<Secured>>,
    /// Without TLS, HTTP/2 is spoken from the first byte on.
    pub(crate) prior_knowledge: bool,
    /// Connections are diverted here, and the kernel knows which port they are for.
    pub(crate) diverted: bool,
}

impl Listening {
    /// What happens to a request, and the priority of the rule that says so: 0 is the listener's default.
    pub(crate) fn decide(&self, parts: &Parts, client: IpAddr) -> Option<(u32, &Act)> {
        let Work::Http { rules, default } = &*self.work else { return None };
        let holds =
            |rule: &&Rule| rule.conditions.iter().all(|c| crate::matching::meets(c, parts, client));
        let found = rules.iter().find(holds);
        Some(found.map_or((0, default), |rule| (rule.priority, &rule.action)))
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) version: u64,
    pub(crate) places: HashMap<Place, Vec<Arc<Listening>>>,
    pub(crate) groups: HashMap<String, Arc<Group>>,
    /// Groups' ids, each with the namespace from which it is looked after: the first that sends to it.
    pub(crate) checked: Vec<(String, Option<Arc<Namespace>>)>,
    /// Listeners' ids, and what is wrong.
    pub(crate) errors: Vec<(String, String)>,
    /// Load balancers' figures, by id.
    pub(crate) meters: HashMap<String, Arc<Meter>>,
}

/// The table of the moment, for all threads.
#[derive(Default)]
pub(crate) struct Current {
    /// Clients' connections that are open, whether they have said anything or not.
    connections: AtomicUsize,
    /// Counts tables, so that a look at a number tells whether there is another.
    turn: AtomicU64,
    table: RwLock<Arc<Table>>,
}

/// A client's connection, as long as this lives.
pub(crate) struct Connected(Arc<Current>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Current {
    /// Another connection.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Relaxed);
        Connected(self.clone())
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Another number than before means another table than before.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Acquire)
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, table: Arc<Table>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        self.turn.fetch_add(1, Release);
    }
}

/// Makes tables, and keeps the namespaces open.
pub(crate) struct Maker {
    workers: usize,
    namespaces: HashMap<PathBuf, Arc<Namespace>>,
    /// What was read already: reading keys takes a while.
    secured: Vec<(Tls, Arc<Secured>)>,
}

impl Maker {
    /// Makes tables for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers, namespaces: HashMap::new(), secured: Vec::new() }
    }

    /// The table of a configuration; `before` is what it replaces.
    pub(crate) fn make(&mut self, config: &Config, before: &Table) -> Table {
        let groups = config.groups.iter().map(|(id, group_config)| {
            let before = before.groups.get(id).map(|group| &**group);
            (id.clone(), Arc::new(group(&config.secret, id, group_config, before, self.workers)))
        });
        let mut table =
            Table { version: config.version, groups: groups.collect(), ..Table::default() };
        for balancer in &config.balancers {
            let known = before.meters.get(&balancer.id).cloned();
            let meter = known.unwrap_or_else(|| Arc::new(Meter::new(self.workers)));
            table.meters.insert(balancer.id.clone(), meter);
            if let Err((listener, reason)) = self.add(&mut table, config, balancer) {
                table.errors.push((listener, reason));
            }
        }
        let used = |path: &PathBuf| table.places.keys().any(|p| p.netns.as_ref() == Some(path));
        self.namespaces.retain(|path, _| used(path));
        self.secured.retain(|(_, secured)| Arc::strong_count(secured) > 1);
        table
    }

    fn namespace(&mut self, path: Option<&PathBuf>) -> io::Result<Option<Arc<Namespace>>> {
        let Some(path) = path else { return Ok(None) };
        if let Some(open) = self.namespaces.get(path) {
            return Ok(Some(open.clone()));
        }
        let open = Arc::new(Namespace::open(path)?);
        self.namespaces.insert(path.clone(), open.clone());
        Ok(Some(open))
    }

    fn secure(&mut self, tls: Option<&Tls>) -> Result<Option<Arc<Secured>>, String> {
        let Some(tls) = tls else { return Ok(None) };
        if let Some((_, known)) = self.secured.iter().find(|(known, _)| known == tls) {
            return Ok(Some(known.clone()));
        }
        let secured = Arc::new(Secured::new(tls)?);
        self.secured.push((tls.clone(), secured.clone()));
        Ok(Some(secured))
    }

    fn add(
        &mut self,
        table: &mut Table,
        config: &Config,
        balancer: &Balancer,
    ) -> Result<(), (String, String)> {
        let meter = table.meters[&balancer.id].clone();
        let first = balancer.listeners.first().map_or("", |listener| listener.id.as_str());
        let mut nodes = Vec::new();
        for (number, node) in balancer.nodes.iter().enumerate() {
            let namespace = self.namespace(node.netns.as_ref()).map_err(|error| {
                (first.to_owned(), format!("the network namespace of {}: {error}", node.ip))
            })?;
            nodes.push((node, namespace, number));
        }
        for listener in &balancer.listeners {
            let work = Arc::new(work(table, &listener.does));
            let udp = matches!(*work, Work::Udp { .. });
            let secured = match self.secure(listener.tls.as_ref()) {
                Ok(secured) => secured,
                Err(reason) => {
                    let reason = format!("its certificate cannot be served: {reason}");
                    table.errors.push((listener.id.clone(), reason));
                    continue;
                }
            };
            let listening = |namespace: Option<Arc<Namespace>>, number: usize, diverted: bool| {
                Arc::new(Listening {
                    diverted,
                    id: listener.id.clone(),
                    balancer: balancer.id.clone(),
                    meter: meter.clone(),
                    access_log: balancer.access_log.clone(),
                    port: listener.port,
                    names: balancer.names.clone(),
                    http: balancer.http.clone(),
                    namespace,
                    node: node_number(&balancer.id, number),
                    work: work.clone(),
                    secured: secured.clone(),
                    prior_knowledge: listener.prior_knowledge,
                })
            };
            for (node, namespace, number) in &nodes {
                let port = node.diverted.unwrap_or(listener.port);
                let at = SocketAddr::new(node.ip.into(), port);
                let place = Place { netns: node.netns.clone(), at, udp };
                let here = listening(namespace.clone(), *number, node.diverted.is_some());
                table.places.entry(place).or_default().push(here);
            }
            let Some((_, namespace, number)) = nodes.first() else { continue };
            for id in group_ids(&listener.does) {
                if !table.checked.iter().any(|(known, _)| known == id) {
                    table.checked.push((id.clone(), namespace.clone()));
                }
            }
            if let Some(shared) = config.shared.filter(|_| balancer.on_shared) {
                let at = SocketAddr::new(shared, listener.port);
                let place = Place { netns: None, at, udp };
                let here = listening(namespace.clone(), *number, false);
                table.places.entry(place).or_default().push(here);
            }
        }
        Ok(())
    }
}

/// A number for a load balancer's node that is the same in every table.
fn node_number(balancer: &str, number: usize) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (balancer, number).hash(&mut hasher);
    hasher.finish()
}

fn forwards(does: &Does) -> Vec<&Forward> {
    fn of(action: &Action) -> Option<&Forward> {
        match action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }
    match does {
        Does::Tcp { forward, .. } | Does::Udp { forward, .. } => vec![forward],
        Does::Http { rules, default } => {
            let actions = rules.iter().map(|rule| &rule.action).chain([default]);
            actions.filter_map(of).collect()
        }
    }
}

fn group_ids(does: &Does) -> impl Iterator<Item = &String> {
    forwards(does).into_iter().flat_map(|forward| forward.groups.iter().map(|(id, _)| id))
}

fn route(table: &Table, forward: &Forward) -> Route {
    let known = |(id, weight): &(String, u32)| Some((table.groups.get(id)?.clone(), *weight));
    Route {
        groups: forward.groups.iter().filter_map(known).collect(),
        sticky: forward.sticky,
        next: AtomicU64::new(0),
    }
}

fn act(table: &Table, action: &Action) -> Arc<Act> {
    Arc::new(match action {
        Action::Forward(forward) => Act::Forward(route(table, forward)),
        other => Act::Answer(other.clone()),
    })
}

fn work(table: &Table, does: &Does) -> Work {
    match does {
        Does::Tcp { forward, idle } => Work::Tcp { route: route(table, forward), idle: *idle },
        Does::Udp { forward, idle } => Work::Udp { route: route(table, forward), idle: *idle },
        Does::Http { rules, default } => Work::Http {
            rules: rules
                .iter()
                .map(|rule| Rule {
                    priority: rule.priority,
                    conditions: rule.conditions.clone(),
                    action: act(table, &rule.action),
                })
                .collect(),
            default: act(table, default),
        },
    }
}
