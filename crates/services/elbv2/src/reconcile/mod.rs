//! Makes load balancers what the records say. One driver: it makes interfaces, tells the data plane what should be, and
//! hears what is. Whatever it does can be done again; what fails is tried again with the next round.

mod access_logs;
mod config;
mod data_plane;
mod hosts;
mod interfaces;

pub use access_logs::LogBuckets;
pub(crate) use access_logs::try_bucket;
pub(crate) use config::group_id;
pub use hosts::HostsError;

use crate::{
    ElbV2,
    model::{CookieSecret, Listener, LoadBalancer, Rule, Target, TargetGroup},
};
use balancer::{Config, Report};
use config::Places;
use data_plane::{DataPlane, DataPlaneError};
use ec2::InterfaceError;
use std::{
    net::{IpAddr, SocketAddrV4},
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};
use store::{DiskFault, Record};
use thiserror::Error;
use world::Timestamp;

/// How long the driver rests after something failed.
const REST: Duration = Duration::from_secs(1);

/// Where the data plane runs, and how it is reached.
pub struct Setting {
    /// The program to start, and its first argument.
    pub exe: (PathBuf, String),
    /// Its directory.
    pub directory: PathBuf,
    /// The host's address that internet-facing load balancers share.
    pub shared: IpAddr,
    /// The file in which their names are made known on the host; none leaves them unknown.
    pub hosts_file: Option<PathBuf>,
    /// Tells several Neargates' names in that file apart.
    pub instance: String,
    /// Where access logs go.
    pub buckets: Arc<dyn LogBuckets>,
}

#[derive(Debug, Error)]
enum RoundError {
    #[error("the disk refused a write")]
    Disk(#[from] DiskFault),
    #[error("an interface could not be made")]
    Interface(#[from] InterfaceError),
    #[error("the balancer could not be told")]
    DataPlane(#[from] DataPlaneError),
    #[error("names could not be made known")]
    Hosts(#[from] HostsError),
}

/// What the driver knows beside the records.
struct Driver {
    elb: Arc<ElbV2>,
    setting: Arc<Setting>,
    places: Places,
    plane: Option<DataPlane>,
    secret: String,
    /// What the data plane was told last, by this connection.
    told: Option<Config>,
    /// What it said last.
    heard: Report,
    /// A data plane of this build was started in place of one of another.
    replaced: bool,
    names: Vec<(std::net::Ipv4Addr, String)>,
}

/// Begins to drive.
pub(crate) fn start(elb: &Arc<ElbV2>, setting: Arc<Setting>) {
    let elb = elb.clone();
    let world = elb.world.clone();
    access_logs::start(&elb, &setting);
    world.spawn("load balancers", async move {
        let mut driver = Driver {
            elb,
            setting,
            places: Places::new(),
            plane: None,
            secret: String::new(),
            told: None,
            heard: Report::default(),
            replaced: false,
            names: Vec::new(),
        };
        driver.drive().await;
    });
}

impl Driver {
    async fn drive(&mut self) {
        let mut tables = vec![
            LoadBalancer::TABLE,
            Listener::TABLE,
            Rule::TABLE,
            TargetGroup::TABLE,
            Target::TABLE,
            acm::model::Certificate::TABLE,
        ];
        tables.extend(self.elb.mesh.get().map_or(&[][..], |mesh| mesh.tables()));
        let mut records = self.elb.store.watch_tables(&tables);
        loop {
            let wake_at = match self.round().await {
                Ok(wake_at) => wake_at,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "load balancers are not as wanted; the next round tries again"
                    );
                    Some(self.elb.world.now() + REST)
                }
            };
            // Under load the data plane counts requests several times a second: that alone is no reason for a round.
            while !self.wait(&mut records, wake_at).await {}
        }
    }

    /// Waits for something to happen. Whether it is a reason for a round.
    async fn wait(&mut self, records: &mut store::Watch, wake_at: Option<Timestamp>) -> bool {
        let now = self.elb.world.now();
        let rest = wake_at.map(|at| if at > now { at.since(now) } else { Duration::ZERO });
        tokio::select! {
            () = records.changed() => true,
            () = self.elb.traffic.again.notified() => true,
            report = DataPlane::next(&mut self.plane) => match report {
                Some(report) => self.hear(report),
                None => {
                    tracing::warn!("the balancer ended; it is started again");
                    (self.plane, self.told) = (None, None);
                    true
                }
            },
            () = self.elb.world.sleep(rest.unwrap_or_default()), if rest.is_some() => true,
        }
    }

    /// One round; answers when the next must come though nothing changes.
    async fn round(&mut self) -> Result<Option<Timestamp>, RoundError> {
        if self.elb.is_closing() {
            return Ok(None);
        }
        self.keep_interfaces().await?;
        let wake_at = self.end_draining().await?;
        self.tell().await?;
        self.name()?;
        Ok(wake_at)
    }

    /// Tells the data plane what should be, when that is not what it was told.
    async fn tell(&mut self) -> Result<(), RoundError> {
        let snapshot = self.elb.store.read();
        let mesh = self.elb.mesh.get().map(|mesh| &**mesh);
        let mut config = config::config(
            &snapshot,
            config::place(&self.places),
            |realm, arn| self.elb.acm.served(realm, arn),
            mesh,
        );
        if config.balancers.is_empty() {
            if self.plane.is_none() {
                self.plane = DataPlane::running(&self.elb.world, &self.setting).await;
            }
            if let Some(mut plane) = self.plane.take() {
                plane.end().await?;
            }
            self.told = None;
            self.elb.traffic.hear(&Config::default(), &Report::default());
            return Ok(());
        }
        if self.plane.is_none() {
            self.plane = Some(DataPlane::open(&self.elb.world, &self.setting).await?);
        }
        if self.secret.is_empty() {
            self.secret = self.cookie_secret().await?;
        }
        config.shared = Some(self.setting.shared);
        config.log_period = self.elb.world.scaled(access_logs::PERIOD);
        config.secret.clone_from(&self.secret);
        let before = self.told.as_ref().map_or(self.heard.version, |told| told.version);
        config.version = before;
        if self.told.as_ref() == Some(&config) {
            return Ok(());
        }
        config.version = before + 1;
        let Some(plane) = &mut self.plane else { return Ok(()) };
        if let Err(error) = plane.configure(&config).await {
            (self.plane, self.told) = (None, None);
            return Err(error.into());
        }
        self.told = Some(config);
        Ok(())
    }

    async fn cookie_secret(&self) -> Result<String, DiskFault> {
        if let Some(known) = self.elb.store.read().scan::<CookieSecret>().next() {
            return Ok(known.secret.clone());
        }
        let secret = self.elb.world.hex(64);
        let new = CookieSecret { secret: secret.clone() };
        let write = self.elb.store.write(move |tx| {
            tx.put(new);
            Ok::<_, DiskFault>(())
        });
        write.await.map(|()| secret)
    }

    /// Takes note of a report. Whether it says more than how many requests there were.
    fn hear(&mut self, mut report: Report) -> bool {
        self.elb.figures.hear(std::mem::take(&mut report.figures));
        if self.heard == report {
            return false;
        }
        self.renew(&report.build);
        if let Some(told) = self.told.as_ref().filter(|told| told.version == report.version) {
            self.elb.traffic.hear(told, &report);
        }
        for error in &report.errors {
            if !self.heard.errors.contains(error) {
                tracing::warn!(listener = error.0, reason = error.1, "a listener does not listen");
            }
        }
        let mut troubles = self.elb.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.clone_from(&report.errors);
        drop(troubles);
        self.elb.healths.hear(&report);
        self.heard = report;
        true
    }

    /// Replaces a data plane that another build of this program started: it hands its sockets over, and sees through
    /// what is under way.
    fn renew(&mut self, build: &str) {
        let same = build == balancer::build();
        if same || self.replaced {
            self.replaced &= !same;
            return;
        }
        self.replaced = true;
        tracing::info!("the balancer is of another build; a new one takes over");
        if let Err(error) = data_plane::start(&self.elb.world, &self.setting, true) {
            tracing::error!(%error, "a new balancer could not be started; the old one goes on");
        }
    }

    /// Forgets targets that have drained, or had their time. Answers when the next has had it.
    async fn end_draining(&self) -> Result<Option<Timestamp>, DiskFault> {
        let now = self.elb.world.now();
        let snapshot = self.elb.store.read();
        let (mut over, mut wake_at) = (Vec::new(), None);
        for target in snapshot.scan::<Target>() {
            let Some(since) = target.draining_since else { continue };
            let group = snapshot.get::<TargetGroup>(&format!("{}/{}", target.realm, target.group));
            let delay = group.map_or(Duration::ZERO, |group| delay(&group));
            let address = SocketAddrV4::new(target.ip, target.port);
            let mut heard = self.heard.targets.iter();
            let drained =
                heard.any(|t| t.drained && t.group == target.group && t.address == address);
            if drained || now >= since + delay {
                over.push((target.key(), since));
            } else {
                wake_at = [wake_at, Some(since + delay)].into_iter().flatten().min();
            }
        }
        if over.is_empty() {
            return Ok(wake_at);
        }
        let write = self.elb.store.write(move |tx| {
            for (key, since) in over {
                // Registered again meanwhile, it stays.
                let same = |target: &Arc<Target>| target.draining_since == Some(since);
                if tx.get::<Target>(&key).filter(same).is_some() {
                    tx.delete::<Target>(&key);
                }
            }
            Ok::<_, DiskFault>(())
        });
        write.await.map(|()| wake_at)
    }

    /// Makes the names of internet-facing load balancers known on the host.
    fn name(&mut self) -> Result<(), HostsError> {
        let Some(file) = &self.setting.hosts_file else { return Ok(()) };
        let snapshot = self.elb.store.read();
        let of = |balancer: Arc<LoadBalancer>| {
            let addresses = balancer.nodes.iter().filter_map(|node| node.public_ip);
            addresses.map(|ip| (ip, balancer.dns_name())).collect::<Vec<_>>()
        };
        let names: Vec<_> = snapshot.scan::<LoadBalancer>().flat_map(of).collect();
        if names != self.names {
            hosts::write(file, &self.setting.instance, &names)?;
            self.names = names;
        }
        Ok(())
    }
}

/// How long a target of the group may drain.
fn delay(group: &TargetGroup) -> Duration {
    let seconds = group.attribute("deregistration_delay.timeout_seconds", "300").parse();
    Duration::from_secs(seconds.unwrap_or(300))
}

/// Takes away what the host knows of load balancers, and ends their data plane.
pub(crate) async fn close(elb: &ElbV2, setting: &Setting) {
    if let Some(mut plane) = DataPlane::running(&elb.world, setting).await
        && let Err(error) = plane.end().await
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "the balancer could not be ended");
    }
    if let Some(file) = &setting.hosts_file
        && let Err(error) = hosts::write(file, &setting.instance, &[])
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "names of load balancers could not be taken away");
    }
}
