//! Filters of Describe operations: every filter must match, by one of its values; `*` and `?` are wildcards.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html>

use crate::{api::Filter, faults};
use wire::Fault;

/// Whether a thing passes all filters. `values` gives the thing's values under a filter's name, or `None` for a name
/// that is no filter of this operation.
pub(super) fn passes(
    filters: Option<&Vec<Filter>>,
    values: impl Fn(&str) -> Option<Vec<String>>,
) -> Result<bool, Fault> {
    for filter in filters.into_iter().flatten() {
        let name = filter.name.as_deref().unwrap_or_default();
        let own = values(name).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            faults::invalid(format!("The filter '{name}' is invalid"))
        })?;
        let wanted = filter.values.as_deref().unwrap_or_default();
        if !own.iter().any(|own| wanted.iter().any(|wanted| matches(wanted, own))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The `tag:KEY` and `tag-key` filters, which every taggable thing has.
pub(super) fn tag_values(
    name: &str,
    tags: &std::collections::BTreeMap<String, String>,
) -> Option<Vec<String>> {
    match name.strip_prefix("tag:") {
        Some(key) => Some(tags.get(key).cloned().into_iter().collect()),
        None if name == "tag-key" => Some(tags.keys().cloned().collect()),
        None => None,
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = strip(text, first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        // The earliest place that fits leaves the most for the others.
        let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        match starts.find_map(|at| strip(&rest[at..], part)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    let wanted = last.chars().count();
    let have = rest.chars().count();
    have >= wanted && {
        let tail: String = rest.chars().skip(have - wanted).collect();
        strip(&tail, last).is_some_and(str::is_empty)
    }
}

/// What follows `pattern` (which may hold `?`) at the start of `text`.
fn strip<'t>(text: &'t str, pattern: &str) -> Option<&'t str> {
    let mut letters = text.chars();
    for wanted in pattern.chars() {
        let letter = letters.next()?;
        if wanted != '?' && wanted != letter {
            return None;
        }
    }
    Some(letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abcbc", true),
            ("a?c", "abc", true),
            ("a*b*c", "axbxc", true),
            ("*", "", true),
            ("a*bc*d", "abd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
