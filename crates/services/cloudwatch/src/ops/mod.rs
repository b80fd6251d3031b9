//! The operations.

pub(crate) mod alarm;
pub(crate) mod history;
pub(crate) mod metric;
pub(crate) mod tag;

use crate::{
    api::{self, Dimension},
    faults,
    metric::Metric,
};
use wire::{Context, Fault, Page};

/// Permissions that are of everything of a kind at once.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html>
fn authorise(ctx: &Context, action: &str) -> Result<(), Fault> {
    ctx.authorise(&format!("cloudwatch:{action}"), "*")
}

/// Permissions on one alarm.
fn authorise_alarm(ctx: &Context, action: &str, name: &str) -> Result<(), Fault> {
    let arn = ctx.arn("cloudwatch", format!("alarm:{name}"));
    ctx.authorise(&format!("cloudwatch:{action}"), &arn)
}

/// Refuses names that hold what separates names.
fn check_text(what: &str, text: &str) -> Result<(), Fault> {
    match text.chars().any(char::is_control) || text.trim().is_empty() {
        true => Err(faults::invalid(format!(
            "The value {text:?} for parameter {what} is invalid: it must hold something to see, and no control \
             characters"
        ))),
        false => Ok(()),
    }
}

/// A metric of these names, which are checked.
fn named(
    namespace: &str,
    name: &str,
    dimensions: Option<&Vec<Dimension>>,
) -> Result<Metric, Fault> {
    check_text("Namespace", namespace)?;
    check_text("MetricName", name)?;
    let mut named: Vec<(String, String)> = Vec::new();
    for dimension in dimensions.into_iter().flatten() {
        check_text("Dimensions.member.Name", &dimension.name)?;
        check_text("Dimensions.member.Value", &dimension.value)?;
        let ascii = dimension.name.is_ascii() && dimension.value.is_ascii();
        if !ascii || dimension.name.starts_with(':') || dimension.name.contains('=') {
            return Err(faults::invalid(format!(
                "The dimension {} is invalid: names and values are ASCII, and a name neither begins with ':' \
                 nor holds '='",
                dimension.name
            )));
        }
        if named.iter().any(|(name, _)| *name == dimension.name) {
            return Err(faults::invalid(format!(
                "The dimension {} is given more than once",
                dimension.name
            )));
        }
        named.push((dimension.name.clone(), dimension.value.clone()));
    }
    Ok(Metric::new(namespace, name, named))
}

/// A metric as AWS writes it.
fn told(metric: &Metric) -> api::Metric {
    api::Metric {
        namespace: Some(metric.namespace.clone()),
        metric_name: Some(metric.name.clone()),
        dimensions: Some(dimensions(metric)),
    }
}

fn dimensions(metric: &Metric) -> Vec<Dimension> {
    let dimension =
        |(name, value): &(String, String)| Dimension { name: name.clone(), value: value.clone() };
    metric.dimensions.iter().map(dimension).collect()
}

fn page<T>(
    listing: &str,
    token: Option<&str>,
    size: usize,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    Page::take(listing, token, size, ordered).map_err(|_| faults::bad_token())
}
