//! Tags of buckets and objects.

use super::{bucket, version};
use crate::{
    S3, faults,
    model::{Bucket, Tags},
};
use percent_encoding::percent_decode_str;
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;

/// The most tags of an object, and of a bucket.
const MOST_OF_OBJECT: usize = 10;
const MOST_OF_BUCKET: usize = 50;

fn add(tags: &mut Tags, key: String, value: String) -> S3Result<()> {
    if key.is_empty() || key.chars().count() > 128 {
        return Err(faults::invalid_tag("The TagKey you have provided is invalid"));
    }
    if value.chars().count() > 256 {
        return Err(faults::invalid_tag("The TagValue you have provided is invalid"));
    }
    match tags.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(faults::invalid_tag("Cannot provide multiple Tags with the same key")),
    }
}

/// Tags as the header `x-amz-tagging` holds them: a query string.
pub(super) fn of_header(header: Option<&str>) -> S3Result<Tags> {
    let mut tags = Tags::new();
    for pair in header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8().map(|text| text.into_owned())
        };
        let (Ok(key), Ok(value)) = (plain(key), plain(value)) else {
            return Err(faults::invalid("The header 'x-amz-tagging' shall be encoded as UTF-8"));
        };
        add(&mut tags, key, value)?;
    }
    check_count(&tags, MOST_OF_OBJECT, "Object tags cannot be greater than 10")?;
    Ok(tags)
}

fn check_count(tags: &Tags, most: usize, message: &str) -> S3Result<()> {
    if tags.len() > most { Err(faults::invalid_tag(message)) } else { Ok(()) }
}

pub(super) fn of_set(set: Vec<dto::Tag>) -> S3Result<Tags> {
    let mut tags = Tags::new();
    for tag in set {
        add(&mut tags, tag.key.unwrap_or_default(), tag.value.unwrap_or_default())?;
    }
    Ok(tags)
}

fn set(tags: &Tags) -> Vec<dto::Tag> {
    let told = |(key, value): (&String, &String)| dto::Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    tags.iter().map(told).collect()
}

/// Gives a bucket tags.
pub(crate) async fn change_bucket(s3: &S3, name: String, tags: Tags) -> S3Result<()> {
    check_count(&tags, MOST_OF_BUCKET, "Bucket tag count cannot be greater than 50")?;
    s3.write(move |tx| match tx.update::<Bucket>(&name, |bucket| bucket.tags = tags) {
        true => Ok(()),
        false => Err(faults::no_bucket()),
    })
    .await
}

/// Gives an object, or a version of it, tags; answers its version.
async fn change_object(
    s3: &S3,
    (bucket, key): (&str, &str),
    wanted: Option<&str>,
    owner: Option<&str>,
    tags: Tags,
) -> S3Result<Option<String>> {
    let found = version::find(&s3.store.read(), bucket, key, wanted, owner)?;
    let told = version::told(s3, &found);
    s3.write(move |tx| match version::change(tx, &found, |object| object.about.tags = tags) {
        true => Ok(()),
        false => Err(faults::no_key()),
    })
    .await?;
    Ok(told)
}

pub(super) async fn get_of_bucket(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketTaggingInput>,
) -> S3Result<dto::GetBucketTaggingOutput> {
    let input = request.input;
    let found =
        bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    match found.tags.is_empty() {
        true => Err(faults::no_tags()),
        false => Ok(dto::GetBucketTaggingOutput { tag_set: set(&found.tags) }),
    }
}

pub(super) async fn put_of_bucket(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketTaggingInput>,
) -> S3Result<dto::PutBucketTaggingOutput> {
    let input = request.input;
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let tags = of_set(input.tagging.tag_set)?;
    change_bucket(s3, input.bucket, tags).await?;
    Ok(dto::PutBucketTaggingOutput::default())
}

pub(super) async fn delete_of_bucket(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteBucketTaggingInput>,
) -> S3Result<dto::DeleteBucketTaggingOutput> {
    let input = request.input;
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    change_bucket(s3, input.bucket, Tags::new()).await?;
    Ok(dto::DeleteBucketTaggingOutput::default())
}

pub(super) async fn get_of_object(
    s3: &Arc<S3>,
    request: S3Request<dto::GetObjectTaggingInput>,
) -> S3Result<dto::GetObjectTaggingOutput> {
    let input = request.input;
    let (owner, wanted) = (input.expected_bucket_owner.as_deref(), input.version_id.as_deref());
    let found = version::find(&s3.store.read(), &input.bucket, &input.key, wanted, owner)?;
    let version_id = version::told(s3, &found);
    Ok(dto::GetObjectTaggingOutput { tag_set: set(&found.about.tags), version_id })
}

pub(super) async fn put_of_object(
    s3: &Arc<S3>,
    request: S3Request<dto::PutObjectTaggingInput>,
) -> S3Result<dto::PutObjectTaggingOutput> {
    let input = request.input;
    let (owner, wanted) = (input.expected_bucket_owner.as_deref(), input.version_id.as_deref());
    let tags = of_set(input.tagging.tag_set)?;
    check_count(&tags, MOST_OF_OBJECT, "Object tags cannot be greater than 10")?;
    let version_id = change_object(s3, (&input.bucket, &input.key), wanted, owner, tags).await?;
    Ok(dto::PutObjectTaggingOutput { version_id })
}

pub(super) async fn delete_of_object(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteObjectTaggingInput>,
) -> S3Result<dto::DeleteObjectTaggingOutput> {
    let input = request.input;
    let (owner, wanted) = (input.expected_bucket_owner.as_deref(), input.version_id.as_deref());
    let place = (input.bucket.as_str(), input.key.as_str());
    let version_id = change_object(s3, place, wanted, owner, Tags::new()).await?;
    Ok(dto::DeleteObjectTaggingOutput { version_id })
}
