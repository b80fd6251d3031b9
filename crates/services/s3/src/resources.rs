//! S3's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_S3.html>

use crate::{
    S3,
    model::{Bucket as Record, PublicAccess, Versioning},
    ops::{bucket, configuration, lifecycle, notification, policy, tag, version},
};
use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use s3s::{S3Error, dto};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types(s3: &Arc<S3>) -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![Arc::new(Bucket(s3.clone())), Arc::new(Policy(s3.clone()))],
    }
}

/// An error as the engine tells it.
fn failed(error: S3Error) -> Failure {
    let code = error.code().as_str().to_owned();
    let status = error.status_code().map_or(400, |status| status.as_u16());
    let kind = match code.as_str() {
        "NoSuchBucket" | "NoSuchBucketPolicy" => "NotFound",
        "BucketAlreadyExists" | "BucketAlreadyOwnedByYou" => "AlreadyExists",
        "AccessDenied" => "AccessDenied",
        _ => "InvalidRequest",
    };
    let message = error.message().unwrap_or_default();
    let message = format!("{message} (Service: S3, Status Code: {status})");
    Failure { fault: code, code: kind, message }
}

/// Whether the stack's principal may do `action` to a bucket.
fn may(s3: &S3, request: &Request, action: &str, bucket: &str) -> Result<(), Failure> {
    s3.authorise(&request.context, action, Some(bucket), None).map_err(failed)
}

/// What is left over is not carried out.
fn nothing_else(properties: &Properties, known: &[&str]) -> Result<(), Failure> {
    match properties.0.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Failure::unsupported(name)),
        None => Ok(()),
    }
}

struct Bucket(Arc<S3>);

const KNOWN: [&str; 9] = [
    "BucketName",
    "AccessControl",
    "BucketEncryption",
    "LifecycleConfiguration",
    "NotificationConfiguration",
    "OwnershipControls",
    "PublicAccessBlockConfiguration",
    "Tags",
    "VersioningConfiguration",
];

fn number(json: Option<&Json>) -> Result<Option<i32>, Failure> {
    let Some(json) = json.filter(|json| !json.is_null()) else { return Ok(None) };
    let number = text(json).parse();
    number.map(Some).map_err(|_| Failure::invalid(format!("{json} is not a number")))
}

/// Whether a template lets EventBridge be told of a bucket's objects.
fn event_bridge(properties: &Properties) -> Result<bool, Failure> {
    let Some(wanted) = properties.get("NotificationConfiguration") else { return Ok(false) };
    let wanted = Properties::from(wanted.clone());
    nothing_else(&wanted, &["EventBridgeConfiguration"])?;
    let told = wanted.get("EventBridgeConfiguration").cloned().map(Properties::from);
    // Without a word it is on, as in CloudFormation's own description.
    Ok(told.is_some_and(|told| {
        told.get("EventBridgeEnabled").is_none() || told.on("EventBridgeEnabled")
    }))
}

/// A template's lifecycle rule as the operation takes it.
fn rule(json: &Json) -> Result<dto::LifecycleRule, Failure> {
    let given = Properties::from(json.clone());
    nothing_else(
        &given,
        &[
            "AbortIncompleteMultipartUpload",
            "ExpirationDate",
            "ExpirationInDays",
            "ExpiredObjectDeleteMarker",
            "Id",
            "NoncurrentVersionExpiration",
            "NoncurrentVersionExpirationInDays",
            "ObjectSizeGreaterThan",
            "ObjectSizeLessThan",
            "Prefix",
            "Status",
            "TagFilters",
        ],
    )?;
    let tags = given.get("TagFilters").and_then(Json::as_array).into_iter().flatten();
    let tags: Vec<dto::Tag> = tags
        .map(|tag| dto::Tag { key: Some(text(&tag["Key"])), value: Some(text(&tag["Value"])) })
        .collect();
    let noncurrent = given.get("NoncurrentVersionExpiration");
    let old_form = number(given.get("NoncurrentVersionExpirationInDays"))?;
    let days = number(noncurrent.and_then(|all| all.get("NoncurrentDays")))?.or(old_form);
    let abort =
        given.get("AbortIncompleteMultipartUpload").and_then(|all| all.get("DaysAfterInitiation"));
    let date = match given.text("ExpirationDate") {
        None => None,
        Some(date) => Some(
            dto::Timestamp::parse(dto::TimestampFormat::DateTime, &date)
                .map_err(|_| Failure::invalid(format!("ExpirationDate {date} is not a date")))?,
        ),
    };
    let expiration = dto::LifecycleExpiration {
        date,
        days: number(given.get("ExpirationInDays"))?,
        expired_object_delete_marker: Some(given.on("ExpiredObjectDeleteMarker")),
    };
    let size = |name: &str| number(given.get(name)).map(|size| size.map(i64::from));
    let both = dto::LifecycleRuleAndOperator {
        object_size_greater_than: size("ObjectSizeGreaterThan")?,
        object_size_less_than: size("ObjectSizeLessThan")?,
        prefix: given.text("Prefix"),
        tags: Some(tags),
    };
    Ok(dto::LifecycleRule {
        abort_incomplete_multipart_upload: number(abort)?
            .map(|days| dto::AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
        expiration: Some(expiration),
        filter: Some(dto::LifecycleRuleFilter { and: Some(both), ..Default::default() }),
        id: given.text("Id"),
        noncurrent_version_expiration: days.map(|days| dto::NoncurrentVersionExpiration {
            newer_noncurrent_versions: noncurrent
                .and_then(|all| number(all.get("NewerNoncurrentVersions")).ok().flatten()),
            noncurrent_days: Some(days),
        }),
        noncurrent_version_transitions: None,
        prefix: None,
        status: dto::ExpirationStatus::from(given.text("Status").unwrap_or_default()),
        transitions: None,
    })
}

/// Whether the encryption that is asked for is by `aws:kms`.
fn is_kms(properties: &Properties) -> Result<bool, Failure> {
    let Some(encryption) = properties.get("BucketEncryption") else { return Ok(false) };
    let rules = encryption["ServerSideEncryptionConfiguration"].as_array();
    let first = rules.and_then(|rules| rules.first()).unwrap_or(&Json::Null);
    let wanted = &first["ServerSideEncryptionByDefault"];
    if wanted.get("KMSMasterKeyID").is_some_and(|key| !key.is_null()) {
        return Err(Failure::unsupported("KMSMasterKeyID"));
    }
    if first.get("BucketKeyEnabled").is_some_and(|on| text(on) == "true") {
        return Err(Failure::unsupported("BucketKeyEnabled"));
    }
    match wanted["SSEAlgorithm"].as_str() {
        Some("AES256") => Ok(false),
        Some("aws:kms") => Ok(true),
        _ => Err(Failure::unsupported("SSEAlgorithm")),
    }
}

/// What is only one way here.
fn check(properties: &Properties) -> Result<(), Failure> {
    nothing_else(properties, &KNOWN)?;
    let control = properties.text("AccessControl");
    if control.is_some_and(|control| control != "Private") {
        return Err(Failure::unsupported("AccessControl"));
    }
    let ownership =
        properties.get("OwnershipControls").and_then(|all| all["Rules"][0].get("ObjectOwnership"));
    match ownership.is_some_and(|ownership| ownership != "BucketOwnerEnforced") {
        true => Err(Failure::unsupported("OwnershipControls")),
        false => Ok(()),
    }
}

fn public_access(json: &Json) -> PublicAccess {
    let on = |name: &str| json.get(name).is_some_and(|on| text(on) == "true");
    PublicAccess {
        block_acls: on("BlockPublicAcls"),
        ignore_acls: on("IgnorePublicAcls"),
        block_policy: on("BlockPublicPolicy"),
        restrict: on("RestrictPublicBuckets"),
    }
}

impl Bucket {
    /// Gives a bucket what the properties say, where they differ from `old`.
    async fn configure(
        &self,
        request: &Request,
        name: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let s3 = &self.0;
        let may = |action: &str| may(s3, request, action, name);
        if new.differ(old, &["NotificationConfiguration"]) {
            may("s3:PutBucketNotification")?;
            let told = event_bridge(new)?;
            notification::set(s3, name.to_owned(), told).await.map_err(failed)?;
        }
        if new.differ(old, &["VersioningConfiguration"]) {
            may("s3:PutBucketVersioning")?;
            let status = new.get("VersioningConfiguration").map(|all| text(&all["Status"]));
            let versioning = match status.as_deref() {
                Some("Enabled") => Versioning::Enabled,
                Some("Suspended") | None => Versioning::Suspended,
                Some(_) => return Err(Failure::invalid("The versioning status is not valid")),
            };
            version::set(s3, name.to_owned(), versioning).await.map_err(failed)?;
        }
        if new.differ(old, &["BucketEncryption"]) {
            may("s3:PutEncryptionConfiguration")?;
            let kms = is_kms(new)?;
            let changed =
                configuration::change(s3, name.to_owned(), move |bucket| bucket.kms = kms);
            changed.await.map_err(failed)?;
        }
        if new.differ(old, &["PublicAccessBlockConfiguration"]) {
            may("s3:PutBucketPublicAccessBlock")?;
            let access = new.get("PublicAccessBlockConfiguration").map(public_access);
            let changed = configuration::change(s3, name.to_owned(), move |bucket| {
                bucket.public_access = access
            });
            changed.await.map_err(failed)?;
        }
        if new.differ(old, &["LifecycleConfiguration"]) {
            may("s3:PutLifecycleConfiguration")?;
            let rules = new.get("LifecycleConfiguration").and_then(|all| all["Rules"].as_array());
            match rules {
                None => lifecycle::set(s3, name.to_owned(), Vec::new()).await.map_err(failed)?,
                Some(rules) => {
                    let rules: Result<Vec<_>, _> = rules.iter().map(rule).collect();
                    lifecycle::give(s3, name.to_owned(), rules?).await.map_err(failed)?;
                }
            }
        }
        if new.differ(old, &["Tags"]) {
            may("s3:PutBucketTagging")?;
            let tags = new.tags().into_iter().collect();
            tag::change_bucket(s3, name.to_owned(), tags).await.map_err(failed)?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Arc<Record>> {
        self.0.store.read().get::<Record>(name)
    }
}

#[async_trait]
impl ResourceType for Bucket {
    fn name(&self) -> &'static str {
        "AWS::S3::Bucket"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        check(&properties)?;
        is_kms(&properties)?;
        let name = properties.text("BucketName").unwrap_or_else(|| request.name(63).to_lowercase());
        may(&self.0, request, "s3:CreateBucket", &name)?;
        let there = self.find(&name).is_some_and(|bucket| bucket.account == request.account());
        if !(there && request.repeated) {
            let (account, region) = (request.account(), request.region());
            bucket::make(&self.0, account, region, &name).await.map_err(failed)?;
        }
        self.configure(request, &name, &Properties::default(), &properties).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(found) = self.find(id).filter(|found| found.account == request.account()) else {
            return Ok(State::Missing);
        };
        let region = &found.region;
        let all = json!({
            "Arn": format!("arn:aws:s3:::{id}"),
            "DomainName": format!("{id}.s3.amazonaws.com"),
            "DualStackDomainName": format!("{id}.s3.dualstack.{region}.amazonaws.com"),
            "RegionalDomainName": format!("{id}.s3.{region}.amazonaws.com"),
            "WebsiteURL": format!("http://{id}.s3-website-{region}.amazonaws.com"),
        });
        Ok(State::ready(all))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        check(&new)?;
        self.configure(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        may(&self.0, request, "s3:DeleteBucket", id)?;
        match bucket::destroy(&self.0, id.to_owned()).await.map_err(failed) {
            Err(failure) if failure.is_missing() => Ok(()),
            result => result,
        }
    }
}

struct Policy(Arc<S3>);

impl Policy {
    async fn put(
        &self,
        request: &Request,
        bucket: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let document = match properties.get("PolicyDocument") {
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        may(&self.0, request, "s3:PutBucketPolicy", bucket)?;
        policy::give(&self.0, &request.context, bucket.to_owned(), document).await.map_err(failed)
    }
}

#[async_trait]
impl ResourceType for Policy {
    fn name(&self) -> &'static str {
        "AWS::S3::BucketPolicy"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let bucket = properties.text("Bucket").unwrap_or_default();
        self.put(request, &bucket, &properties).await?;
        Ok(bucket)
    }

    async fn read(&self, _: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let bucket = self.0.store.read().get::<Record>(id);
        Ok(match bucket.is_some_and(|bucket| bucket.policy.is_some()) {
            true => State::ready(json!({})),
            false => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        self.put(request, id, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        may(&self.0, request, "s3:DeleteBucketPolicy", id)?;
        match policy::set(&self.0, id.to_owned(), None).await.map_err(failed) {
            Err(failure) if failure.is_missing() => Ok(()),
            result => result,
        }
    }
}
