//! Buckets.

use super::{refuse, time, why};
use crate::{
    S3, faults,
    model::{Bucket, Object, PublicAccess, Upload, Version, Versioning},
};
use s3s::{S3Request, S3Result, dto};
use std::{collections::BTreeMap, sync::Arc};
use store::Snapshot;

/// The bucket, if it is there, and belongs to whom the client believes it to.
pub(super) fn find(
    snapshot: &Snapshot,
    name: &str,
    expected_owner: Option<&str>,
) -> S3Result<Arc<Bucket>> {
    let bucket = snapshot.get::<Bucket>(name).ok_or_else(faults::no_bucket)?;
    match expected_owner.is_some_and(|owner| owner != bucket.account) {
        true => Err(faults::not_the_owner()),
        false => Ok(bucket),
    }
}

/// An account as S3 names owners: 64 hexadecimal digits that tell nothing of it.
pub(super) fn owner(account: &str) -> dto::Owner {
    let id = wire::sigv4::sha256_hex(format!("owner {account}").as_bytes());
    dto::Owner { id: Some(id), display_name: None }
}

pub(super) async fn list(
    s3: &Arc<S3>,
    request: S3Request<dto::ListBucketsInput>,
) -> S3Result<dto::ListBucketsOutput> {
    let (context, input) = (s3.context()?, request.input);
    let most = usize::try_from(input.max_buckets.unwrap_or(10_000)).unwrap_or(0);
    if !(1..=10_000).contains(&most) {
        return Err(faults::invalid("max-buckets must be between 1 and 10000"));
    }
    let prefix = input.prefix.clone().unwrap_or_default();
    let snapshot = s3.store.read();
    let after = input.continuation_token.unwrap_or_default();
    let own = snapshot.scan_from::<Bucket>(&prefix, &after).filter(|bucket| {
        bucket.account == context.account()
            && input.bucket_region.as_ref().is_none_or(|region| *region == bucket.region)
    });
    let mut found: Vec<Arc<Bucket>> = own.take(most + 1).collect();
    let more = found.len() > most;
    found.truncate(most);
    let last = found.last().map(|bucket| bucket.name.clone());
    let told = |bucket: Arc<Bucket>| dto::Bucket {
        name: Some(bucket.name.clone()),
        creation_date: Some(time(bucket.created)),
        bucket_region: Some(bucket.region.clone()),
    };
    Ok(dto::ListBucketsOutput {
        buckets: Some(found.into_iter().map(told).collect()),
        owner: Some(owner(context.account())),
        continuation_token: last.filter(|_| more),
        prefix: input.prefix,
    })
}

pub(super) async fn create(
    s3: &Arc<S3>,
    request: S3Request<dto::CreateBucketInput>,
) -> S3Result<dto::CreateBucketOutput> {
    let (context, input) = (s3.context()?, request.input);
    refuse!(input, {
        grant_full_control: why::ACL, grant_read: why::ACL, grant_read_acp: why::ACL, grant_write: why::ACL,
        grant_write_acp: why::ACL,
    });
    if input.acl.as_ref().is_some_and(|acl| acl.as_str() != "private") {
        return Err(faults::acl_not_supported());
    }
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(faults::not_built("x-amz-bucket-object-lock-enabled", why::LOCK));
    }
    let ownership = input.object_ownership.as_ref().map(|ownership| ownership.as_str());
    if ownership.is_some_and(|ownership| ownership != "BucketOwnerEnforced") {
        return Err(faults::not_built("x-amz-object-ownership", why::ACL));
    }
    let configuration = input.create_bucket_configuration.unwrap_or_default();
    refuse!(configuration, {
        bucket: "there are no directory buckets", location: "there are no directory buckets",
    });
    let wanted = configuration.location_constraint.as_ref().map(|region| match region.as_str() {
        "EU" => "eu-west-1".to_owned(),
        other => other.to_owned(),
    });
    // us-east-1 takes no constraint of its own name, and every other region wants its own.
    let region = context.region.clone();
    match (wanted.as_deref(), region.as_str()) {
        (None, "us-east-1") => {}
        (Some(wanted), region) if wanted == region && region != "us-east-1" => {}
        (None, _) => return Err(faults::location("unspecified")),
        (Some(wanted), _) => return Err(faults::location(wanted)),
    }
    make(s3, context.account(), &region, &input.bucket).await?;
    Ok(dto::CreateBucketOutput { location: Some(format!("/{}", input.bucket)) })
}

/// Makes a bucket.
pub(crate) async fn make(s3: &S3, account: &str, region: &str, name: &str) -> S3Result<()> {
    if !s3s::path::check_bucket_name(name) {
        return Err(s3s::s3_error!(InvalidBucketName, "The specified bucket is not valid."));
    }
    let bucket = Bucket {
        name: name.to_owned(),
        account: account.to_owned(),
        region: region.to_owned(),
        created: s3.world.now(),
        tags: BTreeMap::new(),
        policy: None,
        versioning: Versioning::Never,
        kms: false,
        public_access: Some(PublicAccess::ALL),
        lifecycle: Vec::new(),
        event_bridge: false,
    };
    s3.write(move |tx| match tx.get::<Bucket>(&bucket.name) {
        // In us-east-1 that is no error, as it has always been.
        Some(known) if known.account == bucket.account && bucket.region == "us-east-1" => Ok(()),
        Some(known) if known.account == bucket.account => Err(faults::bucket_is_owned()),
        Some(_) => Err(faults::bucket_exists()),
        None => {
            tx.put(bucket);
            Ok(())
        }
    })
    .await
}

pub(super) async fn head(
    s3: &Arc<S3>,
    request: S3Request<dto::HeadBucketInput>,
) -> S3Result<dto::HeadBucketOutput> {
    let input = request.input;
    let bucket = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    Ok(dto::HeadBucketOutput {
        bucket_region: Some(bucket.region.clone()),
        ..dto::HeadBucketOutput::default()
    })
}

pub(super) async fn delete(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteBucketInput>,
) -> S3Result<dto::DeleteBucketOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    destroy(s3, input.bucket).await?;
    Ok(dto::DeleteBucketOutput::default())
}

/// Deletes a bucket in which nothing is.
pub(crate) async fn destroy(s3: &S3, name: String) -> S3Result<()> {
    s3.write(move |tx| {
        let prefix = format!("{name}/");
        if tx.scan_prefix::<Object>(&prefix).next().is_some()
            || tx.scan_prefix::<Version>(&prefix).next().is_some()
            || tx.scan_prefix::<Upload>(&prefix).next().is_some()
        {
            return Err(faults::bucket_not_empty());
        }
        match tx.delete::<Bucket>(&name) {
            true => Ok(()),
            false => Err(faults::no_bucket()),
        }
    })
    .await
}

pub(super) async fn location(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketLocationInput>,
) -> S3Result<dto::GetBucketLocationOutput> {
    let input = request.input;
    let bucket = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let elsewhere = (bucket.region != "us-east-1").then(|| bucket.region.clone());
    Ok(dto::GetBucketLocationOutput {
        location_constraint: elsewhere.map(dto::BucketLocationConstraint::from),
    })
}
