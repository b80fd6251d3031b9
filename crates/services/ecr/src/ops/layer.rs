//! Layers by the API: what docker does by the registry, for clients that would rather call AWS.

use crate::{Ecr, api::*, content, distribution::TOKEN, faults, model};
use images::{BlobError, Digest, blobs::Upload};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wire::{Context, Fault};

/// How long parts should be, in bytes; AWS says the same.
const PART_BYTES: i64 = 10 << 20;

pub(crate) async fn batch_check_layer_availability(
    ecr: &Ecr,
    ctx: &Context,
    input: BatchCheckLayerAvailabilityRequest,
) -> Result<BatchCheckLayerAvailabilityResponse, Fault> {
    let action = "ecr:BatchCheckLayerAvailability";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let snapshot = ecr.store.read();
    let (mut layers, mut failures) = (Vec::new(), Vec::new());
    for text in input.layer_digests {
        let Ok(digest) = text.parse::<Digest>() else {
            failures.push(LayerFailure {
                layer_digest: Some(text),
                failure_code: Some(LayerFailureCode::InvalidLayerDigest),
                failure_reason: Some("Invalid layer digest".to_owned()),
            });
            continue;
        };
        let layer = snapshot.get::<model::Layer>(&found.place.key_of(&digest));
        layers.push(Layer {
            layer_digest: Some(text),
            layer_availability: Some(match layer {
                Some(_) => LayerAvailability::Available,
                None => LayerAvailability::Unavailable,
            }),
            layer_size: layer.map(|layer| layer.size as i64),
            media_type: None,
        });
    }
    Ok(BatchCheckLayerAvailabilityResponse { layers: Some(layers), failures: Some(failures) })
}

pub(crate) async fn initiate_layer_upload(
    ecr: &Ecr,
    ctx: &Context,
    input: InitiateLayerUploadRequest,
) -> Result<InitiateLayerUploadResponse, Fault> {
    let action = "ecr:InitiateLayerUpload";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let upload = ecr.blobs.start().await.map_err(|error| faults::blob(&found.place, error))?;
    Ok(InitiateLayerUploadResponse {
        upload_id: Some(content::upload_id(&upload)),
        part_size: Some(PART_BYTES),
    })
}

pub(crate) async fn upload_layer_part(
    ecr: &Ecr,
    ctx: &Context,
    input: UploadLayerPartRequest,
) -> Result<UploadLayerPartResponse, Fault> {
    let action = "ecr:UploadLayerPart";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let place = &found.place;
    let length = input.layer_part_blob.len() as i64;
    if input.part_last_byte.checked_sub(input.part_first_byte) != Some(length - 1) {
        return Err(faults::parameter(
            "Invalid parameter at 'partLastByte': the part has another length than partFirstByte and partLastByte say.",
        ));
    }
    let told = |error| faults::blob(place, error);
    let mut upload = ecr.upload(place, &input.upload_id).await?;
    let begin = u64::try_from(input.part_first_byte).unwrap_or(u64::MAX);
    upload.check_offset(begin).map_err(|error| match error {
        BlobError::OutOfOrder { have, .. } => {
            faults::bad_part(place, &input.upload_id, have.checked_sub(1))
        }
        other => told(other),
    })?;
    upload.append(input.layer_part_blob).await.map_err(told)?;
    upload.flush().await.map_err(told)?;
    Ok(UploadLayerPartResponse {
        registry_id: Some(place.account().to_owned()),
        repository_name: Some(place.name.clone()),
        upload_id: Some(input.upload_id),
        last_byte_received: Some(input.part_last_byte),
    })
}

pub(crate) async fn complete_layer_upload(
    ecr: &Ecr,
    ctx: &Context,
    input: CompleteLayerUploadRequest,
) -> Result<CompleteLayerUploadResponse, Fault> {
    let action = "ecr:CompleteLayerUpload";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let place = &found.place;
    let [text] = &input.layer_digests[..] else {
        return Err(faults::parameter(
            "Invalid parameter at 'layerDigests': a layer has one digest.",
        ));
    };
    let digest: Digest = text.parse().map_err(|_| {
        faults::parameter(format!("Invalid parameter at 'layerDigests': '{text}' is no digest."))
    })?;
    let upload: Upload = ecr.upload(place, &input.upload_id).await?;
    if upload.offset() == 0 {
        return Err(faults::empty_upload());
    }
    if ecr.store.read().get::<model::Layer>(&place.key_of(&digest)).is_some() {
        upload.cancel().await.map_err(|error| faults::blob(place, error))?;
        return Err(faults::layer_exists());
    }
    let size = upload.offset();
    upload.finish(&digest).await.map_err(|error| faults::blob(place, error))?;
    ecr.link(place, &digest, size).await?;
    Ok(CompleteLayerUploadResponse {
        registry_id: Some(place.account().to_owned()),
        repository_name: Some(place.name.clone()),
        upload_id: Some(input.upload_id),
        layer_digest: Some(digest.to_string()),
    })
}

pub(crate) async fn get_download_url_for_layer(
    ecr: &Ecr,
    ctx: &Context,
    input: GetDownloadUrlForLayerRequest,
) -> Result<GetDownloadUrlForLayerResponse, Fault> {
    let action = "ecr:GetDownloadUrlForLayer";
    let found = ecr.find(ctx, input.registry_id.as_deref(), &input.repository_name, action)?;
    let (place, text) = (&found.place, input.layer_digest);
    let digest = text.parse::<Digest>().ok();
    let digest = digest
        .filter(|digest| ecr.store.read().get::<model::Layer>(&place.key_of(digest)).is_some());
    let digest = digest.ok_or_else(|| faults::no_layer(place, &text))?;
    let token = ecr.download_token(place, &digest)?;
    let token = utf8_percent_encode(&token, NON_ALPHANUMERIC);
    let url = format!("http://{}/v2/{}/blobs/{digest}?{TOKEN}={token}", ecr.host, place.key());
    Ok(GetDownloadUrlForLayerResponse { download_url: Some(url), layer_digest: Some(text) })
}
