//! What else the data plane does beside load balancers: connections inside tasks, which ECS asks for.

use crate::ElbV2;
use balancer::{Config, Report, config};
use std::{
    collections::{BTreeMap, HashSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
};
use store::Snapshot;
use tokio::sync::{Notify, watch};

/// Who asks for connections.
pub trait Mesh: Send + Sync + 'static {
    /// The tables that it reads.
    fn tables(&self) -> &[&'static str];
    /// The listeners, and the groups, by id, that they send to. Ids are none of a load balancer's or target group's.
    fn connections(
        &self,
        snapshot: &Snapshot,
    ) -> (Vec<config::Balancer>, BTreeMap<String, config::Group>);
}

/// What the data plane does, as it said last.
pub(crate) struct Traffic {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
    /// Told when there may be something that no table tells of.
    pub(crate) again: Notify,
}

#[derive(Default, PartialEq)]
struct Known {
    /// Ids of those that it serves.
    served: HashSet<String>,
    /// Targets that get requests, or have some in flight.
    busy: HashSet<(String, SocketAddrV4)>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(()), again: Notify::new() }
    }
}

impl Traffic {
    /// Takes note of a report on the configuration that was told.
    pub(crate) fn hear(&self, told: &Config, report: &Report) {
        let busy = report.targets.iter().filter(|target| !target.drained);
        let new = Known {
            served: told.balancers.iter().map(|balancer| balancer.id.clone()).collect(),
            busy: busy.map(|target| (target.group.clone(), target.address)).collect(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != new {
            *known = new;
            self.changed.send_replace(());
        }
    }
}

impl ElbV2 {
    /// Says who asks for connections; before the data plane is driven.
    pub fn attach(&self, mesh: Arc<dyn Mesh>) {
        assert!(self.mesh.set(mesh).is_ok(), "attached once");
    }

    /// A mesh asks for something else than before, though no table changed.
    pub fn look_again(&self) {
        self.traffic.again.notify_one();
    }

    /// Whether the data plane serves what a mesh asked for under this id.
    pub fn serves(&self, id: &str) -> bool {
        let known = self.traffic.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.served.contains(id)
    }

    /// Whether a target of a group may still get requests, or has some in flight.
    pub fn is_busy(&self, group: &str, ip: Ipv4Addr, port: u16) -> bool {
        let known = self.traffic.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.busy.contains(&(group.to_owned(), SocketAddrV4::new(ip, port)))
    }

    /// Is told whenever [`Self::serves`] or [`Self::is_busy`] may answer something else.
    pub fn watch_traffic(&self) -> watch::Receiver<()> {
        self.traffic.changed.subscribe()
    }
}
