//! The control plane: every service assembled over one store, behind one front door.

mod commands;
mod listen;

use iam::Iam;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use store::{Sealer, Store};
use sts::Sts;
use thiserror::Error;
use wire::{Front, Limits};
use world::World;

/// What a control plane is started with.
pub(crate) struct Settings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub region: String,
    pub account: String,
    pub account_key: Option<(String, String)>,
}

/// Why the control plane did not start.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot open the store")]
    Store(#[from] store::OpenError),
    #[error("cannot read the stored records")]
    Records(#[from] store::ReadError),
    #[error("cannot load the sealing key")]
    Seal(#[from] store::SealError),
    #[error("cannot write the administrator's key")]
    Key(#[from] store::WriteError<std::convert::Infallible>),
    #[error("cannot listen on {address}; is another Neargate running? (--listen, --data-dir)")]
    Listen {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// A running control plane.
pub(crate) struct ControlPlane {
    settings: Settings,
    world: World,
    front: Arc<Front>,
    iam: Arc<Iam>,
    stop: tokio::sync::Notify,
}

/// Runs until a signal or `neargate down` ends it.
pub(crate) fn run(settings: Settings) -> Result<(), ServeError> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NEARGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(ServeError::Runtime)?.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), ServeError> {
    let world = World::system();
    let store = Store::open(&settings.data_dir, world.clone())?;
    let sealer = Arc::new(Sealer::load(&settings.data_dir, world.clone())?);
    let iam = Iam::new(store.clone(), world.clone(), sealer)?;
    let given = settings.account_key.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
    iam.administrator_key(&settings.account, given).await?;
    let services = vec![iam::api::service(iam.clone()), sts::api::service(Sts::new(iam.clone()))];
    let front = Front::new(services, Vec::new(), iam.clone(), world.clone(), Limits::default());
    let front = Arc::new(front);
    let plane =
        Arc::new(ControlPlane { settings, world, front, iam, stop: tokio::sync::Notify::new() });
    let api = listen::api(&plane).await?;
    let control = listen::control(&plane)?;
    println!("neargate is ready on http://{api}");
    let ended = listen::signals()?;
    tokio::select! {
        () = ended => tracing::info!("a signal ends this control plane; tasks go on"),
        () = plane.stop.notified() => tracing::info!("neargate down ends this control plane"),
    }
    if let Err(error) = std::fs::remove_file(&control) {
        tracing::warn!(%error, "the control socket could not be removed");
    }
    plane.world.end().await;
    Ok(())
}
