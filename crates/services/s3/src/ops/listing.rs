//! Objects of a bucket, listed.

use super::{bucket, refuse, time};
use crate::{S3, checksum, faults, model::Object};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;
use store::Snapshot;

/// The most that are listed at once.
const MOST: i32 = 1000;
/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');
const RESTORE: &str = "nothing is archived";

/// A page of keys.
struct Listed {
    objects: Vec<Arc<Object>>,
    prefixes: Vec<String>,
    /// The last key or prefix that it holds, when there is more.
    next: Option<String>,
}

/// At most `most` keys and prefixes after `after`.
fn page(
    snapshot: &Snapshot,
    bucket: &str,
    prefix: &str,
    delimiter: &str,
    after: &str,
    most: usize,
) -> Listed {
    let mut listed = Listed { objects: Vec::new(), prefixes: Vec::new(), next: None };
    let begin = Object::key_of(bucket, prefix);
    let mut from = Object::key_of(bucket, after);
    let mut last = String::new();
    'keys: loop {
        for object in snapshot.scan_from::<Object>(&begin, &from) {
            let rest = object.key.get(prefix.len()..).unwrap_or_default();
            let end = rest.find(delimiter).filter(|_| !delimiter.is_empty());
            let common =
                end.map(|end| object.key[..prefix.len() + end + delimiter.len()].to_owned());
            // A prefix that the page before ended with.
            let known = common.as_deref() == Some(after);
            if !known && listed.objects.len() + listed.prefixes.len() == most {
                listed.next = Some(last).filter(|_| most > 0);
                return listed;
            }
            match common {
                None => {
                    last.clone_from(&object.key);
                    listed.objects.push(object);
                }
                Some(common) => {
                    // All keys under it are passed over at once.
                    from = Object::key_of(bucket, &format!("{common}{}", char::MAX));
                    if !known {
                        last.clone_from(&common);
                        listed.prefixes.push(common);
                    }
                    continue 'keys;
                }
            }
        }
        return listed;
    }
}

pub(super) fn encode(text: &str, encoding: Option<&dto::EncodingType>) -> String {
    match encoding {
        Some(_) => utf8_percent_encode(text, PLAIN).to_string(),
        None => text.to_owned(),
    }
}

pub(super) fn check(encoding: Option<&dto::EncodingType>, max: Option<i32>) -> S3Result<usize> {
    if encoding.is_some_and(|encoding| encoding.as_str() != "url") {
        return Err(faults::invalid("Invalid Encoding Method specified in Request"));
    }
    let max = max.unwrap_or(MOST).min(MOST);
    usize::try_from(max).map_err(|_| {
        faults::invalid("Argument maxKeys must be an integer between 0 and 2147483647")
    })
}

fn told(
    object: &Object,
    encoding: Option<&dto::EncodingType>,
    owner: Option<&dto::Owner>,
) -> dto::Object {
    let kind = if object.checksum.composite { "COMPOSITE" } else { "FULL_OBJECT" };
    dto::Object {
        key: Some(encode(&object.key, encoding)),
        e_tag: Some(dto::ETag::Strong(object.etag.clone())),
        last_modified: Some(time(object.modified)),
        size: i64::try_from(object.size).ok(),
        storage_class: Some(dto::ObjectStorageClass::from_static("STANDARD")),
        checksum_algorithm: Some(vec![checksum::name(object.checksum.algorithm)]),
        checksum_type: Some(dto::ChecksumType::from_static(kind)),
        owner: owner.cloned(),
        restore_status: None,
    }
}

fn prefixes(listed: &Listed, encoding: Option<&dto::EncodingType>) -> Vec<dto::CommonPrefix> {
    let told = |prefix: &String| dto::CommonPrefix { prefix: Some(encode(prefix, encoding)) };
    listed.prefixes.iter().map(told).collect()
}

pub(super) async fn second(
    s3: &Arc<S3>,
    request: S3Request<dto::ListObjectsV2Input>,
) -> S3Result<dto::ListObjectsV2Output> {
    let input = request.input;
    refuse!(input, { optional_object_attributes: RESTORE });
    let snapshot = s3.store.read();
    let bucket = bucket::find(&snapshot, &input.bucket, input.expected_bucket_owner.as_deref())?;
    let encoding = input.encoding_type.as_ref();
    let most = check(encoding, input.max_keys)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let after = match &input.continuation_token {
        Some(token) => token_text(token)?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let listed = page(&snapshot, &input.bucket, &prefix, &delimiter, &after, most);
    let owner = (input.fetch_owner == Some(true)).then(|| bucket::owner(&bucket.account));
    let common = prefixes(&listed, encoding);
    Ok(dto::ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encode(&prefix, encoding)),
        delimiter: input.delimiter.as_deref().map(|delimiter| encode(delimiter, encoding)),
        max_keys: i32::try_from(most).ok(),
        key_count: i32::try_from(listed.objects.len() + listed.prefixes.len()).ok(),
        is_truncated: Some(listed.next.is_some()),
        next_continuation_token: listed.next.as_deref().map(token),
        contents: Some(
            listed.objects.iter().map(|object| told(object, encoding, owner.as_ref())).collect(),
        ),
        common_prefixes: Some(common).filter(|all| !all.is_empty()),
        continuation_token: input.continuation_token,
        start_after: input.start_after.as_deref().map(|after| encode(after, encoding)),
        encoding_type: input.encoding_type.clone(),
        request_charged: None,
    })
}

pub(super) async fn first(
    s3: &Arc<S3>,
    request: S3Request<dto::ListObjectsInput>,
) -> S3Result<dto::ListObjectsOutput> {
    let input = request.input;
    refuse!(input, { optional_object_attributes: RESTORE });
    let snapshot = s3.store.read();
    let bucket = bucket::find(&snapshot, &input.bucket, input.expected_bucket_owner.as_deref())?;
    let encoding = input.encoding_type.as_ref();
    let most = check(encoding, input.max_keys)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let after = input.marker.clone().unwrap_or_default();
    let listed = page(&snapshot, &input.bucket, &prefix, &delimiter, &after, most);
    let owner = bucket::owner(&bucket.account);
    let common = prefixes(&listed, encoding);
    let next = listed.next.as_deref().filter(|_| input.delimiter.is_some());
    Ok(dto::ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encode(&prefix, encoding)),
        marker: Some(encode(&after, encoding)),
        delimiter: input.delimiter.as_deref().map(|delimiter| encode(delimiter, encoding)),
        max_keys: i32::try_from(most).ok(),
        is_truncated: Some(listed.next.is_some()),
        next_marker: next.map(|next| encode(next, encoding)),
        contents: Some(
            listed.objects.iter().map(|object| told(object, encoding, Some(&owner))).collect(),
        ),
        common_prefixes: Some(common).filter(|all| !all.is_empty()),
        encoding_type: input.encoding_type.clone(),
        request_charged: None,
    })
}

/// Tokens hold the last key; clients have no business with it.
fn token(key: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(key)
}

fn token_text(token: &str) -> S3Result<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| faults::invalid("The continuation token provided is incorrect"))
}
