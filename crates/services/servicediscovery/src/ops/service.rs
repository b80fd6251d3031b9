//! Services.

use super::{
    find::{all, arn_of, done, instance_count, namespace, service},
    listing::{Filter, page},
    tag::tags_in,
};
use crate::{
    ServiceDiscovery,
    api::*,
    faults,
    model::{Namespace as NamespaceRecord, Service as Record},
};
use std::{collections::BTreeMap, sync::Arc};
use store::{Record as _, Snapshot};
use wire::{Context, Fault};

/// The longest name.
const MOST_NAME: usize = 127;
/// Services of a namespace, within what AWS calls instances of a namespace.
const MOST: usize = 2000;

fn kind(service: &Record) -> ServiceType {
    match service.dns {
        Some(_) => ServiceType::DnsHttp,
        None => ServiceType::Http,
    }
}

fn answer(snapshot: &Snapshot, service: &Record) -> Service {
    let account = service.realm.split_once('/').map(|(account, _)| account.to_owned());
    let custom = HealthCheckCustomConfig { failure_threshold: Some(1) };
    Service {
        id: Some(service.id.clone()),
        arn: Some(service.arn()),
        resource_owner: account.clone(),
        name: Some(service.name.clone()),
        namespace_id: Some(service.namespace.clone()),
        description: service.description.clone(),
        instance_count: Some(instance_count(snapshot, service)),
        dns_config: service.dns.clone(),
        r#type: Some(kind(service)),
        health_check_config: None,
        health_check_custom_config: service.has_health.then_some(custom),
        create_date: Some(service.created),
        creator_request_id: service.creator_request_id.clone(),
        created_by_account: account,
    }
}

/// The records that instances get, as far as they go together.
/// <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsRecord.html>
fn check_records(records: &[DnsRecord]) -> Result<(), Fault> {
    let kinds: Vec<RecordType> = records.iter().map(|record| record.r#type).collect();
    let twice = kinds.iter().enumerate().any(|(i, kind)| kinds[..i].contains(kind));
    let bad = match () {
        () if kinds.is_empty() => "DnsRecords must hold a record.",
        () if twice => "DnsRecords must not hold two records of a type.",
        () if kinds.contains(&RecordType::Cname) && kinds.len() > 1 => {
            "CNAME cannot be combined with other record types."
        }
        () => return Ok(()),
    };
    Err(faults::invalid(bad))
}

fn dns(namespace: &NamespaceRecord, given: DnsConfig) -> Result<DnsConfig, Fault> {
    if namespace.zone.is_none() {
        return Err(faults::invalid("DnsConfig cannot be used in an HTTP namespace."));
    }
    check_records(&given.dns_records)?;
    let cname = given.dns_records.iter().any(|record| record.r#type == RecordType::Cname);
    let policy = given.routing_policy.unwrap_or(RoutingPolicy::Multivalue);
    if cname && policy == RoutingPolicy::Multivalue {
        let message = "The routing policy of CNAME records must be WEIGHTED.";
        return Err(faults::invalid(message));
    }
    Ok(DnsConfig {
        namespace_id: Some(namespace.id.clone()),
        routing_policy: Some(policy),
        dns_records: given.dns_records,
    })
}

fn draft(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    namespace: &NamespaceRecord,
    input: CreateServiceRequest,
) -> Result<Record, Fault> {
    if input.name.len() > MOST_NAME {
        let message = format!("A service's name can have at most {MOST_NAME} characters.");
        return Err(faults::invalid(message));
    }
    if input.r#type.is_some() && input.dns_config.is_some() {
        return Err(faults::invalid("Type HTTP cannot be combined with DnsConfig."));
    }
    Ok(Record {
        realm: ctx.realm(),
        id: discovery.id("srv"),
        name: input.name,
        namespace: namespace.id.clone(),
        description: input.description,
        dns: input.dns_config.map(|given| dns(namespace, given)).transpose()?,
        has_health: input.health_check_custom_config.is_some(),
        attributes: BTreeMap::new(),
        creator_request_id: input.creator_request_id,
        revision: 1,
        tags: tags_in(input.tags)?,
        created: discovery.world.now(),
    })
}

pub(crate) async fn create_service(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: CreateServiceRequest,
) -> Result<CreateServiceResponse, Fault> {
    let in_dns = input.dns_config.as_ref().and_then(|dns| dns.namespace_id.clone());
    let given = input.namespace_id.clone().or(in_dns);
    let given = given.ok_or_else(|| faults::invalid("NamespaceId must be specified."))?;
    ctx.authorise("servicediscovery:CreateService", &arn_of(ctx, "namespace", &given))?;
    let found = namespace(&discovery.store.read(), ctx, &given)?;
    let service = draft(discovery, ctx, &found, input)?;
    let ctx = ctx.clone();
    let write = discovery.store.write(move |tx| {
        namespace(tx, &ctx, &given)?;
        let mut siblings = all::<Record>(tx, &service.realm);
        siblings.retain(|other| other.namespace == service.namespace);
        if siblings.len() >= MOST {
            let message = format!("A namespace can have at most {MOST} services.");
            return Err(faults::limit(message));
        }
        // Names are those of DNS: no letter is told from its capital.
        let same = |other: &&Arc<Record>| other.name.eq_ignore_ascii_case(&service.name);
        if let Some(other) = siblings.iter().find(same) {
            return Err(faults::service_exists(&other.id));
        }
        tx.put(service.clone());
        Ok::<_, Fault>(service)
    });
    let made = write.await?;
    let service = Some(answer(&discovery.store.read(), &made));
    Ok(CreateServiceResponse { service })
}

pub(crate) async fn get_service(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetServiceRequest,
) -> Result<GetServiceResponse, Fault> {
    ctx.authorise("servicediscovery:GetService", &arn_of(ctx, "service", &input.id))?;
    let snapshot = discovery.store.read();
    let found = service(&snapshot, ctx, &input.id)?;
    Ok(GetServiceResponse { service: Some(answer(&snapshot, &found)) })
}

pub(crate) async fn list_services(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: ListServicesRequest,
) -> Result<ListServicesResponse, Fault> {
    ctx.authorise("servicediscovery:ListServices", "*")?;
    let mut filters = Vec::new();
    for filter in input.filters.unwrap_or_default() {
        let known = [FilterCondition::Eq, FilterCondition::In];
        filters.push((filter.name, Filter::new(filter.values, filter.condition, &known)?));
    }
    let takes = |found: &Record| {
        filters.iter().all(|(name, filter)| match name {
            ServiceFilterName::NamespaceId => {
                filter.takes(&found.namespace)
                    || filter.takes(&arn_of(ctx, "namespace", &found.namespace))
            }
            ServiceFilterName::ResourceOwner => filter.takes("SELF"),
        })
    };
    let snapshot = discovery.store.read();
    let summary = |found: Arc<Record>| {
        let whole = answer(&snapshot, &found);
        let summary = ServiceSummary {
            id: whole.id,
            arn: whole.arn,
            resource_owner: whole.resource_owner,
            name: whole.name,
            r#type: whole.r#type,
            description: whole.description,
            instance_count: whole.instance_count,
            dns_config: whole.dns_config,
            health_check_config: None,
            health_check_custom_config: whole.health_check_custom_config,
            create_date: whole.create_date,
            created_by_account: whole.created_by_account,
        };
        (found.id.clone(), summary)
    };
    let found = all::<Record>(&snapshot, &ctx.realm()).into_iter().filter(|found| takes(found));
    let (services, next_token) =
        page("ListServices", input.next_token.as_deref(), input.max_results, found.map(summary))?;
    Ok(ListServicesResponse { services, next_token })
}

pub(crate) async fn update_service(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UpdateServiceRequest,
) -> Result<UpdateServiceResponse, Fault> {
    ctx.authorise("servicediscovery:UpdateService", &arn_of(ctx, "service", &input.id))?;
    let (world, ctx) = (discovery.world.clone(), ctx.clone());
    let write = discovery.store.write(move |tx| {
        let mut found = Arc::unwrap_or_clone(service(tx, &ctx, &input.id)?);
        let namespace = namespace(tx, &ctx, &found.namespace)?;
        if namespace.zone.is_none() {
            let message = "A service in an HTTP namespace cannot be updated.";
            return Err(faults::invalid(message));
        }
        // Records that a request leaves out are deleted.
        match (&mut found.dns, input.service.dns_config) {
            (Some(dns), Some(change)) => {
                check_records(&change.dns_records)?;
                let known =
                    |new: &DnsRecord| dns.dns_records.iter().any(|r| r.r#type == new.r#type);
                if !change.dns_records.iter().all(known) {
                    let message = "The record types of a service cannot be changed.";
                    return Err(faults::invalid(message));
                }
                dns.dns_records = change.dns_records;
            }
            (None, Some(_)) => {
                return Err(faults::invalid("The service has no DnsConfig that could be updated."));
            }
            (_, None) => found.dns = None,
        }
        found.description = input.service.description.or(found.description);
        let (realm, id) = (found.realm.clone(), found.id.clone());
        tx.put(found);
        let kind = OperationType::UpdateService;
        let target = [(OperationTargetType::Service, &*id)];
        Ok::<_, Fault>(done(tx, &world, &realm, kind, &target))
    });
    Ok(UpdateServiceResponse { operation_id: Some(write.await?) })
}

pub(crate) async fn delete_service(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DeleteServiceRequest,
) -> Result<DeleteServiceResponse, Fault> {
    ctx.authorise("servicediscovery:DeleteService", &arn_of(ctx, "service", &input.id))?;
    let ctx = ctx.clone();
    let write = discovery.store.write(move |tx| {
        let found = service(tx, &ctx, &input.id)?;
        if instance_count(tx, &found) > 0 {
            return Err(faults::in_use(
                "Service contains registered instances; delete the instances before deleting the service.",
            ));
        }
        tx.delete::<Record>(&found.key());
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(DeleteServiceResponse::default())
}
