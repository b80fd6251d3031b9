//! Reading and deleting blobs.

use super::{
    Call,
    answer::{Refusal, Reply, reply},
};
use crate::{
    Ecr, faults,
    model::{Image, Layer, Place},
};
use http_body_util::{BodyExt, channel::Channel};
use hyper::{Method, StatusCode, header::RANGE};
use images::{BlobError, Digest, blobs::Blob};
use std::{io, ops::Range};
use wire::{Body, Fault};

/// The query's name for the right to read one layer.
pub(crate) const TOKEN: &str = "token";
/// Read and sent at once, and so many of them wait for a slow client.
const PIECE_BYTES: u64 = 256 << 10;
const PIECES: usize = 2;

impl Ecr {
    pub(super) async fn get_blob(&self, call: &Call, place: Place, digest: Digest) -> Reply {
        let token = call.query.get(TOKEN);
        if !token.is_some_and(|token| self.may_download(token, &place, &digest)) {
            let action = match call.method == Method::HEAD {
                true => "ecr:BatchCheckLayerAvailability",
                false => "ecr:GetDownloadUrlForLayer",
            };
            self.enter(call, &place, action)?;
        }
        if self.store.read().get::<Layer>(&place.key_of(&digest)).is_none() {
            return Err(Refusal::blob_unknown(&digest));
        }
        let blob = match self.blobs.get(&digest).await {
            Err(BlobError::NotFound(digest)) => {
                // The record says that it is here: a disk that lost it, or a hand that removed it.
                tracing::error!(%digest, "a layer of a repository is not in the blob store");
                return Err(Refusal::blob_unknown(digest));
            }
            found => found.map_err(|error| faults::blob(&place, error))?,
        };
        let range = call.headers.get(RANGE).and_then(|value| value.to_str().ok());
        let range = range.and_then(|text| read_range(text, blob.size));
        let (status, part) = match range {
            None => (StatusCode::OK, 0..blob.size),
            Some(Some(part)) => (StatusCode::PARTIAL_CONTENT, part),
            Some(None) => {
                let answer = reply(StatusCode::RANGE_NOT_SATISFIABLE);
                return answer.header("content-range", format!("bytes */{}", blob.size)).empty();
            }
        };
        let mut answer = reply(status)
            .header("content-type", "application/octet-stream")
            .header("docker-content-digest", &digest)
            .header("accept-ranges", "bytes")
            .header("content-length", part.end - part.start);
        if status == StatusCode::PARTIAL_CONTENT {
            let text = format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), blob.size);
            answer = answer.header("content-range", text);
        }
        match call.method == Method::HEAD {
            true => answer.empty(),
            false => answer.body(self.stream(blob, part)),
        }
    }

    /// A part of a blob, read as fast as the client takes it.
    fn stream(&self, blob: Blob, part: Range<u64>) -> Body {
        let (mut sender, channel) = Channel::<bytes::Bytes, io::Error>::new(PIECES);
        self.world.spawn("blob", async move {
            let mut at = part.start;
            while at < part.end {
                let length = PIECE_BYTES.min(part.end - at);
                match blob.read_at(at, length as usize).await {
                    Ok(bytes) => {
                        at += length;
                        if sender.send_data(bytes).await.is_err() {
                            return; // the client hung up
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "a layer could not be read to its end");
                        sender.abort(error);
                        return;
                    }
                }
            }
        });
        channel.boxed()
    }

    pub(super) async fn delete_blob(&self, call: &Call, place: Place, digest: Digest) -> Reply {
        self.enter(call, &place, "ecr:BatchDeleteImage")?;
        self.store
            .write(move |tx| {
                let mut images = tx.scan_prefix::<Image>(&place.prefix());
                if images.any(|image| image.parts.contains(&digest)) {
                    return Err(Refusal::unsupported("The layer is part of an image."));
                }
                drop(images);
                match tx.delete::<Layer>(&place.key_of(&digest)) {
                    true => Ok(()),
                    false => Err(Refusal::blob_unknown(&digest)),
                }
            })
            .await?;
        reply(StatusCode::ACCEPTED).empty()
    }
}

/// The one range that `text` asks for: outer `None` when it is none that is understood (then all is sent), inner
/// `None` when the blob has no such bytes. <https://www.rfc-editor.org/rfc/rfc9110#section-14.1.2>
fn read_range(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => size.saturating_sub(suffix.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some((range.start < range.end).then_some(range))
}

/// A write that did not reach the disk.
impl From<store::DiskFault> for Refusal {
    fn from(fault: store::DiskFault) -> Self {
        Fault::from(fault).into()
    }
}

#[cfg(test)]
mod tests {
    use super::read_range;

    #[test]
    fn ranges() {
        assert_eq!(read_range("bytes=0-4", 10), Some(Some(0..5)));
        assert_eq!(read_range("bytes=5-", 10), Some(Some(5..10)));
        assert_eq!(read_range("bytes=-3", 10), Some(Some(7..10)));
        assert_eq!(read_range("bytes=-30", 10), Some(Some(0..10)));
        assert_eq!(read_range("bytes=5-50", 10), Some(Some(5..10)));
        assert_eq!(read_range("bytes=10-", 10), Some(None));
        assert_eq!(read_range("bytes=0-18446744073709551615", 10), Some(Some(0..10)));
        for odd in ["bytes=4-2", "lines=1-2", "bytes=a-b", "bytes=0-1,4-5", "bytes="] {
            assert_eq!(read_range(odd, 10), None, "{odd}");
        }
    }
}
