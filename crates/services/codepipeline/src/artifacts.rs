//! Artifacts: zip archives in the pipeline's bucket.

use crate::{actions::Failed, model::Artifact};
use s3::S3;
use std::{
    io::{Cursor, Read, Write},
    sync::Arc,
};
use wire::Context;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

/// The largest artifact, in bytes.
pub(crate) const MOST_BYTES: u64 = 256 << 20;
/// The largest file that an action reads out of one, in bytes.
const MOST_FILE: u64 = 1 << 20;

/// Puts an artifact.
pub(crate) async fn put(
    s3: &Arc<S3>,
    ctx: &Context,
    artifact: &Artifact,
    content: Vec<u8>,
) -> Result<(), Failed> {
    let Artifact { bucket, key } = artifact;
    let principal = [ctx.principal.clone()];
    s3.deliver(&principal, &ctx.region, bucket, key, content).await.map_err(|error| {
        Failed::permission(format!("The artifact could not be put to s3://{bucket}/{key}: {error}"))
    })
}

/// The text of the file at `path` in an artifact. What went wrong names the artifact.
pub(crate) async fn file(
    s3: &S3,
    ctx: &Context,
    name: &str,
    artifact: &Artifact,
    path: &str,
) -> Result<String, Failed> {
    let Artifact { bucket, key } = artifact;
    let content = s3.bytes(ctx, bucket, key, MOST_BYTES).await.map_err(|error| {
        Failed::permission(format!(
            "The artifact {name} could not be read from s3://{bucket}/{key}: {error}"
        ))
    })?;
    // Unpacking is work; others' requests go on meanwhile.
    let wanted = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read(content, &wanted)).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    read.map_err(|why| {
        Failed::configuration(format!(
            "The file {path} in the artifact {name} (s3://{bucket}/{key}) cannot be used: {why}"
        ))
    })
}

fn read(content: Vec<u8>, path: &str) -> Result<String, String> {
    let mut archive = ZipArchive::new(Cursor::new(content)).map_err(|error| error.to_string())?;
    let entry = archive.by_name(path).map_err(|_| "there is no such file".to_owned())?;
    let mut text = Vec::new();
    // Whatever the entry says of its size.
    entry.take(MOST_FILE + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MOST_FILE {
        return Err(format!("it has more than {MOST_FILE} bytes"));
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())
}

/// A zip archive of one file.
pub(crate) fn pack(path: &str, content: &str) -> Result<Vec<u8>, Failed> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let written = (|| {
        writer.start_file(path, SimpleFileOptions::default())?;
        writer.write_all(content.as_bytes())?;
        writer.finish()
    })();
    let packed = written.map_err(|error| Failed::system(error.to_string()))?;
    Ok(packed.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read() {
        let packed = pack("a/b.json", "{}").unwrap();
        assert_eq!(read(packed.clone(), "a/b.json").unwrap(), "{}");
        assert!(read(packed, "c").is_err());
        assert!(read(b"no zip".to_vec(), "c").is_err());
        let bomb = pack("big", &" ".repeat(MOST_FILE as usize + 1)).unwrap();
        assert!(bomb.len() < 10_000 && read(bomb, "big").unwrap_err().contains("more than"));
    }
}
