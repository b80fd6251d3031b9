//! Files that tasks take their environment from.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/use-environment-file.html>

use crate::{S3, model::Object};
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
        let place = arn.strip_prefix("arn:aws:s3:::").and_then(|place| place.split_once('/'));
        let (bucket, key) = place.ok_or_else(|| format!("{arn} is not the ARN of an object"))?;
        let now = self.world.now();
        let context = Context::internal(principal.clone(), region, now, self.iam.clone());
        let told = |error: s3s::S3Error| {
            format!("{}: {}", error.code().as_str(), error.message().unwrap_or_default())
        };
        self.authorise(&context, "s3:GetBucketLocation", Some(bucket), None).map_err(told)?;
        self.authorise(&context, "s3:GetObject", Some(bucket), Some(key)).map_err(told)?;
        let object = self.store.read().get::<Object>(&Object::key_of(bucket, key));
        let object = object.ok_or("NoSuchKey: The specified key does not exist.")?;
        if object.size > LONGEST {
            return Err(format!("{arn} is longer than {LONGEST} bytes"));
        }
        let bytes = self.contents.read_all(&object.pieces, object.size).await.map_err(told)?;
        String::from_utf8(bytes).map_err(|_| format!("{arn} is not UTF-8"))
    }
}
