//! Objects that AWS services put into people's buckets, as far as the bucket's policy lets them.

use crate::{
    S3,
    checksum::Digests,
    faults,
    model::{About, Algorithm, Bucket},
    ops::of_one,
};
use bytes::Bytes;
use s3s::dto::StreamingBlob;
use std::sync::Arc;
use wire::{Context, Principal};

impl S3 {
    /// Puts an object, in place of what has its key, as the first of `principals` that may: those are the names that
    /// policies know a service by. The error is for people.
    pub async fn deliver(
        self: &Arc<Self>,
        principals: &[Principal],
        region: &str,
        bucket: &str,
        key: &str,
        content: Vec<u8>,
    ) -> Result<(), String> {
        let told = |error: s3s::S3Error| {
            format!("{}: {}", error.code().as_str(), error.message().unwrap_or_default())
        };
        let found = self.store.read().get::<Bucket>(bucket);
        let found = found.ok_or_else(|| told(faults::no_bucket()))?;
        if found.region != region {
            return Err(format!("the bucket is in {}, and not in {region}", found.region));
        }
        let mut denied = Err("AccessDenied".to_owned());
        for principal in principals {
            let (now, identity) = (self.world.now(), self.iam.clone());
            let context = Context::internal(principal.clone(), region, now, identity);
            denied =
                self.authorise(&context, "s3:PutObject", Some(bucket), Some(key)).map_err(told);
            if denied.is_ok() {
                break;
            }
        }
        denied?;
        let body = StreamingBlob::from(s3s::Body::from(Bytes::from(content)));
        let digests = Digests::new(Algorithm::Crc64Nvme);
        let fresh = self.contents.write(Some(body), digests).await.map_err(told)?;
        let object = of_one(self, bucket.to_owned(), key.to_owned(), &fresh, About::default());
        self.commit(object, |_, _| Ok(())).await.map_err(told)?;
        fresh.keep();
        Ok(())
    }
}
