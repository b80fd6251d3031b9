//! Manifests, tags and referrers.

use super::{
    Call,
    answer::{Refusal, Reply, reply},
};
use crate::{
    Ecr,
    content::{self, Asked, Push, image},
    faults,
    model::{Image, Place, Tag},
};
use bytes::{Bytes, BytesMut};
use hyper::{Method, StatusCode, header::CONTENT_TYPE};
use images::{
    Digest,
    manifest::{MAX_MANIFEST_BYTES, OCI_INDEX},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use std::sync::Arc;

/// The most tags on a page.
const TAGS_PAGE: usize = 1000;

impl Ecr {
    pub(super) async fn get_manifest(&self, call: &Call, place: Place, asked: Asked) -> Reply {
        self.enter(call, &place, "ecr:BatchGetImage")?;
        let found = image(&self.store.read(), &place, &asked);
        let found = found.ok_or_else(|| asked.fault(&place))?;
        let answer = reply(StatusCode::OK)
            .header("docker-content-digest", &found.digest)
            .header("content-length", found.manifest_bytes)
            .header("content-type", &found.media_type);
        if call.method == Method::HEAD {
            return answer.empty();
        }
        let bytes = self.blobs.read(&found.digest, MAX_MANIFEST_BYTES).await;
        let bytes = bytes.map_err(|error| faults::blob(&place, error))?;
        self.pulled(&found).await;
        answer.text(&found.media_type, bytes)
    }

    pub(super) async fn put_manifest(&self, call: Call, place: Place, asked: Asked) -> Reply {
        self.enter(&call, &place, "ecr:PutImage")?;
        let media_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = self.read_manifest(call).await?;
        let (tag, digest) = match &asked {
            Asked::Tag(tag) => (Some(tag.clone()), None),
            Asked::Digest(digest) => (None, Some(digest.clone())),
        };
        let push =
            Push { place: place.clone(), bytes, media_type, tag, digest, must_be_new: false };
        let image = self.push(push).await?;
        let answer = reply(StatusCode::CREATED)
            .header("location", format!("/v2/{}/manifests/{}", place.key(), image.digest))
            .header("docker-content-digest", &image.digest);
        match &image.subject {
            Some(subject) => answer.header("oci-subject", subject).empty(),
            None => answer.empty(),
        }
    }

    async fn read_manifest(&self, call: Call) -> Result<Bytes, Refusal> {
        let mut all = BytesMut::new();
        self.frames(call.body, |bytes| {
            let fits = all.len() + bytes.len() <= MAX_MANIFEST_BYTES;
            if fits {
                all.extend_from_slice(&bytes);
            }
            let too_large = || Refusal::manifest_too_large(MAX_MANIFEST_BYTES);
            std::future::ready(fits.then_some(()).ok_or_else(too_large))
        })
        .await?;
        Ok(all.freeze())
    }

    pub(super) async fn delete_manifest(&self, call: &Call, place: Place, asked: Asked) -> Reply {
        self.enter(call, &place, "ecr:BatchDeleteImage")?;
        let world = self.world.clone();
        self.store
            .write(move |tx| {
                let digest = match &asked {
                    Asked::Tag(tag) => {
                        let gone = content::untag(tx, &world, &place, tag);
                        return gone.map(drop).ok_or_else(|| asked.fault(&place).into());
                    }
                    Asked::Digest(digest) => digest,
                };
                if tx.get::<Image>(&place.key_of(digest)).is_none() {
                    return Err(asked.fault(&place).into());
                }
                if !content::referencing(tx, &place, digest).is_empty() {
                    return Err(Refusal::unsupported(
                        "The image is part of an index; delete that first.",
                    ));
                }
                content::delete(tx, &world, &place, digest);
                Ok(())
            })
            .await?;
        reply(StatusCode::ACCEPTED).empty()
    }

    pub(super) fn list_tags(&self, call: &Call, place: &Place) -> Reply {
        self.enter(call, place, "ecr:ListImages")?;
        let asked = call.query.get("n").and_then(|n| n.parse().ok()).unwrap_or(TAGS_PAGE);
        let (most, after) = (asked.min(TAGS_PAGE), call.query.get("last"));
        let snapshot = self.store.read();
        let tags = snapshot.scan_prefix::<Tag>(&place.prefix()).map(|tag| tag.tag.clone());
        let mut tags = tags.filter(|tag| after.is_none_or(|after| tag.as_str() > after));
        let page: Vec<String> = tags.by_ref().take(most).collect();
        let mut answer = reply(StatusCode::OK);
        if let (Some(last), true) = (page.last(), tags.next().is_some()) {
            let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
            let next =
                format!("</v2/{}/tags/list?n={most}&last={last}>; rel=\"next\"", place.key());
            answer = answer.header("link", next);
        }
        answer.text("application/json", json!({"name": place.key(), "tags": page}).to_string())
    }

    pub(super) fn referrers(&self, call: &Call, place: &Place, subject: &Digest) -> Reply {
        self.enter(call, place, "ecr:BatchGetImage")?;
        let wanted = call.query.get("artifactType");
        let snapshot = self.store.read();
        let about = snapshot.scan_prefix::<Image>(&place.prefix()).filter(|image: &Arc<Image>| {
            image.subject.as_ref() == Some(subject)
                && wanted.is_none_or(|wanted| image.artifact_type.as_deref() == Some(wanted))
        });
        let about: Vec<_> = about.map(|image| image.descriptor()).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": about});
        let mut answer = reply(StatusCode::OK);
        if wanted.is_some() {
            answer = answer.header("oci-filters-applied", "artifactType");
        }
        answer.text(OCI_INDEX, index.to_string())
    }
}
