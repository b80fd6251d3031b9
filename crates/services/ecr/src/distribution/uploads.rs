//! Pushing blobs: at once, in chunks, resumed, or mounted from another repository.
//!
//! An upload is named by 128 random bits; who knows the name and may push to the repository may go on with it.

use super::{
    Call,
    answer::{Refusal, Reply, reply},
};
use crate::{
    Ecr, content, faults,
    model::{Layer, Place},
    name,
};
use hyper::{HeaderMap, StatusCode, body::Incoming};
use images::{Digest, blobs::Upload};
use std::sync::Arc;
use wire::Context;

impl Ecr {
    pub(super) async fn start_upload(self: &Arc<Self>, call: Call, place: Place) -> Reply {
        let (ctx, _) = self.enter(&call, &place, "ecr:InitiateLayerUpload")?;
        let mount = call.query.get("mount").and_then(|digest| digest.parse().ok());
        if let Some(digest) = mount {
            let from = call.query.get("from").and_then(|from| {
                let own = call.realm.as_deref().map(|realm| format!("{realm}/{from}"));
                name::place(from).or_else(|| name::place(&own?))
            });
            if self.mount(&ctx, &place, from, &digest).await? {
                return created(&place, &digest);
            }
        }
        let upload = self.blobs.start().await.map_err(|error| faults::blob(&place, error))?;
        if let Some(digest) = call.query.get("digest") {
            let digest = read_digest(digest)?;
            self.enter(&call, &place, "ecr:CompleteLayerUpload")?;
            let upload = self.receive(call.body, upload, &place).await?;
            return self.complete(upload, &place, &digest).await;
        }
        progress(StatusCode::ACCEPTED, &place, &upload)
    }

    /// Links a blob that another repository has, if the caller may pull it there. False if that cannot be: then it is
    /// pushed as any other.
    async fn mount(
        &self,
        ctx: &Context,
        place: &Place,
        from: Option<Place>,
        digest: &Digest,
    ) -> Result<bool, Refusal> {
        let Some(from) = from else { return Ok(false) };
        let mut abroad = ctx.clone();
        from.region().clone_into(&mut abroad.region);
        let action = "ecr:GetDownloadUrlForLayer";
        if self.find(&abroad, Some(from.account()), &from.name, action).is_err() {
            return Ok(false);
        }
        let layer = self.store.read().get::<Layer>(&from.key_of(digest));
        let Some(layer) = layer else { return Ok(false) };
        let there = self.blobs.renew(digest).await.map_err(|error| faults::blob(place, error))?;
        if there {
            self.link(place, digest, layer.size).await?;
        }
        Ok(there)
    }

    pub(super) async fn upload_status(&self, call: &Call, place: &Place, id: &str) -> Reply {
        self.enter(call, place, "ecr:UploadLayerPart")?;
        let upload = self.upload(place, id).await?;
        progress(StatusCode::NO_CONTENT, place, &upload)
    }

    pub(super) async fn continue_upload(&self, call: Call, place: Place, id: String) -> Reply {
        self.enter(&call, &place, "ecr:UploadLayerPart")?;
        let upload = self.upload(&place, &id).await?;
        check_range(&call.headers, &upload, &place)?;
        let mut upload = self.receive(call.body, upload, &place).await?;
        upload.flush().await.map_err(|error| faults::blob(&place, error))?;
        progress(StatusCode::ACCEPTED, &place, &upload)
    }

    pub(super) async fn finish_upload(&self, call: Call, place: Place, id: String) -> Reply {
        self.enter(&call, &place, "ecr:CompleteLayerUpload")?;
        let digest = call.query.get("digest");
        let digest = read_digest(digest.ok_or_else(|| Refusal::digest("The digest is missing."))?)?;
        let upload = self.upload(&place, &id).await?;
        check_range(&call.headers, &upload, &place)?;
        let upload = self.receive(call.body, upload, &place).await?;
        self.complete(upload, &place, &digest).await
    }

    pub(super) async fn cancel_upload(&self, call: &Call, place: &Place, id: &str) -> Reply {
        self.enter(call, place, "ecr:UploadLayerPart")?;
        let upload = self.upload(place, id).await?;
        upload.cancel().await.map_err(|error| faults::blob(place, error))?;
        reply(StatusCode::NO_CONTENT).empty()
    }

    /// Writes a body to an upload. What arrived before a client hung up stays, so that it can go on from there.
    async fn receive(
        &self,
        body: Incoming,
        upload: Upload,
        place: &Place,
    ) -> Result<Upload, Refusal> {
        let upload = tokio::sync::Mutex::new(upload);
        let received = self
            .frames(body, async |bytes| {
                let appended = upload.lock().await.append(bytes).await;
                appended.map_err(|error| faults::blob(place, error).into())
            })
            .await;
        let mut upload = upload.into_inner();
        if let Err(refusal) = received {
            upload.flush().await.map_err(|error| faults::blob(place, error))?;
            return Err(refusal);
        }
        Ok(upload)
    }

    async fn complete(&self, upload: Upload, place: &Place, digest: &Digest) -> Reply {
        let size = upload.offset();
        upload.finish(digest).await.map_err(|error| faults::blob(place, error))?;
        self.link(place, digest, size).await?;
        created(place, digest)
    }
}

fn read_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::digest(format!("'{text}' is not a digest.")))
}

/// A chunk may say where it begins: `Content-Range: 0-1023`.
fn check_range(headers: &HeaderMap, upload: &Upload, place: &Place) -> Result<(), Refusal> {
    let Some(text) = headers.get("content-range").and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let begin = text.split('-').next().and_then(|first| first.trim().parse().ok());
    let begin =
        begin.ok_or_else(|| Refusal::upload("The Content-Range is not of the form 0-1023."))?;
    let checked = upload.check_offset(begin);
    checked.map_err(|error| faults::blob(place, error).into())
}

fn progress(status: StatusCode, place: &Place, upload: &Upload) -> Reply {
    let id = content::upload_id(upload);
    reply(status)
        .header("location", format!("/v2/{}/blobs/uploads/{id}", place.key()))
        .header("range", format!("0-{}", upload.offset().saturating_sub(1)))
        .header("docker-upload-uuid", id)
        .header("content-length", 0)
        .empty()
}

fn created(place: &Place, digest: &Digest) -> Reply {
    reply(StatusCode::CREATED)
        .header("location", format!("/v2/{}/blobs/{digest}", place.key()))
        .header("docker-content-digest", digest)
        .empty()
}
