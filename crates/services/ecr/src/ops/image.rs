//! Images: describe, list, get, delete, put.

use super::page;
use crate::{
    Ecr,
    api::{self, *},
    content::{self, Push, by_image, is_tag},
    faults,
    model::{self, Place},
};
use images::{Digest, manifest::MAX_MANIFEST_BYTES};
use std::sync::Arc;
use store::Snapshot;
use wire::{Context, Fault};

type Found = Arc<model::Image>;

/// What an image id asks for: a tag, a digest, or a tag that must have the digest.
fn read(id: &ImageIdentifier) -> Result<(Option<Digest>, Option<&str>), ImageFailureCode> {
    let digest = match &id.image_digest {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| ImageFailureCode::InvalidImageDigest)?),
    };
    match (&digest, id.image_tag.as_deref()) {
        (None, None) => Err(ImageFailureCode::MissingDigestAndTag),
        (_, Some(tag)) if !is_tag(tag) => Err(ImageFailureCode::InvalidImageTag),
        (_, tag) => Ok((digest, tag)),
    }
}

/// Finds an image by what `tag` and `image` know: a snapshot, or a transaction.
fn look_up(
    id: &ImageIdentifier,
    tag: impl Fn(&str) -> Option<Digest>,
    image: impl Fn(&Digest) -> Option<Found>,
) -> Result<Found, ImageFailureCode> {
    let (digest, name) = read(id)?;
    let by_tag = match name {
        Some(name) => Some(tag(name).ok_or(ImageFailureCode::ImageNotFound)?),
        None => None,
    };
    if let (Some(digest), Some(by_tag)) = (&digest, &by_tag)
        && digest != by_tag
    {
        return Err(ImageFailureCode::ImageTagDoesNotMatchDigest);
    }
    let digest = by_tag.or(digest).ok_or(ImageFailureCode::MissingDigestAndTag)?;
    image(&digest).ok_or(ImageFailureCode::ImageNotFound)
}

fn find(
    snapshot: &Snapshot,
    place: &Place,
    id: &ImageIdentifier,
) -> Result<Found, ImageFailureCode> {
    look_up(
        id,
        |tag| content::tagged(snapshot, place, tag),
        |digest| snapshot.get::<model::Image>(&place.key_of(digest)),
    )
}

fn failure(id: &ImageIdentifier, code: ImageFailureCode) -> ImageFailure {
    let reason = match &code {
        ImageFailureCode::ImageNotFound => "Requested image not found",
        ImageFailureCode::InvalidImageDigest => {
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
        }
        ImageFailureCode::InvalidImageTag => {
            "Invalid request parameters: the image tag is not valid"
        }
        ImageFailureCode::MissingDigestAndTag => {
            "Invalid request parameters: both tag and digest cannot be null"
        }
        ImageFailureCode::ImageTagDoesNotMatchDigest => "Requested image tag does not match digest",
        ImageFailureCode::ImageReferencedByManifestList => {
            "Requested image referenced by manifest list"
        }
        _ => "The image cannot be had",
    };
    ImageFailure {
        image_id: Some(id.clone()),
        failure_code: Some(code),
        failure_reason: Some(reason.to_owned()),
    }
}

fn identifier(digest: &Digest, tag: Option<String>) -> ImageIdentifier {
    ImageIdentifier { image_digest: Some(digest.to_string()), image_tag: tag }
}

fn detail(image: &model::Image, tags: Option<Vec<String>>) -> ImageDetail {
    ImageDetail {
        registry_id: Some(image.place.account().to_owned()),
        repository_name: Some(image.place.name.clone()),
        image_digest: Some(image.digest.to_string()),
        image_tags: tags,
        image_size_in_bytes: i64::try_from(image.size).ok(),
        image_pushed_at: Some(image.pushed),
        image_manifest_media_type: Some(image.media_type.clone()),
        artifact_media_type: image.artifact_type.clone(),
        last_recorded_pull_time: image.pulled,
        subject_manifest_digest: image.subject.as_ref().map(Digest::to_string),
        image_status: Some(ImageStatus::Active),
        ..ImageDetail::default()
    }
}

/// Whether an image with or without tags is listed.
fn wanted(status: Option<&TagStatus>, tagged: bool) -> bool {
    match status {
        Some(TagStatus::Tagged) => tagged,
        Some(TagStatus::Untagged) => !tagged,
        Some(TagStatus::Any) | None => true,
    }
}

/// Every image is active: there is no archive.
fn active(status: Option<&ImageStatusFilter>) -> bool {
    matches!(status, None | Some(ImageStatusFilter::Active | ImageStatusFilter::Any))
}

pub(crate) async fn describe_images(
    ecr: &Ecr,
    ctx: &Context,
    input: DescribeImagesRequest,
) -> Result<DescribeImagesResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:DescribeImages")?;
    let (place, snapshot) = (&found.place, ecr.store.read());
    let mut tags = by_image(snapshot.scan_prefix::<model::Tag>(&place.prefix()));
    if let Some(ids) = input.image_ids {
        if input.next_token.is_some() || input.max_results.is_some() {
            return Err(faults::parameter(
                "imageIds can't be used together with nextToken or maxResults.",
            ));
        }
        let mut details = Vec::new();
        for id in &ids {
            let image = find(&snapshot, place, id).map_err(|_| {
                faults::no_image(place, id.image_digest.as_deref(), id.image_tag.as_deref())
            })?;
            details.push(detail(&image, tags.get(&image.digest).cloned()));
        }
        return Ok(DescribeImagesResponse { image_details: Some(details), next_token: None });
    }
    let filter = input.filter.unwrap_or_default();
    let images = snapshot.scan_prefix::<model::Image>(&place.prefix());
    let images = images.filter(|_| active(filter.image_status.as_ref()));
    let details = images.filter_map(|image| {
        let tags = tags.remove(&image.digest);
        let listed = wanted(filter.tag_status.as_ref(), tags.is_some());
        listed.then(|| (image.digest.to_string(), detail(&image, tags)))
    });
    let page = page("images", input.next_token.as_deref(), input.max_results, details)?;
    Ok(DescribeImagesResponse { image_details: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn list_images(
    ecr: &Ecr,
    ctx: &Context,
    input: ListImagesRequest,
) -> Result<ListImagesResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:ListImages")?;
    let snapshot = ecr.store.read();
    let prefix = found.place.prefix();
    let mut tags = by_image(snapshot.scan_prefix::<model::Tag>(&prefix));
    let filter = input.filter.unwrap_or_default();
    let images = snapshot.scan_prefix::<model::Image>(&prefix);
    let images = images.filter(|_| active(filter.image_status.as_ref()));
    let ids = images.flat_map(|image| {
        let digest = &image.digest;
        match tags.remove(digest) {
            None => vec![(format!("{digest} "), identifier(digest, None))],
            Some(tags) => tags
                .into_iter()
                .map(|tag| (format!("{digest} {tag}"), identifier(digest, Some(tag))))
                .collect(),
        }
    });
    let ids = ids.filter(|(_, id)| wanted(filter.tag_status.as_ref(), id.image_tag.is_some()));
    let page = page("image ids", input.next_token.as_deref(), input.max_results, ids)?;
    Ok(ListImagesResponse { image_ids: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn batch_get_image(
    ecr: &Ecr,
    ctx: &Context,
    input: BatchGetImageRequest,
) -> Result<BatchGetImageResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:BatchGetImage")?;
    let (place, snapshot) = (&found.place, ecr.store.read());
    let accepted = input.accepted_media_types;
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for id in &input.image_ids {
        let accepts =
            |image: &Found| accepted.as_ref().is_none_or(|types| types.contains(&image.media_type));
        let image = find(&snapshot, place, id)
            .and_then(|image| Some(image).filter(accepts).ok_or(ImageFailureCode::ImageNotFound));
        match image {
            Ok(image) => {
                ecr.pulled(&image).await;
                images.push(shown(ecr, &image, id.image_tag.clone()).await?);
            }
            Err(code) => failures.push(failure(id, code)),
        }
    }
    Ok(BatchGetImageResponse { images: Some(images), failures: Some(failures) })
}

/// An image with its manifest.
async fn shown(ecr: &Ecr, image: &model::Image, tag: Option<String>) -> Result<api::Image, Fault> {
    let bytes = ecr.blobs.read(&image.digest, MAX_MANIFEST_BYTES).await;
    let bytes = bytes.map_err(|error| faults::blob(&image.place, error))?;
    Ok(api::Image {
        registry_id: Some(image.place.account().to_owned()),
        repository_name: Some(image.place.name.clone()),
        image_id: Some(identifier(&image.digest, tag)),
        // Every manifest was parsed as JSON when it was put.
        image_manifest: Some(String::from_utf8_lossy(&bytes).into_owned()),
        image_manifest_media_type: Some(image.media_type.clone()),
    })
}

pub(crate) async fn batch_delete_image(
    ecr: &Ecr,
    ctx: &Context,
    input: BatchDeleteImageRequest,
) -> Result<BatchDeleteImageResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:BatchDeleteImage")?;
    let (place, world) = (found.place.clone(), ecr.world.clone());
    let (gone, failures) = ecr
        .store
        .write(move |tx| {
            let (mut gone, mut failures) = (Vec::new(), Vec::new());
            for id in &input.image_ids {
                match delete(tx, &world, &place, id) {
                    Ok(ids) => gone.extend(ids),
                    Err(code) => failures.push(failure(id, code)),
                }
            }
            Ok::<_, Fault>((gone, failures))
        })
        .await?;
    Ok(BatchDeleteImageResponse { image_ids: Some(gone), failures: Some(failures) })
}

/// By tag, that name goes, and with the last name the image; by digest, the image with all of its names.
fn delete(
    tx: &mut store::Tx,
    world: &world::World,
    place: &Place,
    id: &ImageIdentifier,
) -> Result<Vec<ImageIdentifier>, ImageFailureCode> {
    let image = look_up(
        id,
        |tag| tx.get::<model::Tag>(&place.key_of(tag)).map(|tag| tag.digest.clone()),
        |digest| tx.get::<model::Image>(&place.key_of(digest)),
    )?;
    if let (Some(tag), None) = (&id.image_tag, &id.image_digest) {
        content::untag(tx, world, place, tag);
        return Ok(vec![identifier(&image.digest, Some(tag.clone()))]);
    }
    if !content::referencing(tx, place, &image.digest).is_empty() {
        return Err(ImageFailureCode::ImageReferencedByManifestList);
    }
    let tags = content::delete(tx, world, place, &image.digest);
    if tags.is_empty() {
        return Ok(vec![identifier(&image.digest, None)]);
    }
    Ok(tags.into_iter().map(|tag| identifier(&image.digest, Some(tag))).collect())
}

pub(crate) async fn put_image(
    ecr: &Ecr,
    ctx: &Context,
    input: PutImageRequest,
) -> Result<PutImageResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:PutImage")?;
    if let Some(tag) = input.image_tag.as_ref().filter(|tag| !is_tag(tag)) {
        return Err(faults::constraint("imageTag", format!("'{tag}' is not a valid tag")));
    }
    let digest = input.image_digest.map(|text| {
        text.parse()
            .map_err(|_| faults::constraint("imageDigest", format!("'{text}' is not a digest")))
    });
    let image = ecr
        .push(Push {
            place: found.place.clone(),
            bytes: input.image_manifest.into(),
            media_type: input.image_manifest_media_type.unwrap_or_default(),
            tag: input.image_tag.clone(),
            digest: digest.transpose()?,
            must_be_new: true,
        })
        .await?;
    Ok(PutImageResponse { image: Some(shown(ecr, &image, input.image_tag).await?) })
}
