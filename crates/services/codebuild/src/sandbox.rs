//! A build's container.

use crate::api::ComputeType;

/// The size of a build's container.
/// <https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-compute-types.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// 1024 are one CPU.
    pub cpu_units: u32,
    pub memory_mib: u32,
    pub disk_gib: i32,
}

/// The size of a compute type; none for those that are not built.
pub(crate) fn size(compute: ComputeType) -> Option<Size> {
    let size = |cpus: u32, memory_gib: u32, disk_gib| {
        Some(Size { cpu_units: cpus * 1024, memory_mib: memory_gib * 1024, disk_gib })
    };
    match compute {
        ComputeType::BuildGeneral1Small => size(2, 4, 64),
        ComputeType::BuildGeneral1Medium => size(4, 8, 128),
        ComputeType::BuildGeneral1Large => size(8, 16, 128),
        ComputeType::BuildGeneral1Xlarge => size(36, 72, 256),
        ComputeType::BuildGeneral12xlarge => size(72, 144, 824),
        _ => None,
    }
}
