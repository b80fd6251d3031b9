//! Sockets: the APIs' and the command line's.

use super::{ControlPlane, ServeError, commands};
use crate::control;
use std::{
    fs, future::Future, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use wire::{Peer, serve_connection};

/// So many connections are served at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 4096;
/// How long accepting rests after it failed (out of descriptors): trying at once would only spin.
const REST: Duration = Duration::from_millis(100);

/// Takes the address that API requests come to, and answers it; whoever connects waits for [`api`].
pub(super) async fn bind(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let told = |source| ServeError::Listen { address: wanted.to_string(), source };
    let listener = TcpListener::bind(wanted).await.map_err(told)?;
    let address = listener.local_addr().map_err(told)?;
    Ok((listener, address))
}

/// Serves API requests.
pub(super) fn api(plane: &Arc<ControlPlane>, listener: TcpListener) {
    let (world, front) = (plane.world.clone(), plane.front.clone());
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    plane.world.spawn("api listener", async move {
        loop {
            let permit = permits.clone().acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            match listener.accept().await {
                Ok((stream, from)) => {
                    let _ = stream.set_nodelay(true); // only a matter of speed
                    let front = front.clone();
                    world.spawn("api connection", async move {
                        serve_connection(stream, Peer { ip: from.ip(), vpc: None }, front).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    world.sleep(REST).await;
                }
            }
        }
    });
}

/// Listens for the command line; answers the socket's path.
pub(super) fn control(plane: &Arc<ControlPlane>) -> Result<PathBuf, ServeError> {
    let path = control::socket(&plane.settings.data_dir);
    let told = |source| ServeError::Listen { address: path.display().to_string(), source };
    // The store's lock says that no other Neargate works here, so a socket that is there is left over.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(told)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(told)?;
    let plane_of_loop = plane.clone();
    plane.world.spawn("control listener", async move {
        let plane = plane_of_loop;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let plane_of_command = plane.clone();
                    plane.world.spawn("command", async move {
                        commands::answer(plane_of_command, stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a command could not be accepted");
                    plane.world.sleep(REST).await;
                }
            }
        }
    });
    Ok(path)
}

/// Resolves at SIGTERM or SIGINT.
pub(super) fn signals() -> Result<impl Future<Output = ()>, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
