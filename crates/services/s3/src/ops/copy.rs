//! Objects and parts made from other objects.

use super::{
    bucket, check_acl, check_storage_class,
    condition::{Conditions, check_write},
    encrypted, encryption, multipart,
    object::{about, of_one},
    refuse, tag, time, version, why,
};
use crate::{
    S3, checksum,
    checksum::Digests,
    faults,
    model::{About, Object},
};
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;

const ACCESS_POINTS: &str = "there are no access points";

/// The object to copy, if the caller may read it and the conditions hold.
fn source(
    s3: &S3,
    source: &dto::CopySource,
    owner: Option<&str>,
    conditions: &Conditions,
) -> S3Result<Arc<Object>> {
    let dto::CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(faults::not_built("x-amz-copy-source", ACCESS_POINTS));
    };
    let action = if version_id.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" };
    s3.authorise(&s3.context()?, action, Some(bucket), Some(key))?;
    let object = version::find(&s3.store.read(), bucket, key, version_id.as_deref(), owner)?;
    conditions.check(&object, false)?;
    Ok(object)
}

pub(super) async fn object(
    s3: &Arc<S3>,
    request: S3Request<dto::CopyObjectInput>,
) -> S3Result<dto::CopyObjectOutput> {
    // s3s does not read these two of this operation.
    let condition = |name: &str| match request.headers.get(name) {
        None => Ok(None),
        Some(value) => dto::ETagCondition::parse_http_header(value.as_bytes())
            .map(Some)
            .map_err(|_| faults::invalid(format!("The header '{name}' is no entity tag"))),
    };
    let (matches, none_match) = (condition("if-match")?, condition("if-none-match")?);
    let input = request.input;
    refuse!(input, {
        grant_full_control: why::ACL, grant_read: why::ACL, grant_read_acp: why::ACL, grant_write_acp: why::ACL,
        object_lock_legal_hold_status: why::LOCK, object_lock_mode: why::LOCK, object_lock_retain_until_date: why::LOCK,
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
        copy_source_sse_customer_algorithm: why::KEYS, copy_source_sse_customer_key: why::KEYS,
        copy_source_sse_customer_key_md5: why::KEYS,
        ssekms_encryption_context: why::KEYS, ssekms_key_id: why::KEYS, bucket_key_enabled: why::KEYS,
        website_redirect_location: why::WEBSITE,
    });
    check_acl(input.acl.as_ref().map(|acl| acl.as_str()))?;
    check_storage_class(input.storage_class.as_ref())?;
    let owner = input.expected_bucket_owner.as_deref();
    let found = bucket::find(&s3.store.read(), &input.bucket, owner)?;
    let kms = encrypted(&found, input.server_side_encryption.as_ref())?;
    let conditions = Conditions {
        matches: input.copy_source_if_match.clone(),
        none_match: input.copy_source_if_none_match.clone(),
        modified_since: input.copy_source_if_modified_since.clone(),
        unmodified_since: input.copy_source_if_unmodified_since.clone(),
    };
    let owner = input.expected_source_bucket_owner.as_deref();
    let from = source(s3, &input.copy_source, owner, &conditions)?;
    let replace = |directive: Option<&str>| directive == Some("REPLACE");
    let new = replace(input.metadata_directive.as_ref().map(|directive| directive.as_str()));
    let new_tags = replace(input.tagging_directive.as_ref().map(|directive| directive.as_str()));
    let itself = from.bucket == input.bucket && from.key == input.key;
    if itself && !new && !new_tags {
        return Err(faults::invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing \
             the object's \
             metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let tags = match new_tags {
        true => tag::of_header(input.tagging.as_deref())?,
        false => from.about.tags.clone(),
    };
    let about = match new {
        true => About { tags, kms, ..about!(input)? },
        false => About { tags, kms, ..from.about.clone() },
    };
    let algorithm = match &input.checksum_algorithm {
        Some(name) => checksum::named(name.as_str()).ok_or_else(|| {
            faults::invalid_request("Checksum algorithm provided is unsupported.")
        })?,
        None => from.checksum.algorithm,
    };
    let body = s3.contents.read(&from.pieces, 0, from.size).await?;
    let fresh = s3.contents.write(Some(body), Digests::new(algorithm)).await?;
    let copy = of_one(s3, input.bucket, input.key, &fresh, about);
    let made = s3.commit(copy, "CopyObject", move |_, before| {
        check_write(before, matches.as_ref(), none_match.as_ref())
    });
    let made = made.await?;
    fresh.keep();
    let sums = checksum::told(&made.checksum);
    Ok(dto::CopyObjectOutput {
        copy_object_result: Some(dto::CopyObjectResult {
            e_tag: Some(dto::ETag::Strong(made.etag.clone())),
            last_modified: Some(time(made.modified)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
        }),
        server_side_encryption: encryption(&made.about),
        version_id: version::told(s3, &made),
        copy_source_version_id: version::told(s3, &from),
        ..dto::CopyObjectOutput::default()
    })
}

/// `bytes=FIRST-LAST`: the only form that a part's source may have.
fn range(text: &str, size: u64) -> S3Result<(u64, u64)> {
    let numbers = text.strip_prefix("bytes=").and_then(|rest| rest.split_once('-'));
    let numbers = numbers.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last): (u64, u64) = numbers.ok_or_else(|| {
        faults::invalid(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first \
         and last are the zero-based offsets of the first and last bytes to copy",
        )
    })?;
    match first <= last && last < size {
        true => Ok((first, last + 1)),
        false => Err(faults::invalid(format!(
            "Range specified is not valid for source object of size: {size}"
        ))),
    }
}

pub(super) async fn part(
    s3: &Arc<S3>,
    request: S3Request<dto::UploadPartCopyInput>,
) -> S3Result<dto::UploadPartCopyOutput> {
    let input = request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
        copy_source_sse_customer_algorithm: why::KEYS, copy_source_sse_customer_key: why::KEYS,
        copy_source_sse_customer_key_md5: why::KEYS,
    });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let conditions = Conditions {
        matches: input.copy_source_if_match.clone(),
        none_match: input.copy_source_if_none_match.clone(),
        modified_since: input.copy_source_if_modified_since.clone(),
        unmodified_since: input.copy_source_if_unmodified_since.clone(),
    };
    let owner = input.expected_source_bucket_owner.as_deref();
    let from = source(s3, &input.copy_source, owner, &conditions)?;
    let (start, end) = match &input.copy_source_range {
        Some(text) => range(text, from.size)?,
        None => (0, from.size),
    };
    let upload = multipart::find(s3, &input.bucket, &input.key, &input.upload_id)?;
    let body = s3.contents.read(&from.pieces, start, end).await?;
    let fresh = s3.contents.write(Some(body), Digests::new(upload.algorithm)).await?;
    let part = multipart::keep(s3, &upload, input.part_number, fresh).await?;
    let sums = checksum::told(&part.checksum);
    Ok(dto::UploadPartCopyOutput {
        copy_part_result: Some(dto::CopyPartResult {
            e_tag: Some(dto::ETag::Strong(part.md5.clone())),
            last_modified: Some(time(part.modified)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
        }),
        server_side_encryption: encryption(&upload.about),
        copy_source_version_id: version::told(s3, &from),
        ..dto::UploadPartCopyOutput::default()
    })
}
