//! Cloud Map's way to page and to filter.

use crate::{api::FilterCondition, faults};
use wire::{Fault, Page};

/// The longest page, and the one for callers that do not say.
const PAGE: usize = 100;

/// One page of `ordered`, and the token for the next.
pub(super) fn page<T>(
    listing: &str,
    token: Option<&str>,
    size: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<(Option<Vec<T>>, Option<String>), Fault> {
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let page = Page::take(listing, token, size, ordered);
    let page = page.map_err(|_| faults::invalid("NextToken is invalid."))?;
    Ok((Some(page.items), page.next_token))
}

/// A filter of one of the lists.
pub(super) struct Filter {
    values: Vec<String>,
    condition: FilterCondition,
}

impl Filter {
    /// The filter, if it can be one. `known` are the conditions that the name takes.
    pub(super) fn new(
        values: Vec<String>,
        condition: Option<FilterCondition>,
        known: &[FilterCondition],
    ) -> Result<Self, Fault> {
        let condition = condition.unwrap_or(FilterCondition::Eq);
        let count = match condition {
            FilterCondition::Eq | FilterCondition::BeginsWith => 1..=1,
            FilterCondition::Between => 2..=2,
            FilterCondition::In => 1..=usize::MAX,
        };
        if !known.contains(&condition) || !count.contains(&values.len()) {
            let condition = condition.as_str();
            return Err(faults::invalid(format!(
                "The filter condition {condition} does not take these values."
            )));
        }
        Ok(Self { values, condition })
    }

    /// Whether it lets a text through.
    pub(super) fn takes(&self, text: &str) -> bool {
        match self.condition {
            FilterCondition::BeginsWith => text.starts_with(&self.values[0]),
            _ => self.values.iter().any(|value| value == text),
        }
    }

    /// Whether it lets a time, in seconds since the epoch, through.
    pub(super) fn takes_time(&self, seconds: f64) -> bool {
        let number = |at: usize| self.values[at].parse::<f64>().unwrap_or(f64::NAN);
        number(0) <= seconds && seconds <= number(1)
    }
}
