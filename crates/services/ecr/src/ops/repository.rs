//! Repositories: create, describe, delete, which tags may be moved.

use super::{change, page, tag};
use crate::{
    Ecr,
    api::{
        CreateRepositoryRequest, CreateRepositoryResponse, DeleteRepositoryRequest,
        DeleteRepositoryResponse, DescribeRepositoriesRequest, DescribeRepositoriesResponse,
        EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
        ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType,
        PutImageTagMutabilityRequest, PutImageTagMutabilityResponse, Repository as Answer,
    },
    faults,
    model::{Image, Layer, Mutability, Place, Repository, Tag},
};
use wire::{Context, Fault};

type Filters = Vec<ImageTagMutabilityExclusionFilter>;

/// A repository as it is answered.
fn shown(ecr: &Ecr, repository: &Repository) -> Answer {
    Answer {
        repository_arn: Some(repository.place.arn()),
        registry_id: Some(repository.place.account().to_owned()),
        repository_name: Some(repository.place.name.clone()),
        repository_uri: Some(ecr.uri(&repository.place)),
        created_at: Some(repository.created),
        image_tag_mutability: Some(mutability(repository)),
        image_tag_mutability_exclusion_filters: filters(repository),
        image_scanning_configuration: Some(ImageScanningConfiguration {
            scan_on_push: Some(false),
        }),
        encryption_configuration: Some(EncryptionConfiguration {
            encryption_type: EncryptionType::Aes256,
            kms_key: None,
        }),
    }
}

fn mutability(repository: &Repository) -> ImageTagMutability {
    match (repository.mutability, repository.exclusions.is_empty()) {
        (Mutability::Mutable, true) => ImageTagMutability::Mutable,
        (Mutability::Mutable, false) => ImageTagMutability::MutableWithExclusion,
        (Mutability::Immutable, true) => ImageTagMutability::Immutable,
        (Mutability::Immutable, false) => ImageTagMutability::ImmutableWithExclusion,
    }
}

fn filters(repository: &Repository) -> Option<Filters> {
    let filters = repository.exclusions.iter().map(|filter| ImageTagMutabilityExclusionFilter {
        filter_type: ImageTagMutabilityExclusionFilterType::Wildcard,
        filter: filter.clone(),
    });
    let filters: Filters = filters.collect();
    (!filters.is_empty()).then_some(filters)
}

/// What a request says of tags that may be moved.
fn read_mutability(
    wanted: Option<ImageTagMutability>,
    filters: Option<Filters>,
) -> Result<(Mutability, Vec<String>), Fault> {
    let (mutability, excluding) = match wanted.unwrap_or(ImageTagMutability::Mutable) {
        ImageTagMutability::Mutable => (Mutability::Mutable, false),
        ImageTagMutability::MutableWithExclusion => (Mutability::Mutable, true),
        ImageTagMutability::Immutable => (Mutability::Immutable, false),
        ImageTagMutability::ImmutableWithExclusion => (Mutability::Immutable, true),
    };
    let filters: Vec<String> =
        filters.unwrap_or_default().into_iter().map(|filter| filter.filter).collect();
    if excluding == filters.is_empty() {
        return Err(faults::parameter(
            "imageTagMutabilityExclusionFilters are needed with a mutability WITH_EXCLUSION, and only with it.",
        ));
    }
    if filters.iter().any(|filter| filter.matches('*').count() > 2) {
        return Err(faults::parameter("An exclusion filter can have at most two wildcards."));
    }
    Ok((mutability, filters))
}

pub(crate) async fn create_repository(
    ecr: &Ecr,
    ctx: &Context,
    input: CreateRepositoryRequest,
) -> Result<CreateRepositoryResponse, Fault> {
    let place = Place { realm: ctx.realm(), name: input.repository_name };
    ctx.authorise("ecr:CreateRepository", &place.arn())?;
    if input.registry_id.is_some_and(|id| id != ctx.account()) {
        return Err(faults::parameter("A repository is created in the caller's own registry."));
    }
    if input.image_scanning_configuration.and_then(|scanning| scanning.scan_on_push) == Some(true) {
        return Err(faults::parameter("Neargate does not scan images; scanOnPush can't be true."));
    }
    let encryption = input.encryption_configuration.map(|given| given.encryption_type);
    if encryption.is_some_and(|given| given != EncryptionType::Aes256) {
        return Err(faults::parameter(
            "Neargate has no KMS; the encryption type can be AES256 only.",
        ));
    }
    let (mutability, exclusions) =
        read_mutability(input.image_tag_mutability, input.image_tag_mutability_exclusion_filters)?;
    let tags = tag::collect(input.tags.unwrap_or_default())?;
    if !tags.is_empty() {
        ctx.authorise("ecr:TagResource", &place.arn())?;
    }
    let repository = Repository {
        place,
        created: ctx.now,
        mutability,
        exclusions,
        tags,
        policy: None,
        lifecycle: None,
        evaluated: None,
    };
    let answer = shown(ecr, &repository);
    ecr.store
        .write(move |tx| {
            if tx.get::<Repository>(&repository.place.key()).is_some() {
                return Err(faults::repository_exists(&repository.place));
            }
            tx.put(repository);
            Ok(())
        })
        .await?;
    Ok(CreateRepositoryResponse { repository: Some(answer) })
}

pub(crate) async fn describe_repositories(
    ecr: &Ecr,
    ctx: &Context,
    input: DescribeRepositoriesRequest,
) -> Result<DescribeRepositoriesResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let action = "ecr:DescribeRepositories";
    if let Some(names) = input.repository_names.filter(|names| !names.is_empty()) {
        let found = names.iter().map(|name| ecr.find(ctx, registry, name, action));
        let found: Result<Vec<_>, Fault> = found.collect();
        let repositories = found?.iter().map(|found| shown(ecr, found)).collect();
        return Ok(DescribeRepositoriesResponse {
            repositories: Some(repositories),
            next_token: None,
        });
    }
    let account = registry.unwrap_or(ctx.account());
    let all = Place { realm: format!("{account}/{}", ctx.region), name: "*".to_owned() };
    ecr.authorise(ctx, &all, None, action)?;
    let snapshot = ecr.store.read();
    let repositories = snapshot.scan_prefix::<Repository>(&format!("{}/", all.realm));
    let named = repositories.map(|found| (found.place.name.clone(), found));
    let page = page("repositories", input.next_token.as_deref(), input.max_results, named)?;
    let repositories = page.items.iter().map(|found| shown(ecr, found)).collect();
    Ok(DescribeRepositoriesResponse {
        repositories: Some(repositories),
        next_token: page.next_token,
    })
}

pub(crate) async fn delete_repository(
    ecr: &Ecr,
    ctx: &Context,
    input: DeleteRepositoryRequest,
) -> Result<DeleteRepositoryResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:DeleteRepository")?;
    let (place, force) = (found.place.clone(), input.force.unwrap_or(false));
    ecr.store
        .write(move |tx| {
            let prefix = place.prefix();
            let images: Vec<String> =
                tx.scan_prefix::<Image>(&prefix).map(|image| place.key_of(&image.digest)).collect();
            if !images.is_empty() && !force {
                return Err(faults::not_empty(&place));
            }
            let tags: Vec<String> =
                tx.scan_prefix::<Tag>(&prefix).map(|tag| place.key_of(&tag.tag)).collect();
            let layers: Vec<String> =
                tx.scan_prefix::<Layer>(&prefix).map(|layer| place.key_of(&layer.digest)).collect();
            for key in &images {
                tx.delete::<Image>(key);
            }
            for key in &tags {
                tx.delete::<Tag>(key);
            }
            for key in &layers {
                tx.delete::<Layer>(key);
            }
            match tx.delete::<Repository>(&place.key()) {
                true => Ok(()),
                false => Err(faults::no_repository(&place)),
            }
        })
        .await?;
    Ok(DeleteRepositoryResponse { repository: Some(shown(ecr, &found)) })
}

pub(crate) async fn put_image_tag_mutability(
    ecr: &Ecr,
    ctx: &Context,
    input: PutImageTagMutabilityRequest,
) -> Result<PutImageTagMutabilityResponse, Fault> {
    let registry = input.registry_id.as_deref();
    let found = ecr.find(ctx, registry, &input.repository_name, "ecr:PutImageTagMutability")?;
    let filters_given = input.image_tag_mutability_exclusion_filters;
    let (wanted, exclusions) = read_mutability(Some(input.image_tag_mutability), filters_given)?;
    let changed = change(ecr, &found, move |repository| {
        repository.mutability = wanted;
        repository.exclusions = exclusions;
    });
    let changed = changed.await?;
    Ok(PutImageTagMutabilityResponse {
        registry_id: Some(changed.place.account().to_owned()),
        repository_name: Some(changed.place.name.clone()),
        image_tag_mutability: Some(mutability(&changed)),
        image_tag_mutability_exclusion_filters: filters(&changed),
    })
}
