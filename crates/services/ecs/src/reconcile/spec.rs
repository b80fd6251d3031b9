//! From a task definition, its images and its surroundings to what a shim runs. Pure.

use super::{firelens, volumes::Volumes};
use crate::{
    api::{self, ContainerCondition, ContainerDefinition, ContainerOverride, PidMode},
    model::{Sandbox, Task, TaskDefinition},
    validate::{self, Size, is_sender},
};
use images::{Image, ImageConfig};
use runtime::{
    Condition, ContainerCapabilities, ContainerLimits, ContainerSpec, Dependency, Filesystem,
    HealthCheck, HealthCommand, LogMode, Mount, RestartPolicy, TaskLimits, TaskSpec, Ulimit,
    VolumeSource,
};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
/// Fargate's defaults.
const STOP_TIMEOUT_S: i32 = 30;
const RESTART_PERIOD_S: i32 = 300;
/// nofile on Fargate platform 1.4.0: soft 65535, hard 65535.
const NOFILE: u64 = 65_535;
/// The unconsumed output that a non-blocking container keeps unless it says otherwise: 10 MiB.
const MAX_BUFFER: u64 = 10 * MIB;

/// What a task is made of besides its definition.
pub(super) struct Parts<'a> {
    pub task: &'a Task,
    pub definition: &'a TaskDefinition,
    /// By container name.
    pub images: &'a BTreeMap<String, Image>,
    /// By container name: names and values.
    pub secrets: &'a BTreeMap<String, Vec<(String, String)>>,
    /// What its files of variables hold, by container.
    pub files: &'a BTreeMap<String, Vec<(String, String)>>,
    /// What every container's environment holds besides: where the API, the metadata and the credentials are.
    pub environment: &'a [(String, String)],
    /// Where a container finds its metadata, by its id.
    pub metadata_uri: fn(&str) -> String,
    /// The volumes that are not empty at first.
    pub volumes: &'a Volumes,
    pub log_mode: &'a str,
    /// The most open files that a process of this machine may have.
    pub most_files: u64,
}

/// What cannot be run, in AWS's words.
pub(super) type SpecFault = String;

pub(super) fn task_spec(parts: &Parts) -> Result<TaskSpec, SpecFault> {
    let (task, document) = (parts.task, &parts.definition.document);
    let size = match task.sandbox.as_deref() {
        Some(Sandbox { cpu_units, memory_mib, .. }) => {
            Size { cpu_units: *cpu_units, memory_mib: *memory_mib }
        }
        None => {
            let cpu = task.overrides.cpu.as_deref().or(document.cpu.as_deref());
            let memory = task.overrides.memory.as_deref().or(document.memory.as_deref());
            validate::size(cpu, memory).map_err(|fault| fault.message)?
        }
    };
    let storage_gib = u64::from(task.storage_gib(Some(document)).unsigned_abs());
    let ip = task.interface.private_ip.clone().unwrap_or_default();
    let region = task.realm.split_once('/').map_or("", |(_, region)| region);
    let suffix = match region {
        "us-east-1" => "ec2.internal".to_owned(),
        region => format!("{region}.compute.internal"),
    };
    let hostname = format!("ip-{}.{suffix}", ip.replace('.', "-"));
    let containers = document.container_definitions.iter().flatten();
    let containers = containers.map(|definition| container(parts, definition));
    let mut containers = containers.collect::<Result<Vec<_>, _>>()?;
    let mut volumes = parts.volumes.sources.clone();
    if let (Some(sandbox), Some(main)) = (&task.sandbox, containers.first_mut()) {
        main.layers.extend(sandbox.layers.iter().cloned());
        main.privileged = sandbox.privileged;
        main.init = true;
        for (number, (image, target)) in sandbox.disks.iter().cloned().enumerate() {
            let name = format!("disk-{number}");
            volumes.insert(
                name.clone(),
                VolumeSource::Disk { image, filesystem: Filesystem::Scratch },
            );
            main.mounts.push(Mount::Volume { name, target, read_only: false, copy_up: false });
        }
    }
    Ok(TaskSpec {
        id: task.id.clone(),
        hosts: format!("127.0.0.1 localhost\n{ip} {hostname}\n"),
        hostname,
        containers,
        volumes,
        limits: TaskLimits {
            cpu_millis: Some(size.cpu_units * 1000 / 1024),
            memory_bytes: Some(u64::from(size.memory_mib) * MIB),
            pids: None,
            disk_bytes: Some(storage_gib << 30),
        },
        resolv_conf: format!("nameserver {}\nsearch {suffix}\n", network::NAME_SERVICE),
        ids: None,
        share_pids: document.pid_mode == Some(PidMode::Task),
        spool_bytes: runtime::DEFAULT_SPOOL_BYTES,
    })
}

fn container(parts: &Parts, definition: &ContainerDefinition) -> Result<ContainerSpec, SpecFault> {
    let name = definition.name.clone().unwrap_or_default();
    let image = parts.images.get(&name).ok_or_else(|| format!("no image for container {name}"))?;
    let overrides = parts.task.overrides.container_overrides.iter().flatten();
    let own = overrides.into_iter().find(|o| o.name.as_ref() == Some(&name));
    let config = image.config.as_ref();
    let mut spec =
        ContainerSpec::new(name.clone(), image.layers.clone(), args(definition, own, config));
    if spec.args.is_empty() {
        return Err("CannotStartContainerError: Error response from daemon: no command specified"
            .to_owned());
    }
    let record = parts.task.containers.iter().find(|container| container.name == name);
    let id = record.map(|container| container.id.as_str()).unwrap_or_default();
    spec.env = environment(parts, definition, own, config, id);
    spec.cwd = definition.working_directory.clone().unwrap_or_else(|| config.working_dir.clone());
    spec.user = definition.user.clone().unwrap_or_else(|| config.user.clone());
    spec.essential = definition.essential.unwrap_or(true);
    spec.depends_on = definition.depends_on.iter().flatten().map(dependency).collect();
    spec.start_timeout_ms = definition.start_timeout.map(millis);
    spec.stop_timeout_ms = millis(definition.stop_timeout.unwrap_or(STOP_TIMEOUT_S));
    spec.stop_signal = config.stop_signal.as_deref().and_then(signal).unwrap_or(spec.stop_signal);
    spec.health = definition.health_check.as_ref().and_then(health);
    spec.restart = definition.restart_policy.as_ref().filter(|policy| policy.enabled).map(restart);
    spec.limits = limits(definition, own);
    if let Some(linux) = &definition.linux_parameters {
        spec.init = linux.init_process_enabled.unwrap_or(false);
        if let Some(capabilities) = &linux.capabilities {
            spec.capabilities = ContainerCapabilities {
                add: capabilities.add.clone().unwrap_or_default(),
                drop: capabilities.drop.clone().unwrap_or_default(),
            };
        }
    }
    spec.read_only_root = definition.readonly_root_filesystem.unwrap_or(false);
    spec.tty = definition.pseudo_terminal.unwrap_or(false);
    spec.stdin_open = definition.interactive.unwrap_or(false);
    spec.ulimits = ulimits(definition, parts.most_files);
    spec.sysctls = definition
        .system_controls
        .iter()
        .flatten()
        .filter_map(|control| Some((control.namespace.clone()?, control.value.clone()?)))
        .collect();
    spec.mounts = mounts(parts, definition);
    spec.log = log_mode(definition, parts.log_mode);
    firelens::equip(parts.task, parts.definition, definition, &mut spec);
    Ok(spec)
}

fn millis(seconds: i32) -> u64 {
    u64::from(seconds.unsigned_abs()) * 1000
}

/// As docker joins them: an entry point of the definition drops the image's command with the image's entry point.
fn args(
    definition: &ContainerDefinition,
    own: Option<&ContainerOverride>,
    config: &ImageConfig,
) -> Vec<String> {
    let given = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    let command = own.and_then(|own| given(&own.command)).or_else(|| given(&definition.command));
    let (mut entry_point, fallback) = match given(&definition.entry_point) {
        Some(entry_point) => (entry_point, Vec::new()),
        None => (config.entrypoint.clone(), config.cmd.clone()),
    };
    entry_point.extend(command.unwrap_or(fallback));
    entry_point
}

/// The image's environment, then ours, files', the definition's, secrets, and overrides: the later wins.
fn environment(
    parts: &Parts,
    definition: &ContainerDefinition,
    own: Option<&ContainerOverride>,
    config: &ImageConfig,
    id: &str,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: String, value: String| {
        if name.is_empty() || name.contains('=') {
            return;
        }
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name, value)),
        }
    };
    set("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    for pair in &config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name.to_owned(), value.to_owned());
    }
    for (name, value) in parts.environment {
        set(name.clone(), value.clone());
    }
    set("ECS_CONTAINER_METADATA_URI_V4".into(), (parts.metadata_uri)(id));
    set("ECS_CONTAINER_METADATA_URI".into(), (parts.metadata_uri)(id).replace("/v4/", "/v3/"));
    set("ECS_AGENT_URI".into(), (parts.metadata_uri)(id).replace("/v4/", "/api/"));
    let pairs = |list: &Option<Vec<api::KeyValuePair>>| -> Vec<(String, String)> {
        let pairs = list.iter().flatten();
        pairs
            .filter_map(|pair| Some((pair.name.clone()?, pair.value.clone().unwrap_or_default())))
            .collect()
    };
    let name = definition.name.as_deref().unwrap_or_default();
    for (name, value) in parts.files.get(name).into_iter().flatten() {
        set(name.clone(), value.clone());
    }
    pairs(&definition.environment).into_iter().for_each(|(name, value)| set(name, value));
    for (name, value) in parts.secrets.get(name).into_iter().flatten() {
        set(name.clone(), value.clone());
    }
    if let Some(own) = own {
        pairs(&own.environment).into_iter().for_each(|(name, value)| set(name, value));
    }
    all
}

fn dependency(dependency: &api::ContainerDependency) -> Dependency {
    let condition = match dependency.condition {
        ContainerCondition::Start => Condition::Start,
        ContainerCondition::Complete => Condition::Complete,
        ContainerCondition::Success => Condition::Success,
        ContainerCondition::Healthy => Condition::Healthy,
    };
    Dependency { container: dependency.container_name.clone(), condition }
}

/// A STOPSIGNAL: a number, or a name with or without `SIG`.
fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    // Numbers of Linux on x86-64 and arm64 (signal(7)).
    const NAMES: [(&str, i32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("WINCH", 28),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn health(check: &api::HealthCheck) -> Option<HealthCheck> {
    let (kind, rest) = check.command.split_first()?;
    let command = match kind.as_str() {
        "CMD" => HealthCommand::Exec(rest.to_vec()),
        "CMD-SHELL" => HealthCommand::Shell(rest.join(" ")),
        _ => return None, // NONE: the check is off
    };
    Some(HealthCheck {
        command,
        interval_ms: millis(check.interval.unwrap_or(30)),
        timeout_ms: millis(check.timeout.unwrap_or(5)),
        retries: check.retries.unwrap_or(3).unsigned_abs(),
        start_period_ms: millis(check.start_period.unwrap_or(0)),
    })
}

fn restart(policy: &api::ContainerRestartPolicy) -> RestartPolicy {
    RestartPolicy {
        ignored_exit_codes: policy.ignored_exit_codes.iter().flatten().copied().collect(),
        attempt_period_ms: millis(policy.restart_attempt_period.unwrap_or(RESTART_PERIOD_S)),
    }
}

fn limits(definition: &ContainerDefinition, own: Option<&ContainerOverride>) -> ContainerLimits {
    let mib = |value: Option<i32>| value.map(|mib| u64::from(mib.unsigned_abs()) * MIB);
    let cpu = own.and_then(|own| own.cpu).or(definition.cpu).filter(|cpu| *cpu > 0);
    ContainerLimits {
        // The kernel's least weight is 2 shares.
        cpu_shares: cpu.map(|cpu| u64::from(cpu.unsigned_abs()).max(2)),
        memory_bytes: mib(own.and_then(|own| own.memory).or(definition.memory)),
        memory_reservation_bytes: mib(own
            .and_then(|own| own.memory_reservation)
            .or(definition.memory_reservation)),
    }
}

fn ulimits(definition: &ContainerDefinition, most_files: u64) -> Vec<Ulimit> {
    let unlimited = |value: i32| u64::try_from(value).unwrap_or(u64::MAX);
    let mut ulimits: Vec<Ulimit> = definition
        .ulimits
        .iter()
        .flatten()
        .map(|ulimit| Ulimit {
            name: ulimit.name.as_str().to_owned(),
            soft: unlimited(ulimit.soft_limit),
            hard: unlimited(ulimit.hard_limit),
        })
        .collect();
    if !ulimits.iter().any(|ulimit| ulimit.name == "nofile") {
        let limit = NOFILE.min(most_files);
        ulimits.push(Ulimit { name: "nofile".to_owned(), soft: limit, hard: limit });
    }
    ulimits
}

/// The definition's own mounts, and those of the containers that it takes volumes from.
fn mounts(parts: &Parts, definition: &ContainerDefinition) -> Vec<Mount> {
    let volume = |mount: &api::MountPoint, read_only: bool| Mount::Volume {
        name: mount.source_volume.clone().unwrap_or_default(),
        target: mount.container_path.clone().unwrap_or_default(),
        read_only: read_only
            || mount.read_only.unwrap_or(false)
            || mount
                .source_volume
                .as_ref()
                .is_some_and(|name| parts.volumes.read_only.contains(name)),
        copy_up: true,
    };
    let own = definition.mount_points.iter().flatten().map(|mount| volume(mount, false));
    let mut mounts: Vec<Mount> = own.collect();
    let all = parts.definition.document.container_definitions.iter().flatten();
    for from in definition.volumes_from.iter().flatten() {
        let source = all.clone().find(|other| other.name == from.source_container);
        for mount in source.into_iter().flat_map(|source| source.mount_points.iter().flatten()) {
            let mount = volume(mount, from.read_only.unwrap_or(false));
            if !mounts.iter().any(|known| known.target() == mount.target()) {
                mounts.push(mount);
            }
        }
    }
    mounts
}

fn log_mode(definition: &ContainerDefinition, default: &str) -> LogMode {
    let Some(log) = &definition.log_configuration else {
        // Output that goes nowhere is dropped; it must not stop the container.
        return LogMode::NonBlocking { max_buffer_bytes: MIB };
    };
    if is_sender(definition) {
        return LogMode::NonBlocking { max_buffer_bytes: MAX_BUFFER };
    }
    let option = |name: &str| log.options.as_ref().and_then(|options| options.get(name));
    match option("mode").map_or(default, String::as_str) {
        "blocking" => LogMode::Blocking,
        _ => {
            let size = option("max-buffer-size").and_then(|text| bytes(text));
            LogMode::NonBlocking { max_buffer_bytes: size.unwrap_or(MAX_BUFFER) }
        }
    }
}

/// `25m`, `1g`, `1048576`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, unit) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 1 << 10),
        'm' => (&lower[..lower.len() - 1], 1 << 20),
        'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}
