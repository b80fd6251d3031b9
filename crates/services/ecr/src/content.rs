//! What the API and the registry both do to a repository's content.

use crate::{
    Ecr, faults,
    model::{Image, Layer, Place, Repository, Tag},
};
use bytes::Bytes;
use images::{BlobError, Digest, Manifest, blobs::Upload};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{Snapshot, Tx};
use wire::Fault;
use world::World;

/// A pull is recorded at most so often for an image.
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_ImageDetail.html>
const PULL_RECORD: Duration = Duration::from_secs(24 * 3600);

/// A manifest on its way into a repository.
pub(crate) struct Push {
    pub place: Place,
    pub bytes: Bytes,
    /// As the client says; may be empty.
    pub media_type: String,
    pub tag: Option<String>,
    /// The digest that the client expects.
    pub digest: Option<Digest>,
    /// Whether pushing what is there already is a fault, as it is in the API.
    pub must_be_new: bool,
}

/// How an image is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Tag(String),
    Digest(Digest),
}

impl Asked {
    /// A tag or a digest, as in the registry's paths.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(Self::Digest);
        }
        is_tag(text).then(|| Self::Tag(text.to_owned()))
    }

    pub(crate) fn fault(&self, place: &Place) -> Fault {
        match self {
            Self::Tag(tag) => faults::no_image(place, None, Some(tag)),
            Self::Digest(digest) => faults::no_image(place, Some(&digest.to_string()), None),
        }
    }
}

/// Tags as the distribution specification has them.
pub(crate) fn is_tag(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    begins && rest && text.len() <= 128
}

/// What a tag stands for, in a snapshot.
pub(crate) fn tagged(snapshot: &Snapshot, place: &Place, tag: &str) -> Option<Digest> {
    snapshot.get::<Tag>(&place.key_of(tag)).map(|tag| tag.digest.clone())
}

/// The image that is asked for.
pub(crate) fn image(snapshot: &Snapshot, place: &Place, asked: &Asked) -> Option<Arc<Image>> {
    let digest = match asked {
        Asked::Digest(digest) => digest.clone(),
        Asked::Tag(tag) => tagged(snapshot, place, tag)?,
    };
    snapshot.get::<Image>(&place.key_of(digest))
}

/// A repository's tags by the images that they name.
pub(crate) fn by_image(all: impl Iterator<Item = Arc<Tag>>) -> BTreeMap<Digest, Vec<String>> {
    let mut tags: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for tag in all {
        tags.entry(tag.digest.clone()).or_default().push(tag.tag.clone());
    }
    tags
}

impl Ecr {
    /// Puts an image: checks that everything it is made of is in the repository, and moves the tag.
    pub(crate) async fn push(&self, push: Push) -> Result<Arc<Image>, Fault> {
        let actual = match &push.digest {
            Some(given) => given.alike(&push.bytes),
            None => Digest::of(&push.bytes),
        };
        if let Some(given) = push.digest.as_ref().filter(|given| **given != actual) {
            return Err(faults::digest_mismatch(given, &actual));
        }
        let manifest = Manifest::parse(&push.bytes, &push.media_type);
        let manifest = manifest.map_err(|error| faults::parameter(chain(&error)))?;
        let image = self.describe(&push, actual.clone(), &manifest);
        let stored = self.blobs.put(&actual, push.bytes.clone()).await;
        stored.map_err(|error| faults::blob(&push.place, error))?;
        let Push { place, tag, must_be_new, .. } = push;
        let world = self.world.clone();
        self.store
            .write(move |tx| {
                let put = put(tx, &place, image, tag.clone(), must_be_new)?;
                tell(tx, &world, &place, "PUSH", &put.digest, tag.as_deref());
                Ok(put)
            })
            .await
    }

    fn describe(&self, push: &Push, digest: Digest, manifest: &Manifest) -> Image {
        let mut image = Image {
            place: push.place.clone(),
            digest,
            media_type: manifest.media_type().to_owned(),
            manifest_bytes: push.bytes.len() as u64,
            artifact_type: None,
            size: 0,
            pushed: self.world.now(),
            pulled: None,
            subject: manifest.subject().map(|subject| subject.digest.clone()),
            parts: Vec::new(),
            images: Vec::new(),
            annotations: BTreeMap::new(),
        };
        match manifest {
            Manifest::Image(of) => {
                let config = of.config.media_type.clone();
                image.artifact_type = of.artifact_type.clone().or(Some(config));
                // Layers with addresses of their own need not be pushed.
                let pushed = manifest.children().into_iter().filter(|part| !part.is_foreign());
                image.parts = pushed.map(|part| part.digest.clone()).collect();
                image.size = of.config.size.saturating_add(of.layers.iter().map(|l| l.size).sum());
                image.annotations = of.annotations.clone();
            }
            Manifest::Index(of) => {
                image.artifact_type = of.artifact_type.clone();
                image.images = of.manifests.iter().map(|entry| entry.digest.clone()).collect();
                image.annotations = of.annotations.clone();
            }
        }
        image
    }

    /// An upload that was begun earlier.
    pub(crate) async fn upload(&self, place: &Place, id: &str) -> Result<Upload, Fault> {
        let resumed = self.blobs.resume(&id.replace('-', "")).await;
        resumed.map_err(|error| match error {
            BlobError::UploadUnknown(_) => faults::no_upload(place, id),
            other => faults::blob(place, other),
        })
    }

    /// Says that the repository has a blob that the store has.
    pub(crate) async fn link(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
    ) -> Result<(), Fault> {
        let layer =
            Layer { place: place.clone(), digest: digest.clone(), size, linked: self.world.now() };
        self.store
            .write(move |tx| {
                if tx.get::<Repository>(&layer.place.key()).is_none() {
                    return Err(faults::no_repository(&layer.place));
                }
                tx.put(layer);
                Ok(())
            })
            .await
    }

    /// Records that an image was pulled. What cannot be written is told, and the pull goes on.
    pub(crate) async fn pulled(&self, image: &Image) {
        let now = self.world.now();
        if image.pulled.is_some_and(|before| now.since(before) < PULL_RECORD) {
            return;
        }
        let key = image.place.key_of(&image.digest);
        let written = self.store.write(move |tx| {
            tx.update::<Image>(&key, |image| image.pulled = Some(now));
            Ok::<_, Fault>(())
        });
        if let Err(fault) = written.await {
            tracing::warn!(digest = %image.digest, fault = fault.message, "a pull was not recorded");
        }
    }
}

fn put(
    tx: &mut Tx,
    place: &Place,
    mut image: Image,
    tag: Option<String>,
    must_be_new: bool,
) -> Result<Arc<Image>, Fault> {
    let repository = tx.get::<Repository>(&place.key());
    let repository = repository.ok_or_else(|| faults::no_repository(place))?;
    let gone = |digest: &&Digest| tx.get::<Layer>(&place.key_of(digest)).is_none();
    let missing: Vec<Digest> = image.parts.iter().filter(gone).cloned().collect();
    if !missing.is_empty() {
        return Err(faults::no_layers(place, &missing));
    }
    let children =
        image.images.iter().map(|digest| (digest, tx.get::<Image>(&place.key_of(digest))));
    let children: Vec<_> = children.collect();
    let missing = children.iter().filter(|(_, child)| child.is_none());
    let missing: Vec<Digest> = missing.map(|(digest, _)| (*digest).clone()).collect();
    if !missing.is_empty() {
        return Err(faults::no_referenced(place, &missing));
    }
    if !children.is_empty() {
        image.size =
            children.iter().filter_map(|(_, child)| Some(child.as_ref()?.size)).max().unwrap_or(0);
    }
    let before = tx.get::<Image>(&place.key_of(&image.digest));
    let moved = match &tag {
        None => before.is_none(),
        Some(name) => match tx.get::<Tag>(&place.key_of(name)) {
            Some(tag) if tag.digest == image.digest => false,
            Some(_) if repository.pins(name) => return Err(faults::tag_pinned(place, name)),
            _ => true,
        },
    };
    if !moved && must_be_new && before.is_some() {
        return Err(faults::image_exists(place, &image.digest, tag.as_deref()));
    }
    let image = match before {
        Some(before) => before,
        None => {
            tx.put(image.clone());
            Arc::new(image)
        }
    };
    if let Some(tag) = tag.filter(|_| moved) {
        tx.put(Tag { place: place.clone(), tag, digest: image.digest.clone() });
    }
    Ok(image)
}

/// An upload's id as clients see it: a UUID, as ECR's are.
pub(crate) fn upload_id(upload: &Upload) -> String {
    let id = upload.id();
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}

/// Tells EventBridge of an image that came or went.
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>
fn tell(
    tx: &mut Tx,
    world: &World,
    place: &Place,
    action: &str,
    digest: &Digest,
    tag: Option<&str>,
) {
    let mut detail = json!({
        "result": "SUCCESS", "repository-name": place.name, "image-digest": digest.to_string(),
        "action-type": action,
    });
    if let Some(tag) = tag {
        detail["image-tag"] = json!(tag);
    }
    let event = events::Event {
        id: world.uuid(),
        realm: place.realm.clone(),
        source: "aws.ecr".to_owned(),
        detail_type: "ECR Image Action".to_owned(),
        time: world.now(),
        resources: Vec::new(),
        detail,
    };
    events::tell(tx, world, &event);
}

/// Removes one name of an image; with its last name goes the image. Answers which it was.
pub(crate) fn untag(tx: &mut Tx, world: &World, place: &Place, tag: &str) -> Option<Digest> {
    let digest = tx.get::<Tag>(&place.key_of(tag))?.digest.clone();
    tx.delete::<Tag>(&place.key_of(tag));
    let others = tx.scan_prefix::<Tag>(&place.prefix()).any(|other| other.digest == digest);
    if !others && referencing(tx, place, &digest).is_empty() {
        tx.delete::<Image>(&place.key_of(&digest));
    }
    tell(tx, world, place, "DELETE", &digest, Some(tag));
    Some(digest)
}

/// The indexes that hold an image.
pub(crate) fn referencing(tx: &Tx, place: &Place, digest: &Digest) -> Vec<Digest> {
    let images = tx.scan_prefix::<Image>(&place.prefix());
    images.filter(|image| image.images.contains(digest)).map(|image| image.digest.clone()).collect()
}

/// Removes an image with all of its names, and answers them.
pub(crate) fn delete(
    tx: &mut Tx,
    world: &World,
    place: &Place,
    digest: &Digest,
) -> BTreeSet<String> {
    let tags = tx.scan_prefix::<Tag>(&place.prefix()).filter(|tag| tag.digest == *digest);
    let tags: BTreeSet<String> = tags.map(|tag| tag.tag.clone()).collect();
    for tag in &tags {
        tx.delete::<Tag>(&place.key_of(tag));
        tell(tx, world, place, "DELETE", digest, Some(tag));
    }
    if tags.is_empty() {
        tell(tx, world, place, "DELETE", digest, None);
    }
    tx.delete::<Image>(&place.key_of(digest));
    tags
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
