//! The process that is the data plane: started when it does not run, and talked to.

use super::Setting;
use balancer::{Config, Connection, ConnectionError, Report};
use std::{fs, io, process::Stdio, time::Duration};
use thiserror::Error;
use tokio::sync::mpsc;
use world::World;

/// How often is looked whether it listens after its start, and how long in between.
const LOOKS: u32 = 400;
const LOOK: Duration = Duration::from_millis(5);

/// Why there is no data plane.
#[derive(Debug, Error)]
pub(super) enum DataPlaneError {
    /// It could not be started.
    #[error("the balancer could not be started")]
    Start(#[source] io::Error),
    /// It does not listen.
    #[error("the balancer does not answer; its log is in its directory")]
    Silent(#[source] ConnectionError),
    /// The connection broke.
    #[error("the balancer is gone")]
    Gone(#[from] ConnectionError),
}

/// A data plane that runs.
pub(super) struct DataPlane {
    orders: balancer::Orders,
    reports: mpsc::Receiver<Report>,
}

impl DataPlane {
    /// The one that runs, or else none.
    pub(super) async fn running(world: &World, setting: &Setting) -> Option<Self> {
        let connection = Connection::open(&setting.directory).await.ok()?;
        Some(Self::over(world, connection))
    }

    fn over(world: &World, connection: Connection) -> Self {
        let Connection { orders, mut reports } = connection;
        let (send, receive) = mpsc::channel(1);
        world.spawn("balancer's reports", async move {
            while let Ok(report) = reports.next().await {
                if send.send(report).await.is_err() {
                    return;
                }
            }
        });
        Self { orders, reports: receive }
    }

    /// The one that runs, or else a new one.
    pub(super) async fn open(world: &World, setting: &Setting) -> Result<Self, DataPlaneError> {
        if let Some(running) = Self::running(world, setting).await {
            return Ok(running);
        }
        start(world, setting, false).map_err(DataPlaneError::Start)?;
        let mut looks = 0;
        loop {
            match Connection::open(&setting.directory).await {
                Ok(connection) => return Ok(Self::over(world, connection)),
                Err(error) if looks >= LOOKS => return Err(DataPlaneError::Silent(error)),
                Err(_) => {
                    looks += 1;
                    world.sleep(LOOK).await;
                }
            }
        }
    }

    /// What it says next; none when it is gone; never, when there is none.
    pub(super) async fn next(plane: &mut Option<Self>) -> Option<Report> {
        match plane {
            Some(plane) => plane.reports.recv().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn configure(&mut self, config: &Config) -> Result<(), DataPlaneError> {
        self.orders.configure(config).await.map_err(DataPlaneError::from)
    }

    pub(super) async fn end(&mut self) -> Result<(), DataPlaneError> {
        self.orders.end().await.map_err(DataPlaneError::from)
    }
}

/// Starts it, in place of the one that runs or of none. It is in a process group of its own, and outlives this process.
pub(super) fn start(world: &World, setting: &Setting, take_over: bool) -> io::Result<()> {
    fs::create_dir_all(&setting.directory)?;
    let log = setting.directory.join("log");
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let (program, word) = &setting.exe;
    let mut child = tokio::process::Command::new(program)
        .arg(word)
        .arg(&setting.directory)
        .args(take_over.then_some(balancer::TAKE_OVER))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    // Waited for only so that nothing is left in the table of processes: its connection tells that it is gone.
    world.spawn("balancer", async move {
        if let Ok(status) = child.wait().await {
            tracing::info!(%status, "a balancer ended");
        }
    });
    Ok(())
}
