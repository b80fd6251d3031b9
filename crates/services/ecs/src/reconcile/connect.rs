//! Service Connect's connections: inside every task of a namespace the data plane listens where the namespace's
//! services are called, and passes on to their tasks that are well.

use crate::{
    Ecs,
    model::{Endpoint, LastStatus, Service, ServiceStatus, Task},
};
use ec2::InterfaceError;
use elbv2::{
    Mesh,
    plane::{
        Action, Algorithm, Balancer, Does, Forward, ForwardedFor, Group, HttpSettings, Listener,
        Node, Speaks, Target, Version,
    },
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};
use store::{Record, Snapshot};

/// How long nothing need be sent, unless it is said: for HTTP, and for TCP.
const IDLE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// A value of 0 switches the timeout off.
const NO_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Where calls arrive at the data plane inside tasks; Envoy's port for them.
const DIVERTED: u16 = 15001;
/// How long a connection is used for further requests.
const KEEP_ALIVE: Duration = Duration::from_secs(3600);
/// How long a task that is to stop waits for what is in flight to it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a task's containers wait for its connections.
const START: Duration = Duration::from_secs(10);

/// The connections of all tasks.
pub(crate) struct Connections(pub(crate) Weak<Ecs>);

/// What the data plane calls the targets of an endpoint.
fn group_id(service: &str) -> String {
    format!("connect-{service}")
}

/// What it calls an endpoint inside a task.
fn balancer_id(task: &Task, endpoint: &Endpoint) -> String {
    format!("connect-{}-{}", task.id, endpoint.service)
}

/// The endpoints that can be called, by namespace; where revisions of a service differ, the newest's.
fn endpoints(snapshot: &Snapshot) -> BTreeMap<String, Vec<Endpoint>> {
    let mut found: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    let active = |service: &Arc<Service>| service.status == ServiceStatus::Active;
    for service in snapshot.scan::<Service>().filter(active) {
        for connect in service.deployments.iter().filter_map(|d| d.revision.connect.as_ref()) {
            let known = found.entry(connect.namespace.clone()).or_default();
            for endpoint in &connect.endpoints {
                if known.iter().all(|other| other.service != endpoint.service) {
                    known.push(endpoint.clone());
                }
            }
        }
    }
    found
}

/// Where a name that a task asks for is called, when it is one of its namespace's.
pub(crate) fn resolve(
    ecs: &Ecs,
    name: &str,
    task: impl FnOnce() -> Option<Arc<Task>>,
) -> Option<Ipv4Addr> {
    let endpoints = endpoints(&ecs.store.read());
    let is_called = |endpoint: &Endpoint| endpoint.aliases.iter().any(|alias| alias.name == name);
    if !endpoints.values().flatten().any(is_called) {
        return None;
    }
    let own = endpoints.get(task()?.connect.as_ref()?)?;
    own.iter().find(|endpoint| is_called(endpoint)).map(Endpoint::address)
}

fn idle(endpoint: &Endpoint) -> Duration {
    match endpoint.idle_seconds {
        Some(0) => NO_TIMEOUT,
        Some(seconds) => Duration::from_secs(u64::from(seconds.unsigned_abs())),
        None if endpoint.http => IDLE.0,
        None => IDLE.1,
    }
}

fn balancer(task: &Task, endpoint: &Endpoint, node: Node) -> Balancer {
    let forward = Forward { groups: vec![(group_id(&endpoint.service), 1)], sticky: None };
    let id = balancer_id(task, endpoint);
    let listener = |port: u16| Listener {
        id: format!("{id}-{port}"),
        port,
        tls: None,
        prior_knowledge: endpoint.http2,
        does: match endpoint.http {
            true => Does::Http { rules: Vec::new(), default: Action::Forward(forward.clone()) },
            false => Does::Tcp { forward: forward.clone(), idle: idle(endpoint) },
        },
    };
    Balancer {
        access_log: None,
        listeners: endpoint.aliases.iter().map(|alias| listener(alias.port)).collect(),
        id: id.clone(),
        names: Vec::new(),
        nodes: vec![node],
        on_shared: false,
        http: HttpSettings {
            idle_timeout: idle(endpoint),
            keep_alive: KEEP_ALIVE,
            forwarded_for: ForwardedFor::Append,
            client_port: false,
            drop_invalid_headers: false,
        },
    }
}

impl Mesh for Connections {
    fn tables(&self) -> &[&'static str] {
        &[Task::TABLE, Service::TABLE]
    }

    fn connections(&self, snapshot: &Snapshot) -> (Vec<Balancer>, BTreeMap<String, Group>) {
        let (mut balancers, mut groups) = (Vec::new(), BTreeMap::new());
        let endpoints = endpoints(snapshot);
        let Some(ecs) = self.0.upgrade().filter(|_| !endpoints.is_empty()) else {
            return (balancers, groups);
        };
        for endpoint in endpoints.values().flatten() {
            let version = if endpoint.http2 { Version::Http2 } else { Version::Http1 };
            let group = Group {
                label: String::new(),
                speaks: Speaks { version, tls: false },
                algorithm: Algorithm::RoundRobin,
                slow_start: None,
                sticky: None,
                proxy_protocol: false,
                // ECS knows how its tasks are.
                check: None,
                targets: Vec::new(),
            };
            groups.insert(group_id(&endpoint.service), group);
        }
        let lives = |task: &Arc<Task>| task.last_status < LastStatus::Deprovisioning;
        for task in snapshot.scan::<Task>().filter(lives) {
            for (group, address, well) in served(&task) {
                let Some(group) = groups.get_mut(&group).filter(|_| well || task.stopping) else {
                    continue;
                };
                group.targets.push(Target { address, draining: task.stopping });
            }
            let callable = task.connect.as_ref().and_then(|namespace| endpoints.get(namespace));
            let Some(callable) = callable else { continue };
            let netns = ecs.engine.task(&task.id).and_then(|running| running.netns());
            let Some(netns) = netns else { continue };
            let node = |ip| Node { netns: Some(netns.clone()), ip, diverted: Some(DIVERTED) };
            balancers.extend(callable.iter().map(|e| balancer(&task, e, node(e.address()))));
        }
        (balancers, groups)
    }
}

/// The endpoints that a registered task serves: their groups, its address, and whether it is well.
fn served(task: &Task) -> Vec<(String, SocketAddrV4, bool)> {
    let ip: Option<Ipv4Addr> = task.interface.private_ip.as_ref().and_then(|ip| ip.parse().ok());
    let Some(ip) = ip else { return Vec::new() };
    let served =
        task.registries.iter().filter(|registry| registry.connect).filter_map(|registry| {
            let address = SocketAddrV4::new(ip, registry.port?);
            Some((group_id(&registry.service), address, registry.told?))
        });
    served.collect()
}

/// Makes what a task calls in its namespace arrive at the data plane, whatever else listens in the task.
pub(super) async fn divert(ecs: &Ecs, task: &Task, netns: &Path) -> Result<(), InterfaceError> {
    match &task.connect {
        Some(_) => ecs.ec2.divert(netns, Endpoint::block(), DIVERTED).await,
        None => Ok(()),
    }
}

/// Waits until everything can be called inside a task that its namespace has. What is late is called late: the
/// containers start all the same.
pub(super) async fn ready(ecs: &Ecs, task: &Task) {
    let Some(namespace) = &task.connect else { return };
    let ids: Vec<String> = endpoints(&ecs.store.read())
        .get(namespace)
        .map_or_else(Vec::new, |all| all.iter().map(|e| balancer_id(task, e)).collect());
    let mut traffic = ecs.elb.watch_traffic();
    ecs.elb.look_again();
    let served = async {
        while !ids.iter().all(|id| ecs.elb.serves(id)) {
            if traffic.changed().await.is_err() {
                return;
            }
        }
    };
    if ecs.world.timeout(START, served).await.is_none() {
        tracing::warn!(task = task.id, "Service Connect's connections are not there in time");
    }
}

/// Whether somebody may still send something to a task that is to stop.
pub(super) fn is_busy(ecs: &Ecs, task: &Task) -> bool {
    let over = task.stopping_at.is_none_or(|at| at + PATIENCE <= ecs.world.now());
    let busy = |(group, address, _): &(String, SocketAddrV4, bool)| {
        ecs.elb.is_busy(group, *address.ip(), address.port())
    };
    !over && served(task).iter().any(busy)
}
