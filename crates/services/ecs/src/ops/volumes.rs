//! Volumes that are configured when tasks are launched: EBS volumes, one for each task.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ebs-volumes.html>

use crate::{
    api::*,
    faults,
    model::{Tags, TaskDefinition, TaskVolume},
};
use std::ops::RangeInclusive;
use wire::{Context, Fault};

type Bounds = RangeInclusive<i32>;

/// The types of volumes on Fargate, with their sizes in GiB and, where they can be asked for, operations a second.
const KINDS: [(&str, Bounds, Option<Bounds>); 6] = [
    ("gp2", 1..=16_384, None),
    ("gp3", 1..=16_384, Some(3_000..=16_000)),
    ("io1", 4..=16_384, Some(100..=64_000)),
    ("io2", 4..=16_384, Some(100..=256_000)),
    ("st1", 125..=16_384, None),
    ("sc1", 125..=16_384, None),
];
/// MiB a second of a gp3 volume.
const THROUGHPUT: RangeInclusive<i32> = 125..=1_000;

/// Checks what a request says of volumes against what the definition asks for.
pub(super) fn check(
    ctx: &Context,
    definition: &TaskDefinition,
    given: &[(String, Option<TaskManagedEBSVolumeConfiguration>)],
) -> Result<(), Fault> {
    let volumes = definition.document.volumes.iter().flatten();
    let wanted: Vec<&str> = volumes
        .filter(|volume| volume.configured_at_launch == Some(true))
        .filter_map(|volume| volume.name.as_deref())
        .collect();
    let unknown = given.iter().find(|(name, _)| !wanted.contains(&name.as_str()));
    if let Some((name, _)) = unknown {
        return Err(faults::invalid(format!(
            "The volume '{name}' is not configured at launch in the task definition."
        )));
    }
    for name in wanted {
        let found = given.iter().find(|(given, _)| given == name);
        let Some((_, Some(configuration))) = found else {
            return Err(faults::invalid(format!(
                "The volume '{name}' is configured at launch: volumeConfigurations must have a managedEBSVolume for it."
            )));
        };
        check_one(configuration)?;
        let service = [("iam:PassedToService", "ecs.amazonaws.com")];
        ctx.authorise_with("iam:PassRole", &configuration.role_arn, &service)?;
    }
    Ok(())
}

fn check_one(volume: &TaskManagedEBSVolumeConfiguration) -> Result<(), Fault> {
    let kind = volume.volume_type.as_deref().unwrap_or("gp3");
    let known = KINDS.iter().find(|(name, ..)| *name == kind);
    let Some((_, sizes, operations)) = known else {
        return Err(faults::invalid(format!(
            "The volume type '{kind}' is not supported on Fargate."
        )));
    };
    let Some(size) = volume.size_in_gi_b else {
        return Err(faults::invalid("A managed EBS volume requires sizeInGiB."));
    };
    if !sizes.contains(&size) {
        let (least, most) = (sizes.start(), sizes.end());
        return Err(faults::invalid(format!(
            "A volume of type {kind} has {least} to {most} GiB, not {size}."
        )));
    }
    match (volume.iops, operations) {
        (Some(_), None) => {
            return Err(faults::invalid(format!("iops is not supported for {kind}.")));
        }
        (Some(iops), Some(range)) if !range.contains(&iops) => {
            return Err(faults::invalid(format!(
                "A volume of type {kind} cannot have {iops} iops."
            )));
        }
        (None, Some(_)) if kind != "gp3" => {
            return Err(faults::invalid(format!("A volume of type {kind} requires iops.")));
        }
        _ => {}
    }
    match volume.throughput {
        Some(_) if kind != "gp3" => {
            Err(faults::invalid("throughput is only supported for volumes of type gp3."))
        }
        Some(given) if !THROUGHPUT.contains(&given) => {
            Err(faults::invalid(format!("A volume cannot have a throughput of {given} MiB/s.")))
        }
        _ => Ok(()),
    }
}

/// What RunTask says of volumes.
pub(super) fn of_task(
    given: Option<Vec<TaskVolumeConfiguration>>,
) -> Vec<(String, Option<TaskManagedEBSVolumeConfiguration>)> {
    given.into_iter().flatten().map(|one| (one.name, one.managed_ebs_volume)).collect()
}

/// What a service says of its tasks' volumes, which all end with their tasks.
pub(crate) fn of_service(
    given: &[ServiceVolumeConfiguration],
) -> Vec<(String, Option<TaskManagedEBSVolumeConfiguration>)> {
    let one = |one: &ServiceVolumeConfiguration| {
        let managed = one.managed_ebs_volume.clone();
        let managed = managed.map(|managed| TaskManagedEBSVolumeConfiguration {
            encrypted: managed.encrypted,
            kms_key_id: managed.kms_key_id,
            volume_type: managed.volume_type,
            size_in_gi_b: managed.size_in_gi_b,
            snapshot_id: managed.snapshot_id,
            volume_initialization_rate: managed.volume_initialization_rate,
            iops: managed.iops,
            throughput: managed.throughput,
            tag_specifications: managed.tag_specifications,
            role_arn: managed.role_arn,
            termination_policy: None,
            filesystem_type: managed.filesystem_type,
        });
        (one.name.clone(), managed)
    };
    given.iter().map(one).collect()
}

/// The volumes of a task that is to be made; `service` are its service's tags.
pub(crate) fn made(
    given: Vec<(String, Option<TaskManagedEBSVolumeConfiguration>)>,
    definition: &TaskDefinition,
    service: Option<&Tags>,
) -> Vec<TaskVolume> {
    let one = |(name, managed): (String, Option<TaskManagedEBSVolumeConfiguration>)| {
        let configuration = managed?;
        let mut tags = Tags::new();
        for specification in configuration.tag_specifications.iter().flatten() {
            match specification.propagate_tags {
                Some(PropagateTags::TaskDefinition) => tags.extend(definition.tags.clone()),
                Some(PropagateTags::Service) => tags.extend(service.cloned().unwrap_or_default()),
                _ => {}
            }
            let own = specification.tags.iter().flatten();
            tags.extend(
                own.filter_map(|tag| {
                    Some((tag.key.clone()?, tag.value.clone().unwrap_or_default()))
                }),
            );
        }
        ec2::managed_tags(&mut tags);
        let (id, attachment_id) = (String::new(), String::new());
        Some(TaskVolume { name, configuration, tags, id, attachment_id })
    };
    given.into_iter().filter_map(one).collect()
}
