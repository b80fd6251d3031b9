//! Handlers: authorise, validate, commit, answer.

pub(crate) mod authorization;
pub(crate) mod image;
pub(crate) mod layer;
pub(crate) mod lifecycle;
pub(crate) mod policy;
pub(crate) mod repository;
pub(crate) mod tag;

use crate::{Ecr, faults, model::Repository};
use std::sync::Arc;
use wire::{Fault, Page};

/// One page of a listing.
fn page<T>(
    listing: &str,
    token: Option<&str>,
    limit: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    const DEFAULT: usize = 100;
    let size = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT);
    let invalid =
        |_| faults::parameter("Invalid parameter at 'NextToken': it isn't one of this listing's.");
    Page::take(listing, token, size, ordered).map_err(invalid)
}

/// Changes a repository that was found; it may have gone meanwhile.
async fn change(
    ecr: &Ecr,
    found: &Repository,
    change: impl FnOnce(&mut Repository) + Send + 'static,
) -> Result<Arc<Repository>, Fault> {
    let place = found.place.clone();
    ecr.store
        .write(move |tx| {
            tx.update::<Repository>(&place.key(), change);
            tx.get::<Repository>(&place.key()).ok_or_else(|| faults::no_repository(&place))
        })
        .await
}
