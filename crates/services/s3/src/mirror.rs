//! Objects that are kept the same as files elsewhere, read and written as somebody: each way that follows a bucket
//! names the version that it knows, so that nobody's change is lost under another's.

use crate::{
    S3,
    checksum::Digests,
    delivery, faults,
    model::{About, Algorithm, Bucket, Object, Versioning},
    ops::{Believed, of_one, remove, unchanged},
};
use futures_util::StreamExt;
use s3s::S3Error;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::Snapshot;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use wire::Context;

/// Why an object or a file did not become the other.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The object is not the version that was named.
    #[error("the object has changed")]
    Changed,
    /// S3's answer, for people.
    #[error("{0}")]
    S3(String),
    /// The file.
    #[error("the file cannot be written")]
    File(#[source] std::io::Error),
}

impl From<S3Error> for MirrorError {
    fn from(error: S3Error) -> Self {
        let words = error.message().unwrap_or_default();
        match error.code().as_str() {
            "PreconditionFailed" => Self::Changed,
            code => Self::S3(format!("{code}: {words}")),
        }
    }
}

impl S3 {
    /// A bucket.
    pub fn bucket(&self, name: &str) -> Option<Arc<Bucket>> {
        self.store.read().get(name)
    }

    /// The objects of a bucket whose keys begin with `prefix`, in the order of their keys, if the principal of
    /// `context` may list them. Fails when the bucket does not keep versions.
    pub fn all(
        &self,
        context: &Context,
        bucket: &str,
        prefix: &str,
    ) -> Result<Vec<Arc<Object>>, MirrorError> {
        self.authorise(context, "s3:ListBucket", Some(bucket), None)?;
        let snapshot = self.store.read();
        versioned(&snapshot, bucket)?;
        Ok(snapshot.scan_prefix::<Object>(&Object::key_of(bucket, prefix)).collect())
    }

    /// Writes what an object holds into a new file.
    pub async fn fetch(
        &self,
        context: &Context,
        object: &Object,
        file: &Path,
    ) -> Result<(), MirrorError> {
        let place = (Some(&*object.bucket), Some(&*object.key));
        self.authorise(context, "s3:GetObject", place.0, place.1)?;
        let mut stream = self.contents.read(&object.pieces, 0, object.size).await?;
        let mut file = tokio::fs::File::create_new(file).await.map_err(MirrorError::File)?;
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| MirrorError::S3(error.to_string()))?;
            file.write_all(&bytes).await.map_err(MirrorError::File)?;
        }
        file.flush().await.map_err(MirrorError::File)
    }

    /// Puts what a file holds in place of the version `known` of an object; of none, when there is to be none. A key
    /// without a file is an empty object. What was said of the object is said of the new version, too, with `metadata`
    /// in place of what has the same names.
    pub async fn keep(
        self: &Arc<Self>,
        context: &Context,
        (bucket, key): (&str, &str),
        known: Option<String>,
        file: Option<PathBuf>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Arc<Object>, MirrorError> {
        self.authorise(context, "s3:PutObject", Some(bucket), Some(key))?;
        versioned(&self.store.read(), bucket)?;
        let body = match file {
            Some(file) => Some(delivery::body(&file).await.map_err(MirrorError::File)?),
            None => None,
        };
        let fresh = self.contents.write(body, Digests::new(Algorithm::Crc64Nvme)).await?;
        let before = self.store.read().get::<Object>(&Object::key_of(bucket, key));
        let mut about = before.map_or_else(About::default, |object| object.about.clone());
        about.metadata.extend(metadata);
        let object = of_one(self, bucket.to_owned(), key.to_owned(), &fresh, about);
        let condition =
            move |_: &mut store::Tx, there: Option<&Object>| unchanged(there, known.as_deref());
        let made = self.commit(object, "PutObject", condition).await?;
        fresh.keep();
        Ok(made)
    }

    /// Deletes an object that is the version `known`; its versions stay.
    pub async fn drop_object(
        &self,
        context: &Context,
        (bucket, key): (&str, &str),
        known: &str,
    ) -> Result<(), MirrorError> {
        self.authorise(context, "s3:DeleteObject", Some(bucket), Some(key))?;
        let believed = (Believed::Version(known.to_owned()), "DeleteObject");
        remove(self, bucket.to_owned(), key.to_owned(), None, believed).await?;
        Ok(())
    }
}

/// Whether what is replaced or deleted in a bucket is kept.
fn versioned(snapshot: &Snapshot, bucket: &str) -> Result<(), MirrorError> {
    let found = snapshot.get::<Bucket>(bucket).ok_or_else(faults::no_bucket)?;
    match found.versioning {
        Versioning::Enabled => Ok(()),
        _ => Err(MirrorError::S3(format!("the bucket {bucket} has no versioning enabled"))),
    }
}
