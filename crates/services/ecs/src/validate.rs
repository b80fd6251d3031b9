//! What Fargate takes as a task definition, and AWS's words for what it does not.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

mod container;
mod firelens;
mod proxy;
mod size;

pub(crate) use container::is_splunk;
pub(crate) use firelens::{is_router, is_sender};
pub(crate) use proxy::proxy;
pub(crate) use size::{Size, size};

use crate::{api::*, faults};
use std::collections::BTreeSet;
use wire::Fault;

/// The most containers of one task definition.
const MOST_CONTAINERS: usize = 10;
/// The bounds of ephemeral storage that can be asked for, in GiB.
const STORAGE: std::ops::RangeInclusive<i32> = 21..=200;

/// Makes the document of a valid request, with the defaults that AWS fills in.
pub(crate) fn document(input: RegisterTaskDefinitionRequest) -> Result<TaskDefinition, Fault> {
    check_name("Family", &input.family)?;
    check_task(&input)?;
    let volumes = input.volumes.unwrap_or_default();
    let volume_names = check_volumes(&volumes)?;
    if input.task_role_arn.is_none()
        && volumes.iter().any(|volume| volume.s3files_volume_configuration.is_some())
    {
        return Err(faults::client(
            "A task role is required for volumes with an s3filesVolumeConfiguration.",
        ));
    }
    let mut containers = input.container_definitions;
    container::check_all(&containers, &volume_names)?;
    let size = size(input.cpu.as_deref(), input.memory.as_deref())?;
    if let Some(configuration) = &input.proxy_configuration {
        proxy::check(configuration, &containers)?;
    }
    container::check_sizes(&containers, size)?;
    if input.execution_role_arn.is_none() {
        check_needs_no_role(&containers)?;
    }
    containers.iter_mut().for_each(container::fill_in);
    Ok(TaskDefinition {
        container_definitions: Some(containers),
        family: Some(input.family),
        task_role_arn: input.task_role_arn,
        execution_role_arn: input.execution_role_arn,
        network_mode: Some(NetworkMode::Awsvpc),
        volumes: Some(volumes),
        status: Some(TaskDefinitionStatus::Active),
        requires_attributes: Some(Vec::new()),
        placement_constraints: Some(Vec::new()),
        compatibilities: Some(vec![Compatibility::Ec2, Compatibility::Fargate]),
        runtime_platform: input.runtime_platform,
        requires_compatibilities: Some(vec![Compatibility::Fargate]),
        cpu: Some(size.cpu_units.to_string()),
        memory: Some(size.memory_mib.to_string()),
        pid_mode: input.pid_mode,
        ephemeral_storage: input.ephemeral_storage,
        proxy_configuration: input.proxy_configuration,
        enable_fault_injection: input.enable_fault_injection,
        ..TaskDefinition::default()
    })
}

/// Letters, digits, `-` and `_`, at most 255.
fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
        true => Err(faults::client(format!("{what} contains invalid characters."))),
        false => Ok(()),
    }
}

fn check_task(input: &RegisterTaskDefinitionRequest) -> Result<(), Fault> {
    let compatibilities = input.requires_compatibilities.as_deref().unwrap_or_default();
    if !compatibilities.contains(&Compatibility::Fargate) {
        return Err(faults::client(
            "Neargate runs Fargate tasks: requiresCompatibilities must contain FARGATE.",
        ));
    }
    if input.network_mode != Some(NetworkMode::Awsvpc) {
        return Err(faults::client("Fargate only supports network mode ‘awsvpc’."));
    }
    if input.ipc_mode.is_some() {
        return Err(faults::client("Tasks using the Fargate launch type do not support ipcMode."));
    }
    if input.pid_mode == Some(PidMode::Host) {
        let message = "Tasks using the Fargate launch type do not support pidMode 'host'.";
        return Err(faults::client(message));
    }
    if input.placement_constraints.as_ref().is_some_and(|all| !all.is_empty()) {
        let message = "Tasks using the Fargate launch type do not support placement constraints.";
        return Err(faults::client(message));
    }
    check_storage(input.ephemeral_storage.as_ref())?;
    check_platform(input.runtime_platform.as_ref())
}

/// Whether that much ephemeral storage can be asked for.
pub(crate) fn check_storage(storage: Option<&EphemeralStorage>) -> Result<(), Fault> {
    match storage {
        Some(storage) if !STORAGE.contains(&storage.size_in_gi_b) => {
            let message = "Ephemeral storage size must be between 21 GiB and 200 GiB.";
            Err(faults::client(message))
        }
        _ => Ok(()),
    }
}

fn check_platform(platform: Option<&RuntimePlatform>) -> Result<(), Fault> {
    let Some(platform) = platform else { return Ok(()) };
    if platform.operating_system_family.is_some_and(|family| family != OSFamily::Linux) {
        let message = "Neargate runs Linux containers: operatingSystemFamily must be LINUX.";
        return Err(faults::client(message));
    }
    let ours = match cfg!(target_arch = "aarch64") {
        true => CPUArchitecture::Arm64,
        false => CPUArchitecture::X8664,
    };
    if platform.cpu_architecture.is_some_and(|architecture| architecture != ours) {
        return Err(faults::client(format!(
            "This machine runs {}: cpuArchitecture must be that or be left out.",
            ours.as_str()
        )));
    }
    Ok(())
}

fn check_volumes(volumes: &[Volume]) -> Result<BTreeSet<String>, Fault> {
    let mut names = BTreeSet::new();
    for volume in volumes {
        let name = volume.name.as_deref().unwrap_or_default();
        check_name("Volume.name", name)?;
        if !names.insert(name.to_owned()) {
            return Err(faults::client(format!("Duplicate volume name '{name}'.")));
        }
        let at_launch = volume.configured_at_launch == Some(true);
        let others = volumes.iter().filter(|other| other.configured_at_launch == Some(true));
        if at_launch && others.count() > 1 {
            return Err(faults::client("A task can have one volume that is configured at launch."));
        }
        let ways = [
            volume.host.is_some(),
            volume.efs_volume_configuration.is_some(),
            volume.s3files_volume_configuration.is_some(),
        ];
        let ways = ways.iter().filter(|given| **given).count();
        if at_launch && ways > 0 {
            return Err(faults::client(
                "A volume that is configured at launch cannot be configured before.",
            ));
        }
        if ways > 1 {
            return Err(faults::client(
                "Volume configuration is invalid: host, efsVolumeConfiguration and s3filesVolumeConfiguration exclude \
                 each other.",
            ));
        }
        if let Some(efs) = &volume.efs_volume_configuration {
            check_efs(efs)?;
        }
        if let Some(files) = &volume.s3files_volume_configuration {
            check_s3files(files)?;
        }
        if volume.host.as_ref().is_some_and(|host| host.source_path.is_some()) {
            return Err(faults::client(
                "host.sourcePath should not be set for volumes in Fargate.",
            ));
        }
    }
    Ok(names)
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EFSVolumeConfiguration.html>
fn check_efs(efs: &EFSVolumeConfiguration) -> Result<(), Fault> {
    let id = efs.file_system_id.strip_prefix("fs-");
    if !id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(faults::client("Invalid EFS file system ID."));
    }
    let root = efs.root_directory.as_deref().unwrap_or("/");
    if !root.starts_with('/') {
        return Err(faults::client("The EFS root directory must be an absolute path."));
    }
    let authorization = efs.authorization_config.clone().unwrap_or_default();
    let encrypted = efs.transit_encryption == Some(EFSTransitEncryption::Enabled);
    if authorization.access_point_id.is_some() && root != "/" {
        return Err(faults::client(
            "If an EFS access point is specified, the root directory must either be omitted or set to '/'.",
        ));
    }
    if authorization.access_point_id.is_some() && !encrypted {
        return Err(faults::client(
            "If an EFS access point is specified, transit encryption must be enabled.",
        ));
    }
    if authorization.iam == Some(EFSAuthorizationConfigIAM::Enabled) && !encrypted {
        return Err(faults::client(
            "If IAM authorization is enabled, transit encryption must be enabled.",
        ));
    }
    Ok(())
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_S3FilesVolumeConfiguration.html>
fn check_s3files(files: &S3FilesVolumeConfiguration) -> Result<(), Fault> {
    let is_arn = |arn: &str, resource: &str| {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        matches!(parts[..], ["arn", "aws", "s3files", _, _, named] if named.starts_with(resource))
    };
    if !is_arn(&files.file_system_arn, "file-system/fs-") {
        return Err(faults::client("Invalid S3 Files file system ARN."));
    }
    let root = files.root_directory.as_deref().unwrap_or("/");
    if !root.starts_with('/') {
        return Err(faults::client("The S3 Files root directory must be an absolute path."));
    }
    let Some(point) = &files.access_point_arn else { return Ok(()) };
    if !is_arn(point, "file-system/fs-") || !point.contains("/access-point/fsap-") {
        return Err(faults::client("Invalid S3 Files access point ARN."));
    }
    match root {
        "/" => Ok(()),
        _ => Err(faults::client(
            "If an S3 Files access point is specified, the root directory must either be omitted or set to '/'.",
        )),
    }
}

/// Without an execution role, nothing can be fetched in its name.
fn check_needs_no_role(containers: &[ContainerDefinition]) -> Result<(), Fault> {
    let role_for = |what: &str| {
        faults::client(format!(
            "Fargate requires task definition to have execution role ARN to support {what}."
        ))
    };
    for container in containers {
        let image = container.image.as_deref().unwrap_or_default();
        if image.contains(".dkr.ecr.") {
            return Err(role_for("ECR images"));
        }
        if container.repository_credentials.is_some() {
            return Err(role_for("private registry authentication"));
        }
        let log = container.log_configuration.as_ref();
        if log.is_some_and(|log| log.log_driver == LogDriver::Awslogs) {
            return Err(role_for("log driver awslogs"));
        }
        let some = |secrets: &Option<Vec<Secret>>| secrets.as_ref().is_some_and(|s| !s.is_empty());
        if some(&container.secrets) || log.is_some_and(|log| some(&log.secret_options)) {
            return Err(role_for("secrets"));
        }
    }
    Ok(())
}
