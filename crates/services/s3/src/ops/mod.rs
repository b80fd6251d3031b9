//! The operations. s3s reads requests and writes answers; what is not here answers NotImplemented.

pub(crate) mod bucket;
mod condition;
pub(crate) mod configuration;
mod copy;
pub(crate) mod lifecycle;
mod listing;
mod multipart;
pub(crate) mod notification;
mod object;
pub(crate) mod policy;
pub(crate) mod tag;
pub(crate) mod version;

pub(crate) use object::{Believed, of_one, remove};
pub(crate) use policy::is_public;
pub(crate) use version::unchanged;

use crate::{
    S3, faults,
    model::{About, Bucket},
};
use s3s::{S3Request, S3Response, S3Result, dto, dto::ServerSideEncryption};
use std::sync::Arc;

/// Answers an error when a member that is not built is set.
macro_rules! refuse {
    ($input:expr, { $($field:ident: $why:expr),* $(,)? }) => {
        $(if $input.$field.is_some() {
            return Err($crate::faults::not_built(stringify!($field), $why));
        })*
    };
}
pub(crate) use refuse;

/// Why members are refused.
pub(crate) mod why {
    pub(crate) const ACL: &str = "buckets are owner-enforced; use policies";
    pub(crate) const KEYS: &str = "there are no keys of the customer's and no KMS";
    pub(crate) const LOCK: &str = "objects cannot be locked";
    pub(crate) const WEBSITE: &str = "buckets are no web sites";
    pub(crate) const MFA: &str = "there are no devices to prove a caller with";
}

/// Whether an object is put as with `aws:kms`: as its client says, or else its bucket. What may be said of encryption
/// is no more than that: there are no keys.
pub(crate) fn encrypted(bucket: &Bucket, wanted: Option<&ServerSideEncryption>) -> S3Result<bool> {
    match wanted.map(ServerSideEncryption::as_str) {
        None => Ok(bucket.kms),
        Some("AES256") => Ok(false),
        Some("aws:kms") => Ok(true),
        Some(_) => Err(faults::not_built("x-amz-server-side-encryption", why::KEYS)),
    }
}

/// There is one storage class.
pub(crate) fn check_storage_class(wanted: Option<&dto::StorageClass>) -> S3Result<()> {
    match wanted.map(dto::StorageClass::as_str) {
        None | Some("STANDARD") => Ok(()),
        Some(_) => Err(faults::not_built("x-amz-storage-class", "there is one storage class")),
    }
}

/// The two access control lists that change nothing in an owner-enforced bucket.
pub(crate) fn check_acl(wanted: Option<&str>) -> S3Result<()> {
    match wanted {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(_) => Err(faults::acl_not_supported()),
    }
}

/// What answers say of encryption. The disk's affair, as with ECR: docs/security.md.
pub(crate) fn encryption(about: &About) -> Option<ServerSideEncryption> {
    let name = if about.kms { ServerSideEncryption::AWS_KMS } else { ServerSideEncryption::AES256 };
    Some(ServerSideEncryption::from_static(name))
}

pub(crate) fn time(at: world::Timestamp) -> dto::Timestamp {
    let since = std::time::Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0));
    dto::Timestamp::from(std::time::UNIX_EPOCH + since)
}

/// The operations of a service.
pub(crate) struct Operations(pub(crate) Arc<S3>);

/// Hands each operation on, and writes down that it was answered well: the end-to-end tests read from these lines which
/// operations they have proven.
macro_rules! operations {
    ($($name:ident: $input:ident -> $output:ident = $function:path, $told:literal;)*) => {
        #[async_trait::async_trait]
        impl s3s::S3 for Operations {
            $(async fn $name(&self, request: S3Request<dto::$input>) -> S3Result<S3Response<dto::$output>> {
                let answer = $function(&self.0, request).await?;
                tracing::trace!(target: "served", concat!("s3:", $told));
                Ok(S3Response::new(answer))
            })*
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput
        = bucket::list, "ListBuckets";
    create_bucket: CreateBucketInput -> CreateBucketOutput
        = bucket::create, "CreateBucket";
    head_bucket: HeadBucketInput -> HeadBucketOutput
        = bucket::head, "HeadBucket";
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput
        = bucket::delete, "DeleteBucket";
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput
        = bucket::location, "GetBucketLocation";
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput
        = version::get_of_bucket, "GetBucketVersioning";
    put_bucket_versioning: PutBucketVersioningInput -> PutBucketVersioningOutput
        = version::put_of_bucket, "PutBucketVersioning";
    get_bucket_encryption: GetBucketEncryptionInput -> GetBucketEncryptionOutput
        = configuration::get_encryption, "GetBucketEncryption";
    put_bucket_encryption: PutBucketEncryptionInput -> PutBucketEncryptionOutput
        = configuration::put_encryption, "PutBucketEncryption";
    delete_bucket_encryption: DeleteBucketEncryptionInput -> DeleteBucketEncryptionOutput
        = configuration::delete_encryption, "DeleteBucketEncryption";
    get_public_access_block: GetPublicAccessBlockInput -> GetPublicAccessBlockOutput
        = configuration::get_public_access, "GetPublicAccessBlock";
    put_public_access_block: PutPublicAccessBlockInput -> PutPublicAccessBlockOutput
        = configuration::put_public_access, "PutPublicAccessBlock";
    delete_public_access_block: DeletePublicAccessBlockInput -> DeletePublicAccessBlockOutput
        = configuration::delete_public_access, "DeletePublicAccessBlock";
    get_bucket_lifecycle_configuration: GetBucketLifecycleConfigurationInput -> GetBucketLifecycleConfigurationOutput
        = lifecycle::get, "GetBucketLifecycleConfiguration";
    put_bucket_lifecycle_configuration: PutBucketLifecycleConfigurationInput -> PutBucketLifecycleConfigurationOutput
        = lifecycle::put, "PutBucketLifecycleConfiguration";
    delete_bucket_lifecycle: DeleteBucketLifecycleInput -> DeleteBucketLifecycleOutput
        = lifecycle::delete, "DeleteBucketLifecycle";
    get_bucket_notification_configuration: GetBucketNotificationConfigurationInput
            -> GetBucketNotificationConfigurationOutput
        = notification::get, "GetBucketNotificationConfiguration";
    put_bucket_notification_configuration: PutBucketNotificationConfigurationInput
            -> PutBucketNotificationConfigurationOutput
        = notification::put, "PutBucketNotificationConfiguration";
    list_object_versions: ListObjectVersionsInput -> ListObjectVersionsOutput
        = version::list, "ListObjectVersions";
    get_bucket_tagging: GetBucketTaggingInput -> GetBucketTaggingOutput
        = tag::get_of_bucket, "GetBucketTagging";
    put_bucket_tagging: PutBucketTaggingInput -> PutBucketTaggingOutput
        = tag::put_of_bucket, "PutBucketTagging";
    delete_bucket_tagging: DeleteBucketTaggingInput -> DeleteBucketTaggingOutput
        = tag::delete_of_bucket, "DeleteBucketTagging";
    get_bucket_policy: GetBucketPolicyInput -> GetBucketPolicyOutput
        = policy::get, "GetBucketPolicy";
    put_bucket_policy: PutBucketPolicyInput -> PutBucketPolicyOutput
        = policy::put, "PutBucketPolicy";
    delete_bucket_policy: DeleteBucketPolicyInput -> DeleteBucketPolicyOutput
        = policy::delete, "DeleteBucketPolicy";
    list_objects: ListObjectsInput -> ListObjectsOutput
        = listing::first, "ListObjects";
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output
        = listing::second, "ListObjectsV2";
    put_object: PutObjectInput -> PutObjectOutput
        = object::put, "PutObject";
    get_object: GetObjectInput -> GetObjectOutput
        = object::get, "GetObject";
    head_object: HeadObjectInput -> HeadObjectOutput
        = object::head, "HeadObject";
    copy_object: CopyObjectInput -> CopyObjectOutput
        = copy::object, "CopyObject";
    delete_object: DeleteObjectInput -> DeleteObjectOutput
        = object::delete, "DeleteObject";
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput
        = object::delete_many, "DeleteObjects";
    get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput
        = tag::get_of_object, "GetObjectTagging";
    put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput
        = tag::put_of_object, "PutObjectTagging";
    delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput
        = tag::delete_of_object, "DeleteObjectTagging";
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput
        = multipart::create, "CreateMultipartUpload";
    upload_part: UploadPartInput -> UploadPartOutput
        = multipart::upload, "UploadPart";
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput
        = copy::part, "UploadPartCopy";
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput
        = multipart::complete, "CompleteMultipartUpload";
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput
        = multipart::abort, "AbortMultipartUpload";
    list_parts: ListPartsInput -> ListPartsOutput
        = multipart::parts, "ListParts";
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput
        = multipart::list, "ListMultipartUploads";
}
