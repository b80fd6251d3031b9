//! Namespaces.

use super::{
    find::{all, arn_of, done, namespace},
    listing::{Filter, page},
    tag::tags_in,
};
use crate::{
    ServiceDiscovery,
    api::*,
    faults,
    model::{Namespace as Record, Service as ServiceRecord, Zone},
};
use std::sync::Arc;
use store::{Record as _, Tx};
use wire::{Context, Fault};

/// Namespaces of an account in a region.
/// <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-limits.html>
const MOST: usize = 50;
/// How long it holds that a name does not exist, in seconds, unless told otherwise.
const SOA_TTL: i64 = 15;
const TARGET: OperationTargetType = OperationTargetType::Namespace;

fn owner(realm: &str) -> Option<String> {
    realm.split_once('/').map(|(account, _)| account.to_owned())
}

fn kind(namespace: &Record) -> NamespaceType {
    match namespace.zone {
        Some(_) => NamespaceType::DnsPrivate,
        None => NamespaceType::Http,
    }
}

fn properties(namespace: &Record) -> NamespaceProperties {
    NamespaceProperties {
        dns_properties: namespace.zone.as_ref().map(|zone| DnsProperties {
            hosted_zone_id: Some(zone.hosted_zone.clone()),
            soa: Some(SOA { ttl: zone.soa_ttl }),
        }),
        http_properties: Some(HttpProperties { http_name: Some(namespace.http_name.clone()) }),
    }
}

fn service_count(namespace: &Record, services: &[Arc<ServiceRecord>]) -> Option<i32> {
    let own = services.iter().filter(|service| service.namespace == namespace.id).count();
    Some(i32::try_from(own).unwrap_or(i32::MAX))
}

/// The labels of a domain name: letters, digits, hyphens, underscores, 63 at most of them.
fn check_domain(name: &str) -> Result<(), Fault> {
    let fits = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-')
    };
    match name.trim_end_matches('.').split('.').all(fits) {
        true => Ok(()),
        false => Err(faults::invalid(format!("{name} is not a domain name."))),
    }
}

/// A namespace that is to be made.
struct Draft {
    name: String,
    zone: Option<Zone>,
    description: Option<String>,
    creator_request_id: Option<String>,
    tags: Option<Vec<Tag>>,
}

async fn create(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    draft: Draft,
) -> Result<String, Fault> {
    if draft.name.starts_with("arn:") {
        return Err(faults::invalid("A namespace's name must not be an ARN."));
    }
    let namespace = Record {
        realm: ctx.realm(),
        id: discovery.id("ns"),
        http_name: draft.name.clone(),
        name: draft.name,
        zone: draft.zone,
        description: draft.description,
        creator_request_id: draft.creator_request_id,
        tags: tags_in(draft.tags)?,
        created: discovery.world.now(),
    };
    let world = discovery.world.clone();
    let write = discovery.store.write(move |tx| {
        let mut namespace = namespace;
        let others = all::<Record>(tx, &namespace.realm);
        check_new(&others, &namespace)?;
        if others.iter().any(|other| other.http_name == namespace.http_name) {
            namespace.http_name = format!("{}-{}", namespace.name, &namespace.id[3..]);
        }
        let (realm, id) = (namespace.realm.clone(), namespace.id.clone());
        tx.put(namespace);
        Ok::<_, Fault>(done(tx, &world, &realm, OperationType::CreateNamespace, &[(TARGET, &id)]))
    });
    write.await
}

fn check_new(others: &[Arc<Record>], new: &Record) -> Result<(), Fault> {
    if others.len() >= MOST {
        return Err(faults::limit(format!("An account can have at most {MOST} namespaces.")));
    }
    let vpc = |namespace: &Record| namespace.zone.as_ref().map(|zone| zone.vpc.clone());
    let same =
        |other: &&Arc<Record>| other.name.eq_ignore_ascii_case(&new.name) && vpc(other) == vpc(new);
    match others.iter().find(same) {
        Some(other) => Err(faults::namespace_exists(&other.id)),
        None => Ok(()),
    }
}

pub(crate) async fn create_http_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: CreateHttpNamespaceRequest,
) -> Result<CreateHttpNamespaceResponse, Fault> {
    ctx.authorise("servicediscovery:CreateHttpNamespace", "*")?;
    let draft = Draft {
        name: input.name,
        zone: None,
        description: input.description,
        creator_request_id: input.creator_request_id,
        tags: input.tags,
    };
    let operation_id = Some(create(discovery, ctx, draft).await?);
    Ok(CreateHttpNamespaceResponse { operation_id })
}

pub(crate) async fn create_private_dns_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: CreatePrivateDnsNamespaceRequest,
) -> Result<CreatePrivateDnsNamespaceResponse, Fault> {
    ctx.authorise("servicediscovery:CreatePrivateDnsNamespace", "*")?;
    check_domain(&input.name)?;
    let realm = ctx.realm();
    let vpcs = discovery.store.read().get::<ec2::model::Vpc>(&format!("{realm}/{}", input.vpc));
    if vpcs.is_none() {
        return Err(faults::invalid(format!("The VPC {} does not exist.", input.vpc)));
    }
    let upper = discovery.world.text(14, b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    let draft = Draft {
        name: input.name.trim_end_matches('.').to_owned(),
        zone: Some(Zone {
            vpc: input.vpc,
            hosted_zone: format!("Z{upper}"),
            soa_ttl: input.properties.map_or(SOA_TTL, |p| p.dns_properties.soa.ttl),
        }),
        description: input.description,
        creator_request_id: input.creator_request_id,
        tags: input.tags,
    };
    let operation_id = Some(create(discovery, ctx, draft).await?);
    Ok(CreatePrivateDnsNamespaceResponse { operation_id })
}

pub(crate) async fn get_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetNamespaceRequest,
) -> Result<GetNamespaceResponse, Fault> {
    ctx.authorise("servicediscovery:GetNamespace", &arn_of(ctx, "namespace", &input.id))?;
    let snapshot = discovery.store.read();
    let found = namespace(&snapshot, ctx, &input.id)?;
    let services = all::<ServiceRecord>(&snapshot, &found.realm);
    let namespace = Namespace {
        id: Some(found.id.clone()),
        arn: Some(found.arn()),
        resource_owner: owner(&found.realm),
        name: Some(found.name.clone()),
        r#type: Some(kind(&found)),
        description: found.description.clone(),
        service_count: service_count(&found, &services),
        properties: Some(properties(&found)),
        create_date: Some(found.created),
        creator_request_id: found.creator_request_id.clone(),
    };
    Ok(GetNamespaceResponse { namespace: Some(namespace) })
}

pub(crate) async fn list_namespaces(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: ListNamespacesRequest,
) -> Result<ListNamespacesResponse, Fault> {
    ctx.authorise("servicediscovery:ListNamespaces", "*")?;
    let mut filters = Vec::new();
    for filter in input.filters.unwrap_or_default() {
        let known: &[_] = match filter.name {
            NamespaceFilterName::Type => &[FilterCondition::Eq, FilterCondition::In],
            _ => &[FilterCondition::Eq, FilterCondition::BeginsWith],
        };
        filters.push((filter.name, Filter::new(filter.values, filter.condition, known)?));
    }
    let takes = |found: &Record| {
        filters.iter().all(|(name, filter)| match name {
            NamespaceFilterName::Type => filter.takes(kind(found).as_str()),
            NamespaceFilterName::Name => filter.takes(&found.name),
            NamespaceFilterName::HttpName => filter.takes(&found.http_name),
            NamespaceFilterName::ResourceOwner => filter.takes("SELF"),
        })
    };
    let snapshot = discovery.store.read();
    let services = all::<ServiceRecord>(&snapshot, &ctx.realm());
    let summary = |found: Arc<Record>| {
        let summary = NamespaceSummary {
            id: Some(found.id.clone()),
            arn: Some(found.arn()),
            resource_owner: owner(&found.realm),
            name: Some(found.name.clone()),
            r#type: Some(kind(&found)),
            description: found.description.clone(),
            service_count: service_count(&found, &services),
            properties: Some(properties(&found)),
            create_date: Some(found.created),
        };
        (found.id.clone(), summary)
    };
    let found = all::<Record>(&snapshot, &ctx.realm()).into_iter().filter(|found| takes(found));
    let (namespaces, next_token) =
        page("ListNamespaces", input.next_token.as_deref(), input.max_results, found.map(summary))?;
    Ok(ListNamespacesResponse { namespaces, next_token })
}

/// Changes a namespace, in a transaction; answers the operation's id.
async fn update(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    id: String,
    change: impl FnOnce(&mut Record) -> Result<(), Fault> + Send + 'static,
) -> Result<String, Fault> {
    let (world, ctx) = (discovery.world.clone(), ctx.clone());
    let write = discovery.store.write(move |tx: &mut Tx| {
        let mut found = Arc::unwrap_or_clone(namespace(tx, &ctx, &id)?);
        change(&mut found)?;
        let (realm, id) = (found.realm.clone(), found.id.clone());
        tx.put(found);
        Ok::<_, Fault>(done(tx, &world, &realm, OperationType::UpdateNamespace, &[(TARGET, &id)]))
    });
    write.await
}

pub(crate) async fn update_http_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UpdateHttpNamespaceRequest,
) -> Result<UpdateHttpNamespaceResponse, Fault> {
    ctx.authorise("servicediscovery:UpdateHttpNamespace", &arn_of(ctx, "namespace", &input.id))?;
    let description = input.namespace.description;
    let change = |found: &mut Record| match found.zone {
        Some(_) => Err(faults::invalid("The namespace is not an HTTP namespace.")),
        None => {
            found.description = Some(description);
            Ok(())
        }
    };
    let operation_id = Some(update(discovery, ctx, input.id, change).await?);
    Ok(UpdateHttpNamespaceResponse { operation_id })
}

pub(crate) async fn update_private_dns_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: UpdatePrivateDnsNamespaceRequest,
) -> Result<UpdatePrivateDnsNamespaceResponse, Fault> {
    let arn = arn_of(ctx, "namespace", &input.id);
    ctx.authorise("servicediscovery:UpdatePrivateDnsNamespace", &arn)?;
    let new = input.namespace;
    let change = |found: &mut Record| {
        let Some(zone) = &mut found.zone else {
            return Err(faults::invalid("The namespace is not a private DNS namespace."));
        };
        if let Some(properties) = new.properties {
            zone.soa_ttl = properties.dns_properties.soa.ttl;
        }
        if new.description.is_some() {
            found.description = new.description;
        }
        Ok(())
    };
    let operation_id = Some(update(discovery, ctx, input.id, change).await?);
    Ok(UpdatePrivateDnsNamespaceResponse { operation_id })
}

pub(crate) async fn delete_namespace(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: DeleteNamespaceRequest,
) -> Result<DeleteNamespaceResponse, Fault> {
    ctx.authorise("servicediscovery:DeleteNamespace", &arn_of(ctx, "namespace", &input.id))?;
    let (world, ctx) = (discovery.world.clone(), ctx.clone());
    let write = discovery.store.write(move |tx| {
        let found = namespace(tx, &ctx, &input.id)?;
        let services = all::<ServiceRecord>(tx, &found.realm);
        if services.iter().any(|service| service.namespace == found.id) {
            return Err(faults::in_use("The namespace cannot be deleted as it contains services."));
        }
        tx.delete::<Record>(&found.key());
        let kind = OperationType::DeleteNamespace;
        Ok::<_, Fault>(done(tx, &world, &found.realm, kind, &[(TARGET, &found.id)]))
    });
    Ok(DeleteNamespaceResponse { operation_id: Some(write.await?) })
}
