//! How the command line talks to a running `serve`: a unix socket in the data directory, for root only. A
//! request is one line of JSON; so is the answer.

use elbv2::plane::{BalancerFigures, GroupFigures};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The longest line either side sends, in bytes.
pub(crate) const MOST_LINE: u64 = 4 << 20;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// What clients need to know.
    Env {
        /// The account, the default one when absent.
        account: Option<String>,
    },
    /// What runs.
    Status,
    /// Whether this machine fits, and what is left over; with `mend`, take that away.
    Doctor {
        /// See above.
        mend: bool,
    },
    /// The events of a log group: lines of JSON ([`LogLine`]) follow the answer.
    Logs {
        /// The group's name.
        group: String,
        /// The region, the default one when absent.
        region: Option<String>,
        /// How many of the last events.
        last: usize,
        /// Go on with those that come.
        follow: bool,
    },
    /// Run a command in a container: frames ([`FRAME_STDIN`]…) follow the answer.
    Exec {
        /// The task's id, its beginning, or its ARN.
        task: String,
        /// The container, when the task has several.
        container: Option<String>,
        /// The command and its arguments.
        args: Vec<String>,
        /// Rows and columns, to run it on a terminal.
        terminal: Option<(u16, u16)>,
        /// Also when the task was not run for that.
        force: bool,
    },
    /// Take a FARGATE_SPOT task's capacity away.
    Interrupt {
        /// The task's id, its beginning, or its ARN.
        task: String,
    },
    /// Stop everything.
    Down {
        /// Let the tasks go on, for an upgrade.
        keep_tasks: bool,
    },
}

/// Frames of an exec: kind, length (big-endian), content. From the command line: what the command reads.
pub(crate) const FRAME_STDIN: u8 = 0;
/// There is no more to read.
pub(crate) const FRAME_EOF: u8 = 1;
/// From the command: what it wrote.
pub(crate) const FRAME_STDOUT: u8 = 2;
/// What it complained.
pub(crate) const FRAME_STDERR: u8 = 3;
/// Its exit code (i32, big-endian). The last frame.
pub(crate) const FRAME_EXIT: u8 = 4;
/// The longest content of a frame, in bytes.
pub(crate) const MOST_FRAME: usize = 64 << 10;

/// The answer to [`Request::Status`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatusReply {
    pub version: String,
    pub endpoint: String,
    pub region: String,
    pub account: String,
    /// What AWS's waiting times are multiplied with.
    pub time_scale: f64,
    pub tasks: Vec<TaskStatus>,
    pub services: Vec<ServiceStatus>,
    pub load_balancers: Vec<LoadBalancerStatus>,
}

/// A service that is not gone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    pub realm: String,
    pub arn: String,
    pub definition: String,
    pub desired: i32,
    pub running: i32,
    pub pending: i32,
    /// What it told last.
    pub event: Option<String>,
}

/// A load balancer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LoadBalancerStatus {
    pub arn: String,
    pub dns_name: String,
    pub state: String,
    pub ports: Vec<u16>,
    pub troubles: Vec<String>,
    /// Since its data plane began.
    pub figures: BalancerFigures,
    /// Target groups by name.
    pub groups: Vec<(String, GroupFigures)>,
}

/// A task that is not over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskStatus {
    pub realm: String,
    pub arn: String,
    pub definition: String,
    pub status: String,
    pub private_ip: Option<String>,
    pub public_ip: Option<String>,
    pub pulling: Option<Pulling>,
}

/// How far a task's image is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pulling {
    pub image: String,
    pub done_bytes: u64,
    /// 0 until the manifest is here.
    pub total_bytes: u64,
}

/// The answer to [`Request::Interrupt`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InterruptReply {
    /// The task's ARN.
    pub arn: String,
}

/// The answer to [`Request::Doctor`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DoctorReply {
    pub checks: Vec<runtime::Check>,
    /// What belongs to nothing any more, in words.
    pub leaks: Vec<String>,
    pub mended: bool,
}

/// The answers to [`Request::Exec`] and [`Request::Logs`]: it begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BeginReply {}

/// An event of a log group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogLine {
    pub stream: String,
    pub timestamp_ms: i64,
    pub message: String,
}

/// The answer to [`Request::Env`]. No `Debug`: it holds a secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct EnvReply {
    pub endpoint: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub region: String,
    pub account: String,
}

/// The answer to [`Request::Down`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DownReply {}

/// Any answer on the wire.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply<T> {
    /// Done.
    Done(T),
    /// Not done, and why.
    Failed(String),
}

/// Why a question got no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("Neargate is not running on {data_dir}; start it with `neargate up`")]
    NotRunning {
        data_dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the connection to Neargate broke off")]
    Connection(#[source] std::io::Error),
    #[error("Neargate's answer cannot be read; are two versions mixed?")]
    Answer(#[source] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

/// Where `serve` listens for the command line.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Asks a running `serve`.
pub(crate) fn ask<T: DeserializeOwned>(data_dir: &Path, request: &Request) -> Result<T, AskError> {
    begin(data_dir, request).map(|(answer, _)| answer)
}

/// Asks a running `serve`, and goes on with the connection.
pub(crate) fn begin<T: DeserializeOwned>(
    data_dir: &Path,
    request: &Request,
) -> Result<(T, BufReader<UnixStream>), AskError> {
    let stream = UnixStream::connect(socket(data_dir));
    let mut stream =
        stream.map_err(|source| AskError::NotRunning { data_dir: data_dir.to_owned(), source })?;
    let mut line = serde_json::to_string(request).expect("requests are plain data");
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(AskError::Connection)?;
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    reader.by_ref().take(MOST_LINE).read_line(&mut answer).map_err(AskError::Connection)?;
    match serde_json::from_str(&answer).map_err(AskError::Answer)? {
        Reply::Done(value) => Ok((value, reader)),
        Reply::Failed(why) => Err(AskError::Refused(why)),
    }
}
