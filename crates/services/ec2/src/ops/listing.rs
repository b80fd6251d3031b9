//! EC2's way to page, and its dry runs.

use crate::faults;
use wire::{Fault, Page};

/// One page of `ordered`: all of it unless `max` (5 to 1000) says less.
pub(super) fn page<T>(
    listing: &str,
    token: Option<&str>,
    max: Option<i32>,
    ordered: Vec<(String, T)>,
) -> Result<(Option<Vec<T>>, Option<String>), Fault> {
    let size = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    let page = Page::take(listing, token, size, ordered.into_iter());
    let page = page.map_err(|_| faults::invalid("The token is invalid"))?;
    Ok((Some(page.items), page.next_token))
}

/// A dry run ends here: the caller may, and nothing is done.
pub(super) fn stop_if_dry(dry_run: Option<bool>) -> Result<(), Fault> {
    match dry_run {
        Some(true) => Err(faults::would_succeed()),
        _ => Ok(()),
    }
}
