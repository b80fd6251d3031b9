//! Policies of buckets.

use super::bucket::find;
use crate::{S3, faults, model::Bucket};
use s3s::{S3Request, S3Result, dto};
use serde_json::Value as Json;
use std::sync::Arc;
use wire::Context;

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
    give(s3, &s3.context()?, input.bucket, input.policy).await?;
    Ok(dto::PutBucketPolicyOutput::default())
}

/// Gives a bucket a policy.
pub(crate) async fn give(
    s3: &S3,
    context: &Context,
    bucket: String,
    policy: String,
) -> S3Result<()> {
    let found = find(&s3.store.read(), &bucket, None)?;
    if policy.len() > LONGEST {
        return Err(faults::malformed_policy("Policies must be at most 20 KB"));
    }
    let checked = s3.iam.check_resource_policy(&policy);
    checked.map_err(|malformed| faults::malformed_policy(malformed.to_string()))?;
    if is_public(&policy) && found.public_access.is_some_and(|access| access.block_policy) {
        return Err(faults::public_policy(context, &bucket));
    }
    set(s3, bucket, Some(policy)).await
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

/// Whether a policy lets anyone at all in: it allows something to everyone, and under no condition.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>
pub(crate) fn is_public(policy: &str) -> bool {
    let policy: Json = serde_json::from_str(policy).unwrap_or_default();
    let statements = match &policy["Statement"] {
        Json::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let everyone = |principal: &Json| match principal {
        Json::String(text) => text == "*",
        Json::Array(all) => all.iter().any(|one| one == "*"),
        _ => false,
    };
    statements.iter().any(|statement| {
        let principal = &statement["Principal"];
        let open = everyone(principal) || everyone(&principal["AWS"]);
        let bound = statement["Condition"].as_object().is_some_and(|all| !all.is_empty());
        statement["Effect"] == "Allow" && open && !bound
    })
}

/// Sets a bucket's policy, or takes it away.
pub(crate) async fn set(s3: &S3, name: String, policy: Option<String>) -> S3Result<()> {
    s3.write(move |tx| match tx.update::<Bucket>(&name, |bucket| bucket.policy = policy) {
        true => Ok(()),
        false => Err(faults::no_bucket()),
    })
    .await
}
