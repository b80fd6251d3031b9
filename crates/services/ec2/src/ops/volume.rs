//! EBS volumes: those of tasks. They are made and attached by ECS.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ebs-volumes.html>

use super::{
    availability_zone::zone_id,
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag,
};
use crate::{Ec2, api::*, faults, model::Volume as Record};
use wire::{Context, Fault};

const NO_VOLUME: (&str, &str) = ("InvalidVolume.NotFound", "volume");

fn told(record: &Record) -> Volume {
    let attachment = record.task.as_ref().map(|task| VolumeAttachment {
        volume_id: Some(record.id.clone()),
        state: Some(VolumeAttachmentState::Attached),
        attach_time: Some(record.created),
        delete_on_termination: Some(record.delete_on_termination),
        associated_resource: Some(task.clone()),
        instance_owning_service: Some("fargate.amazonaws.com".to_owned()),
        ..VolumeAttachment::default()
    });
    Volume {
        volume_id: Some(record.id.clone()),
        size: Some(record.size_gib),
        volume_type: VolumeType::parse(&record.kind),
        iops: record.iops,
        throughput: record.throughput,
        encrypted: Some(record.encrypted),
        availability_zone: Some(record.zone.clone()),
        availability_zone_id: Some(zone_id(&record.zone)),
        state: Some(state(record)),
        create_time: Some(record.created),
        attachments: Some(attachment.into_iter().collect()),
        multi_attach_enabled: Some(false),
        snapshot_id: Some(String::new()),
        tags: tag::told(&record.tags),
        ..Volume::default()
    }
}

fn state(record: &Record) -> VolumeState {
    if record.task.is_some() { VolumeState::InUse } else { VolumeState::Available }
}

pub(crate) async fn describe_volumes(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeVolumesRequest,
) -> Result<DescribeVolumesResult, Fault> {
    ctx.authorise("ec2:DescribeVolumes", "*")?;
    stop_if_dry(input.dry_run)?;
    let snapshot = ec2.store.read();
    let wanted = input.volume_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_VOLUME)?;
    }
    let mut found = Vec::new();
    for volume in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "volume-id" => Some(vec![volume.id.clone()]),
            "status" => Some(vec![state(&volume).as_str().to_owned()]),
            "availability-zone" => Some(vec![volume.zone.clone()]),
            "volume-type" => Some(vec![volume.kind.clone()]),
            "size" => Some(vec![volume.size_gib.to_string()]),
            "encrypted" => Some(vec![volume.encrypted.to_string()]),
            name => tag_values(name, &volume.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&volume.id)) {
            found.push((volume.id.clone(), told(&volume)));
        }
    }
    let (volumes, next_token) =
        page("DescribeVolumes", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeVolumesResult { volumes, next_token })
}

pub(crate) async fn delete_volume(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteVolumeRequest,
) -> Result<(), Fault> {
    let id = input.volume_id;
    ctx.authorise("ec2:DeleteVolume", &ctx.arn("ec2", format!("volume/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let check = |found: &Record| match &found.task {
        None => Ok(()),
        Some(task) => {
            let message = format!("Volume {} is currently attached to {task}", found.id);
            Err(faults::of("VolumeInUse", message))
        }
    };
    check(&*tag::find::<Record>(&ec2.store.read(), &realm, &id, NO_VOLUME)?)?;
    let gone = ec2.release_volume(&realm, &id, true).await;
    gone.map_err(|error| faults::of("InternalError", error.to_string()).status(500))
}
