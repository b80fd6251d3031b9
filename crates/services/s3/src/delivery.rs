//! Objects that AWS services put into people's buckets, as far as the bucket's policy lets them.

use crate::{
    S3,
    checksum::Digests,
    faults,
    model::{About, Algorithm, Bucket},
    ops::of_one,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use s3s::dto::StreamingBlob;
use std::{io, path::Path, sync::Arc};
use tokio::{fs::File, io::AsyncReadExt};
use wire::{Context, Principal};

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 256 << 10;

/// What is in a file.
pub(crate) async fn body(file: &Path) -> io::Result<StreamingBlob> {
    let pieces = try_unfold(File::open(file).await?, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((read > 0).then(|| (piece.freeze(), file)))
    });
    Ok(StreamingBlob::wrap(pieces))
}

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
        let body = StreamingBlob::from(s3s::Body::from(Bytes::from(content)));
        self.deliver_body(principals, region, (bucket, key), body).await
    }

    /// [`S3::deliver`] of what is in a file.
    pub async fn deliver_file(
        self: &Arc<Self>,
        principals: &[Principal],
        region: &str,
        bucket: &str,
        key: &str,
        file: &Path,
    ) -> Result<(), String> {
        let body = body(file).await.map_err(|error| error.to_string())?;
        self.deliver_body(principals, region, (bucket, key), body).await
    }

    async fn deliver_body(
        self: &Arc<Self>,
        principals: &[Principal],
        region: &str,
        (bucket, key): (&str, &str),
        body: StreamingBlob,
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
        let digests = Digests::new(Algorithm::Crc64Nvme);
        let fresh = self.contents.write(Some(body), digests).await.map_err(told)?;
        let object = of_one(self, bucket.to_owned(), key.to_owned(), &fresh, About::default());
        self.commit(object, "PutObject", |_, _| Ok(())).await.map_err(told)?;
        fresh.keep();
        Ok(())
    }
}
