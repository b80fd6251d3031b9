//! Objects: put, got, deleted.

use super::{
    bucket, check_acl, check_storage_class,
    condition::{Conditions, check_write},
    encrypted, encryption,
    notification::{self, Happened},
    refuse, tag, time,
    version::{self, Removed},
    why,
};
use crate::{
    S3, checksum,
    checksum::{Digests, Sums},
    content::Fresh,
    door, faults,
    model::{About, Algorithm, Bucket, Object},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use s3s::{S3Error, S3Request, S3Result, TrailingHeaders, dto};
use std::sync::Arc;
use store::{DiskFault, Tx};

/// The most bytes of user metadata.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const LONGEST_METADATA: usize = 2048;

impl S3 {
    /// [`store::Store::write`], with this service's errors.
    pub(crate) async fn write<R, F>(&self, transaction: F) -> S3Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Tx) -> S3Result<R> + Send + 'static,
    {
        enum Failed {
            Fault(S3Error),
            Disk(DiskFault),
        }
        impl From<DiskFault> for Failed {
            fn from(fault: DiskFault) -> Self {
                Self::Disk(fault)
            }
        }
        let written = self.store.write(move |tx| transaction(tx).map_err(Failed::Fault)).await;
        written.map_err(|failed| match failed {
            Failed::Fault(fault) => fault,
            Failed::Disk(fault) => faults::disk(&fault),
        })
    }

    /// Makes an object of pieces, in place of what has its key. Answers the record.
    pub(crate) async fn commit(
        &self,
        object: Object,
        reason: &'static str,
        condition: impl FnOnce(&mut Tx, Option<&Object>) -> S3Result<()> + Send + 'static,
    ) -> S3Result<Arc<Object>> {
        let (id, now) = (version::fresh(&self.world), self.world.now());
        let (world, asked) = (self.world.clone(), door::context(self));
        let committed = self.write(move |tx| {
            let bucket = tx.get::<Bucket>(&object.bucket).ok_or_else(faults::no_bucket)?;
            let before = tx.get::<Object>(&Object::key_of(&object.bucket, &object.key));
            condition(tx, before.as_deref())?;
            let (made, unused) = version::put(tx, bucket.versioning, object, id, now);
            let told = (Happened::Created(&made), reason, asked);
            notification::tell(tx, &world, &bucket, &made.key, told, now);
            Ok((made, unused))
        });
        let (made, unused) = committed.await?;
        self.contents.discard(unused);
        Ok(made)
    }
}

/// The checksum that a client says, now or after the body.
pub(super) struct Expected {
    given: dto::Checksum,
    md5: Option<String>,
    named: Option<Algorithm>,
    trailing: Option<(Algorithm, TrailingHeaders)>,
}

impl Expected {
    pub(super) fn read<T>(
        request: &S3Request<T>,
        given: dto::Checksum,
        md5: Option<String>,
        named: Option<&dto::ChecksumAlgorithm>,
    ) -> S3Result<Self> {
        let header = request.headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        let algorithm = header
            .and_then(|name| {
                name.trim().to_ascii_lowercase().strip_prefix("x-amz-checksum-").map(str::to_owned)
            })
            .and_then(|name| checksum::named(&name));
        let trailing = algorithm.zip(request.trailing_headers.clone());
        let named = match named {
            None => None,
            Some(name) => Some(checksum::named(name.as_str()).ok_or_else(|| {
                faults::invalid_request("Checksum algorithm provided is unsupported.")
            })?),
        };
        Ok(Self { given, md5, named, trailing })
    }

    /// What is to be reckoned: what the client says or names, or S3's own.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.stated().or(self.named).unwrap_or(Algorithm::Crc64Nvme)
    }

    /// The algorithm of the checksum that the client says.
    pub(super) fn stated(&self) -> Option<Algorithm> {
        const ALL: [Algorithm; 5] = [
            Algorithm::Crc32,
            Algorithm::Crc32c,
            Algorithm::Crc64Nvme,
            Algorithm::Sha1,
            Algorithm::Sha256,
        ];
        let given = ALL.into_iter().find(|each| checksum::of(&self.given, *each).is_some());
        given.or(self.trailing.as_ref().map(|(algorithm, _)| *algorithm))
    }

    /// Whether the body is what the client says that it is.
    pub(super) fn check(&self, sums: &Sums) -> S3Result<()> {
        let algorithm = sums.checksum.algorithm;
        let trailing = self.trailing.as_ref().and_then(|(_, headers)| {
            let name =
                format!("x-amz-checksum-{}", checksum::name(algorithm).as_str().to_lowercase());
            headers.read(|all| Some(all.get(&name)?.to_str().ok()?.to_owned())).flatten()
        });
        let said = checksum::of(&self.given, algorithm).or(trailing);
        if said.is_some_and(|said| said != sums.checksum.value) {
            return Err(faults::bad_digest(checksum::name(algorithm).as_str()));
        }
        let md5 = self.md5.as_ref().map(|said| STANDARD.decode(said));
        match md5 {
            None => Ok(()),
            Some(Ok(said)) if said.len() == 16 => match said == sums.md5 {
                true => Ok(()),
                false => Err(faults::bad_digest("Content-MD5")),
            },
            Some(_) => {
                Err(s3s::s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
            }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The members of a request that tell about the content.
macro_rules! about {
    ($input:expr) => {
        $crate::ops::object::about_of(
            [
                &$input.content_type,
                &$input.content_encoding,
                &$input.content_language,
                &$input.content_disposition,
                &$input.cache_control,
            ],
            $input.expires.as_ref(),
            $input.metadata.as_ref(),
            $input.tagging.as_deref(),
        )
    };
}
pub(super) use about;

pub(super) fn about_of(
    [content_type, encoding, language, disposition, cache_control]: [&Option<String>; 5],
    expires: Option<&dto::Timestamp>,
    metadata: Option<&dto::Metadata>,
    tags: Option<&str>,
) -> S3Result<About> {
    let metadata: std::collections::BTreeMap<String, String> =
        metadata.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let length: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if length > LONGEST_METADATA {
        return Err(s3s::s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    // What signed chunks are framed by is not the content's own encoding.
    let encoding = encoding.as_deref().map(|encoding| {
        let kept = encoding.split(',').map(str::trim).filter(|part| *part != "aws-chunked");
        kept.collect::<Vec<_>>().join(",")
    });
    Ok(About {
        content_type: content_type.clone(),
        content_encoding: encoding.filter(|encoding| !encoding.is_empty()),
        content_language: language.clone(),
        content_disposition: disposition.clone(),
        cache_control: cache_control.clone(),
        expires: expires.map(millis),
        metadata,
        tags: tag::of_header(tags)?,
        kms: false,
    })
}

pub(super) fn millis(at: &dto::Timestamp) -> world::Timestamp {
    let mut text = Vec::new();
    let formatted = at.format(dto::TimestampFormat::DateTime, &mut text);
    let text = formatted.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default();
    world::Timestamp::parse_rfc3339(&text).unwrap_or(world::Timestamp::from_millis(0))
}

pub(super) async fn put(
    s3: &Arc<S3>,
    mut request: S3Request<dto::PutObjectInput>,
) -> S3Result<dto::PutObjectOutput> {
    let body = request.input.body.take();
    let input = &request.input;
    refuse!(input, {
        grant_full_control: why::ACL, grant_read: why::ACL, grant_read_acp: why::ACL, grant_write_acp: why::ACL,
        object_lock_legal_hold_status: why::LOCK, object_lock_mode: why::LOCK, object_lock_retain_until_date: why::LOCK,
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
        ssekms_encryption_context: why::KEYS, ssekms_key_id: why::KEYS, bucket_key_enabled: why::KEYS,
        website_redirect_location: why::WEBSITE, write_offset_bytes: "there are no directory buckets",
    });
    check_acl(input.acl.as_ref().map(|acl| acl.as_str()))?;
    check_storage_class(input.storage_class.as_ref())?;
    let owner = input.expected_bucket_owner.as_deref();
    let found = bucket::find(&s3.store.read(), &input.bucket, owner)?;
    let kms = encrypted(&found, input.server_side_encryption.as_ref())?;
    if input.content_length.is_some_and(|length| length.unsigned_abs() > crate::content::LARGEST) {
        return Err(faults::too_large());
    }
    let about = About { kms, ..about!(input)? };
    if !about.tags.is_empty() {
        s3.authorise(&s3.context()?, "s3:PutObjectTagging", Some(&input.bucket), Some(&input.key))?;
    }
    let given = checksum::given!(input);
    let (md5, named) = (input.content_md5.clone(), input.checksum_algorithm.as_ref());
    let expected = Expected::read(&request, given, md5, named)?;
    let fresh = s3.contents.write(body, Digests::new(expected.algorithm())).await?;
    expected.check(&fresh.sums)?;
    let (bucket, key) = (input.bucket.clone(), input.key.clone());
    let (matches, none_match) = (input.if_match.clone(), input.if_none_match.clone());
    let object = of_one(s3, bucket, key, &fresh, about);
    let made = s3.commit(object, "PutObject", move |_, before| {
        check_write(before, matches.as_ref(), none_match.as_ref())
    });
    let made = made.await?;
    fresh.keep();
    let sums = checksum::told(&made.checksum);
    Ok(dto::PutObjectOutput {
        e_tag: Some(dto::ETag::Strong(made.etag.clone())),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        server_side_encryption: encryption(&made.about),
        version_id: version::told(s3, &made),
        ..dto::PutObjectOutput::default()
    })
}

/// An object that was put at once.
pub(crate) fn of_one(s3: &S3, bucket: String, key: String, fresh: &Fresh, about: About) -> Object {
    Object {
        bucket,
        key,
        size: fresh.piece.size,
        pieces: vec![fresh.piece.clone()],
        etag: hex(&fresh.sums.md5),
        modified: s3.world.now(),
        checksum: fresh.sums.checksum.clone(),
        about,
        version: None,
    }
}

/// The bytes that are asked for, from and to; and whether that is said to be a part.
fn span(
    object: &Object,
    range: Option<&dto::Range>,
    part: Option<i32>,
) -> S3Result<(u64, u64, bool)> {
    match (range, part) {
        (Some(_), Some(_)) => Err(faults::invalid_request(
            "Cannot specify both Range header and partNumber query parameter",
        )),
        (Some(range), None) => {
            let found = range.check(object.size)?;
            Ok((found.start, found.end, true))
        }
        (None, None) => Ok((0, object.size, false)),
        (None, Some(part)) => {
            let index = usize::try_from(part).ok().and_then(|part| part.checked_sub(1));
            let piece =
                index.and_then(|index| object.pieces.get(index)).ok_or_else(faults::no_part)?;
            let before = object.pieces.iter().take(index.unwrap_or(0)).map(|piece| piece.size);
            let start: u64 = before.sum();
            Ok((start, start + piece.size, true))
        }
    }
}

pub(super) async fn get(
    s3: &Arc<S3>,
    request: S3Request<dto::GetObjectInput>,
) -> S3Result<dto::GetObjectOutput> {
    let input = request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
    });
    let (owner, wanted) = (input.expected_bucket_owner.as_deref(), input.version_id.as_deref());
    let object = version::find(&s3.store.read(), &input.bucket, &input.key, wanted, owner)?;
    let conditions = Conditions {
        matches: input.if_match,
        none_match: input.if_none_match,
        modified_since: input.if_modified_since,
        unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object, true)?;
    let (start, end, partial) = span(&object, input.range.as_ref(), input.part_number)?;
    let body = s3.contents.read(&object.pieces, start, end).await?;
    let about = &object.about;
    let wanted = input.checksum_mode.is_some() && !partial;
    let sums = if wanted { checksum::told(&object.checksum) } else { dto::Checksum::default() };
    Ok(dto::GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(body),
        content_length: i64::try_from(end - start).ok(),
        content_range: partial
            .then(|| format!("bytes {start}-{}/{}", end.saturating_sub(1), object.size)),
        content_type: content_type(about),
        content_encoding: about.content_encoding.clone(),
        content_language: about.content_language.clone(),
        content_disposition: about.content_disposition.clone(),
        cache_control: about.cache_control.clone(),
        expires: about.expires.map(time),
        metadata: metadata(about),
        e_tag: Some(dto::ETag::Strong(object.etag.clone())),
        last_modified: Some(time(object.modified)),
        tag_count: i32::try_from(about.tags.len()).ok().filter(|count| *count > 0),
        parts_count: input.part_number.and_then(|_| parts_count(&object)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        server_side_encryption: encryption(&object.about),
        version_id: version::told(s3, &object),
        ..dto::GetObjectOutput::default()
    })
}

fn content_type(about: &About) -> Option<String> {
    Some(about.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()))
}

fn metadata(about: &About) -> Option<dto::Metadata> {
    Some(about.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn parts_count(object: &Object) -> Option<i32> {
    object.is_multipart().then(|| i32::try_from(object.pieces.len()).ok()).flatten()
}

pub(super) async fn head(
    s3: &Arc<S3>,
    request: S3Request<dto::HeadObjectInput>,
) -> S3Result<dto::HeadObjectOutput> {
    let input = request.input;
    refuse!(input, {
        sse_customer_algorithm: why::KEYS, sse_customer_key: why::KEYS, sse_customer_key_md5: why::KEYS,
    });
    let (owner, wanted) = (input.expected_bucket_owner.as_deref(), input.version_id.as_deref());
    let object = version::find(&s3.store.read(), &input.bucket, &input.key, wanted, owner)?;
    let conditions = Conditions {
        matches: input.if_match,
        none_match: input.if_none_match,
        modified_since: input.if_modified_since,
        unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object, true)?;
    let (start, end, partial) = span(&object, input.range.as_ref(), input.part_number)?;
    let about = &object.about;
    let wanted = input.checksum_mode.is_some() && !partial;
    let sums = if wanted { checksum::told(&object.checksum) } else { dto::Checksum::default() };
    let or = |asked: Option<String>, own: &Option<String>| asked.or_else(|| own.clone());
    Ok(dto::HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(end - start).ok(),
        content_range: partial
            .then(|| format!("bytes {start}-{}/{}", end.saturating_sub(1), object.size)),
        content_type: input.response_content_type.or_else(|| content_type(about)),
        content_encoding: or(input.response_content_encoding, &about.content_encoding),
        content_language: or(input.response_content_language, &about.content_language),
        content_disposition: or(input.response_content_disposition, &about.content_disposition),
        cache_control: or(input.response_cache_control, &about.cache_control),
        expires: input.response_expires.or_else(|| about.expires.map(time)),
        metadata: metadata(about),
        e_tag: Some(dto::ETag::Strong(object.etag.clone())),
        last_modified: Some(time(object.modified)),
        parts_count: input.part_number.and_then(|_| parts_count(&object)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        server_side_encryption: encryption(&object.about),
        version_id: version::told(s3, &object),
        ..dto::HeadObjectOutput::default()
    })
}

/// Why objects are deleted that somebody deletes.
const DELETED: &str = "DeleteObject";

/// What an object has to be that is deleted.
pub(crate) enum Believed {
    /// Whatever it is.
    Anything,
    /// What this condition is for.
    Tag(dto::ETagCondition),
    /// This version.
    Version(String),
}

impl Believed {
    pub(super) fn tag(condition: Option<dto::ETagCondition>) -> Self {
        condition.map_or(Self::Anything, Self::Tag)
    }

    fn check(&self, there: Option<&Object>) -> S3Result<()> {
        match self {
            Self::Anything => Ok(()),
            Self::Tag(condition) => check_write(there, Some(condition), None),
            Self::Version(version) => version::unchanged(there, Some(version)),
        }
    }
}

/// Deletes an object, if it is there and is what the client believes it to be, or a version of it.
pub(crate) async fn remove(
    s3: &S3,
    bucket: String,
    key: String,
    wanted: Option<String>,
    (believed, reason): (Believed, &'static str),
) -> S3Result<Removed> {
    let (fresh, now) = (version::fresh(&s3.world), s3.world.now());
    let (world, asked) = (s3.world.clone(), door::context(s3));
    let removed = s3.write(move |tx| {
        let found = tx.get::<Bucket>(&bucket).ok_or_else(faults::no_bucket)?;
        believed.check(tx.get::<Object>(&Object::key_of(&bucket, &key)).as_deref())?;
        let of_version = wanted.is_some();
        let removed = version::remove(tx, found.versioning, (&bucket, &key), wanted, fresh, now)?;
        let marker = removed.marker && !of_version;
        // What was not there is not gone now.
        if removed.changed {
            let happened = Happened::Deleted { marker, version: removed.version.as_deref() };
            notification::tell(tx, &world, &found, &key, (happened, reason, asked), now);
        }
        Ok(removed)
    });
    let mut removed = removed.await?;
    s3.contents.discard(std::mem::take(&mut removed.unused));
    Ok(removed)
}

pub(super) async fn delete(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteObjectInput>,
) -> S3Result<dto::DeleteObjectOutput> {
    let input = request.input;
    refuse!(input, {
        mfa: why::MFA, bypass_governance_retention: why::LOCK,
        if_match_last_modified_time: "there are no directory buckets", if_match_size: "there are no directory buckets",
    });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let believed = (Believed::tag(input.if_match), DELETED);
    let removed = remove(s3, input.bucket, input.key, input.version_id, believed).await?;
    Ok(dto::DeleteObjectOutput {
        delete_marker: removed.marker.then_some(true),
        version_id: removed.version,
        ..dto::DeleteObjectOutput::default()
    })
}

/// The most keys of one DeleteObjects.
const MOST_DELETED: usize = 1000;

pub(super) async fn delete_many(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteObjectsInput>,
) -> S3Result<dto::DeleteObjectsOutput> {
    let (context, input) = (s3.context()?, request.input);
    refuse!(input, { mfa: why::MFA, bypass_governance_retention: why::LOCK });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let quiet = input.delete.quiet == Some(true);
    if input.delete.objects.is_empty() || input.delete.objects.len() > MOST_DELETED {
        return Err(faults::malformed_xml());
    }
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for wanted in input.delete.objects {
        let one = async {
            refuse!(wanted, {
                last_modified_time: "there are no directory buckets", size: "there are no directory buckets",
            });
            let action = match wanted.version_id {
                Some(_) => "s3:DeleteObjectVersion",
                None => "s3:DeleteObject",
            };
            s3.authorise(&context, action, Some(&input.bucket), Some(&wanted.key))?;
            let believed = Believed::tag(wanted.e_tag.clone().map(dto::ETagCondition::ETag));
            let (bucket, key) = (input.bucket.clone(), wanted.key.clone());
            remove(s3, bucket, key, wanted.version_id.clone(), (believed, DELETED)).await
        };
        match one.await {
            Ok(_) if quiet => {}
            Ok(removed) => deleted.push(dto::DeletedObject {
                key: Some(wanted.key),
                delete_marker: removed.marker.then_some(true),
                delete_marker_version_id: removed.version.filter(|_| removed.marker),
                version_id: wanted.version_id,
            }),
            Err(error) => errors.push(dto::Error {
                code: Some(error.code().as_str().to_owned()),
                message: error.message().map(str::to_owned),
                key: Some(wanted.key),
                version_id: wanted.version_id,
            }),
        }
    }
    Ok(dto::DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors).filter(|errors| !errors.is_empty()),
        request_charged: None,
    })
}
