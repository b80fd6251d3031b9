//! What a service asks of Service Connect.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceConnectConfiguration.html>

use crate::{
    Ecs,
    api::*,
    faults,
    model::{Alias, Cluster as ClusterRecord, Connect, Endpoint, Service, TaskDefinition},
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

/// The longest names, and the most names of one port.
const MOST_DISCOVERY_NAME: usize = 64;
const MOST_ALIAS_NAME: usize = 127;
const MOST_ALIASES: usize = 1;

/// A part that is not in the namespace yet: its endpoints have no Cloud Map service and no number.
pub(super) type Draft = Option<Connect>;

/// The part that a service asks for; none when it asks for none.
pub(super) fn draft(
    ecs: &Ecs,
    ctx: &Context,
    cluster: &ClusterRecord,
    definition: &TaskDefinition,
    asked: Option<ServiceConnectConfiguration>,
) -> Result<Draft, Fault> {
    let Some(asked) = asked.filter(|asked| asked.enabled) else { return Ok(None) };
    let given = asked.namespace.clone().or(cluster.connect_namespace.clone());
    let given = given.ok_or_else(|| {
        faults::invalid(
            "A namespace must be specified in serviceConnectConfiguration, or as the cluster's default.",
        )
    })?;
    let namespace = ecs.discovery.namespace_of(&ctx.realm(), &given);
    let namespace = namespace.ok_or_else(faults::no_namespace)?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for service in asked.services.iter().flatten() {
        let endpoint = endpoint(definition, &namespace.name, service)?;
        if endpoints.iter().any(|other| other.discovery_name == endpoint.discovery_name) {
            let name = &endpoint.discovery_name;
            let message = format!("The discovery name {name} is used more than once.");
            return Err(faults::invalid(message));
        }
        endpoints.push(endpoint);
    }
    Ok(Some(Connect { namespace: namespace.id.clone(), endpoints, asked }))
}

fn check_name(what: &str, name: &str, most: usize, dots: bool) -> Result<(), Fault> {
    let fits = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b) || dots && b == b'.'
    };
    match (1..=most).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') {
        true => Ok(()),
        false => Err(faults::invalid(format!("The {what} {name} is not valid."))),
    }
}

fn endpoint(
    definition: &TaskDefinition,
    namespace: &str,
    given: &ServiceConnectService,
) -> Result<Endpoint, Fault> {
    let containers = definition.document.container_definitions.iter().flatten();
    let mut ports = containers.flat_map(|container| container.port_mappings.iter().flatten());
    let mapping = ports.find(|mapping| mapping.name.as_ref() == Some(&given.port_name));
    let mapping = mapping.ok_or_else(|| {
        let name = &given.port_name;
        let message = format!(
            "The portName {name} does not refer to a named port mapping in the task definition."
        );
        faults::invalid(message)
    })?;
    let name = given.discovery_name.clone().unwrap_or_else(|| given.port_name.clone());
    check_name("discoveryName", &name, MOST_DISCOVERY_NAME, false)?;
    let given_aliases = given.client_aliases.clone().unwrap_or_default();
    if given_aliases.len() > MOST_ALIASES {
        let message = format!("clientAliases can have at most {MOST_ALIASES} items.");
        return Err(faults::invalid(message));
    }
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let mut aliases = Vec::new();
    for alias in given_aliases {
        let named = alias.dns_name.unwrap_or_else(|| format!("{name}.{namespace}").to_lowercase());
        check_name("dnsName", &named, MOST_ALIAS_NAME, true)?;
        let port = u16::try_from(alias.port).unwrap_or(0);
        if port == 0 {
            return Err(faults::invalid("The port of a client alias must be between 1 and 65535."));
        }
        aliases.push(Alias { name: named, port });
    }
    Ok(Endpoint {
        service: String::new(),
        port: port(mapping.container_port),
        http: mapping.app_protocol.is_some(),
        http2: matches!(
            mapping.app_protocol,
            Some(ApplicationProtocol::Http2 | ApplicationProtocol::Grpc)
        ),
        idle_seconds: given.timeout.as_ref().and_then(|timeout| timeout.idle_timeout_seconds),
        aliases,
        number: 0,
        discovery_name: name,
    })
}

/// Brings a draft into its namespace, for a service (`own` is what it was, if it was there): every endpoint gets a
/// Cloud Map service, and an address that no other of the namespace has.
pub(super) fn settle(
    ecs: &Ecs,
    tx: &mut Tx,
    realm: &str,
    own: Option<&Service>,
    draft: Draft,
) -> Result<Option<Connect>, Fault> {
    let Some(mut connect) = draft else { return Ok(None) };
    let own_key = own.map(store::Record::key);
    let services: Vec<Arc<Service>> = tx.scan_prefix::<Service>(&format!("{realm}/")).collect();
    let is_own = |service: &Service| Some(store::Record::key(service)) == own_key;
    let others = services.iter().filter(|service| !is_own(service));
    let of = |service: &Service| -> Vec<Endpoint> {
        let parts = service.deployments.iter().filter_map(|d| d.revision.connect.as_ref());
        let here = parts.filter(|part| part.namespace == connect.namespace);
        here.flat_map(|part| part.endpoints.clone()).collect()
    };
    let others: Vec<Endpoint> = others.flat_map(|service| of(service)).collect();
    let before: Vec<Endpoint> = own.map(of).unwrap_or_default();
    for endpoint in &mut connect.endpoints {
        if others.iter().any(|other| other.discovery_name == endpoint.discovery_name) {
            let name = &endpoint.discovery_name;
            let message = format!("The discovery name {name} is already in use in the namespace.");
            return Err(faults::invalid(message));
        }
        let taken = others.iter().flat_map(|other| &other.aliases);
        if let Some(alias) = taken.clone().find(|alias| endpoint.aliases.contains(alias)) {
            let (name, port) = (&alias.name, alias.port);
            let message =
                format!("The client alias {name}:{port} is already in use in the namespace.");
            return Err(faults::invalid(message));
        }
        let known = before.iter().find(|b| b.discovery_name == endpoint.discovery_name);
        if let Some(known) = known {
            (endpoint.service, endpoint.number) = (known.service.clone(), known.number);
        }
    }
    let namespace = connect.namespace.clone();
    for at in 0..connect.endpoints.len() {
        let endpoint = &connect.endpoints[at];
        if endpoint.number > 0 {
            continue;
        }
        let all = || others.iter().chain(&before).chain(&connect.endpoints);
        let free = (1..=u16::MAX).find(|number| all().all(|other| other.number != *number));
        let name = endpoint.discovery_name.clone();
        let made = ecs.discovery.connect_service(tx, realm, &namespace, &name);
        let service = made.map_err(|fault| faults::invalid(fault.message))?;
        let endpoint = &mut connect.endpoints[at];
        endpoint.number = free.ok_or_else(|| faults::invalid("The namespace is full."))?;
        endpoint.service = service;
    }
    Ok(Some(connect))
}

pub(crate) async fn list_services_by_namespace(
    ecs: &Ecs,
    ctx: &Context,
    input: ListServicesByNamespaceRequest,
) -> Result<ListServicesByNamespaceResponse, Fault> {
    ctx.authorise("ecs:ListServicesByNamespace", "*")?;
    let namespace = ecs.discovery.namespace_of(&ctx.realm(), &input.namespace);
    let namespace = namespace.ok_or_else(faults::no_namespace)?;
    let is_in = |service: &Service| {
        let mut parts = service.deployments.iter().filter_map(|d| d.revision.connect.as_ref());
        parts.any(|part| part.namespace == namespace.id)
    };
    let snapshot = ecs.store.read();
    let services = snapshot.scan_prefix::<Service>(&format!("{}/", ctx.realm()));
    let arns = services.filter(|service| is_in(service)).map(|service| {
        let arn = service.arn();
        (arn.clone(), arn)
    });
    let size = input.max_results.or(Some(10));
    let (arns, next_token) =
        super::listing::page("ListServicesByNamespace", input.next_token.as_deref(), size, arns)?;
    Ok(ListServicesByNamespaceResponse { service_arns: Some(arns), next_token })
}
