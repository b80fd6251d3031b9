//! Versions of objects.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html>

use super::{bucket, listing::encode, refuse, time, why};
use crate::{
    S3, checksum, faults,
    model::{Bucket, Object, Piece, Version, Versioning},
};
use hyper::{HeaderMap, header::HeaderValue};
use s3s::{S3Request, S3Result, dto};
use std::sync::Arc;
use store::{Record, Snapshot, Tx, View};
use world::{Timestamp, World};

/// How the version is called that objects have which were put without versions.
const NULL: &str = "null";

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/// A version's id, new.
pub(super) fn fresh(world: &World) -> String {
    world.text(32, LETTERS)
}

pub(super) fn named(version: Option<&String>) -> String {
    version.cloned().unwrap_or_else(|| NULL.to_owned())
}

/// The version as answers tell it: not at all in buckets that never had any.
pub(super) fn told(s3: &S3, object: &Object) -> Option<String> {
    let bucket = s3.store.read().get::<Bucket>(&object.bucket);
    let versioned = bucket.is_some_and(|bucket| bucket.versioning != Versioning::Never);
    versioned.then(|| named(object.version.as_ref()))
}

/// What was, of a key, the newest first.
fn history(view: &impl View, bucket: &str, key: &str) -> Vec<Arc<Version>> {
    view.records::<Version>(&Version::prefix_of(bucket, key))
}

fn check(wanted: &str) -> S3Result<()> {
    let well_formed = wanted.len() == 32 && wanted.bytes().all(|byte| LETTERS.contains(&byte));
    match well_formed || wanted == NULL {
        true => Ok(()),
        false => Err(faults::invalid("Invalid version id specified")),
    }
}

fn marked(mut error: s3s::S3Error, version: Option<&String>) -> s3s::S3Error {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(version) = HeaderValue::from_str(&named(version)) {
        headers.insert("x-amz-version-id", version);
    }
    error.set_headers(headers);
    error
}

/// The object, or a version of it, if it and its bucket are there.
pub(crate) fn find(
    snapshot: &Snapshot,
    bucket: &str,
    key: &str,
    wanted: Option<&str>,
    owner: Option<&str>,
) -> S3Result<Arc<Object>> {
    bucket::find(snapshot, bucket, owner)?;
    let current = snapshot.get::<Object>(&Object::key_of(bucket, key));
    let Some(wanted) = wanted else {
        return current.ok_or_else(|| match history(snapshot, bucket, key).first() {
            Some(marker) => marked(faults::no_key(), marker.version.as_ref()),
            None => faults::no_key(),
        });
    };
    check(wanted)?;
    if let Some(current) = current.filter(|object| named(object.version.as_ref()) == wanted) {
        return Ok(current);
    }
    let all = history(snapshot, bucket, key);
    let found = all.iter().find(|version| named(version.version.as_ref()) == wanted);
    match found.map(|version| (version, &version.object)) {
        Some((_, Some(object))) => Ok(Arc::new(object.clone())),
        Some((version, None)) => {
            let error = s3s::s3_error!(
                MethodNotAllowed,
                "The specified method is not allowed against this resource."
            );
            Err(marked(error, version.version.as_ref()))
        }
        None => Err(s3s::s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// Whether the newest version is the one that is named; none for nothing.
pub(crate) fn unchanged(there: Option<&Object>, known: Option<&str>) -> S3Result<()> {
    match there.map(Object::version_name) == known {
        true => Ok(()),
        false => Err(faults::precondition("If-Match")),
    }
}

/// Changes an object, or a version of it, if it is still there.
pub(super) fn change(tx: &mut Tx, found: &Object, change: impl FnOnce(&mut Object)) -> bool {
    let key = Object::key_of(&found.bucket, &found.key);
    if tx.get::<Object>(&key).is_some_and(|object| object.version == found.version) {
        return tx.update::<Object>(&key, change);
    }
    let all = history(tx, &found.bucket, &found.key);
    let Some(version) = all.iter().find(|version| version.version == found.version) else {
        return false;
    };
    tx.update::<Version>(&version.key(), |version| {
        if let Some(object) = &mut version.object {
            change(object);
        }
    })
}

/// Keeps what is not current any more, or a marker.
fn keep(
    tx: &mut Tx,
    (bucket, key): (&str, &str),
    version: Option<String>,
    object: Option<Object>,
    now: Timestamp,
) {
    let newest = history(tx, bucket, key).first().map_or(0, |version| version.order + 1);
    let order = newest.max(u64::try_from(now.millis()).unwrap_or(0));
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    tx.put(Version { bucket, key, version, order, since: now, object });
}

/// Forgets the version `null` of what was; answers its pieces.
fn forget_null(tx: &mut Tx, bucket: &str, key: &str) -> Vec<Piece> {
    let all = history(tx, bucket, key);
    let Some(null) = all.iter().find(|version| version.version.is_none()) else {
        return Vec::new();
    };
    tx.delete::<Version>(&null.key());
    null.object.as_ref().map_or_else(Vec::new, |object| object.pieces.clone())
}

/// Puts an object in place of what has its key. Answers it, and pieces that nothing needs any more.
pub(super) fn put(
    tx: &mut Tx,
    versioning: Versioning,
    mut object: Object,
    fresh: String,
    now: Timestamp,
) -> (Arc<Object>, Vec<Piece>) {
    let (bucket, key) = (object.bucket.clone(), object.key.clone());
    let before = tx.get::<Object>(&Object::key_of(&bucket, &key));
    object.version = (versioning == Versioning::Enabled).then_some(fresh);
    let mut unused = Vec::new();
    if versioning == Versioning::Suspended {
        unused = forget_null(tx, &bucket, &key);
    }
    match before {
        // The version `null` is replaced where the new one has that name, too.
        Some(before) if versioning == Versioning::Enabled || before.version.is_some() => {
            let version = before.version.clone();
            keep(tx, (&bucket, &key), version, Some(before.as_ref().clone()), now);
        }
        Some(before) => unused.extend(before.pieces.clone()),
        None => {}
    }
    let made = Arc::new(object.clone());
    tx.put(object);
    (made, unused)
}

/// What became of a deletion.
pub(crate) struct Removed {
    /// The version that was deleted, or that the marker has.
    pub(super) version: Option<String>,
    /// A marker was made or deleted.
    pub(super) marker: bool,
    /// Pieces that nothing needs any more.
    pub(super) unused: Vec<Piece>,
    /// Something is other than before.
    pub(super) changed: bool,
}

/// Deletes an object, or the `wanted` version of it.
pub(super) fn remove(
    tx: &mut Tx,
    versioning: Versioning,
    (bucket, key): (&str, &str),
    wanted: Option<String>,
    fresh: String,
    now: Timestamp,
) -> S3Result<Removed> {
    let record = Object::key_of(bucket, key);
    let current = tx.get::<Object>(&record);
    if let Some(wanted) = wanted {
        check(&wanted)?;
        return Ok(remove_version(tx, (bucket, key), current, wanted));
    }
    tx.delete::<Object>(&record);
    let pieces = |object: &Object| object.pieces.clone();
    if versioning == Versioning::Never {
        let unused = current.as_deref().map_or_else(Vec::new, pieces);
        let changed = current.is_some();
        return Ok(Removed { version: None, marker: false, unused, changed });
    }
    let mut unused = Vec::new();
    if versioning == Versioning::Suspended {
        unused = forget_null(tx, bucket, key);
    }
    match current {
        Some(object) if versioning == Versioning::Enabled || object.version.is_some() => {
            let version = object.version.clone();
            keep(tx, (bucket, key), version, Some(object.as_ref().clone()), now);
        }
        Some(object) => unused.extend(object.pieces.clone()),
        None => {}
    }
    let version = (versioning == Versioning::Enabled).then_some(fresh);
    keep(tx, (bucket, key), version.clone(), None, now);
    let version = Some(named(version.as_ref()));
    Ok(Removed { version, marker: true, unused, changed: true })
}

fn remove_version(
    tx: &mut Tx,
    (bucket, key): (&str, &str),
    current: Option<Arc<Object>>,
    wanted: String,
) -> Removed {
    let version = Some(wanted.clone());
    let mut removed = Removed { version, marker: false, unused: Vec::new(), changed: true };
    let is_current =
        current.as_ref().is_some_and(|object| named(object.version.as_ref()) == wanted);
    match &current {
        Some(object) if is_current => {
            tx.delete::<Object>(&object.key());
            removed.unused.clone_from(&object.pieces);
        }
        _ => {
            let all = history(tx, bucket, key);
            let found = all.iter().find(|version| named(version.version.as_ref()) == wanted);
            // What is not there is deleted already.
            let Some(found) = found else {
                removed.changed = false;
                return removed;
            };
            tx.delete::<Version>(&found.key());
            removed.marker = found.object.is_none();
            if let Some(object) = &found.object {
                removed.unused.clone_from(&object.pieces);
            }
        }
    }
    if current.is_none() || is_current {
        // What was before is the object again, unless it was deleted then.
        if let Some(newest) = history(tx, bucket, key).first()
            && let Some(object) = &newest.object
        {
            tx.delete::<Version>(&newest.key());
            tx.put(object.clone());
        }
    }
    removed
}

pub(super) async fn get_of_bucket(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketVersioningInput>,
) -> S3Result<dto::GetBucketVersioningOutput> {
    let input = request.input;
    let owner = input.expected_bucket_owner.as_deref();
    let found = bucket::find(&s3.store.read(), &input.bucket, owner)?;
    // Nothing is said of a bucket that never had versions.
    let status = match found.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(dto::BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(dto::BucketVersioningStatus::SUSPENDED),
    };
    Ok(dto::GetBucketVersioningOutput {
        status: status.map(dto::BucketVersioningStatus::from_static),
        ..dto::GetBucketVersioningOutput::default()
    })
}

pub(super) async fn put_of_bucket(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketVersioningInput>,
) -> S3Result<dto::PutBucketVersioningOutput> {
    let input = request.input;
    refuse!(input, { mfa: why::MFA });
    let wanted = input.versioning_configuration;
    if wanted.mfa_delete.as_ref().is_some_and(|delete| delete.as_str() != "Disabled") {
        return Err(faults::not_built("MfaDelete", why::MFA));
    }
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let versioning = match wanted.status.as_ref().map(|status| status.as_str()) {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => return Err(faults::malformed_xml()),
    };
    set(s3, input.bucket, versioning).await?;
    Ok(dto::PutBucketVersioningOutput::default())
}

/// Begins or ends keeping versions.
pub(crate) async fn set(s3: &S3, bucket: String, versioning: Versioning) -> S3Result<()> {
    s3.write(move |tx| {
        match tx.update::<Bucket>(&bucket, |bucket| bucket.versioning = versioning) {
            true => Ok(()),
            false => Err(faults::no_bucket()),
        }
    })
    .await
}

/// A version, or the object itself, in a listing.
struct Entry {
    key: String,
    version: Option<String>,
    modified: Timestamp,
    latest: bool,
    object: Option<Object>,
}

/// All versions of all keys from a key on, keys in order, the newest version of each first.
fn entries(
    snapshot: &Snapshot,
    bucket: &str,
    prefix: &str,
    from: &str,
) -> impl Iterator<Item = Entry> {
    let (begin, from) = (Object::key_of(bucket, prefix), Object::key_of(bucket, from));
    // What is scanned comes after `from`, which the versions of that key do, but not its object.
    let first = snapshot.get::<Object>(&from).filter(|object| object.key.starts_with(prefix));
    let mut objects =
        first.into_iter().chain(snapshot.scan_from::<Object>(&begin, &from)).peekable();
    let mut versions = snapshot.scan_from::<Version>(&begin, &from).peekable();
    let mut last = String::new();
    std::iter::from_fn(move || {
        let object_first = match (objects.peek(), versions.peek()) {
            (Some(object), Some(version)) => object.key <= version.key,
            (object, _) => object.is_some(),
        };
        let entry = if object_first {
            let object = objects.next()?.as_ref().clone();
            Entry {
                key: object.key.clone(),
                version: object.version.clone(),
                modified: object.modified,
                latest: true,
                object: Some(object),
            }
        } else {
            let version = versions.next()?.as_ref().clone();
            let modified = version.object.as_ref().map_or(version.since, |object| object.modified);
            let latest = version.key != last;
            Entry {
                key: version.key,
                version: version.version,
                modified,
                latest,
                object: version.object,
            }
        };
        last.clone_from(&entry.key);
        Some(entry)
    })
}

pub(super) async fn list(
    s3: &Arc<S3>,
    request: S3Request<dto::ListObjectVersionsInput>,
) -> S3Result<dto::ListObjectVersionsOutput> {
    let input = request.input;
    refuse!(input, { optional_object_attributes: "nothing is archived" });
    let snapshot = s3.store.read();
    let found = bucket::find(&snapshot, &input.bucket, input.expected_bucket_owner.as_deref())?;
    let encoding = input.encoding_type.as_ref();
    let most = super::listing::check(encoding, input.max_keys)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let (after, marker) =
        (input.key_marker.clone().unwrap_or_default(), input.version_id_marker.clone());
    let owner = bucket::owner(&found.account);
    let (mut versions, mut markers, mut prefixes) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let (mut next, mut passed) = (None, marker.is_none());
    let mut last = (String::new(), String::new());
    for entry in entries(&snapshot, &input.bucket, &prefix, &after) {
        let id = named(entry.version.as_ref());
        if entry.key == after && !after.is_empty() {
            let here = marker.as_ref() == Some(&id);
            let was = passed;
            passed |= here;
            if marker.is_none() || !was {
                continue;
            }
        }
        let rest = entry.key.get(prefix.len()..).unwrap_or_default();
        let end = rest.find(&delimiter).filter(|_| !delimiter.is_empty());
        let common = end.map(|end| entry.key[..prefix.len() + end + delimiter.len()].to_owned());
        if common.as_ref().is_some_and(|common| prefixes.last() == Some(common) || *common == after)
        {
            continue;
        }
        if versions.len() + markers.len() + prefixes.len() == most {
            next = Some(last).filter(|_| most > 0);
            break;
        }
        match (common, &entry.object) {
            (Some(common), _) => {
                last = (common.clone(), String::new());
                prefixes.push(common);
                continue;
            }
            (None, Some(object)) => versions.push(told_version(&entry, object, &owner, encoding)),
            (None, None) => markers.push(dto::DeleteMarkerEntry {
                is_latest: Some(entry.latest),
                key: Some(encode(&entry.key, encoding)),
                last_modified: Some(time(entry.modified)),
                owner: Some(owner.clone()),
                version_id: Some(id.clone()),
            }),
        }
        last = (entry.key, id);
    }
    let common =
        prefixes.iter().map(|prefix| dto::CommonPrefix { prefix: Some(encode(prefix, encoding)) });
    Ok(dto::ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(encode(&prefix, encoding)),
        delimiter: input.delimiter.as_deref().map(|delimiter| encode(delimiter, encoding)),
        max_keys: i32::try_from(most).ok(),
        is_truncated: Some(next.is_some()),
        key_marker: Some(encode(&after, encoding)),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        next_key_marker: next.as_ref().map(|(key, _)| encode(key, encoding)),
        next_version_id_marker: next
            .map(|(_, version)| version)
            .filter(|version| !version.is_empty()),
        common_prefixes: Some(common.collect::<Vec<_>>()).filter(|all| !all.is_empty()),
        versions: Some(versions).filter(|all| !all.is_empty()),
        delete_markers: Some(markers).filter(|all| !all.is_empty()),
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

fn told_version(
    entry: &Entry,
    object: &Object,
    owner: &dto::Owner,
    encoding: Option<&dto::EncodingType>,
) -> dto::ObjectVersion {
    let kind = if object.checksum.composite { "COMPOSITE" } else { "FULL_OBJECT" };
    dto::ObjectVersion {
        checksum_algorithm: Some(vec![checksum::name(object.checksum.algorithm)]),
        checksum_type: Some(dto::ChecksumType::from_static(kind)),
        e_tag: Some(dto::ETag::Strong(object.etag.clone())),
        is_latest: Some(entry.latest),
        key: Some(encode(&entry.key, encoding)),
        last_modified: Some(time(entry.modified)),
        owner: Some(owner.clone()),
        restore_status: None,
        size: i64::try_from(object.size).ok(),
        storage_class: Some(dto::ObjectVersionStorageClass::from_static("STANDARD")),
        version_id: Some(named(entry.version.as_ref())),
    }
}
