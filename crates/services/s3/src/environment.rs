//! Objects that other services read as somebody: files that tasks take their environment from
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/use-environment-file.html>), sources, artifacts.

use crate::{S3, model::Object, ops};
use std::sync::Arc;
use wire::{Context, Principal};

/// The longest file, in bytes: what a process's environment can hold.
const LONGEST: u64 = 128 << 10;

impl S3 {
    /// The text of the object that an ARN names (`arn:aws:s3:::BUCKET/KEY`), read as `principal`. The error is
    /// for people.
    pub async fn text_for_task(
        &self,
        principal: &Principal,
        region: &str,
        arn: &str,
    ) -> Result<String, String> {
        let (bucket, _) = place(arn)?;
        let context =
            Context::internal(principal.clone(), region, self.world.now(), self.iam.clone());
        self.authorise(&context, "s3:GetBucketLocation", Some(bucket), None).map_err(told)?;
        self.text(&context, arn, LONGEST).await
    }

    /// The text of the object of an ARN, of at most `longest` bytes, if the principal of `context` may read it.
    pub async fn text(&self, context: &Context, arn: &str, longest: u64) -> Result<String, String> {
        let (bucket, key) = place(arn)?;
        let bytes = self.bytes(context, bucket, key, longest).await?;
        String::from_utf8(bytes).map_err(|_| format!("{arn} is not UTF-8"))
    }

    /// The object, of at most `longest` bytes, if the principal of `context` may read it. The error is for people.
    pub async fn bytes(
        &self,
        context: &Context,
        bucket: &str,
        key: &str,
        longest: u64,
    ) -> Result<Vec<u8>, String> {
        Ok(self.object(context, (bucket, key), None, longest).await?.1)
    }

    /// [`S3::bytes`] of a version of the object, or of the newest, and what else is known of it.
    pub async fn object(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        version: Option<&str>,
        longest: u64,
    ) -> Result<(Arc<Object>, Vec<u8>), String> {
        let action = match version {
            Some(_) => "s3:GetObjectVersion",
            None => "s3:GetObject",
        };
        self.authorise(context, action, Some(bucket), Some(key)).map_err(told)?;
        let found = ops::version::find(&self.store.read(), bucket, key, version, None);
        let object = found.map_err(told)?;
        if object.size > longest {
            return Err(format!("s3://{bucket}/{key} is longer than {longest} bytes"));
        }
        let bytes = self.contents.read_all(&object.pieces, object.size).await.map_err(told)?;
        Ok((object, bytes))
    }

    /// What names the newest version of an object, for those who follow it: its version id. None without an object that
    /// has one.
    pub fn tip(&self, bucket: &str, key: &str) -> Option<String> {
        self.store.read().get::<Object>(&Object::key_of(bucket, key))?.version.clone()
    }
}

/// The bucket and the key of an object's ARN.
fn place(arn: &str) -> Result<(&str, &str), String> {
    let place = arn.strip_prefix("arn:aws:s3:::").and_then(|place| place.split_once('/'));
    place.ok_or_else(|| format!("{arn} is not the ARN of an object"))
}

fn told(error: s3s::S3Error) -> String {
    format!("{}: {}", error.code().as_str(), error.message().unwrap_or_default())
}
