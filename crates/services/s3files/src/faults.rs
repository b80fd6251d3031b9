//! Every fault that S3 Files answers with.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_S3_Files.html>, each operation's page.

use wire::Fault;

fn fault(code: &'static str, status: u16, error: &'static str, message: String) -> Fault {
    Fault::new(code, message).status(status).detail("errorCode", error)
}

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    fault("ValidationException", 400, "ValidationError", message.into())
}

pub(crate) fn no_file_system(id: &str) -> Fault {
    let message = format!("File system '{id}' does not exist.");
    fault("ResourceNotFoundException", 404, "FileSystemNotFound", message)
}

pub(crate) fn no_mount_target(id: &str) -> Fault {
    let message = format!("Mount target '{id}' does not exist.");
    fault("ResourceNotFoundException", 404, "MountTargetNotFound", message)
}

pub(crate) fn no_access_point(id: &str) -> Fault {
    let message = format!("Access point '{id}' does not exist.");
    fault("ResourceNotFoundException", 404, "AccessPointNotFound", message)
}

pub(crate) fn no_bucket(name: &str) -> Fault {
    let message = format!("Bucket '{name}' does not exist.");
    fault("ResourceNotFoundException", 404, "BucketNotFound", message)
}

pub(crate) fn no_policy(id: &str) -> Fault {
    let message = format!("Policy for file system '{id}' does not exist.");
    fault("ResourceNotFoundException", 404, "PolicyNotFound", message)
}

pub(crate) fn conflict(
    error: &'static str,
    message: String,
    id: &str,
    kind: &'static str,
) -> Fault {
    let fault = fault("ConflictException", 409, error, message);
    fault.detail("resourceId", id).detail("resourceType", kind)
}

pub(crate) fn quota(message: &str) -> Fault {
    fault("ServiceQuotaExceededException", 402, "QuotaExceeded", message.to_owned())
}

pub(crate) fn failed(error: &dyn std::error::Error) -> Fault {
    fault("InternalServerException", 500, "InternalServerError", error.to_string())
}
