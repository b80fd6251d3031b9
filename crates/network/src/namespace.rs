//! A network namespace with a thread that lives in it: netlink, sysctls, nft and sockets act on the namespace
//! of the thread that uses them, so each namespace gets a thread of its own and is sent work.

use crate::error::NetworkError;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use rtnetlink::Handle;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};
use tokio::sync::oneshot;

/// What work inside a namespace has at hand.
pub(crate) struct Inside {
    runtime: tokio::runtime::Runtime,
    pub(crate) handle: Handle,
}

impl Inside {
    /// Waits for a netlink request.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Must be called on a thread that is in the namespace: the netlink socket belongs to it for good.
    fn open() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let handle = {
            let _context = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle })
    }
}

type Job = Box<dyn FnOnce(&Inside) + Send>;

/// A namespace that is pinned at a path, and its thread.
pub(crate) struct Namespace {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// The host's own.
    pub(crate) fn host() -> Result<Self, NetworkError> {
        Self::start(PathBuf::from("/proc/1/ns/net"), |_| Ok(()))
    }

    /// The namespace pinned at `path`; made when there is none.
    pub(crate) fn pinned(path: &Path) -> Result<Self, NetworkError> {
        let path = path.to_owned();
        Self::start(path, |path| match is_pinned(path) {
            true => enter(path),
            false => make(path),
        })
    }

    fn start(
        path: PathBuf,
        prepare: impl FnOnce(&Path) -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let at = path.clone();
        let body = move || {
            let inside = prepare(&at).and_then(|()| {
                Inside::open().map_err(|source| NetworkError::Namespace {
                    step: "open netlink in",
                    path: at.clone(),
                    source,
                })
            });
            match inside {
                Ok(inside) => {
                    let _ = ready.send(Ok(())); // the starter waits for it
                    work.iter().for_each(|job| job(&inside));
                }
                Err(error) => {
                    let _ = ready.send(Err(error)); // as above
                }
            }
        };
        let gone = || NetworkError::Thread { path: path.clone() };
        thread::Builder::new().name("netns".into()).spawn(body).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())??;
        Ok(Self { path, jobs })
    }

    /// Runs `work` on the namespace's thread.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Inside) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<R, NetworkError> {
        let gone = || NetworkError::Thread { path: self.path.clone() };
        let (send, receive) = oneshot::channel();
        let job = move |inside: &Inside| {
            let _ = send.send(work(inside)); // nobody waits any more when the caller was dropped
        };
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        receive.await.map_err(|_| gone())?
    }

    /// Where it is pinned.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Runs `work` once in the namespace at `path`, on a thread of its own.
pub(crate) async fn visit<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Inside) -> Result<R, NetworkError> + Send + 'static,
) -> Result<R, NetworkError> {
    let (send, receive) = oneshot::channel();
    let at = path.to_owned();
    let body = move || {
        let result = enter(&at).and_then(|()| {
            let inside = Inside::open().map_err(|source| NetworkError::Namespace {
                step: "open netlink in",
                path: at.clone(),
                source,
            })?;
            work(&inside)
        });
        let _ = send.send(result); // nobody waits any more when the caller was dropped
    };
    let gone = || NetworkError::Thread { path: path.to_owned() };
    thread::Builder::new().name("netns visit".into()).spawn(body).map_err(|_| gone())?;
    receive.await.map_err(|_| gone())?
}

fn enter(path: &Path) -> Result<(), NetworkError> {
    let told = |step| move |source| NetworkError::Namespace { step, path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(told("open"))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| told("enter")(errno.into()))
}

/// Moves this thread into a new namespace and pins that at `path`.
fn make(path: &Path) -> Result<(), NetworkError> {
    let told = |step| move |source| NetworkError::Namespace { step, path: path.to_owned(), source };
    fs::File::create(path).map_err(told("make a place for"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| told("make")(errno.into()))?;
    let own = Path::new("/proc/thread-self/ns/net");
    mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| told("pin")(errno.into()))
}

/// Whether a namespace is mounted at `path` (a left-over empty file is not one).
pub(crate) fn is_pinned(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Lets go of the namespace at `path`: the kernel frees it with its links when nobody is in it any more.
pub(crate) fn unpin(path: &Path) -> Result<(), NetworkError> {
    let told = |step| move |source| NetworkError::Namespace { step, path: path.to_owned(), source };
    if is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|errno| told("unpin")(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(told("remove")(error)),
        _ => Ok(()),
    }
}
