//! Policies of buckets.

use super::bucket::find;
use crate::{S3, faults, model::Bucket};
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;

/// The longest policy, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html>
const LONGEST: usize = 20 << 10;

pub(super) async fn get(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketPolicyInput>,
) -> S3Result<dto::GetBucketPolicyOutput> {
    let input = request.input;
    let bucket = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let policy = bucket.policy.clone().ok_or_else(faults::no_policy)?;
    Ok(dto::GetBucketPolicyOutput { policy: Some(policy) })
}

pub(super) async fn put(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketPolicyInput>,
) -> S3Result<dto::PutBucketPolicyOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    if input.policy.len() > LONGEST {
        return Err(faults::malformed_policy("Policies must be at most 20 KB"));
    }
    let checked = s3.iam.check_resource_policy(&input.policy);
    checked.map_err(|malformed| faults::malformed_policy(malformed.to_string()))?;
    set(s3, input.bucket, Some(input.policy)).await?;
    Ok(dto::PutBucketPolicyOutput::default())
}

pub(super) async fn delete(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteBucketPolicyInput>,
) -> S3Result<dto::DeleteBucketPolicyOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    set(s3, input.bucket, None).await?;
    Ok(dto::DeleteBucketPolicyOutput::default())
}

async fn set(s3: &S3, name: String, policy: Option<String>) -> S3Result<()> {
    s3.write(move |tx| match tx.update::<Bucket>(&name, |bucket| bucket.policy = policy) {
        true => Ok(()),
        false => Err(faults::no_bucket()),
    })
    .await
}
