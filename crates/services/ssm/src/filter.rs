//! Filters of listings.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_ParameterStringFilter.html>

use crate::{
    api::{ParameterStringFilter, ParametersFilter},
    model::{Parameter, Version},
    ops::{latest, versions},
};
use std::sync::Arc;
use store::Snapshot;
use wire::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equals,
    BeginsWith,
    Contains,
    Recursive,
    OneLevel,
}

/// A filter that has been checked.
pub(crate) struct Filter {
    key: String,
    test: Test,
    values: Vec<String>,
}

fn bad_key(key: &str) -> Fault {
    let message = format!(
        "The following filter key is not valid: {key}. Valid filter keys of DescribeParameters include: [Name, \
         Type, KeyId, Path, Tier, DataType, tag:...]; of GetParametersByPath: [Type, KeyId, Label]."
    );
    Fault::new("InvalidFilterKey", message)
}

/// The filters of DescribeParameters, in either of their forms.
pub(crate) fn for_describe(
    old: Option<Vec<ParametersFilter>>,
    new: Option<Vec<ParameterStringFilter>>,
) -> Result<Vec<Filter>, Fault> {
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    if !old.is_empty() && !new.is_empty() {
        return Err(crate::faults::invalid(
            "You can use either Filters or ParameterFilters in a single request.",
        ));
    }
    let old = old.into_iter().map(|filter| {
        let key = filter.key.as_str().to_owned();
        // The old form finds names by how they begin.
        let test = if key == "Name" { Test::BeginsWith } else { Test::Equals };
        Ok(Filter { key, test, values: filter.values })
    });
    old.chain(new.into_iter().map(|filter| read(filter, false))).collect()
}

/// The filters of GetParametersByPath.
pub(crate) fn for_path(filters: Option<Vec<ParameterStringFilter>>) -> Result<Vec<Filter>, Fault> {
    filters.unwrap_or_default().into_iter().map(|filter| read(filter, true)).collect()
}

fn read(filter: ParameterStringFilter, by_path: bool) -> Result<Filter, Fault> {
    let ParameterStringFilter { key, option, values } = filter;
    let values = values.unwrap_or_default();
    let is_tag = key.starts_with("tag:");
    let known = match by_path {
        true => matches!(key.as_str(), "Type" | "KeyId" | "Label"),
        false => {
            is_tag
                || matches!(key.as_str(), "Name" | "Type" | "KeyId" | "Path" | "Tier" | "DataType")
        }
    };
    if !known {
        return Err(bad_key(&key));
    }
    let option = option.as_deref();
    let test = match (key.as_str(), option) {
        ("Path", None | Some("OneLevel")) => Test::OneLevel,
        ("Path", Some("Recursive")) => Test::Recursive,
        ("Name", Some("Contains")) => Test::Contains,
        ("Name" | "KeyId", Some("BeginsWith")) => Test::BeginsWith,
        (key, None | Some("Equals")) if key != "Path" => Test::Equals,
        (key, option) => {
            let option = option.unwrap_or_default();
            let message = format!("The filter option {option} is not valid for the key {key}.");
            return Err(Fault::new("InvalidFilterOption", message));
        }
    };
    let wrong = (values.is_empty() && !is_tag)
        || (key == "Path" && values.iter().any(|path| !path.starts_with('/')));
    if wrong {
        let message = format!("The filter value for the key {key} is missing or not valid.");
        return Err(Fault::new("InvalidFilterValue", message));
    }
    Ok(Filter { key, test, values })
}

impl Filter {
    fn any(&self, text: &str) -> bool {
        self.values.iter().any(|value| match self.test {
            Test::Equals => text == value,
            Test::BeginsWith => text.starts_with(value.as_str()),
            Test::Contains => text.contains(value.as_str()),
            Test::Recursive | Test::OneLevel => {
                let below = text.strip_prefix(value.trim_end_matches('/'));
                let below = below.and_then(|rest| rest.strip_prefix('/'));
                below.is_some_and(|rest| self.test == Test::Recursive || !rest.contains('/'))
            }
        })
    }

    /// Whether a parameter with this newest version is meant.
    pub(crate) fn matches(&self, parameter: &Parameter, version: &Version) -> bool {
        match self.key.as_str() {
            // AWS finds a name with and without its leading slash.
            "Name" => self.any(&parameter.name) || self.any(parameter.name.trim_start_matches('/')),
            "Path" => self.any(&parameter.name),
            "Type" => self.any(&parameter.kind),
            "KeyId" => version.key_id.as_deref().is_some_and(|key| self.any(key)),
            "Tier" => self.any(&version.tier),
            "DataType" => self.any(&version.data_type),
            "Label" => version.labels.iter().any(|label| self.any(label)),
            key => {
                let tag = key.strip_prefix("tag:").and_then(|key| parameter.tags.get(key));
                tag.is_some_and(|value| self.values.is_empty() || self.any(value))
            }
        }
    }
}

/// The version of `parameter` that all filters find (with the label by which), or none: the newest one unless a label
/// is asked for.
pub(crate) fn version(
    snapshot: &Snapshot,
    parameter: &Parameter,
    filters: &[Filter],
) -> Option<(Arc<Version>, Option<String>)> {
    let by_label: Vec<&Filter> = filters.iter().filter(|filter| filter.key == "Label").collect();
    if by_label.is_empty() {
        let version = latest(snapshot, parameter);
        return filters.iter().all(|f| f.matches(parameter, &version)).then_some((version, None));
    }
    versions(snapshot, parameter).into_iter().rev().find_map(|version| {
        let found = filters.iter().all(|filter| filter.matches(parameter, &version));
        let label = version.labels.iter().find(|label| by_label.iter().all(|f| f.any(label)));
        label.cloned().filter(|_| found).map(|label| (version.clone(), Some(label)))
    })
}
