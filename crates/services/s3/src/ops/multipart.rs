//! Objects that are put in parts.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use super::{
    bucket, check_acl, check_storage_class,
    condition::check_write,
    encrypted, encryption,
    listing::encode,
    object::{Expected, about, hex},
    refuse, time, version, why,
};
use crate::{
    S3, checksum,
    checksum::Digests,
    content::Fresh,
    faults,
    model::{About, Algorithm, Object, Part, Piece, Upload},
};
use s3s::{S3Request, S3Result, crypto::Checksum as _, dto};
use std::sync::Arc;
use store::Record;

/// The most parts, and the least size of all but the last, in bytes.
const MOST_PARTS: i32 = 10_000;
const SMALLEST: u64 = 5 << 20;
/// The most that are listed at once.
const MOST_LISTED: i32 = 1000;

/// The upload, if it is there.
pub(super) fn find(s3: &S3, bucket: &str, key: &str, id: &str) -> S3Result<Arc<Upload>> {
    s3.store.read().get::<Upload>(&Upload::key_of(bucket, key, id)).ok_or_else(faults::no_upload)
}

pub(super) async fn create(
    s3: &Arc<S3>,
    request: S3Request<dto::CreateMultipartUploadInput>,
) -> S3Result<dto::CreateMultipartUploadOutput> {
    let (context, input) = (s3.context()?, request.input);
    refuse!(input, {
        grant_full_control: why::ACL, grant_read: why::ACL, grant_read_acp: why::ACL, grant_write_acp: why::ACL,
        object_lock_legal_hold_status: why::LOCK, object_lock_mode: why::LOCK, object_lock_retain_until_date: why::LOCK,
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
        ssekms_encryption_context: why::KEYS, ssekms_key_id: why::KEYS, bucket_key_enabled: why::KEYS,
        website_redirect_location: why::WEBSITE,
    });
    check_acl(input.acl.as_ref().map(|acl| acl.as_str()))?;
    check_storage_class(input.storage_class.as_ref())?;
    let owner = input.expected_bucket_owner.as_deref();
    let found = bucket::find(&s3.store.read(), &input.bucket, owner)?;
    let kms = encrypted(&found, input.server_side_encryption.as_ref())?;
    let unsupported = || faults::invalid_request("Checksum algorithm provided is unsupported.");
    let named = match &input.checksum_algorithm {
        Some(name) => Some(checksum::named(name.as_str()).ok_or_else(unsupported)?),
        None => None,
    };
    let algorithm = named.unwrap_or(Algorithm::Crc64Nvme);
    let composite = match input.checksum_type.as_ref().map(|kind| kind.as_str()) {
        Some("COMPOSITE") if algorithm != Algorithm::Crc64Nvme => true,
        Some("FULL_OBJECT") if checksum::combines(algorithm) => false,
        None => algorithm != Algorithm::Crc64Nvme,
        Some(kind) => {
            return Err(faults::invalid_request(format!(
                "The {kind} checksum type cannot be used with the {} checksum algorithm.",
                checksum::name(algorithm).as_str()
            )));
        }
    };
    let upload = Upload {
        bucket: input.bucket.clone(),
        key: input.key.clone(),
        id: s3.world.hex(64),
        started: context.now,
        initiator: context.principal.arn.clone(),
        algorithm,
        composite,
        about: About { kms, ..about!(input)? },
    };
    if !upload.about.tags.is_empty() {
        s3.authorise(&context, "s3:PutObjectTagging", Some(&input.bucket), Some(&input.key))?;
    }
    let (id, about) = (upload.id.clone(), upload.about.clone());
    s3.write(move |tx| {
        tx.get::<crate::model::Bucket>(&upload.bucket).ok_or_else(faults::no_bucket)?;
        tx.put(upload);
        Ok(())
    })
    .await?;
    let kind = if composite { "COMPOSITE" } else { "FULL_OBJECT" };
    Ok(dto::CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: named.map(checksum::name),
        checksum_type: named.map(|_| dto::ChecksumType::from_static(kind)),
        server_side_encryption: encryption(&about),
        ..dto::CreateMultipartUploadOutput::default()
    })
}

/// Makes a part of a content file, in place of the one that has its number.
pub(super) async fn keep(
    s3: &S3,
    upload: &Upload,
    number: i32,
    fresh: Fresh,
) -> S3Result<Arc<Part>> {
    if !(1..=MOST_PARTS).contains(&number) {
        return Err(faults::invalid(
            "Part number must be an integer between 1 and 10000, inclusive",
        ));
    }
    let part = Part {
        upload: upload.id.clone(),
        number,
        piece: fresh.piece.clone(),
        md5: hex(&fresh.sums.md5),
        modified: s3.world.now(),
        checksum: fresh.sums.checksum.clone(),
    };
    let (made, record) = (Arc::new(part.clone()), upload.key());
    let before: Option<Piece> = s3
        .write(move |tx| {
            tx.get::<Upload>(&record).ok_or_else(faults::no_upload)?;
            let before = tx.get::<Part>(&part.key()).map(|part| part.piece.clone());
            tx.put(part);
            Ok(before)
        })
        .await?;
    fresh.keep();
    s3.contents.discard(before.into_iter().collect());
    Ok(made)
}

pub(super) async fn upload(
    s3: &Arc<S3>,
    mut request: S3Request<dto::UploadPartInput>,
) -> S3Result<dto::UploadPartOutput> {
    let body = request.input.body.take();
    let input = &request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
    });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let upload = find(s3, &input.bucket, &input.key, &input.upload_id)?;
    let given = checksum::given!(input);
    let (md5, named) = (input.content_md5.clone(), input.checksum_algorithm.as_ref());
    let expected = Expected::read(&request, given, md5, named)?;
    if expected.stated().is_some_and(|stated| stated != upload.algorithm) {
        return Err(faults::invalid_request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            checksum::name(upload.algorithm).as_str().to_lowercase(),
            checksum::name(expected.algorithm()).as_str().to_lowercase()
        )));
    }
    let fresh = s3.contents.write(body, Digests::new(upload.algorithm)).await?;
    expected.check(&fresh.sums)?;
    let part = keep(s3, &upload, input.part_number, fresh).await?;
    let sums = checksum::told(&part.checksum);
    Ok(dto::UploadPartOutput {
        e_tag: Some(dto::ETag::Strong(part.md5.clone())),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        server_side_encryption: encryption(&upload.about),
        ..dto::UploadPartOutput::default()
    })
}

/// The parts that the client lists, if they are there and as it says.
fn chosen(s3: &S3, upload: &Upload, listed: Vec<dto::CompletedPart>) -> S3Result<Vec<Part>> {
    if listed.is_empty() {
        return Err(s3s::s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    let snapshot = s3.store.read();
    let (mut parts, mut last) = (Vec::<Part>::new(), 0);
    for wanted in listed {
        let number = wanted.part_number.ok_or_else(faults::invalid_part)?;
        if number <= last {
            return Err(faults::part_order());
        }
        last = number;
        let part = snapshot.get::<Part>(&Part::key_of(&upload.id, number));
        let part = part.ok_or_else(faults::invalid_part)?;
        let said = checksum::given!(wanted);
        let sum = checksum::of(&said, upload.algorithm);
        let same = wanted.e_tag.as_ref().is_some_and(|etag| etag.value() == part.md5);
        if !same || sum.is_some_and(|sum| sum != part.checksum.value) {
            return Err(faults::invalid_part());
        }
        if parts.last().is_some_and(|before| before.piece.size < SMALLEST) {
            return Err(faults::too_small());
        }
        parts.push(Part::clone(&part));
    }
    Ok(parts)
}

/// The entity tag of an object that was put in parts.
fn etag(parts: &[Part]) -> String {
    let mut md5 = s3s::crypto::Md5::new();
    for part in parts {
        let pairs = part.md5.as_bytes().chunks(2);
        let bytes =
            pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        md5.update(&bytes.collect::<Vec<u8>>());
    }
    format!("{}-{}", hex(&md5.finalize()), parts.len())
}

pub(super) async fn complete(
    s3: &Arc<S3>,
    request: S3Request<dto::CompleteMultipartUploadInput>,
) -> S3Result<dto::CompleteMultipartUploadOutput> {
    let input = request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
    });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let upload = find(s3, &input.bucket, &input.key, &input.upload_id)?;
    let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let parts = chosen(s3, &upload, listed)?;
    let size = parts.iter().map(|part| part.piece.size).sum();
    if input.mpu_object_size.is_some_and(|said| u64::try_from(said) != Ok(size)) {
        return Err(faults::invalid_request(
            "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
        ));
    }
    let sum = checksum::of_parts(&parts, upload.algorithm, upload.composite);
    let sum = sum.ok_or_else(faults::invalid_part)?;
    let said = checksum::given!(input);
    let plain = |text: &str| text.split('-').next().unwrap_or_default().to_owned();
    if checksum::of(&said, upload.algorithm).is_some_and(|said| plain(&said) != plain(&sum.value)) {
        return Err(faults::bad_digest(checksum::name(upload.algorithm).as_str()));
    }
    let object = Object {
        bucket: upload.bucket.clone(),
        key: upload.key.clone(),
        pieces: parts.iter().map(|part| part.piece.clone()).collect(),
        size,
        etag: etag(&parts),
        modified: s3.world.now(),
        checksum: sum,
        about: upload.about.clone(),
        version: None,
    };
    let (matches, none_match) = (input.if_match, input.if_none_match);
    let (record, id) = (upload.key(), upload.id.clone());
    let unused = Arc::new(std::sync::Mutex::new(Vec::new()));
    let left = unused.clone();
    let made = s3.commit(object, "CompleteMultipartUpload", move |tx, before| {
        check_write(before, matches.as_ref(), none_match.as_ref())?;
        let rest = forget(tx, &record, &id)?;
        // Parts may have been put anew since they were looked at.
        let still = |part: &Part| rest.iter().any(|known| known.piece == part.piece);
        if !parts.iter().all(still) {
            return Err(faults::invalid_part());
        }
        let used = |part: &&Part| !parts.iter().any(|known| known.piece == part.piece);
        let mut unused = unused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        unused.extend(rest.iter().filter(used).map(|part| part.piece.clone()));
        Ok(())
    });
    let made = made.await?;
    let left = std::mem::take(&mut *left.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    s3.contents.discard(left);
    let sums = checksum::told(&made.checksum);
    Ok(dto::CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", made.bucket, made.key)),
        bucket: Some(made.bucket.clone()),
        key: Some(made.key.clone()),
        e_tag: Some(dto::ETag::Strong(made.etag.clone())),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        server_side_encryption: encryption(&made.about),
        version_id: version::told(s3, &made),
        ..dto::CompleteMultipartUploadOutput::default()
    })
}

/// Forgets an upload and its parts; answers those.
pub(super) fn forget(tx: &mut store::Tx, record: &str, id: &str) -> S3Result<Vec<Part>> {
    if !tx.delete::<Upload>(record) {
        return Err(faults::no_upload());
    }
    let parts: Vec<Part> =
        tx.scan_prefix::<Part>(&format!("{id}/")).map(Arc::unwrap_or_clone).collect();
    for part in &parts {
        tx.delete::<Part>(&part.key());
    }
    Ok(parts)
}

pub(super) async fn abort(
    s3: &Arc<S3>,
    request: S3Request<dto::AbortMultipartUploadInput>,
) -> S3Result<dto::AbortMultipartUploadOutput> {
    let input = request.input;
    refuse!(input, { if_match_initiated_time: "there are no directory buckets" });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let record = Upload::key_of(&input.bucket, &input.key, &input.upload_id);
    let parts = s3.write(move |tx| forget(tx, &record, &input.upload_id)).await?;
    s3.contents.discard(parts.into_iter().map(|part| part.piece).collect());
    Ok(dto::AbortMultipartUploadOutput::default())
}

pub(super) async fn parts(
    s3: &Arc<S3>,
    request: S3Request<dto::ListPartsInput>,
) -> S3Result<dto::ListPartsOutput> {
    let input = request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
    });
    let snapshot = s3.store.read();
    let bucket = bucket::find(&snapshot, &input.bucket, input.expected_bucket_owner.as_deref())?;
    let upload = find(s3, &input.bucket, &input.key, &input.upload_id)?;
    let marker = input.part_number_marker.unwrap_or(0);
    let most =
        usize::try_from(input.max_parts.unwrap_or(MOST_LISTED).min(MOST_LISTED)).unwrap_or(0);
    let after = Part::key_of(&upload.id, marker);
    let prefix = format!("{}/", upload.id);
    let mut found: Vec<Arc<Part>> = snapshot.scan_from(&prefix, &after).take(most + 1).collect();
    let more = found.len() > most;
    found.truncate(most);
    let told = |part: &Arc<Part>| {
        let sums = checksum::told(&part.checksum);
        dto::Part {
            part_number: Some(part.number),
            size: i64::try_from(part.piece.size).ok(),
            e_tag: Some(dto::ETag::Strong(part.md5.clone())),
            last_modified: Some(time(part.modified)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
        }
    };
    Ok(dto::ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker),
        next_part_number_marker: found.last().map(|part| part.number),
        max_parts: i32::try_from(most).ok(),
        is_truncated: Some(more),
        parts: Some(found.iter().map(told).collect()),
        owner: Some(bucket::owner(&bucket.account)),
        initiator: Some(dto::Initiator { id: Some(upload.initiator.clone()), display_name: None }),
        storage_class: Some(dto::StorageClass::from_static("STANDARD")),
        checksum_algorithm: Some(checksum::name(upload.algorithm)),
        ..dto::ListPartsOutput::default()
    })
}

pub(super) async fn list(
    s3: &Arc<S3>,
    request: S3Request<dto::ListMultipartUploadsInput>,
) -> S3Result<dto::ListMultipartUploadsOutput> {
    let input = request.input;
    refuse!(input, { delimiter: "uploads are listed by key" });
    let snapshot = s3.store.read();
    let bucket = bucket::find(&snapshot, &input.bucket, input.expected_bucket_owner.as_deref())?;
    let prefix = format!("{}/{}", input.bucket, input.prefix.as_deref().unwrap_or_default());
    let marker = input.key_marker.clone().unwrap_or_default();
    let after = match &input.upload_id_marker {
        Some(id) => Upload::key_of(&input.bucket, &marker, id),
        // All uploads of that key are behind it.
        None if !marker.is_empty() => format!("{}/{marker}/{}", input.bucket, char::MAX),
        None => String::new(),
    };
    let max = input.max_uploads.unwrap_or(MOST_LISTED).min(MOST_LISTED);
    let most = usize::try_from(max).unwrap_or(0);
    let mut found: Vec<Arc<Upload>> = snapshot.scan_from(&prefix, &after).take(most + 1).collect();
    let more = found.len() > most;
    found.truncate(most);
    let encoding = input.encoding_type.as_ref();
    let told = |upload: &Arc<Upload>| dto::MultipartUpload {
        key: Some(encode(&upload.key, encoding)),
        upload_id: Some(upload.id.clone()),
        initiated: Some(time(upload.started)),
        owner: Some(bucket::owner(&bucket.account)),
        initiator: Some(dto::Initiator { id: Some(upload.initiator.clone()), display_name: None }),
        storage_class: Some(dto::StorageClass::from_static("STANDARD")),
        checksum_algorithm: Some(checksum::name(upload.algorithm)),
        checksum_type: None,
    };
    let last = found.last().filter(|_| more);
    Ok(dto::ListMultipartUploadsOutput {
        next_key_marker: last.map(|upload| encode(&upload.key, encoding)),
        next_upload_id_marker: last.map(|upload| upload.id.clone()),
        bucket: Some(input.bucket),
        prefix: input.prefix.as_deref().map(|prefix| encode(prefix, encoding)),
        key_marker: input.key_marker.as_deref().map(|marker| encode(marker, encoding)),
        encoding_type: input.encoding_type.clone(),
        upload_id_marker: input.upload_id_marker,
        max_uploads: i32::try_from(most).ok(),
        is_truncated: Some(more),
        uploads: Some(found.iter().map(told).collect()),
        ..dto::ListMultipartUploadsOutput::default()
    })
}
