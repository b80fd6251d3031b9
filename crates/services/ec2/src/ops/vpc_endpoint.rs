//! VPC endpoints: ways to AWS's services for subnets without a way out.
//! <https://docs.aws.amazon.com/vpc/latest/privatelink/concepts.html>

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag::{self, NO_ENDPOINT, NO_SUBNET, NO_TABLE, NO_VPC},
};
use crate::{
    Ec2, InterfaceError, InterfaceRequest,
    api::*,
    faults,
    model::{
        EndpointKind, NetworkInterface, RouteTable as Table, SecurityGroup as Group,
        Subnet as Place, Vpc as Network, VpcEndpoint as Record,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Snapshot, Tx};
use wire::{Context, Fault};

/// What interfaces lead to: the services that Neargate has, and those that AWS's agents speak to.
const BY_INTERFACE: &[&str] = &[
    "application-autoscaling",
    "cloudformation",
    "ec2",
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "ecs",
    "ecs-agent",
    "ecs-telemetry",
    "elasticfilesystem",
    "elasticloadbalancing",
    "logs",
    "secretsmanager",
    "servicediscovery",
    "ssm",
    "ssmmessages",
    "sts",
];
/// What routes lead to.
const BY_GATEWAY: &[&str] = &["s3"];

/// The service of a name like `com.amazonaws.us-east-1.ecr.dkr`, and whether it is reached by a gateway.
fn service(ctx: &Context, name: &str) -> Result<(String, bool), Fault> {
    let own = name.strip_prefix(&format!("com.amazonaws.{}.", ctx.region)).unwrap_or_default();
    let gateway = BY_GATEWAY.contains(&own);
    match gateway || BY_INTERFACE.contains(&own) {
        true => Ok((own.to_owned(), gateway)),
        false => Err(faults::of(
            "InvalidServiceName",
            format!("The Vpc Endpoint Service '{name}' does not exist"),
        )),
    }
}

/// Policies of endpoints would have to be carried out; the one that lets everything through is.
fn check_policy(policy: Option<&str>) -> Result<(), Fault> {
    let Some(policy) = policy else { return Ok(()) };
    let policy: serde_json::Value = serde_json::from_str(policy)
        .map_err(|_| faults::of("InvalidPolicyDocument", "Invalid policy document"))?;
    let statements = match &policy["Statement"] {
        serde_json::Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let is_all = |value: &serde_json::Value| {
        value == "*"
            || value == &serde_json::json!(["*"])
            || value == &serde_json::json!({"AWS": "*"})
    };
    let open = |statement: &serde_json::Value| {
        statement["Effect"] == "Allow"
            && ["Action", "Principal", "Resource"].iter().all(|name| is_all(&statement[*name]))
            && statement.get("Condition").is_none()
    };
    match !statements.is_empty() && statements.iter().all(open) {
        true => Ok(()),
        false => Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support policies of VPC endpoints other than full access",
        )),
    }
}

fn check_addresses(family: Option<&IpAddressType>) -> Result<(), Fault> {
    match family.is_none_or(|family| family.as_str() == "ipv4") {
        true => Ok(()),
        false => Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support the IP address type of the endpoint",
        )),
    }
}

/// What an endpoint is to be is checked where it is written.
fn check(tx: &Tx, record: &Record) -> Result<(), Fault> {
    let prefix = format!("{}/", record.realm);
    let name = || {
        let region = record.realm.split_once('/').map_or("", |(_, region)| region);
        format!("com.amazonaws.{region}.{}", record.service)
    };
    let others: Vec<_> = tx
        .scan_prefix::<Record>(&prefix)
        .filter(|other| {
            let same = other.vpc == record.vpc && other.service == record.service;
            same && other.id != record.id
        })
        .collect();
    match &record.kind {
        EndpointKind::Gateway { tables } => {
            for id in tables {
                let table = tag::find::<Table>(tx, &record.realm, id, NO_TABLE)?;
                if table.vpc != record.vpc {
                    let message =
                        format!("Route table {id} does not belong to the VPC {}", record.vpc);
                    return Err(faults::invalid(message));
                }
                if others.iter().any(|other| other.is_in(id)) {
                    let message = format!(
                        "route table {id} already has a route with the destination of {}",
                        name()
                    );
                    return Err(faults::of("RouteAlreadyExists", message));
                }
            }
        }
        EndpointKind::Interface { subnets, groups, private_dns } => {
            let mut zones = BTreeSet::new();
            for id in subnets {
                let subnet = tag::find::<Place>(tx, &record.realm, id, NO_SUBNET)?;
                if subnet.vpc != record.vpc {
                    let message =
                        format!("The subnet ID '{id}' does not belong to VPC {}", record.vpc);
                    return Err(faults::invalid(message));
                }
                if !zones.insert(subnet.zone.clone()) {
                    let message = "Found another VPC endpoint subnet in the availability zone of \
                                   SUBNET. VPC endpoint subnets should be in different availability zones \
                                   supported by the VPC endpoint service.";
                    return Err(faults::of(
                        "DuplicateSubnetsInSameZone",
                        message.replace("SUBNET", id),
                    ));
                }
            }
            for id in groups {
                let group = tx.get::<Group>(&format!("{prefix}{id}"));
                group
                    .filter(|group| group.vpc == record.vpc)
                    .ok_or_else(|| faults::no_group(id))?;
            }
            let vpc = tag::find::<Network>(tx, &record.realm, &record.vpc, NO_VPC)?;
            if *private_dns && !vpc.default && !vpc.dns_hostnames {
                let message = format!(
                    "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to \
                     true for {}",
                    record.vpc
                );
                return Err(faults::of("InvalidParameter", message));
            }
            let takes = |other: &Arc<Record>| {
                matches!(other.kind, EndpointKind::Interface { private_dns: true, .. })
            };
            if *private_dns && others.iter().any(takes) {
                let message = format!(
                    "private-dns-enabled cannot be set because there is already a conflicting DNS domain for {} in the \
                     VPC {}",
                    name(),
                    record.vpc
                );
                return Err(faults::of("InvalidParameter", message));
            }
        }
    }
    Ok(())
}

/// The interfaces that an endpoint has, by subnet.
pub(crate) fn interfaces(ec2: &Ec2, record: &Record) -> BTreeMap<String, Arc<NetworkInterface>> {
    let all = ec2.interfaces_described(&record.description());
    let own = all.into_iter().filter(|interface| interface.realm == record.realm);
    own.map(|interface| (interface.subnet.clone(), interface)).collect()
}

/// Makes, changes and deletes interfaces until they are as the endpoint says; also what a crash left undone.
async fn settle(ec2: &Ec2, record: &Record) -> Result<(), Fault> {
    let failed = |error: InterfaceError| match error {
        InterfaceError::Full => faults::of("InsufficientFreeAddressesInSubnet", error.to_string()),
        error => {
            let told = &error as &dyn std::error::Error;
            tracing::error!(
                endpoint = record.id,
                error = told,
                "an endpoint's interface could not be changed"
            );
            faults::not_applied()
        }
    };
    let EndpointKind::Interface { subnets, groups, .. } = &record.kind else { return Ok(()) };
    let there = interfaces(ec2, record);
    for subnet in subnets.iter().filter(|subnet| !there.contains_key(*subnet)) {
        let request = InterfaceRequest {
            realm: record.realm.clone(),
            subnets: vec![subnet.clone()],
            groups: groups.clone(),
            public: false,
            description: record.description(),
        };
        ec2.create_interface(request).await.map_err(failed)?;
    }
    for (subnet, interface) in there {
        if !subnets.contains(&subnet) {
            ec2.delete_interface(&record.realm, &interface.id).await.map_err(failed)?;
        } else if interface.groups != *groups {
            ec2.set_interface_groups(&interface, groups).await.map_err(failed)?;
        }
    }
    Ok(())
}

pub(crate) async fn create_vpc_endpoint(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateVpcEndpointRequest,
) -> Result<CreateVpcEndpointResult, Fault> {
    ctx.authorise("ec2:CreateVpcEndpoint", &ctx.arn("ec2", "vpc-endpoint/*"))?;
    stop_if_dry(input.dry_run)?;
    check_policy(input.policy_document.as_deref())?;
    check_addresses(input.ip_address_type.as_ref())?;
    let name = input.service_name.ok_or_else(|| faults::missing("ServiceName"))?;
    let (service, gateway) = service(ctx, &name)?;
    let wanted = input.vpc_endpoint_type.as_ref().map_or("Gateway", |kind| kind.as_str());
    if (wanted == "Gateway") != gateway {
        let message =
            format!("The VPC endpoint service {name} does not support endpoints of type {wanted}");
        return Err(faults::invalid(message));
    }
    let kind = match gateway {
        true => {
            if input.subnet_ids.is_some()
                || input.security_group_ids.is_some()
                || input.private_dns_enabled.is_some_and(|on| on)
            {
                let message =
                    "Gateway endpoints have no subnets, security groups and private DNS names";
                return Err(faults::invalid(message));
            }
            EndpointKind::Gateway { tables: input.route_table_ids.into_iter().flatten().collect() }
        }
        false => {
            if input.route_table_ids.is_some() {
                return Err(faults::invalid("Interface endpoints have no route tables"));
            }
            EndpointKind::Interface {
                subnets: input.subnet_ids.into_iter().flatten().collect(),
                groups: input.security_group_ids.unwrap_or_default(),
                private_dns: input.private_dns_enabled.unwrap_or(true),
            }
        }
    };
    let mut record = Record {
        realm: ctx.realm(),
        id: ec2.id("vpce"),
        vpc: input.vpc_id,
        service,
        kind,
        token: input.client_token.clone(),
        created: ctx.now,
        tags: tag::read(input.tag_specifications)?,
    };
    ec2.ensure_default::<Fault>(&record.realm).await?;
    let write = ec2.store.write(move |tx| {
        tag::find::<Network>(tx, &record.realm, &record.vpc, NO_VPC)?;
        let prefix = format!("{}/", record.realm);
        let mut all = tx.scan_prefix::<Record>(&prefix);
        let again = all.find(|known| record.token.is_some() && known.token == record.token);
        drop(all);
        if let Some(known) = again {
            return Ok(known);
        }
        if let EndpointKind::Interface { groups, .. } = &mut record.kind
            && groups.is_empty()
        {
            let mut own = tx.scan_prefix::<Group>(&prefix);
            let default = own.find(|group| group.vpc == record.vpc && group.name == "default");
            groups.extend(default.map(|group| group.id.clone()));
        }
        check(tx, &record)?;
        tx.put(record.clone());
        Ok::<_, Fault>(Arc::new(record))
    });
    let record = write.await?;
    settle(ec2, &record).await?;
    Ok(CreateVpcEndpointResult {
        client_token: input.client_token,
        vpc_endpoint: Some(told(ec2, ctx, &ec2.store.read(), &record)),
    })
}

fn told(ec2: &Ec2, ctx: &Context, snapshot: &Snapshot, record: &Record) -> VpcEndpoint {
    let mut told = VpcEndpoint {
        vpc_endpoint_id: Some(record.id.clone()),
        vpc_id: Some(record.vpc.clone()),
        service_name: Some(format!("com.amazonaws.{}.{}", ctx.region, record.service)),
        state: Some("available".to_owned()),
        policy_document: Some(FULL_ACCESS.to_owned()),
        route_table_ids: Some(Vec::new()),
        subnet_ids: Some(Vec::new()),
        groups: Some(Vec::new()),
        private_dns_enabled: Some(false),
        requester_managed: Some(false),
        network_interface_ids: Some(Vec::new()),
        dns_entries: Some(Vec::new()),
        ip_address_type: IpAddressType::parse("ipv4"),
        creation_timestamp: Some(record.created),
        tags: tag::told(&record.tags),
        owner_id: Some(ctx.account().to_owned()),
        service_region: Some(ctx.region.clone()),
        ..VpcEndpoint::default()
    };
    match &record.kind {
        EndpointKind::Gateway { tables } => {
            told.vpc_endpoint_type = VpcEndpointType::parse("Gateway");
            told.route_table_ids = Some(tables.iter().cloned().collect());
        }
        EndpointKind::Interface { subnets, groups, private_dns } => {
            let interfaces = interfaces(ec2, record);
            if subnets.iter().any(|subnet| !interfaces.contains_key(subnet)) {
                told.state = Some("pending".to_owned());
            }
            told.vpc_endpoint_type = VpcEndpointType::parse("Interface");
            told.subnet_ids = Some(subnets.iter().cloned().collect());
            told.network_interface_ids =
                Some(interfaces.values().map(|interface| interface.id.clone()).collect());
            told.private_dns_enabled = Some(*private_dns);
            let group = |id: &String| SecurityGroupIdentifier {
                group_id: Some(id.clone()),
                group_name: snapshot
                    .get::<Group>(&format!("{}/{id}", record.realm))
                    .map(|group| group.name.clone()),
            };
            told.groups = Some(groups.iter().map(group).collect());
        }
    }
    told
}

/// The policy that every endpoint has.
const FULL_ACCESS: &str =
    r#"{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}"#;

pub(crate) async fn modify_vpc_endpoint(
    ec2: &Ec2,
    ctx: &Context,
    input: ModifyVpcEndpointRequest,
) -> Result<ModifyVpcEndpointResult, Fault> {
    let id = input.vpc_endpoint_id;
    ctx.authorise("ec2:ModifyVpcEndpoint", &ctx.arn("ec2", format!("vpc-endpoint/{id}")))?;
    stop_if_dry(input.dry_run)?;
    check_policy(input.policy_document.as_deref())?;
    check_addresses(input.ip_address_type.as_ref())?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let mut record = Record::clone(&*tag::find::<Record>(tx, &realm, &id, NO_ENDPOINT)?);
        let change =
            |set: &mut BTreeSet<String>, more: Option<Vec<String>>, less: Option<Vec<String>>| {
                set.extend(more.into_iter().flatten());
                less.into_iter().flatten().for_each(|gone| {
                    set.remove(&gone);
                });
            };
        match &mut record.kind {
            EndpointKind::Gateway { tables } => {
                change(tables, input.add_route_table_ids, input.remove_route_table_ids);
            }
            EndpointKind::Interface { subnets, groups, private_dns } => {
                change(subnets, input.add_subnet_ids, input.remove_subnet_ids);
                let mut all: BTreeSet<String> = groups.drain(..).collect();
                change(&mut all, input.add_security_group_ids, input.remove_security_group_ids);
                if all.is_empty() {
                    let message = "An interface endpoint must have at least one security group";
                    return Err(faults::invalid(message));
                }
                groups.extend(all);
                *private_dns = input.private_dns_enabled.unwrap_or(*private_dns);
            }
        }
        check(tx, &record)?;
        tx.put(record.clone());
        Ok::<_, Fault>(record)
    });
    settle(ec2, &write.await?).await?;
    Ok(ModifyVpcEndpointResult { r#return: Some(true) })
}

pub(crate) async fn delete_vpc_endpoints(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteVpcEndpointsRequest,
) -> Result<DeleteVpcEndpointsResult, Fault> {
    for id in &input.vpc_endpoint_ids {
        ctx.authorise("ec2:DeleteVpcEndpoints", &ctx.arn("ec2", format!("vpc-endpoint/{id}")))?;
    }
    stop_if_dry(input.dry_run)?;
    let mut failed = Vec::new();
    for id in input.vpc_endpoint_ids {
        if let Err(fault) = delete(ec2, &ctx.realm(), &id).await {
            let error = UnsuccessfulItemError {
                code: Some(fault.code.to_string()),
                message: Some(fault.message.to_string()),
            };
            failed.push(UnsuccessfulItem { error: Some(error), resource_id: Some(id) });
        }
    }
    Ok(DeleteVpcEndpointsResult { unsuccessful: Some(failed) })
}

async fn delete(ec2: &Ec2, realm: &str, id: &str) -> Result<(), Fault> {
    let key = format!("{realm}/{id}");
    let mut record =
        Record::clone(&*tag::find::<Record>(&ec2.store.read(), realm, id, NO_ENDPOINT)?);
    if let EndpointKind::Interface { subnets, .. } = &mut record.kind {
        subnets.clear();
    }
    settle(ec2, &record).await?;
    let write = ec2.store.write(move |tx| {
        tx.delete::<Record>(&key);
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn describe_vpc_endpoints(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeVpcEndpointsRequest,
) -> Result<DescribeVpcEndpointsResult, Fault> {
    ctx.authorise("ec2:DescribeVpcEndpoints", "*")?;
    stop_if_dry(input.dry_run)?;
    let snapshot = ec2.store.read();
    let wanted = input.vpc_endpoint_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_ENDPOINT)?;
    }
    let mut found = Vec::new();
    for record in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        if !wanted.is_empty() && !wanted.contains(&record.id) {
            continue;
        }
        let told = told(ec2, ctx, &snapshot, &record);
        let passes = passes(input.filters.as_ref(), |name| match name {
            "vpc-endpoint-id" => Some(vec![record.id.clone()]),
            "vpc-id" => Some(vec![record.vpc.clone()]),
            "service-name" => Some(told.service_name.iter().cloned().collect()),
            "vpc-endpoint-type" => {
                Some(told.vpc_endpoint_type.iter().map(|kind| kind.as_str().to_owned()).collect())
            }
            "vpc-endpoint-state" => Some(told.state.iter().cloned().collect()),
            name => tag_values(name, &record.tags),
        })?;
        if passes {
            found.push((record.id.clone(), told));
        }
    }
    let (vpc_endpoints, next_token) =
        page("DescribeVpcEndpoints", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeVpcEndpointsResult { vpc_endpoints, next_token })
}
