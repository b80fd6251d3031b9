//! What EventBridge is told of a bucket's objects.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>

use super::{bucket, configuration, refuse};
use crate::{
    S3,
    model::{Bucket, Object},
};
use events::Event;
use s3s::{S3Request, S3Result, dto};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use store::Tx;
use wire::Context;
use world::{Timestamp, World};

/// Why there are no others.
const OTHERS: &str =
    "notifications go to EventBridge only: there are no topics, queues and functions yet";

pub(super) async fn get(
    s3: &Arc<S3>,
    request: S3Request<dto::GetBucketNotificationConfigurationInput>,
) -> S3Result<dto::GetBucketNotificationConfigurationOutput> {
    let input = request.input;
    let owner = input.expected_bucket_owner.as_deref();
    let found = bucket::find(&s3.store.read(), &input.bucket, owner)?;
    let told = found.event_bridge.then(dto::EventBridgeConfiguration::default);
    Ok(dto::GetBucketNotificationConfigurationOutput {
        event_bridge_configuration: told,
        ..dto::GetBucketNotificationConfigurationOutput::default()
    })
}

pub(super) async fn put(
    s3: &Arc<S3>,
    request: S3Request<dto::PutBucketNotificationConfigurationInput>,
) -> S3Result<dto::PutBucketNotificationConfigurationOutput> {
    let input = request.input;
    let wanted = input.notification_configuration;
    refuse!(wanted, {
        lambda_function_configurations: OTHERS, queue_configurations: OTHERS, topic_configurations: OTHERS,
    });
    bucket::find(&s3.store.read(), &input.bucket, input.expected_bucket_owner.as_deref())?;
    set(s3, input.bucket, wanted.event_bridge_configuration.is_some()).await?;
    Ok(dto::PutBucketNotificationConfigurationOutput::default())
}

/// Whether EventBridge is told of a bucket's objects, from now on.
pub(crate) async fn set(s3: &S3, name: String, told: bool) -> S3Result<()> {
    configuration::change(s3, name, move |bucket| bucket.event_bridge = told).await
}

/// What happened to an object.
pub(crate) enum Happened<'a> {
    /// It was made.
    Created(&'a Object),
    /// It, or a version of it, is gone for good, or a marker says that it is deleted; the version's name.
    Deleted { marker: bool, version: Option<&'a str> },
}

/// Tells of an object, within the transaction that changes it. `reason` is the operation's name, or what else it was;
/// `asked` the request, if there was one.
pub(crate) fn tell(
    tx: &mut Tx,
    world: &World,
    bucket: &Bucket,
    key: &str,
    (happened, reason, asked): (Happened<'_>, &str, Option<Context>),
    now: Timestamp,
) {
    let realm = format!("{}/{}", bucket.account, bucket.region);
    if !bucket.event_bridge || !events::is_heeded(tx, &realm) {
        return;
    }
    // Later events of a key have greater ones.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let sequencer = format!("{:012X}{:08X}", now.millis(), LAST.fetch_add(1, Relaxed));
    let mut detail = json!({
        "version": "0", "bucket": {"name": bucket.name}, "object": {"key": key, "sequencer": sequencer},
        "reason": reason,
    });
    if let Some(asked) = asked {
        detail["request-id"] = json!(asked.request_id);
        detail["requester"] = json!(asked.principal.account);
        detail["source-ip-address"] = json!(asked.source_ip.to_string());
    }
    let (detail_type, version) = match happened {
        Happened::Created(object) => {
            detail["object"]["size"] = json!(object.size);
            detail["object"]["etag"] = json!(object.etag);
            ("Object Created", object.version.as_deref())
        }
        Happened::Deleted { marker, version } => {
            let kind = if marker { "Delete Marker Created" } else { "Permanently Deleted" };
            detail["deletion-type"] = json!(kind);
            ("Object Deleted", version)
        }
    };
    if let Some(version) = version {
        detail["object"]["version-id"] = json!(version);
    }
    let event = Event {
        id: world.uuid(),
        realm,
        source: "aws.s3".to_owned(),
        detail_type: detail_type.to_owned(),
        time: now,
        resources: vec![format!("arn:aws:s3:::{}", bucket.name)],
        detail,
    };
    events::tell(tx, world, &event);
}
