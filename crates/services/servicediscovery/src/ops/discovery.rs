//! Finding instances through the API.

use super::{find::all, instance::health};
use crate::{
    ServiceDiscovery,
    api::*,
    faults,
    model::{Instance, Namespace, Service},
};
use std::{collections::BTreeMap, sync::Arc};
use store::View;
use wire::{Context, Fault};

/// So many are answered unless told otherwise.
const ANSWERED: usize = 100;

/// The named service, when the caller may discover its instances.
fn find(
    view: &impl View,
    ctx: &Context,
    action: &str,
    (namespace, service): (&str, &str),
) -> Result<(Arc<Namespace>, Arc<Service>), Fault> {
    let conditions =
        [("servicediscovery:NamespaceName", namespace), ("servicediscovery:ServiceName", service)];
    ctx.authorise_with(action, "*", &conditions)?;
    let mut namespaces = all::<Namespace>(view, &ctx.realm()).into_iter();
    let found = namespaces.find(|found| found.http_name.eq_ignore_ascii_case(namespace));
    let found = found.ok_or_else(|| faults::no_namespace(namespace))?;
    let mut services = all::<Service>(view, &ctx.realm()).into_iter();
    let own = services.find(|s| s.namespace == found.id && s.name.eq_ignore_ascii_case(service));
    Ok((found, own.ok_or_else(|| faults::no_service(service))?))
}

fn holds(instance: &Instance, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| instance.attributes.get(key) == Some(value))
}

pub(crate) async fn discover_instances(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DiscoverInstancesRequest,
) -> Result<DiscoverInstancesResponse, Fault> {
    let snapshot = discovery.store.read();
    let names = (input.namespace_name.as_str(), input.service_name.as_str());
    let (namespace, service) = find(&snapshot, ctx, "servicediscovery:DiscoverInstances", names)?;
    let mut found = View::records::<Instance>(&snapshot, &service.instances_prefix());
    if let Some(query) = &input.query_parameters {
        found.retain(|instance| holds(instance, query));
    }
    if let Some(wished) = &input.optional_parameters
        && found.iter().any(|instance| holds(instance, wished))
    {
        found.retain(|instance| holds(instance, wished));
    }
    let wanted = input.health_status.unwrap_or(HealthStatusFilter::Healthy);
    let none = !found.iter().any(|instance| instance.is_healthy());
    let takes = |instance: &Instance| match wanted {
        _ if !service.has_health => true,
        HealthStatusFilter::All => true,
        HealthStatusFilter::Healthy => instance.is_healthy(),
        HealthStatusFilter::Unhealthy => !instance.is_healthy(),
        HealthStatusFilter::HealthyOrElseAll => none || instance.is_healthy(),
    };
    found.retain(|instance| takes(instance));
    crate::dns::shuffle(&discovery.world, &mut found);
    let most = input.max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(ANSWERED);
    let summary = |instance: Arc<Instance>| HttpInstanceSummary {
        instance_id: Some(instance.id.clone()),
        namespace_name: Some(namespace.http_name.clone()),
        service_name: Some(service.name.clone()),
        health_status: Some(health(&service, &instance)),
        attributes: Some(instance.attributes.clone()),
    };
    Ok(DiscoverInstancesResponse {
        instances: Some(found.into_iter().take(most).map(summary).collect()),
        instances_revision: Some(service.revision),
    })
}

pub(crate) async fn discover_instances_revision(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DiscoverInstancesRevisionRequest,
) -> Result<DiscoverInstancesRevisionResponse, Fault> {
    let action = "servicediscovery:DiscoverInstancesRevision";
    let names = (input.namespace_name.as_str(), input.service_name.as_str());
    let (_, service) = find(&discovery.store.read(), ctx, action, names)?;
    Ok(DiscoverInstancesRevisionResponse { instances_revision: Some(service.revision) })
}
