//! Which permission each operation needs, and who has it.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>

use crate::{S3, door, faults, model::Bucket, ops::is_public};
use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    path::S3Path,
};
use std::sync::Arc;
use wire::{Context, ResourcePolicy};

/// Asks for the permission of an operation before its input is read.
pub(crate) struct Access(pub(crate) Arc<S3>);

/// The permissions of the operations that are built. Those that copy, or that delete many, ask for more themselves.
fn action(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "ListBuckets" => "s3:ListAllMyBuckets",
        "CreateBucket" => "s3:CreateBucket",
        "DeleteBucket" => "s3:DeleteBucket",
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => "s3:ListBucket",
        "GetBucketLocation" => "s3:GetBucketLocation",
        "GetBucketVersioning" => "s3:GetBucketVersioning",
        "PutBucketVersioning" => "s3:PutBucketVersioning",
        "GetBucketEncryption" => "s3:GetEncryptionConfiguration",
        "PutBucketEncryption" | "DeleteBucketEncryption" => "s3:PutEncryptionConfiguration",
        "GetPublicAccessBlock" => "s3:GetBucketPublicAccessBlock",
        "PutPublicAccessBlock" | "DeletePublicAccessBlock" => "s3:PutBucketPublicAccessBlock",
        "GetBucketLifecycleConfiguration" => "s3:GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle" => {
            "s3:PutLifecycleConfiguration"
        }
        "GetBucketNotificationConfiguration" => "s3:GetBucketNotification",
        "PutBucketNotificationConfiguration" => "s3:PutBucketNotification",
        "ListObjectVersions" => "s3:ListBucketVersions",
        "GetBucketTagging" => "s3:GetBucketTagging",
        "PutBucketTagging" | "DeleteBucketTagging" => "s3:PutBucketTagging",
        "GetBucketPolicy" => "s3:GetBucketPolicy",
        "PutBucketPolicy" => "s3:PutBucketPolicy",
        "DeleteBucketPolicy" => "s3:DeleteBucketPolicy",
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => "s3:PutObject",
        "DeleteObject" | "DeleteObjects" => "s3:DeleteObject",
        "GetObjectTagging" => "s3:GetObjectTagging",
        "PutObjectTagging" => "s3:PutObjectTagging",
        "DeleteObjectTagging" => "s3:DeleteObjectTagging",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "ListParts" => "s3:ListMultipartUploadParts",
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
        _ => return None,
    })
}

/// The permission for a version of an object where there is one of its own.
fn action_on_version(action: &'static str) -> &'static str {
    match action {
        "s3:GetObject" => "s3:GetObjectVersion",
        "s3:DeleteObject" => "s3:DeleteObjectVersion",
        "s3:GetObjectTagging" => "s3:GetObjectVersionTagging",
        "s3:PutObjectTagging" => "s3:PutObjectVersionTagging",
        "s3:DeleteObjectTagging" => "s3:DeleteObjectVersionTagging",
        other => other,
    }
}

/// Headers that s3s does not read, and that would change what is asked for.
const UNREAD: [&str; 7] = [
    door::TAGS,
    "x-amz-checksum-sha512",
    "x-amz-checksum-md5",
    "x-amz-checksum-xxhash64",
    "x-amz-checksum-xxhash3",
    "x-amz-checksum-xxhash128",
    "x-amz-bucket-namespace",
];

fn check_headers(headers: &hyper::HeaderMap) -> S3Result<()> {
    let trailer = headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
    let trailer = trailer.unwrap_or_default().trim().to_ascii_lowercase();
    match UNREAD.into_iter().find(|name| headers.contains_key(*name) || trailer == *name) {
        Some(name) => Err(faults::not_built(name, "it is not built")),
        None => Ok(()),
    }
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name();
        let Some(action) = action(operation) else {
            return Err(faults::not_built(operation, "it is not built yet"));
        };
        check_headers(cx.headers())?;
        let query = cx.uri().query().unwrap_or_default();
        let versioned = query.split('&').any(|pair| pair.starts_with("versionId="));
        let action = if versioned { action_on_version(action) } else { action };
        let context = door::context(&self.0).filter(|_| cx.credentials().is_some());
        let context = context.ok_or_else(|| s3s::s3_error!(AccessDenied, "Access Denied"))?;
        // Each key is asked for by itself.
        if operation == "DeleteObjects" {
            return Ok(());
        }
        let (bucket, key) = match cx.s3_path() {
            S3Path::Root => (None, None),
            S3Path::Bucket { bucket } => (Some(&**bucket), None),
            S3Path::Object { bucket, key } => (Some(&**bucket), Some(&**key)),
        };
        self.0.authorise(&context, action, bucket, key)
    }
}

impl S3 {
    /// Answers AccessDenied unless the caller may do `action` to the bucket, or to the object of this key. The
    /// bucket need not be there: who may not know is told of their permissions, not of the bucket.
    pub(crate) fn authorise(
        &self,
        context: &Context,
        action: &str,
        bucket: Option<&str>,
        key: Option<&str>,
    ) -> S3Result<()> {
        let resource = match (bucket, key) {
            (None, _) => "*".to_owned(),
            (Some(bucket), None) => format!("arn:aws:s3:::{bucket}"),
            (Some(bucket), Some(key)) => format!("arn:aws:s3:::{bucket}/{key}"),
        };
        let found = bucket.and_then(|bucket| self.store.read().get::<Bucket>(bucket));
        // Whose a bucket of that name is has nothing to do with whether one may be made.
        let found = found.filter(|_| action != "s3:CreateBucket");
        let policy = found.as_ref().and_then(|bucket| {
            let stranger = bucket.account != context.account();
            let restricted = bucket.public_access.is_some_and(|access| access.restrict);
            let policy = bucket.policy.as_deref();
            policy.filter(|policy| !(stranger && restricted && is_public(policy)))
        });
        let account = found.as_ref().map_or(context.account(), |bucket| &bucket.account);
        let owned = ResourcePolicy { account, policy };
        context.authorise_owned(action, &resource, owned).map_err(faults::denied)
    }

    /// The context of the request that is being served.
    pub(crate) fn context(&self) -> S3Result<Context> {
        door::context(self).ok_or_else(|| s3s::s3_error!(AccessDenied, "Access Denied"))
    }
}
