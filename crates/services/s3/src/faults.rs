//! Every error that this service answers beside those of the s3s crate.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode};
use wire::Fault;

fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

fn coded(code: &str, status: StatusCode, message: impl Into<String>) -> S3Error {
    let mut error = error(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

pub(crate) fn no_bucket() -> S3Error {
    error(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist")
}

pub(crate) fn no_key() -> S3Error {
    error(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}

pub(crate) fn malformed_xml() -> S3Error {
    error(
        S3ErrorCode::MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

pub(crate) fn public_policy(context: &wire::Context, bucket: &str) -> S3Error {
    let who = &context.principal.arn;
    let message = format!(
        "User: {who} is not authorized to perform: s3:PutBucketPolicy on resource: \"arn:aws:s3:::{bucket}\" \
         because public \
         policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access."
    );
    error(S3ErrorCode::AccessDenied, message)
}

pub(crate) fn not_configured(code: &str, what: &str) -> S3Error {
    coded(code, StatusCode::NOT_FOUND, format!("The {what} was not found"))
}

pub(crate) fn no_upload() -> S3Error {
    error(
        S3ErrorCode::NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
         aborted or completed.",
    )
}

pub(crate) fn bucket_is_owned() -> S3Error {
    error(
        S3ErrorCode::BucketAlreadyOwnedByYou,
        "Your previous request to create the named bucket succeeded and you already own it.",
    )
}

pub(crate) fn bucket_exists() -> S3Error {
    error(
        S3ErrorCode::BucketAlreadyExists,
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. \
         Please select a different name and try again.",
    )
}

pub(crate) fn bucket_not_empty() -> S3Error {
    error(S3ErrorCode::BucketNotEmpty, "The bucket you tried to delete is not empty")
}

pub(crate) fn location(region: &str) -> S3Error {
    error(
        S3ErrorCode::IllegalLocationConstraintException,
        format!(
            "The {region} location constraint is incompatible for the region specific endpoint this request \
             was sent to."
        ),
    )
}

pub(crate) fn bad_digest(what: &str) -> S3Error {
    error(
        S3ErrorCode::BadDigest,
        format!("The {what} you specified did not match the calculated checksum."),
    )
}

pub(crate) fn invalid(message: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidArgument, message)
}

pub(crate) fn invalid_request(message: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidRequest, message)
}

pub(crate) fn malformed_policy(message: impl Into<String>) -> S3Error {
    error(S3ErrorCode::MalformedPolicy, message)
}

pub(crate) fn no_policy() -> S3Error {
    error(S3ErrorCode::NoSuchBucketPolicy, "The bucket policy does not exist")
}

pub(crate) fn no_tags() -> S3Error {
    coded("NoSuchTagSet", StatusCode::NOT_FOUND, "The TagSet does not exist")
}

pub(crate) fn invalid_tag(message: &str) -> S3Error {
    error(S3ErrorCode::InvalidTag, message.to_owned())
}

pub(crate) fn invalid_part() -> S3Error {
    error(
        S3ErrorCode::InvalidPart,
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified \
         entity tag may not match the part's entity tag.",
    )
}

pub(crate) fn part_order() -> S3Error {
    error(
        S3ErrorCode::InvalidPartOrder,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    )
}

pub(crate) fn too_small() -> S3Error {
    error(
        S3ErrorCode::EntityTooSmall,
        "Your proposed upload is smaller than the minimum allowed size",
    )
}

pub(crate) fn too_large() -> S3Error {
    error(S3ErrorCode::EntityTooLarge, "Your proposed upload exceeds the maximum allowed size")
}

pub(crate) fn incomplete() -> S3Error {
    error(
        S3ErrorCode::IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    )
}

pub(crate) fn precondition(which: &str) -> S3Error {
    error(
        S3ErrorCode::PreconditionFailed,
        format!("At least one of the pre-conditions you specified did not hold ({which})"),
    )
}

pub(crate) fn not_modified() -> S3Error {
    let mut error = error(S3ErrorCode::NotModified, "Not Modified");
    error.set_status_code(StatusCode::NOT_MODIFIED);
    error
}

/// Something that S3 has and that is not built here.
pub(crate) fn not_built(what: &str, why: &str) -> S3Error {
    error(S3ErrorCode::NotImplemented, format!("{what} is not implemented by Neargate: {why}."))
}

/// A permission that is missing.
pub(crate) fn denied(fault: Fault) -> S3Error {
    error(S3ErrorCode::AccessDenied, fault.message)
}

/// The disk refuses. It is told in the log, with its cause.
pub(crate) fn disk(error: &(dyn std::error::Error + 'static)) -> S3Error {
    tracing::error!(error, "an object could not be stored or read");
    self::error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.")
}

pub(crate) fn acl_not_supported() -> S3Error {
    coded(
        "AccessControlListNotSupported",
        StatusCode::BAD_REQUEST,
        "The bucket does not allow ACLs",
    )
}

pub(crate) fn not_the_owner() -> S3Error {
    error(S3ErrorCode::AccessDenied, "Access Denied")
}

pub(crate) fn no_part() -> S3Error {
    coded(
        "InvalidPartNumber",
        StatusCode::RANGE_NOT_SATISFIABLE,
        "The requested partnumber is not satisfiable",
    )
}
