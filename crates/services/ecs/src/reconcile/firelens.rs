//! FireLens: a container of the task takes the others' output, filters it, and sends it on to wherever its own
//! configuration says. It gets the configuration that Fargate makes for Fluent Bit or Fluentd, and the output by the
//! forward protocol over a socket of its own.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/firelens-taskdef.html>
//! <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1>

use super::{chain, patience::Patience};
use crate::{
    Ecs,
    api::{ContainerDefinition, FirelensConfigurationType},
    model::{ContainerStatus, Task, TaskDefinition},
    surroundings::{LogSink, Pending},
    validate::{is_router, is_sender},
};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstat},
};
use runtime::{Condition, ContainerSpec, Dependency, Mount};
use std::{fmt::Write as _, io, ops::Range, os::fd::AsRawFd, sync::Arc, time::Duration};
use store::Record;
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::Mutex};

/// Where the router's socket is, in its container.
const SOCKET_DIR: &str = "/var/run";
const SOCKET: &str = "fluent.sock";
/// Where programs of the task that log by themselves find the router.
const HOST: &str = "127.0.0.1";
const PORT: &str = "24224";
/// How long one piece of output may take to be written: before, and after output began to be thrown away.
const WRITE: Duration = Duration::from_secs(5);
const WRITE_STALLED: Duration = Duration::from_millis(50);

/// Gives the router its configuration and its senders their order and their variables.
pub(super) fn equip(
    task: &Task,
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    spec: &mut ContainerSpec,
) {
    let all = || definition.document.container_definitions.iter().flatten();
    let Some(router) = all().find(|container| is_router(container)) else { return };
    let router_name = router.name.clone().unwrap_or_default();
    if is_router(container) {
        let (content, target) = configuration(task, definition, router);
        spec.mounts.push(Mount::Text { content, target: target.to_owned() });
        spec.mounts.push(Mount::Tmpfs {
            target: SOCKET_DIR.to_owned(),
            size_bytes: 1 << 20,
            options: vec!["mode=1777".to_owned()],
        });
    } else if is_sender(container) {
        if !spec.depends_on.iter().any(|dependency| dependency.container == router_name) {
            let container = router_name;
            spec.depends_on.push(Dependency { container, condition: Condition::Start });
        }
        for (name, value) in [("FLUENT_HOST", HOST), ("FLUENT_PORT", PORT)] {
            if !spec.env.iter().any(|(known, _)| known == name) {
                spec.env.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

/// The variable of the router that holds a secret option of the sender at `index` of the definition.
pub(super) fn secret_variable(option: &str, index: usize) -> String {
    format!("{option}_{index}")
}

/// Names what a sender writes.
fn tag(container: &str, task: &str) -> String {
    format!("{container}-firelens-{task}")
}

/// The router's configuration, and where it expects it.
fn configuration(
    task: &Task,
    definition: &TaskDefinition,
    router: &ContainerDefinition,
) -> (String, &'static str) {
    let options = router.firelens_configuration.as_ref().and_then(|all| all.options.as_ref());
    let option = |name: &str| options.and_then(|options| options.get(name)).map(String::as_str);
    let metadata = match option("enable-ecs-log-metadata") {
        Some("false") => Vec::new(),
        _ => vec![
            ("ecs_cluster", task.cluster.clone()),
            ("ecs_task_arn", task.arn()),
            ("ecs_task_definition", format!("{}:{}", definition.family, definition.revision)),
        ],
    };
    let senders: Vec<(usize, &ContainerDefinition)> = definition
        .document
        .container_definitions
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, container)| is_sender(container))
        .collect();
    let include = option("config-file-value");
    match router.firelens_configuration.as_ref().map(|all| all.r#type) {
        Some(FirelensConfigurationType::Fluentd) => {
            (fluentd(&metadata, &senders, include), "/fluentd/etc/fluent.conf")
        }
        _ => (fluent_bit(&metadata, &senders, include), "/fluent-bit/etc/fluent-bit.conf"),
    }
}

/// What a sender's options say: patterns of lines, and where they go.
struct Route<'a> {
    name: &'a str,
    include: Option<&'a str>,
    exclude: Option<&'a str>,
    /// Names and values of the output, secret ones as a reference to a variable's name.
    output: Vec<(&'a str, Value<'a>)>,
}

enum Value<'a> {
    Plain(&'a str),
    Variable(String),
}

fn route<'a>((index, container): &(usize, &'a ContainerDefinition)) -> Route<'a> {
    let log = container.log_configuration.as_ref();
    let options = log.and_then(|log| log.options.as_ref());
    let option = |name: &str| options.and_then(|all| all.get(name)).map(String::as_str);
    // These are the driver's own.
    const DRIVER: [&str; 3] = ["include-pattern", "exclude-pattern", "log-driver-buffer-limit"];
    let plain = options.into_iter().flatten();
    let plain = plain.filter(|(name, _)| !DRIVER.contains(&name.as_str()));
    let plain = plain.map(|(name, value)| (name.as_str(), Value::Plain(value.as_str())));
    let secret = log.and_then(|log| log.secret_options.as_ref()).into_iter().flatten();
    let secret = secret.map(|secret| {
        (secret.name.as_str(), Value::Variable(secret_variable(&secret.name, *index)))
    });
    Route {
        name: container.name.as_deref().unwrap_or_default(),
        include: option("include-pattern"),
        exclude: option("exclude-pattern"),
        output: plain.chain(secret).collect(),
    }
}

/// A section of Fluent Bit's configuration: its kind, what it is, what it is for, and its lines.
fn section(text: &mut String, [kind, name, of]: [&str; 3], lines: &[(&str, String)]) {
    // Writing to a string does not fail.
    let _ = write!(text, "[{kind}]\n    Name {name}\n    Match {of}\n");
    for (key, value) in lines {
        let _ = writeln!(text, "    {key} {value}");
    }
    text.push('\n');
}

fn fluent_bit(
    metadata: &[(&str, String)],
    senders: &[(usize, &ContainerDefinition)],
    include: Option<&str>,
) -> String {
    let mut text = format!(
        "[INPUT]\n    Name tcp\n    Listen {HOST}\n    Port 8877\n    Tag firelens-healthcheck\n\n\
         [INPUT]\n    Name forward\n    unix_path {SOCKET_DIR}/{SOCKET}\n\n\
         [INPUT]\n    Name forward\n    Listen {HOST}\n    Port {PORT}\n\n"
    );
    let routes: Vec<Route> = senders.iter().map(route).collect();
    for Route { name, include, exclude, .. } in &routes {
        let of = format!("{name}-firelens*");
        for (key, pattern) in [("Regex", include), ("Exclude", exclude)] {
            if let Some(pattern) = pattern {
                section(&mut text, ["FILTER", "grep", &of], &[(key, format!("log {pattern}"))]);
            }
        }
    }
    if !metadata.is_empty() {
        let records: Vec<_> =
            metadata.iter().map(|(key, value)| ("Record", format!("{key} {value}"))).collect();
        section(&mut text, ["FILTER", "record_modifier", "*"], &records);
    }
    if let Some(include) = include {
        let _ = write!(text, "@INCLUDE {include}\n\n");
    }
    section(&mut text, ["OUTPUT", "null", "firelens-healthcheck"], &[]);
    for Route { name, output, .. } in &routes {
        let plugin = output.iter().find(|(key, _)| key.eq_ignore_ascii_case("name"));
        // Without one, the included file says where they go.
        let Some((_, Value::Plain(plugin))) = plugin else { continue };
        let lines: Vec<_> = output
            .iter()
            .filter(|(key, _)| !key.eq_ignore_ascii_case("name"))
            .map(|(key, value)| match value {
                Value::Plain(value) => (*key, (*value).to_owned()),
                Value::Variable(name) => (*key, format!("${{{name}}}")),
            })
            .collect();
        section(&mut text, ["OUTPUT", plugin, &format!("{name}-firelens*")], &lines);
    }
    text
}

fn fluentd(
    metadata: &[(&str, String)],
    senders: &[(usize, &ContainerDefinition)],
    include: Option<&str>,
) -> String {
    let mut text = format!(
        "<source>\n    @type unix\n    path {SOCKET_DIR}/{SOCKET}\n</source>\n\n\
         <source>\n    @type forward\n    bind {HOST}\n    port {PORT}\n</source>\n\n"
    );
    let routes: Vec<Route> = senders.iter().map(route).collect();
    for Route { name, include, exclude, .. } in &routes {
        for (key, pattern) in [("regexp", include), ("exclude", exclude)] {
            if let Some(pattern) = pattern {
                // Writing to a string does not fail.
                let _ = write!(
                    text,
                    "<filter {name}-firelens**>\n    @type grep\n    <{key}>\n        key log\n        \
                     pattern {pattern}\n    </{key}>\n</filter>\n\n"
                );
            }
        }
    }
    if !metadata.is_empty() {
        text.push_str("<filter **>\n    @type record_transformer\n    <record>\n");
        for (key, value) in metadata {
            let _ = writeln!(text, "        {key} {value}");
        }
        text.push_str("    </record>\n</filter>\n\n");
    }
    if let Some(include) = include {
        let _ = write!(text, "@include {include}\n\n");
    }
    for Route { name, output, .. } in &routes {
        if !output.iter().any(|(key, _)| *key == "@type") {
            continue;
        }
        let _ = writeln!(text, "<match {name}-firelens**>");
        for (key, value) in output {
            let _ = match value {
                Value::Plain(value) => writeln!(text, "    {key} {value}"),
                Value::Variable(name) => writeln!(text, "    {key} \"#{{ENV['{name}']}}\""),
            };
        }
        text.push_str("</match>\n\n");
    }
    text
}

/// A sender's output on its way to the router.
pub(super) struct Sender {
    ecs: Arc<Ecs>,
    running: runtime::Task,
    /// The task's key.
    key: String,
    router: String,
    container: String,
    container_id: String,
    tag: String,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    stream: Option<UnixStream>,
    patience: Patience,
}

impl Sender {
    /// The sink of a sender's output; none for other containers.
    pub(super) fn open(
        ecs: &Arc<Ecs>,
        task: &Task,
        definitions: &[ContainerDefinition],
        container: &ContainerDefinition,
        running: &runtime::Task,
    ) -> Option<Arc<dyn LogSink>> {
        let router = definitions.iter().find(|container| is_router(container))?;
        let container = Some(container).filter(|container| is_sender(container))?.name.clone()?;
        let record = task.containers.iter().find(|known| known.name == container);
        Some(Arc::new(Self {
            ecs: ecs.clone(),
            running: running.clone(),
            key: task.key(),
            router: router.name.clone()?,
            container_id: record.and_then(|record| record.runtime_id.clone()).unwrap_or_default(),
            tag: tag(&container, &task.id),
            container,
            connection: Mutex::default(),
        }))
    }

    /// Events as messages of the forward protocol: `[tag, time, record]`, one after the other.
    fn encode(&self, stream: &str, lines: &[(i64, String)]) -> Vec<u8> {
        use rmp::encode::{write_array_len, write_ext_meta, write_map_len, write_str};
        let mut bytes = Vec::new();
        for (time_ms, line) in lines {
            let seconds = u32::try_from(time_ms.div_euclid(1000)).unwrap_or_default();
            let nanoseconds =
                u32::try_from(time_ms.rem_euclid(1000) * 1_000_000).unwrap_or_default();
            let record = [
                ("container_id", self.container_id.as_str()),
                ("container_name", self.container.as_str()),
                ("source", stream),
                ("log", line.as_str()),
            ];
            let written = (|| {
                write_array_len(&mut bytes, 3)?;
                write_str(&mut bytes, &self.tag)?;
                // EventTime: extension 0 of two big-endian numbers.
                write_ext_meta(&mut bytes, 8, 0)?;
                bytes.extend(seconds.to_be_bytes());
                bytes.extend(nanoseconds.to_be_bytes());
                write_map_len(&mut bytes, record.len() as u32)?;
                for (key, value) in record {
                    write_str(&mut bytes, key)?;
                    write_str(&mut bytes, value)?;
                }
                Ok::<_, rmp::encode::ValueWriteError>(())
            })();
            written.expect("writing to memory does not fail");
        }
        bytes
    }

    /// The container may have put anything at the socket's place: only a socket below its own root is connected to.
    async fn connect(&self) -> Result<UnixStream, String> {
        let root = self.running.root(&self.router).await.map_err(|error| chain(&error))?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = format!("{SOCKET_DIR}/{SOCKET}");
        let socket = openat2(&root, path.as_str(), how)
            .map_err(|error| format!("{path} of the container {}: {error}", self.router))?;
        let kind =
            fstat(&socket).map_err(|error| error.to_string())?.st_mode & SFlag::S_IFMT.bits();
        if kind != SFlag::S_IFSOCK.bits() {
            return Err(format!("{path} of the container {} is no socket", self.router));
        }
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await;
        stream.map_err(|error| format!("{path} of the container {}: {error}", self.router))
    }

    async fn send(&self, connection: &mut Connection, bytes: &[u8]) -> Result<(), String> {
        if connection.stream.is_none() {
            connection.stream = Some(self.connect().await?);
        }
        let Some(stream) = &mut connection.stream else { return Ok(()) };
        let time = if connection.patience.stalled { WRITE_STALLED } else { WRITE };
        let written = self.ecs.world.timeout(time, stream.write_all(bytes)).await;
        let written = written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        // What was written in part could not be gone on with.
        written.map_err(|error| {
            connection.stream = None;
            format!("the container {} takes no logs: {error}", self.router)
        })
    }

    /// Whether the router is at its end.
    fn is_over(&self) -> bool {
        let record = self.ecs.store.read().get::<Task>(&self.key);
        let router = record.as_ref().and_then(|record| {
            record.containers.iter().find(|container| container.name == self.router)
        });
        self.running.has_ended()
            || router.is_none_or(|router| router.status == ContainerStatus::Stopped)
    }
}

impl LogSink for Sender {
    /// A router keeps no marks: after a crash of the control plane it may get the last events twice.
    fn mark<'a>(&'a self, _source: &'a str) -> Pending<'a, Result<u64, String>> {
        Box::pin(async { Ok(0) })
    }

    fn append<'a>(
        &'a self,
        source: &'a str,
        _range: Range<u64>,
        lines: &'a [(i64, String)],
    ) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let stream = if source.ends_with("/err") { "stderr" } else { "stdout" };
            let bytes = self.encode(stream, lines);
            let mut connection = self.connection.lock().await;
            let sent = self.send(&mut connection, &bytes).await;
            let over = sent.is_err() && self.is_over();
            let (now, task) = (self.ecs.world.now(), self.running.id());
            connection.patience.settle(sent, now, over, task)
        })
    }
}

#[cfg(test)]
mod tests;
