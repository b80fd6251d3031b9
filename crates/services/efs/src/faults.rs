//! Every fault that EFS answers with.
//! <https://docs.aws.amazon.com/efs/latest/ug/API_Operations.html>, each operation's page.

use wire::Fault;

pub(crate) fn bad(message: impl Into<String>) -> Fault {
    Fault::new("BadRequest", message)
}

pub(crate) fn no_file_system(id: &str) -> Fault {
    Fault::new("FileSystemNotFound", format!("File system '{id}' does not exist.")).status(404)
}

pub(crate) fn no_mount_target(id: &str) -> Fault {
    Fault::new("MountTargetNotFound", format!("Mount target '{id}' does not exist.")).status(404)
}

pub(crate) fn no_access_point(id: &str) -> Fault {
    Fault::new("AccessPointNotFound", format!("Access Point {id} does not exist.")).status(404)
}

pub(crate) fn no_policy(id: &str) -> Fault {
    Fault::new("PolicyNotFound", format!("Policy for file system '{id}' does not exist."))
        .status(404)
}

pub(crate) fn file_system_exists(id: &str, token: &str) -> Fault {
    let message = format!("File system '{id}' already exists with creation token '{token}'");
    Fault::new("FileSystemAlreadyExists", message).status(409).detail("FileSystemId", id)
}

pub(crate) fn access_point_exists(id: &str) -> Fault {
    let message = "An access point with this client token already exists with other parameters";
    Fault::new("AccessPointAlreadyExists", message).status(409).detail("AccessPointId", id)
}

pub(crate) fn in_use(message: String) -> Fault {
    Fault::new("FileSystemInUse", message).status(409)
}

pub(crate) fn mount_target_conflict(message: &str) -> Fault {
    Fault::new("MountTargetConflict", message).status(409)
}

pub(crate) fn limit(code: &'static str, message: &str) -> Fault {
    Fault::new(code, message).status(403)
}

pub(crate) fn failed(error: &dyn std::error::Error) -> Fault {
    Fault::new("InternalServerError", error.to_string()).status(500)
}
