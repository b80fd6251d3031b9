//! What the control plane and a shim say to each other over `shim.sock`: a packet each way is one
//! JSON message, with descriptors beside it where processes are to share them. A connection carries
//! one request; a watch and an exec keep theirs open.

use crate::{cgroup::CgroupStats, journal::StartFailure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// The largest message, in bytes: below the kernel's default for one packet.
pub(crate) const MAX_MESSAGE: usize = 160 << 10;
/// Descriptors in one message.
const MAX_FDS: usize = 3;

/// The shim's socket in the task's directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// What is asked of a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The network is plugged in: begin.
    Start,
    /// Stop gracefully; answered at once.
    Stop { reason: String },
    /// Kill everything; answered at once.
    Kill { reason: String },
    /// Tell what is used.
    Stats,
    /// The spool before this position is consumed.
    Acknowledge { position: u64 },
    /// Send an (empty) packet whenever journal or spool grew. The connection's end is the shim's.
    Watch,
    /// Run a command in a container. Without a terminal three descriptors come along.
    Exec(ExecRequest),
    /// Give a running container's root directory; its descriptor comes along with the answer.
    Root { container: String },
    /// Set the size of a container's terminal.
    Resize { container: String, rows: u16, columns: u16 },
}

/// A command to run in a running container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Where.
    pub container: String,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Environment beside (and over) the container's.
    pub env: Vec<(String, String)>,
    /// As in [`crate::ContainerSpec::user`]; the container's own user unless set.
    pub user: Option<String>,
    /// The working directory; the container's own unless set.
    pub cwd: Option<String>,
    /// Rows and columns, to run it on a terminal.
    pub terminal: Option<(u16, u16)>,
}

/// What a shim answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub(crate) enum Response {
    /// Done, or begun.
    Done,
    /// What is used.
    Stats(TaskStats),
    /// The command runs; with a terminal, its controlling end comes along.
    ExecStarted { pid: i32 },
    /// The command ended.
    ExecExited { code: i32 },
    /// The command could not be started.
    ExecFailed { failure: StartFailure },
    /// It cannot be done.
    Refused { message: String },
}

/// What a task uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStats {
    /// All containers together.
    pub task: CgroupStats,
    /// By container; those that were started.
    pub containers: BTreeMap<String, CgroupStats>,
}

/// What the shim says on its standard output once, when it is ready or never will be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// The sandbox exists.
    Ready {
        /// The shim's process.
        pid: i32,
        /// The descriptor of the network namespace in that process.
        netns_fd: i32,
    },
    /// It could not be made.
    Failed {
        /// Every error of the chain.
        message: String,
    },
}

/// What the process that sets up a command tells the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The command will be this process.
    Pid(i32),
    /// The controlling end of its terminal comes along.
    Terminal,
    /// It could not be started.
    Failed(StartFailure),
}

/// A message cannot be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// It is too large.
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// It does not mean anything.
    #[error("the message is not understood")]
    Meaning(#[source] serde_json::Error),
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[source] std::io::Error),
    /// The other side closed.
    #[error("the other side closed the connection")]
    Closed,
}

impl PacketError {
    /// Whether the socket would have to wait.
    pub(crate) fn is_would_block(&self) -> bool {
        matches!(self, Self::Socket(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn socket_error(error: rustix::io::Errno) -> PacketError {
    PacketError::Socket(error.into())
}

/// Two connected sockets, for processes that come from one.
pub(crate) fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The address of `name` in the directory `dir`, however long that directory's path is.
fn address(dir: BorrowedFd<'_>, name: &str) -> std::io::Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    Ok(SocketAddrUnix::new(Path::new(&path))?)
}

fn open_dir(dir: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

fn socket() -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens in the task directory `dir`.
pub(crate) fn listen(dir: &Path) -> std::io::Result<OwnedFd> {
    let (dir, socket) = (open_dir(dir)?, socket()?);
    rustix::net::bind(&socket, &address(dir.as_fd(), SOCKET)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Connects to the shim of the task directory `dir`. The socket does not block.
pub(crate) fn connect(dir: &Path) -> std::io::Result<OwnedFd> {
    let (dir, socket) = (open_dir(dir)?, socket()?);
    rustix::net::connect(&socket, &address(dir.as_fd(), SOCKET)?)?;
    Ok(socket)
}

/// Sends `message`, with `fds` beside it.
pub(crate) fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    let bytes = serde_json::to_vec(message).map_err(PacketError::Meaning)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(PacketError::TooLarge(bytes.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "no caller sends more than {MAX_FDS} descriptors");
    }
    let parts = [IoSlice::new(&bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)
    })
    .map_err(socket_error)?;
    Ok(())
}

/// Receives a message, and the descriptors beside it.
pub(crate) fn receive<M: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<(M, Vec<OwnedFd>), PacketError> {
    let (bytes, fds) = receive_bytes(socket)?;
    Ok((serde_json::from_slice(&bytes).map_err(PacketError::Meaning)?, fds))
}

/// Receives from the other side although it may have closed without having read everything: the
/// kernel says that once, at any moment, before what was sent last is heard.
fn attentive<T>(mut receive: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match rustix::io::retry_on_intr(&mut receive) {
        Err(rustix::io::Errno::CONNRESET) => rustix::io::retry_on_intr(receive),
        received => received,
    }
}

/// Receives a packet as it is.
pub(crate) fn receive_bytes(
    socket: BorrowedFd<'_>,
) -> Result<(Vec<u8>, Vec<OwnedFd>), PacketError> {
    // How large it is, is asked first: most are small, and the shim has little memory.
    let size =
        attentive(|| rustix::net::recv(socket, &mut [0u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC));
    let (_, size) = size.map_err(socket_error)?;
    if size > MAX_MESSAGE {
        return Err(PacketError::TooLarge(size));
    }
    let mut bytes = vec![0u8; size.max(1)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = attentive(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(socket_error)?;
    if received.bytes == 0 {
        return Err(PacketError::Closed);
    }
    bytes.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((bytes, fds))
}

/// Receives one descriptor over a stream, whatever bytes come with it.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> Result<OwnedFd, PacketError> {
    let mut bytes = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(socket_error)?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    fds.next().ok_or(PacketError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send(a.as_fd(), &Report::Pid(7), &[]).unwrap();
        send(a.as_fd(), &Report::Terminal, &[write.as_fd()]).unwrap();
        drop(write);
        let (first, fds) = receive::<Report>(b.as_fd()).unwrap();
        assert!(matches!(first, Report::Pid(7)) && fds.is_empty());
        let (_, fds) = receive::<Report>(b.as_fd()).unwrap();
        rustix::io::write(&fds[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0u8; 4]).unwrap(), 1);
        drop(a);
        assert!(matches!(receive::<Report>(b.as_fd()), Err(PacketError::Closed)));
    }

    #[test]
    fn last_words_arrive_though_the_speaker_did_not_listen() {
        let (a, b) = pair().unwrap();
        rustix::io::write(&b, b"unheard").unwrap();
        send(a.as_fd(), &Report::Pid(7), &[]).unwrap();
        drop(a);
        assert!(matches!(receive::<Report>(b.as_fd()), Ok((Report::Pid(7), _))));
        assert!(matches!(receive::<Report>(b.as_fd()), Err(PacketError::Closed)));
    }

    #[test]
    fn last_words_arrive_whenever_the_speaker_leaves() {
        for turn in 0..5_000u32 {
            let (a, b) = pair().unwrap();
            rustix::io::write(&b, b"unheard").unwrap();
            send(a.as_fd(), &Report::Pid(7), &[]).unwrap();
            let both = std::sync::Barrier::new(2);
            let heard = std::thread::scope(|scope| {
                let both = &both;
                scope.spawn(move || {
                    both.wait();
                    (0..turn % 200).for_each(|_| std::hint::spin_loop());
                    drop(a);
                });
                both.wait();
                receive::<Report>(b.as_fd())
            });
            assert!(matches!(heard, Ok((Report::Pid(7), _))), "turn {turn}: {heard:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_not_sent() {
        let (a, _b) = pair().unwrap();
        let failure = StartFailure::Runtime { message: "x".repeat(MAX_MESSAGE) };
        let error = send(a.as_fd(), &Report::Failed(failure), &[]).unwrap_err();
        assert!(matches!(error, PacketError::TooLarge(_)));
    }
}
