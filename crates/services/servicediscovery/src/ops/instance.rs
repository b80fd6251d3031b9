//! Instances. ECS registers its tasks by the same functions, inside transactions of its own.

use super::{
    find::{arn_of, done, instance, instance_count, service},
    listing::page,
};
use crate::{
    ServiceDiscovery,
    api::*,
    faults,
    model::{Instance as Record, Service as ServiceRecord},
};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};
use store::{Record as _, Tx, View};
use wire::{Context, Fault};

/// Instances of a service, and attributes of an instance with the characters in them.
/// <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-limits.html>
const MOST: i32 = 1000;
const MOST_ATTRIBUTES: usize = 30;
const MOST_CHARACTERS: usize = 5000;
/// Attributes that are AWS's, and what they say.
pub(crate) const IPV4: &str = "AWS_INSTANCE_IPV4";
pub(crate) const PORT: &str = "AWS_INSTANCE_PORT";
pub(crate) const CNAME: &str = "AWS_INSTANCE_CNAME";
const INIT_HEALTH: &str = "AWS_INIT_HEALTH_STATUS";
/// Those that are not built, with the reason.
const UNBUILT: [(&str, &str); 3] = [
    ("AWS_ALIAS_DNS_NAME", "alias records are not built"),
    ("AWS_EC2_INSTANCE_ID", "there are no EC2 instances"),
    ("AWS_INSTANCE_IPV6", "IPv6 is not built"),
];

fn account(realm: &str) -> Option<String> {
    realm.split_once('/').map(|(account, _)| account.to_owned())
}

/// How an instance is; nobody knows where its service has no health.
pub(super) fn health(service: &ServiceRecord, instance: &Record) -> HealthStatus {
    match (service.has_health, instance.is_healthy()) {
        (false, _) => HealthStatus::Unknown,
        (true, true) => HealthStatus::Healthy,
        (true, false) => HealthStatus::Unhealthy,
    }
}

/// Whether the attributes hold what the service's records are made of.
fn check(service: &ServiceRecord, attributes: &BTreeMap<String, String>) -> Result<(), Fault> {
    for (name, reason) in UNBUILT {
        if attributes.contains_key(name) {
            return Err(faults::invalid(format!("{name} cannot be used: {reason}.")));
        }
    }
    let characters: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if attributes.len() > MOST_ATTRIBUTES || characters > MOST_CHARACTERS {
        return Err(faults::invalid(format!(
            "An instance can have at most {MOST_ATTRIBUTES} attributes with {MOST_CHARACTERS} characters."
        )));
    }
    let address = attributes.get(IPV4);
    if address.is_some_and(|address| address.parse::<Ipv4Addr>().is_err()) {
        return Err(faults::invalid(format!("{IPV4} must be an IPv4 address.")));
    }
    let port = attributes.get(PORT);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(faults::invalid(format!("{PORT} must be a number between 0 and 65535.")));
    }
    let status = attributes.get(INIT_HEALTH).map(String::as_str);
    if !matches!(status, None | Some("HEALTHY" | "UNHEALTHY")) {
        return Err(faults::invalid(format!("{INIT_HEALTH} must be HEALTHY or UNHEALTHY.")));
    }
    for record in service.dns.iter().flat_map(|dns| &dns.dns_records) {
        let needed = match record.r#type {
            RecordType::A => &[IPV4][..],
            RecordType::Srv => &[IPV4, PORT],
            RecordType::Cname => &[CNAME],
            RecordType::Aaaa => &["AWS_INSTANCE_IPV6"],
        };
        if let Some(missing) = needed.iter().find(|name| !attributes.contains_key(**name)) {
            let kind = record.r#type.as_str();
            let message = format!("{missing} must be specified for {kind} records.");
            return Err(faults::invalid(message));
        }
    }
    Ok(())
}

impl ServiceDiscovery {
    /// The service that an ARN names, for those who register instances: ECS does.
    pub fn service(&self, realm: &str, arn: &str) -> Option<Arc<ServiceRecord>> {
        let id = arn.rsplit('/').next().unwrap_or_default();
        let found = self.store.read().get::<ServiceRecord>(&format!("{realm}/{id}"));
        found.filter(|service| service.arn() == arn)
    }

    /// Registers an instance, inside any transaction over the same store; one that is registered gets these attributes
    /// and this health. Answers whether there is the service: nothing is registered with one that is gone.
    pub fn register(
        tx: &mut Tx,
        realm: &str,
        service_id: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        health: CustomHealthStatus,
    ) -> bool {
        let key = format!("{realm}/{service_id}");
        let Some(service) = tx.get::<ServiceRecord>(&key) else { return false };
        tx.put(Record {
            realm: realm.to_owned(),
            service: service_id.to_owned(),
            id: id.to_owned(),
            attributes,
            health: service.has_health.then_some(health),
            creator_request_id: None,
        });
        tx.update::<ServiceRecord>(&key, |service| service.revision += 1);
        true
    }

    /// Deregisters an instance, inside any transaction over the same store. Answers whether it was registered.
    pub fn deregister(tx: &mut Tx, realm: &str, service_id: &str, id: &str) -> bool {
        let gone = tx.delete::<Record>(&Record::key_of(realm, service_id, id));
        if gone {
            let key = format!("{realm}/{service_id}");
            tx.update::<ServiceRecord>(&key, |service| service.revision += 1);
        }
        gone
    }
}

/// The targets of an operation on an instance.
fn targets<'a>(service: &'a ServiceRecord, id: &'a str) -> [(OperationTargetType, &'a str); 2] {
    [(OperationTargetType::Service, &service.id), (OperationTargetType::Instance, id)]
}

pub(crate) async fn register_instance(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: RegisterInstanceRequest,
) -> Result<RegisterInstanceResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:RegisterInstance", &arn)?;
    let (world, ctx) = (discovery.world.clone(), ctx.clone());
    let write = discovery.store.write(move |tx| {
        let found = service(tx, &ctx, &input.service_id)?;
        let id = input.instance_id;
        check(&found, &input.attributes)?;
        let there = tx.get::<Record>(&Record::key_of(&found.realm, &found.id, &id));
        if there.is_none() && instance_count(tx, &found) >= MOST {
            let message = format!("A service can have at most {MOST} instances.");
            return Err(faults::limit(message));
        }
        let told = input.attributes.get(INIT_HEALTH).map(String::as_str);
        let health = match told == Some("UNHEALTHY") {
            true => CustomHealthStatus::Unhealthy,
            false => CustomHealthStatus::Healthy,
        };
        let realm = found.realm.clone();
        ServiceDiscovery::register(tx, &realm, &found.id, &id, input.attributes, health);
        if let Some(token) = input.creator_request_id {
            let key = Record::key_of(&realm, &found.id, &id);
            tx.update::<Record>(&key, |instance| instance.creator_request_id = Some(token));
        }
        let kind = OperationType::RegisterInstance;
        Ok::<_, Fault>(done(tx, &world, &realm, kind, &targets(&found, &id)))
    });
    Ok(RegisterInstanceResponse { operation_id: Some(write.await?) })
}

pub(crate) async fn deregister_instance(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DeregisterInstanceRequest,
) -> Result<DeregisterInstanceResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:DeregisterInstance", &arn)?;
    let (world, ctx) = (discovery.world.clone(), ctx.clone());
    let write = discovery.store.write(move |tx| {
        let found = service(tx, &ctx, &input.service_id)?;
        let id = input.instance_id;
        instance(tx, &found, &id)?;
        ServiceDiscovery::deregister(tx, &found.realm, &found.id, &id);
        let kind = OperationType::DeregisterInstance;
        Ok::<_, Fault>(done(tx, &world, &found.realm, kind, &targets(&found, &id)))
    });
    Ok(DeregisterInstanceResponse { operation_id: Some(write.await?) })
}

pub(crate) async fn get_instance(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetInstanceRequest,
) -> Result<GetInstanceResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:GetInstance", &arn)?;
    let snapshot = discovery.store.read();
    let service = service(&snapshot, ctx, &input.service_id)?;
    let found = instance(&snapshot, &service, &input.instance_id)?;
    let answer = Instance {
        id: Some(found.id.clone()),
        creator_request_id: found.creator_request_id.clone(),
        attributes: Some(found.attributes.clone()),
        created_by_account: account(&found.realm),
    };
    Ok(GetInstanceResponse { resource_owner: account(&found.realm), instance: Some(answer) })
}

/// The instances of a service, by id.
fn instances(view: &impl View, service: &ServiceRecord) -> Vec<Arc<Record>> {
    view.records(&service.instances_prefix())
}

pub(crate) async fn list_instances(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: ListInstancesRequest,
) -> Result<ListInstancesResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:ListInstances", &arn)?;
    let snapshot = discovery.store.read();
    let service = service(&snapshot, ctx, &input.service_id)?;
    let summary = |found: Arc<Record>| {
        let summary = InstanceSummary {
            id: Some(found.id.clone()),
            attributes: Some(found.attributes.clone()),
            created_by_account: account(&found.realm),
        };
        (found.id.clone(), summary)
    };
    let found = instances(&snapshot, &service).into_iter().map(summary);
    let (instances, next_token) =
        page("ListInstances", input.next_token.as_deref(), input.max_results, found)?;
    Ok(ListInstancesResponse { resource_owner: account(&service.realm), instances, next_token })
}

pub(crate) async fn get_instances_health_status(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetInstancesHealthStatusRequest,
) -> Result<GetInstancesHealthStatusResponse, Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:GetInstancesHealthStatus", &arn)?;
    let snapshot = discovery.store.read();
    let service = service(&snapshot, ctx, &input.service_id)?;
    let found = match &input.instances {
        None => instances(&snapshot, &service),
        Some(ids) => {
            let each = ids.iter().map(|id| instance(&snapshot, &service, id));
            each.collect::<Result<Vec<_>, Fault>>()?
        }
    };
    let status =
        |found: Arc<Record>| (found.id.clone(), (found.id.clone(), health(&service, &found)));
    let (found, next_token) = page(
        "GetInstancesHealthStatus",
        input.next_token.as_deref(),
        input.max_results,
        found.into_iter().map(status),
    )?;
    let status = found.map(|found| found.into_iter().collect());
    Ok(GetInstancesHealthStatusResponse { status, next_token })
}

pub(crate) async fn update_instance_custom_health_status(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UpdateInstanceCustomHealthStatusRequest,
) -> Result<(), Fault> {
    let arn = arn_of(ctx, "service", &input.service_id);
    ctx.authorise("servicediscovery:UpdateInstanceCustomHealthStatus", &arn)?;
    let ctx = ctx.clone();
    let write = discovery.store.write(move |tx| {
        let service = service(tx, &ctx, &input.service_id)?;
        let found = instance(tx, &service, &input.instance_id)?;
        if !service.has_health {
            return Err(faults::no_custom_health(&service.id));
        }
        tx.update::<Record>(&found.key(), |instance| instance.health = Some(input.status));
        Ok::<_, Fault>(())
    });
    write.await
}
