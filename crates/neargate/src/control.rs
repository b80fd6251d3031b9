//! How the command line talks to a running `serve`: a unix socket in the data directory, for root only. A request is one
//! line of JSON; so is the answer.

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
    /// Stop everything.
    Down,
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
    let stream = UnixStream::connect(socket(data_dir));
    let mut stream =
        stream.map_err(|source| AskError::NotRunning { data_dir: data_dir.to_owned(), source })?;
    let mut line = serde_json::to_string(request).expect("requests are plain data");
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(AskError::Connection)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream.take(MOST_LINE));
    reader.read_line(&mut answer).map_err(AskError::Connection)?;
    match serde_json::from_str(&answer).map_err(AskError::Answer)? {
        Reply::Done(value) => Ok(value),
        Reply::Failed(why) => Err(AskError::Refused(why)),
    }
}
