//! ECS's way to page: `nextToken` and `maxResults` of 1 to 100.

use crate::faults;
use wire::{Fault, Page};

/// One page of at most `max` (100 unless told otherwise) of `ordered`.
pub(super) fn page<T>(
    listing: &str,
    token: Option<&str>,
    max: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let size = match max {
        None => 100,
        Some(max @ 1..=100) => max as usize,
        Some(_) => return Err(faults::invalid("maxResults must be between 1 and 100.")),
    };
    let page = Page::take(listing, token, size, ordered).map_err(|_| faults::bad_token())?;
    Ok((page.items, page.next_token))
}
