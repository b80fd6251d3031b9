//! The proxy that takes a task's connections.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ProxyConfiguration.html>

use super::container::client;
use crate::api::*;
use wire::Fault;

/// What the properties say; the error is for whoever registers them.
pub(crate) fn proxy(configuration: &ProxyConfiguration) -> Result<network::Proxy, Fault> {
    let mut proxy = network::Proxy::default();
    let (mut ingress, mut egress) = (None, None);
    for property in configuration.properties.iter().flatten() {
        let name = property.name.as_deref().unwrap_or_default();
        let value = property.value.as_deref().unwrap_or_default();
        let invalid = || {
            client(format!("Invalid value '{value}' of the proxy configuration's property {name}."))
        };
        let values = || value.split(',').map(str::trim).filter(|value| !value.is_empty());
        let ports = || {
            values()
                .map(|port| port.parse::<u16>().map_err(|_| invalid()))
                .collect::<Result<_, _>>()
        };
        let one =
            || values().next().map(|port| port.parse::<u16>().map_err(|_| invalid())).transpose();
        let id = || values().next().map(|id| id.parse::<u32>().map_err(|_| invalid())).transpose();
        match name {
            "IgnoredUID" => proxy.ignored_uid = id()?,
            "IgnoredGID" => proxy.ignored_gid = id()?,
            "AppPorts" => proxy.app_ports = ports()?,
            "EgressIgnoredPorts" => proxy.ignored_ports = ports()?,
            "EgressIgnoredIPs" => {
                let blocks = values().filter(|text| !text.contains(':'));
                let blocks = blocks.map(|text| network::block(text).ok_or_else(invalid));
                proxy.ignored_blocks = blocks.collect::<Result<_, _>>()?;
            }
            "ProxyIngressPort" => ingress = one()?,
            "ProxyEgressPort" => egress = one()?,
            _ => return Err(client(format!("The proxy configuration has no property {name}."))),
        }
    }
    let required = |value: Option<u16>, name: &str| {
        value
            .ok_or_else(|| client(format!("The proxy configuration requires the property {name}.")))
    };
    proxy.ingress_port = required(ingress, "ProxyIngressPort")?;
    proxy.egress_port = required(egress, "ProxyEgressPort")?;
    if proxy.app_ports.is_empty() {
        return Err(client("The proxy configuration requires the property AppPorts."));
    }
    match (proxy.ignored_uid, proxy.ignored_gid) {
        (None, None) => {
            Err(client("The proxy configuration requires the property IgnoredUID or IgnoredGID."))
        }
        _ => Ok(proxy),
    }
}

/// Checks a configuration, and that its container is there.
pub(super) fn check(
    configuration: &ProxyConfiguration,
    containers: &[ContainerDefinition],
) -> Result<(), Fault> {
    let name = &configuration.container_name;
    if !containers.iter().any(|container| container.name.as_ref() == Some(name)) {
        return Err(client(format!(
            "The proxy configuration's container '{name}' is not in the task definition."
        )));
    }
    proxy(configuration).map(drop)
}
