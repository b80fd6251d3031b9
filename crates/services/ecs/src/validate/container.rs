//! Container definitions.

use super::{Size, check_name};
use crate::{api::*, faults};
use std::collections::{BTreeMap, BTreeSet};
use wire::Fault;

/// The least memory of a container, in MiB.
const LEAST_MEMORY: i32 = 4;
/// The longest stopTimeout on Fargate, in seconds.
const MOST_STOP_S: i32 = 120;

pub(super) fn client(message: impl Into<String>) -> Fault {
    faults::client(message)
}

/// Checks every container, and what they say of each other.
pub(super) fn check_all(
    containers: &[ContainerDefinition],
    volumes: &BTreeSet<String>,
) -> Result<(), Fault> {
    if containers.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if containers.len() > super::MOST_CONTAINERS {
        return Err(client("Too many containers: a task definition can have 10."));
    }
    let mut names = BTreeSet::new();
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(client("Container.name should not be null or empty."));
        }
        check_name("Container.name", name)?;
        if !names.insert(name) {
            return Err(client(format!("Container names must be unique: '{name}' is used twice.")));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Err(client("Container.image should not be null or empty."));
        }
    }
    if !containers.iter().any(|container| container.essential.unwrap_or(true)) {
        return Err(client("At least one container in a task definition must be essential."));
    }
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        check_unsupported(container)?;
        check_environment_files(container.environment_files.as_deref())?;
        check_ports(container)?;
        check_mounts(container, name, volumes, &names)?;
        check_log(container)?;
        check_timing(container, name)?;
        check_linux(container)?;
        check_health(container)?;
    }
    check_dependencies(containers)?;
    super::firelens::check(containers)
}

/// The most files of variables of a container.
const MOST_FILES: usize = 10;

/// Files of variables are objects of S3 whose names end in `.env`.
pub(crate) fn check_environment_files(files: Option<&[EnvironmentFile]>) -> Result<(), Fault> {
    let files = files.unwrap_or_default();
    if files.len() > MOST_FILES {
        return Err(client("Too many environment files: a container can have 10."));
    }
    for file in files {
        let object =
            file.value.strip_prefix("arn:aws:s3:::").and_then(|place| place.split_once('/'));
        if object.is_none_or(|(bucket, key)| bucket.is_empty() || key.is_empty()) {
            return Err(client(format!(
                "Invalid environment file: '{}' is not the ARN of an Amazon S3 object.",
                file.value
            )));
        }
        if !file.value.ends_with(".env") {
            return Err(client(format!(
                "Invalid environment file: '{}' does not have the file extension .env.",
                file.value
            )));
        }
    }
    Ok(())
}

/// What Fargate does not have.
fn check_unsupported(container: &ContainerDefinition) -> Result<(), Fault> {
    let set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let linux = container.linux_parameters.as_ref();
    let unsupported = [
        (container.privileged == Some(true), "privileged containers"),
        (container.disable_networking == Some(true), "disableNetworking"),
        (set(&container.docker_security_options), "dockerSecurityOptions"),
        (container.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()), "extraHosts"),
        (
            container.resource_requirements.as_ref().is_some_and(|r| !r.is_empty()),
            "resourceRequirements",
        ),
        (linux.is_some_and(|l| l.devices.as_ref().is_some_and(|d| !d.is_empty())), "devices"),
        (linux.is_some_and(|l| l.shared_memory_size.is_some()), "sharedMemorySize"),
        (linux.is_some_and(|l| l.tmpfs.as_ref().is_some_and(|t| !t.is_empty())), "tmpfs"),
        (linux.is_some_and(|l| l.max_swap.is_some()), "maxSwap"),
        (linux.is_some_and(|l| l.swappiness.is_some()), "swappiness"),
    ];
    if let Some((_, what)) = unsupported.iter().find(|(present, _)| *present) {
        return Err(client(format!("Fargate compatible task definitions do not support {what}")));
    }
    let by_awsvpc = [
        (set(&container.links), "Links are not supported when networkMode=awsvpc."),
        (
            container.hostname.is_some(),
            "hostname is not supported on container when networkMode=awsvpc.",
        ),
        (
            set(&container.dns_servers),
            "dnsServers are not supported on container when networkMode=awsvpc.",
        ),
        (
            set(&container.dns_search_domains),
            "dnsSearchDomains are not supported on container when networkMode=awsvpc.",
        ),
    ];
    match by_awsvpc.iter().find(|(present, _)| *present) {
        Some((_, message)) => Err(client(*message)),
        None => Ok(()),
    }
}

fn check_ports(container: &ContainerDefinition) -> Result<(), Fault> {
    for mapping in container.port_mappings.iter().flatten() {
        if mapping.container_port_range.is_some() {
            let message = "containerPortRange is not supported when networkMode=awsvpc.";
            return Err(client(message));
        }
        let Some(port) = mapping.container_port.filter(|port| (1..=65_535).contains(port)) else {
            return Err(client("Container port must be between 1 and 65535."));
        };
        if mapping.host_port.is_some_and(|host| host != port && host != 0) {
            return Err(client(
                "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
            ));
        }
    }
    Ok(())
}

fn check_mounts(
    container: &ContainerDefinition,
    name: &str,
    volumes: &BTreeSet<String>,
    containers: &BTreeSet<&str>,
) -> Result<(), Fault> {
    let mut paths = BTreeSet::new();
    for mount in container.mount_points.iter().flatten() {
        let volume = mount.source_volume.as_deref().unwrap_or_default();
        if !volumes.contains(volume) {
            return Err(client(format!("Unknown volume '{volume}'.")));
        }
        let path = mount.container_path.as_deref().unwrap_or_default();
        if !path.starts_with('/') || path.contains('\0') {
            return Err(client("Container mount points must have an absolute containerPath."));
        }
        if !paths.insert(path) {
            return Err(client(format!("Duplicate mount point '{path}' in container '{name}'.")));
        }
    }
    for from in container.volumes_from.iter().flatten() {
        let source = from.source_container.as_deref().unwrap_or_default();
        if source == name || !containers.contains(source) {
            return Err(client(format!(
                "Invalid volumesFrom: container '{source}' is not another container."
            )));
        }
    }
    Ok(())
}

/// The options of the awslogs driver.
/// <https://docs.docker.com/engine/logging/drivers/awslogs/>
const LOG_OPTIONS: [&str; 9] = [
    "awslogs-create-group",
    "awslogs-datetime-format",
    "awslogs-group",
    "awslogs-multiline-pattern",
    "awslogs-region",
    "awslogs-stream-prefix",
    "max-buffer-size",
    "mode",
    "tag",
];

fn check_log(container: &ContainerDefinition) -> Result<(), Fault> {
    let Some(log) = &container.log_configuration else { return Ok(()) };
    match log.log_driver {
        LogDriver::Awslogs => {}
        LogDriver::Awsfirelens => return Ok(()),
        LogDriver::Splunk => return check_splunk(log),
        other => {
            return Err(client(format!(
                "Fargate has the log drivers awslogs, splunk and awsfirelens, and not {}.",
                other.as_str()
            )));
        }
    }
    if log.secret_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(client("Log driver awslogs disallows secretOptions."));
    }
    let empty = BTreeMap::new();
    let options = log.options.as_ref().unwrap_or(&empty);
    if let Some(odd) = options.keys().find(|key| !LOG_OPTIONS.contains(&key.as_str())) {
        return Err(client(format!("Log driver awslogs disallows options: {odd}.")));
    }
    for needed in ["awslogs-group", "awslogs-region", "awslogs-stream-prefix"] {
        if !options.contains_key(needed) {
            return Err(client(format!("Log driver awslogs requires options: {needed}.")));
        }
    }
    if options.contains_key("awslogs-datetime-format")
        && options.contains_key("awslogs-multiline-pattern")
    {
        let message =
            "Log driver awslogs takes either awslogs-datetime-format or awslogs-multiline-pattern.";
        return Err(client(message));
    }
    match options.get("mode").map(String::as_str) {
        None | Some("blocking" | "non-blocking") => Ok(()),
        Some(mode) => Err(client(format!("Log driver mode '{mode}' is not valid."))),
    }
}

/// The options of the driver splunk that are carried out.
const SPLUNK_OPTIONS: [&str; 11] = [
    "max-buffer-size",
    "mode",
    "splunk-format",
    "splunk-index",
    "splunk-insecureskipverify",
    "splunk-source",
    "splunk-sourcetype",
    "splunk-token",
    "splunk-url",
    "splunk-verify-connection",
    "tag",
];

fn check_splunk(log: &LogConfiguration) -> Result<(), Fault> {
    let options = log.options.iter().flatten();
    let secret = log.secret_options.iter().flatten().map(|secret| secret.name.as_str());
    let all: Vec<&str> = options.map(|(name, _)| name.as_str()).chain(secret).collect();
    if let Some(odd) = all.iter().find(|name| !SPLUNK_OPTIONS.contains(name)) {
        return Err(client(format!("Log driver splunk disallows options: {odd}.")));
    }
    for needed in ["splunk-token", "splunk-url"] {
        if !all.contains(&needed) {
            return Err(client(format!("Log driver splunk requires options: {needed}.")));
        }
    }
    Ok(())
}

/// Whether the container's output goes to Splunk.
pub(crate) fn is_splunk(container: &ContainerDefinition) -> bool {
    container.log_configuration.as_ref().is_some_and(|log| log.log_driver == LogDriver::Splunk)
}

fn check_timing(container: &ContainerDefinition, name: &str) -> Result<(), Fault> {
    if container.stop_timeout.is_some_and(|seconds| !(0..=MOST_STOP_S).contains(&seconds)) {
        let message = format!(
            "Invalid 'stopTimeout' setting for container '{name}'. \
             The stop timeout must be between 0 and {MOST_STOP_S} seconds."
        );
        return Err(client(message));
    }
    if container.start_timeout.is_some_and(|seconds| seconds < 2) {
        let message = format!(
            "Invalid 'startTimeout' setting for container '{name}'. The start timeout must be at least 2 seconds."
        );
        return Err(client(message));
    }
    if let Some(policy) = &container.restart_policy {
        let period = policy.restart_attempt_period.unwrap_or(300);
        if !(60..=1800).contains(&period) {
            let message = format!(
                "Invalid 'restartAttemptPeriod' setting for container '{name}'. \
                 The period must be between 60 and 1800 seconds."
            );
            return Err(client(message));
        }
        if policy.ignored_exit_codes.as_ref().is_some_and(|codes| codes.len() > 50) {
            return Err(client("ignoredExitCodes can have 50 exit codes."));
        }
    }
    Ok(())
}

fn check_linux(container: &ContainerDefinition) -> Result<(), Fault> {
    let capabilities = container.linux_parameters.as_ref().and_then(|l| l.capabilities.as_ref());
    let added = capabilities.and_then(|capabilities| capabilities.add.as_ref());
    if added.into_iter().flatten().any(|capability| capability != "SYS_PTRACE") {
        let message = "Fargate compatible task definitions can only add the SYS_PTRACE capability.";
        return Err(client(message));
    }
    for ulimit in container.ulimits.iter().flatten() {
        if ulimit.soft_limit > ulimit.hard_limit && ulimit.hard_limit != -1 {
            return Err(client(
                "The soft limit of a ulimit must not be greater than its hard limit.",
            ));
        }
    }
    Ok(())
}

fn check_health(container: &ContainerDefinition) -> Result<(), Fault> {
    let Some(check) = &container.health_check else { return Ok(()) };
    match check.command.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL") if check.command.len() > 1 => {}
        Some("NONE") => {}
        _ => {
            let message =
                "healthCheck.command must begin with CMD or CMD-SHELL, followed by a command.";
            return Err(client(message));
        }
    }
    let bounds = [
        ("interval", check.interval, 5, 300),
        ("timeout", check.timeout, 2, 120),
        ("retries", check.retries, 1, 10),
        ("startPeriod", check.start_period, 0, 300),
    ];
    for (what, value, least, most) in bounds {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            return Err(client(format!("healthCheck.{what} must be between {least} and {most}.")));
        }
    }
    Ok(())
}

/// Each dependency must name another container, a HEALTHY one a container with a check, and no circle may arise.
fn check_dependencies(containers: &[ContainerDefinition]) -> Result<(), Fault> {
    let by_name: BTreeMap<&str, &ContainerDefinition> =
        containers.iter().map(|c| (c.name.as_deref().unwrap_or_default(), c)).collect();
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        for dependency in container.depends_on.iter().flatten() {
            let other = by_name.get(dependency.container_name.as_str());
            let Some(other) = other.filter(|_| dependency.container_name != name) else {
                return Err(client(format!(
                    "Invalid 'dependsOn' setting for container '{name}': '{}' is not another container.",
                    dependency.container_name
                )));
            };
            let condition = dependency.condition;
            if condition == ContainerCondition::Healthy && other.health_check.is_none() {
                return Err(client(format!(
                    "The container '{}' has no health check, so no container can depend on its being HEALTHY.",
                    dependency.container_name
                )));
            }
            let ends =
                matches!(condition, ContainerCondition::Complete | ContainerCondition::Success);
            if ends && other.essential.unwrap_or(true) {
                return Err(client(format!(
                    "The container '{}' is essential, so no container can depend on its end.",
                    dependency.container_name
                )));
            }
        }
    }
    // What depends on nothing that is left can go; what cannot go in the end is a circle.
    let mut left: BTreeSet<&str> = by_name.keys().copied().collect();
    loop {
        let free: Vec<&str> = left
            .iter()
            .copied()
            .filter(|name| {
                let depends = by_name[name].depends_on.iter().flatten();
                depends.into_iter().all(|d| !left.contains(d.container_name.as_str()))
            })
            .collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|name| {
            left.remove(name);
        });
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(client("Container dependencies must not form a circle.")),
    }
}

/// Containers together must fit into the task.
pub(super) fn check_sizes(containers: &[ContainerDefinition], size: Size) -> Result<(), Fault> {
    let (mut cpu, mut reserved) = (0i64, 0i64);
    for container in containers {
        let name = container.name.as_deref().unwrap_or_default();
        if container.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            let message = format!(
                "Invalid 'memory' setting for container '{name}'. Memory must be at least {LEAST_MEMORY} MiB."
            );
            return Err(client(message));
        }
        if let (Some(hard), Some(soft)) = (container.memory, container.memory_reservation)
            && soft > hard
        {
            let message = format!(
                "Invalid setting for container '{name}'. The hard limits should be greater than the soft limits."
            );
            return Err(client(message));
        }
        if container.memory.is_some_and(|memory| memory as i64 > size.memory_mib as i64) {
            let message = format!(
                "Invalid 'memory' setting for container '{name}'. \
                 The container memory limit must not exceed the task memory limit."
            );
            return Err(client(message));
        }
        if container.cpu.is_some_and(|cpu| cpu < 0) {
            return Err(client(format!("Invalid 'cpu' setting for container '{name}'.")));
        }
        cpu += i64::from(container.cpu.unwrap_or(0));
        reserved += i64::from(container.memory_reservation.or(container.memory).unwrap_or(0));
    }
    if cpu > i64::from(size.cpu_units) {
        let message =
            "The sum of all container cpu values cannot be greater than the value of the task cpu.";
        return Err(client(message));
    }
    match reserved > i64::from(size.memory_mib) {
        true => Err(client(
            "The sum of all container memory values cannot be greater than the value of the task memory.",
        )),
        false => Ok(()),
    }
}

/// The defaults that AWS shows.
pub(super) fn fill_in(container: &mut ContainerDefinition) {
    container.cpu.get_or_insert(0);
    container.essential.get_or_insert(true);
    container.environment.get_or_insert_default();
    container.mount_points.get_or_insert_default();
    container.volumes_from.get_or_insert_default();
    container.system_controls.get_or_insert_default();
    for mapping in container.port_mappings.get_or_insert_default() {
        mapping.host_port = mapping.container_port;
        mapping.protocol.get_or_insert(TransportProtocol::Tcp);
    }
    if let Some(check) = &mut container.health_check {
        check.interval.get_or_insert(30);
        check.timeout.get_or_insert(5);
        check.retries.get_or_insert(3);
    }
}
