//! What a task needs from the rest of the house. ECS names it; the binary connects it to the services that have it, so
//! this crate depends on none of them.

use images::{Reference, Source, registry::Credentials};
use std::{future::Future, ops::Range, pin::Pin, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use wire::{Peer, Principal};

/// A boxed future.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where images come from.
pub trait ImageSources: Send + Sync + 'static {
    /// The source of `reference` for a task whose execution role is `principal`, with the credentials that its
    /// definition names for the registry. The error is for people.
    fn source(
        &self,
        reference: &Reference,
        principal: Option<&Principal>,
        credentials: Option<Credentials>,
    ) -> Result<Arc<dyn Source>, String>;

    /// Whether it is a repository of Amazon ECR's own, here.
    fn is_ecr(&self, reference: &Reference) -> bool;
}

/// Where secrets come from.
pub trait Secrets: Send + Sync + 'static {
    /// The value that `value_from` of a task definition names, read as `principal`. The error is for people and never
    /// holds a value.
    fn value<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        value_from: &'a str,
    ) -> Pending<'a, Result<String, String>>;
}

/// Where files of environment variables come from.
pub trait EnvironmentFiles: Send + Sync + 'static {
    /// The text of the file that an ARN of a task definition names, read as `principal`. The error is for people.
    fn text<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        arn: &'a str,
    ) -> Pending<'a, Result<String, String>>;
}

/// Where a log stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// `account/region`.
    pub realm: String,
    /// The log group's name.
    pub group: String,
    /// The log stream's name.
    pub stream: String,
    /// Whether a missing group is made.
    pub create_group: bool,
}

/// Where output goes.
pub trait LogSinks: Send + Sync + 'static {
    /// Opens a stream for writing as `principal`, making it when it is missing. The error is for people.
    fn open<'a>(
        &'a self,
        target: &'a LogTarget,
        principal: &'a Principal,
    ) -> Pending<'a, Result<Arc<dyn LogSink>, String>>;
}

/// A log stream that is written to.
pub trait LogSink: Send + Sync + 'static {
    /// How far `source` was read when the stream last kept something of it. The error is for people.
    fn mark<'a>(&'a self, source: &'a str) -> Pending<'a, Result<u64, String>>;
    /// Keeps lines (time in ms, text) from `range` of `source` for good, together with the new mark: what is appended
    /// again is kept once.
    fn append<'a>(
        &'a self,
        source: &'a str,
        range: Range<u64>,
        lines: &'a [(i64, String)],
    ) -> Pending<'a, Result<(), String>>;
}

/// What runs functions.
pub trait Functions: Send + Sync + 'static {
    /// Runs the function of this ARN as `principal` and answers what it says, JSON. The error says whether trying again
    /// would not help, and is for people.
    fn invoke<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        function: &'a str,
        event: String,
    ) -> Pending<'a, Result<String, (bool, String)>>;
}

/// How alarms are.
#[derive(Clone, Debug, Default)]
pub struct AlarmsSeen {
    /// The names of those that are on.
    pub on: Vec<String>,
    /// How long the slowest of them takes until it is on, when there is cause.
    pub takes: Duration,
}

/// What watches services.
pub trait Alarms: Send + Sync + 'static {
    /// How the alarms of these names are; those that do not exist are not on.
    fn look(&self, realm: &str, names: &[String]) -> AlarmsSeen;
}

/// Serves a task's connection to the API.
pub type ServeApi = Arc<dyn Fn(TcpStream, Peer) -> Pending<'static, ()> + Send + Sync>;

/// All of it.
#[derive(Clone)]
pub struct Surroundings {
    /// Where images come from.
    pub images: Arc<dyn ImageSources>,
    /// Where secrets come from.
    pub secrets: Arc<dyn Secrets>,
    /// Where files of environment variables come from.
    pub files: Arc<dyn EnvironmentFiles>,
    /// Where output goes.
    pub logs: Arc<dyn LogSinks>,
    /// What runs functions.
    pub functions: Arc<dyn Functions>,
    /// What watches services.
    pub alarms: Arc<dyn Alarms>,
    /// Serves a task's connection to the API.
    pub api: ServeApi,
}
