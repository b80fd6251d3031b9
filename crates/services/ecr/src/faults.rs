//! Every fault that ECR answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/> names it.

use crate::model::Place;
use images::{BlobError, Digest};
use wire::{Family, Fault};

/// "in the registry with id", as AWS goes on.
fn registry(place: &Place) -> String {
    format!("in the registry with id '{}'", place.account())
}

pub(crate) fn parameter(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterException", message)
}

pub(crate) fn constraint(parameter_name: &str, reason: impl std::fmt::Display) -> Fault {
    parameter(format!(
        "Invalid parameter at '{parameter_name}' failed to satisfy constraint: '{reason}'"
    ))
}

pub(crate) fn tag_parameter(message: impl Into<String>) -> Fault {
    Fault::new("InvalidTagParameterException", message)
}

pub(crate) fn too_many_tags() -> Fault {
    Fault::new("TooManyTagsException", "A repository can have at most 50 tags.")
}

pub(crate) fn no_repository(place: &Place) -> Fault {
    let message =
        format!("The repository with name '{}' does not exist {}", place.name, registry(place));
    Fault::new("RepositoryNotFoundException", message)
}

pub(crate) fn repository_exists(place: &Place) -> Fault {
    let message =
        format!("The repository with name '{}' already exists {}", place.name, registry(place));
    Fault::new("RepositoryAlreadyExistsException", message)
}

pub(crate) fn not_empty(place: &Place) -> Fault {
    let message = format!(
        "The repository with name '{}' in registry with id '{}' cannot be deleted because it still contains images",
        place.name,
        place.account()
    );
    Fault::new("RepositoryNotEmptyException", message)
}

/// `what` as AWS writes image ids: `{imageDigest:'null', imageTag:'v1'}`.
pub(crate) fn no_image(place: &Place, digest: Option<&str>, tag: Option<&str>) -> Fault {
    let message = format!(
        "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the repository with name \
         '{}' {}",
        digest.unwrap_or("null"),
        tag.unwrap_or("null"),
        place.name,
        registry(place)
    );
    Fault::new("ImageNotFoundException", message)
}

pub(crate) fn image_exists(place: &Place, digest: &Digest, tag: Option<&str>) -> Fault {
    let message = format!(
        "Image with digest '{digest}' and tag '{}' already exists in the repository with name '{}' in registry with \
         id '{}'",
        tag.unwrap_or("null"),
        place.name,
        place.account()
    );
    Fault::new("ImageAlreadyExistsException", message)
}

pub(crate) fn tag_pinned(place: &Place, tag: &str) -> Fault {
    let message = format!(
        "The image tag '{tag}' already exists in the '{}' repository and cannot be overwritten because the tag is \
         immutable.",
        place.name
    );
    Fault::new("ImageTagAlreadyExistsException", message)
}

pub(crate) fn digest_mismatch(given: &Digest, actual: &Digest) -> Fault {
    let message =
        format!("Image digest '{given}' does not match the digest of the manifest, '{actual}'");
    Fault::new("ImageDigestDoesNotMatchException", message)
}

pub(crate) fn no_layers(place: &Place, missing: &[Digest]) -> Fault {
    let message = format!(
        "Layers with digests '{}' required for pushing image into repository with name '{}' {} do not exist",
        list(missing),
        place.name,
        registry(place)
    );
    Fault::new("LayersNotFoundException", message)
}

pub(crate) fn no_layer(place: &Place, digest: &str) -> Fault {
    let message = format!(
        "The layer with digest '{digest}' does not exist in the repository with name '{}' {}",
        place.name,
        registry(place)
    );
    Fault::new("LayersNotFoundException", message)
}

pub(crate) fn no_referenced(place: &Place, missing: &[Digest]) -> Fault {
    let message = format!(
        "Images with digests '{}' required for pushing image into repository with name '{}' {} do not exist",
        list(missing),
        place.name,
        registry(place)
    );
    Fault::new("ReferencedImagesNotFoundException", message)
}

pub(crate) fn no_upload(place: &Place, id: &str) -> Fault {
    let message = format!(
        "The upload with id '{id}' does not exist in the repository with name '{}' {}",
        place.name,
        registry(place)
    );
    Fault::new("UploadNotFoundException", message)
}

pub(crate) fn empty_upload() -> Fault {
    Fault::new(
        "EmptyUploadException",
        "The specified layer upload does not contain any layer parts.",
    )
}

pub(crate) fn layer_exists() -> Fault {
    let message = "The image layer already exists in the associated repository.";
    Fault::new("LayerAlreadyExistsException", message)
}

pub(crate) fn bad_layer(message: impl Into<String>) -> Fault {
    Fault::new("InvalidLayerException", message)
}

/// A part that does not follow the last one; `last` is the last byte that counts.
pub(crate) fn bad_part(place: &Place, upload: &str, last: Option<u64>) -> Fault {
    let message = "Layer part is not in order: each must begin where the last one ended.";
    let last = last.map_or(-1, |last| i64::try_from(last).unwrap_or(i64::MAX));
    Fault::new("InvalidLayerPartException", message)
        .detail("registryId", place.account())
        .detail("repositoryName", place.name.as_str())
        .detail("uploadId", upload)
        .detail("lastValidByteReceived", last)
}

pub(crate) fn no_lifecycle(place: &Place) -> Fault {
    let message = format!(
        "Lifecycle policy does not exist for the repository with name '{}' {}",
        place.name,
        registry(place)
    );
    Fault::new("LifecyclePolicyNotFoundException", message)
}

pub(crate) fn no_policy(place: &Place) -> Fault {
    let message = format!(
        "Repository policy does not exist for the repository with name '{}' {}",
        place.name,
        registry(place)
    );
    Fault::new("RepositoryPolicyNotFoundException", message)
}

/// What went wrong with a blob, as the caller may know it.
pub(crate) fn blob(place: &Place, error: BlobError) -> Fault {
    match error {
        BlobError::NotFound(digest) => no_layer(place, &digest.to_string()),
        BlobError::Mismatch { expected, actual } => bad_layer(format!(
            "The content has the digest '{actual}', not '{expected}' as was said."
        )),
        BlobError::TooLarge { limit_bytes } => Fault::new(
            "LimitExceededException",
            format!("A layer can have at most {limit_bytes} bytes."),
        ),
        BlobError::UploadUnknown(id) => no_upload(place, &id),
        BlobError::UploadBusy(id) => {
            parameter(format!("Another request is writing to the upload '{id}' at this moment."))
        }
        BlobError::OutOfOrder { have, .. } => bad_part(place, "", have.checked_sub(1)),
        BlobError::Disk(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the registry's disk failed");
            Fault::internal(Family::Json)
        }
    }
}

fn list(digests: &[Digest]) -> String {
    let texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
    format!("[{}]", texts.join(", "))
}
