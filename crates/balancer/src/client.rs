//! The control plane's end of the socket.

use crate::{
    SOCKET,
    config::{Config, Order, Report},
    process::read_line,
};
use std::{io, path::Path};
use thiserror::Error;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Why the data plane cannot be talked to.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// It does not run, or does not answer.
    #[error("the balancer does not answer")]
    Io(#[from] io::Error),
    /// It says what we do not understand: it is of another version.
    #[error("the balancer says what is not understood")]
    Report(#[source] serde_json::Error),
    /// What we want to say cannot be written down.
    #[error("the configuration cannot be written down")]
    Config(#[source] serde_json::Error),
}

/// A connection to the data plane.
pub struct Connection {
    /// What it is told.
    pub orders: Orders,
    /// What it says.
    pub reports: Reports,
}

/// What the data plane is told.
pub struct Orders(OwnedWriteHalf);

/// What the data plane says.
pub struct Reports(BufReader<OwnedReadHalf>);

impl Connection {
    /// Connects to the process that runs in `directory`.
    pub async fn open(directory: &Path) -> Result<Self, ConnectionError> {
        let stream = UnixStream::connect(directory.join(SOCKET)).await?;
        let (read, write) = stream.into_split();
        Ok(Self { orders: Orders(write), reports: Reports(BufReader::new(read)) })
    }
}

impl Orders {
    /// Says what should be, all of it. That it is so is told by a report with its version.
    pub async fn configure(&mut self, config: &Config) -> Result<(), ConnectionError> {
        self.say(&Order::Configure(config.clone())).await
    }

    /// Ends the process: it listens no more, and forgets its configuration.
    pub async fn end(&mut self) -> Result<(), ConnectionError> {
        self.say(&Order::End).await
    }

    async fn say(&mut self, order: &Order) -> Result<(), ConnectionError> {
        let mut line = serde_json::to_vec(order).map_err(ConnectionError::Config)?;
        line.push(b'\n');
        self.0.write_all(&line).await.map_err(ConnectionError::from)
    }
}

impl Reports {
    /// The next report. The first comes at once. What was read of one is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Result<Report, ConnectionError> {
        let line = read_line(&mut self.0).await?;
        serde_json::from_slice(&line).map_err(ConnectionError::Report)
    }
}
