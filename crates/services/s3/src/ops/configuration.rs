//! What buckets are told of encryption and of public access.

use super::{bucket::find, refuse, why};
use crate::{
    S3, faults,
    model::{Bucket, PublicAccess},
};
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;

/// Changes what a bucket's record says.
pub(crate) async fn change(
    s3: &S3,
    name: String,
    change: impl FnOnce(&mut Bucket) + Send + 'static,
) -> S3Result<()> {
    s3.write(move |tx| match tx.update::<Bucket>(&name, change) {
        true => Ok(()),
        false => Err(faults::no_bucket()),
    })
    .await
}

pub(super) async fn get_encryption(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketEncryptionInput>,
) -> S3Result<dto::GetBucketEncryptionOutput> {
    let input = request.input;
    let found = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let name = match found.kms {
        true => dto::ServerSideEncryption::AWS_KMS,
        false => dto::ServerSideEncryption::AES256,
    };
    let rule = dto::ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(dto::ServerSideEncryptionByDefault {
            kms_master_key_id: None,
            sse_algorithm: dto::ServerSideEncryption::from_static(name),
        }),
        bucket_key_enabled: Some(false),
    };
    let configuration = dto::ServerSideEncryptionConfiguration { rules: vec![rule] };
    Ok(dto::GetBucketEncryptionOutput { server_side_encryption_configuration: Some(configuration) })
}

pub(super) async fn put_encryption(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketEncryptionInput>,
) -> S3Result<dto::PutBucketEncryptionOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let mut rules = input.server_side_encryption_configuration.rules;
    let rule = rules.pop().filter(|_| rules.is_empty()).ok_or_else(faults::malformed_xml)?;
    if rule.bucket_key_enabled == Some(true) {
        return Err(faults::not_built("BucketKeyEnabled", why::KEYS));
    }
    let wanted = rule.apply_server_side_encryption_by_default.ok_or_else(faults::malformed_xml)?;
    refuse!(wanted, { kms_master_key_id: why::KEYS });
    let kms = match wanted.sse_algorithm.as_str() {
        "AES256" => false,
        "aws:kms" => true,
        _ => return Err(faults::not_built("SSEAlgorithm", why::KEYS)),
    };
    change(s3, input.bucket, move |bucket| bucket.kms = kms).await?;
    Ok(dto::PutBucketEncryptionOutput::default())
}

pub(super) async fn delete_encryption(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteBucketEncryptionInput>,
) -> S3Result<dto::DeleteBucketEncryptionOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    change(s3, input.bucket, |bucket| bucket.kms = false).await?;
    Ok(dto::DeleteBucketEncryptionOutput::default())
}

pub(super) async fn get_public_access(
    s3: &Arc<S3>,
    request: S3Request<dto::GetPublicAccessBlockInput>,
) -> S3Result<dto::GetPublicAccessBlockOutput> {
    let input = request.input;
    let found = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let missing = || {
        faults::not_configured(
            "NoSuchPublicAccessBlockConfiguration",
            "public access block configuration",
        )
    };
    let access = found.public_access.ok_or_else(missing)?;
    let configuration = dto::PublicAccessBlockConfiguration {
        block_public_acls: Some(access.block_acls),
        ignore_public_acls: Some(access.ignore_acls),
        block_public_policy: Some(access.block_policy),
        restrict_public_buckets: Some(access.restrict),
    };
    Ok(dto::GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) })
}

pub(super) async fn put_public_access(
    s3: &Arc<S3>,
    request: S3Request<dto::PutPublicAccessBlockInput>,
) -> S3Result<dto::PutPublicAccessBlockOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let wanted = input.public_access_block_configuration;
    let access = PublicAccess {
        block_acls: wanted.block_public_acls == Some(true),
        ignore_acls: wanted.ignore_public_acls == Some(true),
        block_policy: wanted.block_public_policy == Some(true),
        restrict: wanted.restrict_public_buckets == Some(true),
    };
    change(s3, input.bucket, move |bucket| bucket.public_access = Some(access)).await?;
    Ok(dto::PutPublicAccessBlockOutput::default())
}

pub(super) async fn delete_public_access(
    s3: &Arc<S3>,
    request: S3Request<dto::DeletePublicAccessBlockInput>,
) -> S3Result<dto::DeletePublicAccessBlockOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    change(s3, input.bucket, |bucket| bucket.public_access = None).await?;
    Ok(dto::DeletePublicAccessBlockOutput::default())
}
