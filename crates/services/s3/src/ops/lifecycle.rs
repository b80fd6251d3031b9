//! What becomes of objects by and by.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html>

use super::{
    bucket::find,
    multipart,
    object::{Believed, millis, remove},
    refuse, tag, time, version,
};
use crate::{
    S3, faults,
    model::{Bucket, Object, Rule, Tags, Upload, Version},
};
use s3s::{S3Request, S3Result, dto};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Record;
use world::Timestamp;

/// The most rules of a bucket.
const MOST_RULES: usize = 1000;
const DAY: u64 = 86_400;
const ONE_CLASS: &str = "there is one storage class";

fn positive(days: Option<i32>, name: &str) -> S3Result<Option<i32>> {
    match days {
        Some(days) if days < 1 => Err(faults::invalid(format!(
            "'{name}' for a lifecycle rule must be a positive integer"
        ))),
        days => Ok(days),
    }
}

fn read(rule: dto::LifecycleRule, number: usize) -> S3Result<Rule> {
    refuse!(rule, { transitions: ONE_CLASS, noncurrent_version_transitions: ONE_CLASS });
    let expiration = rule.expiration.unwrap_or_default();
    let noncurrent = rule.noncurrent_version_expiration.unwrap_or_default();
    let filtered = rule.filter.is_some();
    let filter = rule.filter.unwrap_or_default();
    let both = filter.and.unwrap_or_default();
    let mut tags = tag::of_set(both.tags.unwrap_or_default())?;
    tags.extend(tag::of_set(filter.tag.into_iter().collect())?);
    let abort =
        rule.abort_incomplete_multipart_upload.and_then(|abort| abort.days_after_initiation);
    let read = Rule {
        id: rule.id.unwrap_or_else(|| format!("rule-{number}")),
        enabled: rule.status.as_str() == "Enabled",
        prefix: rule.prefix.or(filter.prefix).or(both.prefix).unwrap_or_default(),
        filtered,
        tags,
        larger: filter.object_size_greater_than.or(both.object_size_greater_than),
        smaller: filter.object_size_less_than.or(both.object_size_less_than),
        days: positive(expiration.days, "Days")?,
        date: expiration.date.as_ref().map(millis),
        markers: expiration.expired_object_delete_marker == Some(true),
        noncurrent_days: positive(noncurrent.noncurrent_days, "NoncurrentDays")?,
        noncurrent_kept: noncurrent.newer_noncurrent_versions,
        abort_days: positive(abort, "DaysAfterInitiation")?,
    };
    let nothing = read.days.is_none()
        && read.date.is_none()
        && !read.markers
        && read.noncurrent_days.is_none()
        && read.abort_days.is_none();
    if nothing {
        let message = "At least one action needs to be specified in a rule";
        return Err(faults::invalid_request(message));
    }
    if read.abort_days.is_some() && !read.tags.is_empty() {
        let message = "AbortIncompleteMultipartUpload cannot be specified with Tags";
        return Err(faults::invalid_request(message));
    }
    Ok(read)
}

pub(super) async fn put(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketLifecycleConfigurationInput>,
) -> S3Result<dto::PutBucketLifecycleConfigurationOutput> {
    let input = request.input;
    refuse!(input, { transition_default_minimum_object_size: ONE_CLASS });
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    let given = input.lifecycle_configuration.map(|configuration| configuration.rules);
    give(s3, input.bucket, given.unwrap_or_default()).await?;
    Ok(dto::PutBucketLifecycleConfigurationOutput::default())
}

/// Gives a bucket the rules of a request.
pub(crate) async fn give(s3: &S3, bucket: String, given: Vec<dto::LifecycleRule>) -> S3Result<()> {
    if given.is_empty() || given.len() > MOST_RULES {
        return Err(faults::malformed_xml());
    }
    let rules: S3Result<Vec<Rule>> =
        given.into_iter().enumerate().map(|(index, rule)| read(rule, index + 1)).collect();
    set(s3, bucket, rules?).await
}

/// Gives a bucket rules.
pub(crate) async fn set(s3: &S3, bucket: String, rules: Vec<Rule>) -> S3Result<()> {
    s3.write(move |tx| match tx.update::<Bucket>(&bucket, |bucket| bucket.lifecycle = rules) {
        true => Ok(()),
        false => Err(faults::no_bucket()),
    })
    .await
}

fn told_tags(tags: &Tags) -> Vec<dto::Tag> {
    tags.iter()
        .map(|(key, value)| dto::Tag { key: Some(key.clone()), value: Some(value.clone()) })
        .collect()
}

fn told(rule: &Rule) -> dto::LifecycleRule {
    let conditions = rule.tags.len()
        + usize::from(!rule.prefix.is_empty())
        + usize::from(rule.larger.is_some())
        + usize::from(rule.smaller.is_some());
    let prefix = Some(rule.prefix.clone()).filter(|prefix| !prefix.is_empty());
    let filter = match conditions > 1 {
        true => dto::LifecycleRuleFilter {
            and: Some(dto::LifecycleRuleAndOperator {
                object_size_greater_than: rule.larger,
                object_size_less_than: rule.smaller,
                prefix,
                tags: Some(told_tags(&rule.tags)).filter(|tags| !tags.is_empty()),
            }),
            ..dto::LifecycleRuleFilter::default()
        },
        false => dto::LifecycleRuleFilter {
            object_size_greater_than: rule.larger,
            object_size_less_than: rule.smaller,
            tag: told_tags(&rule.tags).pop(),
            prefix: (conditions == 0).then(String::new).or(prefix),
            ..dto::LifecycleRuleFilter::default()
        },
    };
    let expires = rule.days.is_some() || rule.date.is_some() || rule.markers;
    dto::LifecycleRule {
        abort_incomplete_multipart_upload: rule
            .abort_days
            .map(|days| dto::AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
        expiration: expires.then(|| dto::LifecycleExpiration {
            date: rule.date.map(time),
            days: rule.days,
            expired_object_delete_marker: rule.markers.then_some(true),
        }),
        id: Some(rule.id.clone()),
        noncurrent_version_expiration: rule.noncurrent_days.map(|days| {
            dto::NoncurrentVersionExpiration {
                newer_noncurrent_versions: rule.noncurrent_kept,
                noncurrent_days: Some(days),
            }
        }),
        noncurrent_version_transitions: None,
        prefix: (!rule.filtered).then(|| rule.prefix.clone()),
        filter: rule.filtered.then_some(filter),
        status: dto::ExpirationStatus::from_static(if rule.enabled {
            "Enabled"
        } else {
            "Disabled"
        }),
        transitions: None,
    }
}

pub(super) async fn get(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketLifecycleConfigurationInput>,
) -> S3Result<dto::GetBucketLifecycleConfigurationOutput> {
    let input = request.input;
    let found = find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    if found.lifecycle.is_empty() {
        return Err(faults::not_configured(
            "NoSuchLifecycleConfiguration",
            "lifecycle configuration",
        ));
    }
    Ok(dto::GetBucketLifecycleConfigurationOutput {
        rules: Some(found.lifecycle.iter().map(told).collect()),
        ..dto::GetBucketLifecycleConfigurationOutput::default()
    })
}

pub(super) async fn delete(
    s3: &Arc<S3>,
    request: S3Request<dto::DeleteBucketLifecycleInput>,
) -> S3Result<dto::DeleteBucketLifecycleOutput> {
    let input = request.input;
    find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    set(s3, input.bucket, Vec::new()).await?;
    Ok(dto::DeleteBucketLifecycleOutput::default())
}

/// Whether so many days are over: they end at midnight UTC.
fn is_over(since: Timestamp, days: i32, now: Timestamp) -> bool {
    let day = i64::try_from(DAY * 1000).unwrap_or(i64::MAX);
    let end = since + Duration::from_secs(DAY * u64::from(days.unsigned_abs()));
    let midnight = (end.millis() + day - 1).div_euclid(day) * day;
    now.millis() >= midnight
}

impl Rule {
    fn is_for(&self, object: &Object) -> bool {
        let size = i64::try_from(object.size).unwrap_or(i64::MAX);
        object.key.starts_with(&self.prefix)
            && self.tags.iter().all(|(key, value)| object.about.tags.get(key) == Some(value))
            && self.larger.is_none_or(|larger| size > larger)
            && self.smaller.is_none_or(|smaller| size < smaller)
    }

    fn expires(&self, object: &Object, now: Timestamp) -> bool {
        let over = self.days.is_some_and(|days| is_over(object.modified, days, now));
        (over || self.date.is_some_and(|date| now >= date)) && self.is_for(object)
    }
}

/// Deletes what the rules of all buckets say is over. What fails is tried again at the next time.
pub(crate) async fn follow(s3: &Arc<S3>) {
    let now = s3.world.now();
    let buckets: Vec<Arc<Bucket>> = s3.store.read().scan::<Bucket>().collect();
    for bucket in buckets {
        let rules: Vec<&Rule> = bucket.lifecycle.iter().filter(|rule| rule.enabled).collect();
        if rules.is_empty() {
            continue;
        }
        if let Err(error) = follow_one(s3, &bucket, &rules, now).await {
            tracing::warn!(bucket = bucket.name, %error, "a lifecycle rule could not be followed");
        }
    }
}

/// Why objects are deleted whose time is over.
const EXPIRED: &str = "Lifecycle Expiration";

async fn follow_one(
    s3: &Arc<S3>,
    bucket: &Bucket,
    rules: &[&Rule],
    now: Timestamp,
) -> S3Result<()> {
    let (snapshot, prefix) = (s3.store.read(), format!("{}/", bucket.name));
    for object in snapshot.scan_prefix::<Object>(&prefix) {
        if rules.iter().any(|rule| rule.expires(&object, now)) {
            let etag = dto::ETagCondition::ETag(dto::ETag::Strong(object.etag.clone()));
            let (name, key) = (bucket.name.clone(), object.key.clone());
            match remove(s3, name, key, None, (Believed::Tag(etag), EXPIRED)).await {
                // It was put anew or deleted in between.
                Err(error) if error.code().as_str() == "PreconditionFailed" => {}
                Err(error) if error.code().as_str() == "NoSuchKey" => {}
                result => {
                    result?;
                }
            }
        }
    }
    let mut by_key: BTreeMap<String, Vec<Arc<Version>>> = BTreeMap::new();
    for version in snapshot.scan_prefix::<Version>(&prefix) {
        by_key.entry(version.key.clone()).or_default().push(version);
    }
    for (key, versions) in by_key {
        for old in over(&snapshot, rules, &key, &versions, now) {
            let name = version::named(old.version.as_ref());
            let believed = (Believed::Anything, EXPIRED);
            remove(s3, bucket.name.clone(), key.clone(), Some(name), believed).await?;
        }
    }
    let uploads: Vec<Arc<Upload>> = snapshot.scan_prefix::<Upload>(&prefix).collect();
    for upload in uploads {
        let over = |rule: &&Rule| {
            let days = rule.abort_days.is_some_and(|days| is_over(upload.started, days, now));
            days && upload.key.starts_with(&rule.prefix)
        };
        if rules.iter().any(over) {
            let (record, id) = (upload.key(), upload.id.clone());
            let parts = s3.write(move |tx| multipart::forget(tx, &record, &id)).await?;
            s3.contents.discard(parts.into_iter().map(|part| part.piece).collect());
        }
    }
    Ok(())
}

/// The versions of a key of which the time is over.
fn over(
    snapshot: &store::Snapshot,
    rules: &[&Rule],
    key: &str,
    versions: &[Arc<Version>],
    now: Timestamp,
) -> Vec<Arc<Version>> {
    let Some(first) = versions.first() else { return Vec::new() };
    let current = snapshot.get::<Object>(&Object::key_of(&first.bucket, key)).is_some();
    let mut gone = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        // A marker that nothing has replaced is current, and stays until nothing is left before it.
        let is_current = index == 0 && !current && version.object.is_none();
        let newer = if current { index } else { index.saturating_sub(1) };
        let expired = |rule: &&&Rule| {
            let kept = rule.noncurrent_kept.and_then(|kept| usize::try_from(kept).ok());
            let applies = match &version.object {
                Some(object) => rule.is_for(object),
                None => key.starts_with(&rule.prefix) && rule.tags.is_empty(),
            };
            let days = rule.noncurrent_days.is_some_and(|days| is_over(version.since, days, now));
            days && applies && kept.is_none_or(|kept| newer >= kept)
        };
        let lonely =
            |rule: &&&Rule| rule.markers && versions.len() == 1 && key.starts_with(&rule.prefix);
        let matched = match is_current {
            true => rules.iter().any(|rule| lonely(&rule)),
            false => rules.iter().any(|rule| expired(&rule)),
        };
        if matched {
            gone.push(version.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{About, Algorithm, Checksum};
    use store::Store;
    use world::World;

    const DAY_MS: i64 = 86_400_000;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_millis(day * DAY_MS + 1000)
    }

    fn version(name: &str, day: i64, marker: bool) -> Arc<Version> {
        let object = Object {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            pieces: Vec::new(),
            size: 5,
            etag: String::new(),
            modified: at(0),
            checksum: Checksum {
                algorithm: Algorithm::Crc32,
                value: String::new(),
                composite: false,
            },
            about: About::default(),
            version: Some(name.to_owned()),
        };
        Arc::new(Version {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            version: Some(name.to_owned()),
            order: 0,
            since: at(day),
            object: (!marker).then_some(object),
        })
    }

    fn rule() -> Rule {
        let status = dto::ExpirationStatus::from_static("Enabled");
        let expiration = dto::LifecycleExpiration { days: Some(1), ..Default::default() };
        let given = dto::LifecycleRule {
            abort_incomplete_multipart_upload: None,
            expiration: Some(expiration),
            filter: None,
            id: None,
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: None,
            status,
            transitions: None,
        };
        read(given, 1).expect("it is a rule")
    }

    #[test]
    fn days_are_over_at_midnight() {
        assert!(!is_over(at(0), 1, Timestamp::from_millis(2 * DAY_MS - 1)));
        assert!(is_over(at(0), 1, Timestamp::from_millis(2 * DAY_MS)));
    }

    #[test]
    fn old_versions_go_and_lonely_markers() {
        let store = Store::in_memory(World::system());
        let gone = |rule: &Rule, versions: &[Arc<Version>], day: i64| -> Vec<String> {
            let all = over(&store.read(), &[rule], "k", versions, at(day));
            all.iter().filter_map(|version| version.version.clone()).collect()
        };
        let versions = [version("m", 9, true), version("2", 9, false), version("1", 5, false)];
        let mut old = Rule { days: None, noncurrent_days: Some(3), ..rule() };
        assert_eq!(gone(&old, &versions, 10), ["1"]);
        assert_eq!(gone(&old, &versions, 20), ["2", "1"], "the marker is current");
        old.noncurrent_kept = Some(1);
        assert_eq!(gone(&old, &versions, 20), ["1"]);
        old.larger = Some(5);
        assert_eq!(gone(&old, &versions, 20), Vec::<String>::new());
        let markers = Rule { days: None, markers: true, ..rule() };
        assert_eq!(gone(&markers, &versions, 20), Vec::<String>::new());
        assert_eq!(gone(&markers, &versions[..1], 20), ["m"]);
    }
}
