//! Elastic Load Balancing's way to page, and what all its names have in common.

use crate::faults;
use wire::{Fault, Page};

/// The longest page, and the one for callers that do not say.
const PAGE: usize = 400;
/// The longest name of a load balancer or a target group.
const MOST_NAME: usize = 32;

/// One page of `ordered`, and the marker for the next.
pub(super) fn page<T>(
    listing: &str,
    marker: Option<&str>,
    size: Option<i32>,
    mut items: Vec<(String, T)>,
) -> Result<(Option<Vec<T>>, Option<String>), Fault> {
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let page = Page::take(listing, marker, size, items.into_iter());
    let page = page.map_err(|_| faults::invalid("The marker is not valid"))?;
    Ok((Some(page.items), page.next_token))
}

/// Whether `name` can be the name of a `what`.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(faults::invalid(format!("{what} name cannot be empty")));
    }
    if name.len() > MOST_NAME {
        let shown: String = name.chars().take(256).collect();
        let message =
            format!("{what} name '{shown}' cannot be longer than '{MOST_NAME}' characters");
        return Err(faults::invalid(message));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        let message = format!(
            "{what} name '{name}' can only contain characters that are alphanumeric characters or hyphens(-)"
        );
        return Err(faults::invalid(message));
    }
    match name.starts_with('-') || name.ends_with('-') {
        true => Err(faults::invalid(format!("{what} name '{name}' cannot begin or end with '-'"))),
        false => Ok(()),
    }
}

/// At most one of ARNs, names and so on may be asked for.
pub(super) fn check_one(given: &[bool]) -> Result<(), Fault> {
    match given.iter().filter(|given| **given).count() > 1 {
        true => {
            let message = "Names, ARNs and load balancer ARNs cannot be specified at the same time";
            Err(faults::invalid(message))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-b", "A9", "a--b", &"x".repeat(32)] {
            check_name("Target group", good).unwrap();
        }
        for bad in ["", "-a", "a-", "a_b", "a b", "ä", &"x".repeat(33)] {
            assert_eq!(
                check_name("Target group", bad).unwrap_err().code,
                "ValidationError",
                "{bad}"
            );
        }
    }
}
