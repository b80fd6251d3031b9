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
        self.authorise(context, "s3:GetObject", Some(bucket), Some(key)).map_err(told)?;
        let object = self.store.read().get::<Object>(&Object::key_of(bucket, key));
        let object = object.ok_or("NoSuchKey: The specified key does not exist.")?;
        if object.size > longest {
            return Err(format!("s3://{bucket}/{key} is longer than {longest} bytes"));
        }
        self.contents.read_all(&object.pieces, object.size).await.map_err(told)
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
