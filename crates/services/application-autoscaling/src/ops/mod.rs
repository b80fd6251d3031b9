//! Handlers.

pub(crate) mod scalable_target;
pub(crate) mod scaling_activity;
pub(crate) mod scaling_policy;
pub(crate) mod scheduled_action;
pub(crate) mod tag;

use crate::{
    api::{ScalableDimension, ServiceNamespace},
    faults,
};
use wire::{Context, Fault, Page};

/// The most that are listed at once.
const MOST_LISTED: i32 = 50;

/// The one thing that is scaled: the desired count of an ECS service.
fn check_kind(
    namespace: ServiceNamespace,
    dimension: Option<ScalableDimension>,
) -> Result<(), Fault> {
    if namespace != ServiceNamespace::Ecs {
        return Err(faults::invalid(format!(
            "Neargate scales ECS services only, not the service namespace {}",
            namespace.as_str()
        )));
    }
    match dimension {
        None | Some(ScalableDimension::EcsServiceDesiredCount) => Ok(()),
        Some(other) => Err(faults::invalid(format!(
            "Unsupported service namespace, resource type or scalable dimension: {}",
            other.as_str()
        ))),
    }
}

/// `service/CLUSTER/NAME`.
fn check_resource(resource: &str) -> Result<(), Fault> {
    let parts: Vec<&str> = resource.split('/').collect();
    match parts[..] {
        ["service", cluster, name] if !cluster.is_empty() && !name.is_empty() => Ok(()),
        _ => Err(faults::invalid(format!("Unsupported resource ID: {resource}"))),
    }
}

/// Permissions are of all scalable targets at once.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsapplicationautoscaling.html>
fn authorise(ctx: &Context, action: &str) -> Result<(), Fault> {
    ctx.authorise(&format!("application-autoscaling:{action}"), "*")
}

/// One page of what is ordered by key.
fn page<T>(
    listing: &str,
    token: Option<&str>,
    max: Option<i32>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<(Option<Vec<T>>, Option<String>), Fault> {
    let size = usize::try_from(max.unwrap_or(MOST_LISTED).clamp(1, MOST_LISTED)).unwrap_or(1);
    let page = Page::take(listing, token, size, ordered).map_err(|_| faults::bad_token())?;
    Ok((Some(page.items), page.next_token))
}
