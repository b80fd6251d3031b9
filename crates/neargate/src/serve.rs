//! The control plane: every service assembled over one store, behind one front door.

mod commands;
mod connect;
mod house;
mod listen;
mod measure;
mod memory;

use ecs::Ecs;
use elbv2::ElbV2;
use house::House;
use iam::Iam;
use images::{Images, ImagesOptions};
use logs::Logs;
use network::{Network, NetworkConfig};
use runtime::{Engine, EngineConfig};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use store::Store;
use thiserror::Error;
use wire::Front;
use world::World;

/// What a control plane is started with.
pub(crate) struct Settings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub region: String,
    pub account: String,
    pub account_key: Option<(String, String)>,
    /// Where public addresses of tasks come from.
    pub public_pool: network::Cidr,
    /// What names of load balancers end in.
    pub domain: String,
    /// The host's address that internet-facing load balancers share.
    pub balancer_address: IpAddr,
    /// What AWS's waiting times are multiplied with.
    pub time_scale: f64,
    /// Where names of load balancers are made known to the host's programs, if anywhere.
    pub hosts_file: Option<PathBuf>,
    /// Where Lambda functions run, if anywhere.
    pub functions: Option<lambda::Endpoint>,
    /// The directory whose git repositories connections may lead to.
    pub git_directory: Option<PathBuf>,
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
    #[error("cannot set the network up")]
    Network(#[from] network::NetworkError),
    #[error("cannot set the container engine up")]
    Engine(#[from] runtime::EngineError),
    #[error("cannot open the log store")]
    Logs(#[from] logstore::OpenError),
    #[error("cannot open the images")]
    Images(#[from] images::DiskError),
    #[error("cannot open the objects of S3")]
    Objects(#[from] s3::OpenError),
    /// The git repositories are not to be had.
    #[error(transparent)]
    Repositories(#[from] codecommit::OpenError),
    /// CodeBuild's files, or its records.
    #[error("builds cannot be opened")]
    Builds(#[from] codebuild::OpenError),
    #[error("the directory of shared file systems cannot be put in order")]
    Shared(#[source] std::io::Error),
    #[error("cannot read the registries' configuration")]
    Registries(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot find this program")]
    Program(#[source] std::io::Error),
    #[error("cannot make the data directory {path}")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// So long after it is ready a control plane has done what it does but once.
const SETTLED: Duration = Duration::from_secs(1);

/// A running control plane.
pub(crate) struct ControlPlane {
    settings: Settings,
    world: World,
    front: Arc<Front>,
    iam: Arc<Iam>,
    network: Arc<Network>,
    ecs: Arc<Ecs>,
    elb: Arc<ElbV2>,
    logs: Arc<Logs>,
    stop: tokio::sync::Notify,
}

/// Sends what the program logs to standard error.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NEARGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        // A log that cannot be written (a full disk) must not panic whoever logs.
        .log_internal_errors(false)
        .init();
}

/// Runs until a signal or `neargate down` ends it.
pub(crate) fn run(settings: Settings) -> Result<(), ServeError> {
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(ServeError::Runtime)?.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), ServeError> {
    let world = World::system_scaled(settings.time_scale);
    private_dir(&settings.data_dir)?;
    let store = Store::open(&settings.data_dir, world.clone())?;
    let (listener, address) = listen::bind(settings.listen).await?;
    let house = House::build(&settings, &world, &store, address).await?;
    let given = settings.account_key.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
    house.iam.administrator_key(&settings.account, given).await?;
    let front = Arc::new(house.front(&world));
    house.start(&settings, &world, &front).await?;
    let plane = Arc::new(ControlPlane {
        settings,
        world,
        front,
        iam: house.iam,
        network: house.network,
        ecs: house.ecs,
        elb: house.elb,
        logs: house.logs,
        stop: tokio::sync::Notify::new(),
    });
    listen::api(&plane, listener);
    let control = listen::control(&plane)?;
    let ended = listen::signals()?;
    println!("neargate is ready on http://{address}");
    // To systemd, when it is what started this.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that this is ready");
    }
    let settled = plane.world.clone();
    plane.world.spawn("memory", async move {
        settled.sleep(SETTLED).await;
        memory::give_back_code();
    });
    tokio::select! {
        () = ended => {
            tracing::info!("a signal ends this control plane; tasks go on");
            let idle = plane.ecs.tasks().is_empty() && !plane.elb.has_balancers();
            if idle && let Err(error) = plane.network.close().await {
                tracing::warn!(error = %error, "the network could not be taken away");
            }
        }
        () = plane.stop.notified() => tracing::info!("neargate down ends this control plane"),
    }
    if let Err(error) = std::fs::remove_file(&control) {
        tracing::warn!(%error, "the control socket could not be removed");
    }
    plane.world.end().await;
    Ok(())
}

/// The data directory, for root only: it holds keys and everything that tasks wrote.
fn private_dir(path: &std::path::Path) -> Result<(), ServeError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let told = |source| ServeError::DataDir { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(told)?;
    // Tasks' users must be able to pass through to their own files; nobody may list or read.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).map_err(told)
}

struct Engines {
    network: Arc<Network>,
    images: Images,
    engine: Engine,
}

async fn engines(settings: &Settings, world: &World) -> Result<Engines, ServeError> {
    let instance = instance(&settings.data_dir);
    let images = Images::open(&settings.data_dir.join("images"), world, ImagesOptions::default())?;
    let config = EngineConfig {
        exe: std::env::current_exe().map_err(ServeError::Program)?,
        shim_args: vec![crate::SHIM.to_owned()],
        tasks_dir: settings.data_dir.join("tasks"),
        disks_dir: settings.data_dir.join("disks"),
        instance: instance.clone(),
        first_id: None,
        user_namespaces: true,
    };
    let engine = Engine::new(config, world.clone())?;
    // Last, because it is what a failure would leave behind.
    let config = NetworkConfig {
        run_dir: PathBuf::from("/run/neargate").join(&instance),
        instance,
        pool: settings.public_pool,
    };
    let network = Arc::new(Network::open(config).await?);
    Ok(Engines { network, images, engine })
}

fn load_balancing(
    settings: &Settings,
    buckets: Arc<dyn elbv2::LogBuckets>,
) -> Result<elbv2::Setting, ServeError> {
    let exe = std::env::current_exe().map_err(ServeError::Program)?;
    Ok(elbv2::Setting {
        exe: (exe, crate::BALANCER.to_owned()),
        directory: settings.data_dir.join("balancer"),
        shared: settings.balancer_address,
        hosts_file: settings.hosts_file.clone(),
        instance: instance(&settings.data_dir),
        buckets,
    })
}

/// What sets this Neargate's kernel objects apart from another's on the same host: five letters that follow
/// from the data directory, so that they are found again after a crash.
fn instance(data_dir: &std::path::Path) -> String {
    let path = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325; // FNV-1a
    for byte in path.as_os_str().as_encoded_bytes() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let letters = b"abcdefghijklmnopqrstuvwxyz012345";
    (0..5).map(|place| letters[(sum >> (place * 5) & 31) as usize] as char).collect()
}
