//! NAT gateways: interfaces without a public address go out by theirs.

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag::{self, NO_ADDRESS, NO_NAT, NO_SUBNET},
};
use crate::{
    Ec2, InterfaceRequest,
    api::*,
    faults,
    model::{Address, NatGateway as Record, Subnet},
};
use std::time::Duration;
use wire::{Context, Fault};

/// How long a deleted one is told of, as on AWS.
const REMEMBERED: Duration = Duration::from_secs(3600);

pub(crate) async fn create_nat_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateNatGatewayRequest,
) -> Result<CreateNatGatewayResult, Fault> {
    ctx.authorise("ec2:CreateNatGateway", &ctx.arn("ec2", "natgateway/*"))?;
    stop_if_dry(input.dry_run)?;
    if input.connectivity_type == Some(ConnectivityType::Private) {
        return Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support private NAT gateways",
        ));
    }
    let subnet = input.subnet_id.ok_or_else(|| faults::missing("SubnetId"))?;
    let allocation = input.allocation_id.ok_or_else(|| faults::missing("AllocationId"))?;
    let (realm, tags) = (ctx.realm(), tag::read(input.tag_specifications)?);
    let snapshot = ec2.store.read();
    let mut all = snapshot.scan_prefix::<Record>(&format!("{realm}/"));
    let again = all.find(|known| input.client_token.is_some() && known.token == input.client_token);
    drop(all);
    if let Some(known) = again {
        return Ok(answer(&known, input.client_token.clone()));
    }
    let place = tag::find::<Subnet>(&snapshot, &realm, &subnet, NO_SUBNET)?;
    let address = tag::find::<Address>(&snapshot, &realm, &allocation, NO_ADDRESS)?;
    let gateways = snapshot.scan_prefix::<crate::model::InternetGateway>(&format!("{realm}/"));
    if !gateways.into_iter().any(|gateway| gateway.vpc.as_ref() == Some(&place.vpc)) {
        let message = format!("Network {} has no Internet gateway attached", place.vpc);
        return Err(faults::of("Gateway.NotAttached", message));
    }
    let id = ec2.id("nat");
    let interface = ec2.create_interface(InterfaceRequest {
        realm: realm.clone(),
        subnets: vec![subnet.clone()],
        groups: Vec::new(),
        public: false,
        description: format!("Interface for NAT Gateway {id}"),
    });
    let interface = interface.await.map_err(|error| faults::invalid(error.to_string()))?;
    let record = Record {
        realm: realm.clone(),
        id,
        vpc: place.vpc.clone(),
        subnet,
        allocation,
        public_ip: address.ip,
        eni: interface.id.clone(),
        ip: interface.ip,
        token: input.client_token.clone(),
        created: ctx.now,
        deleted: None,
        tags,
    };
    let made = record.clone();
    let write = ec2.store.write(move |tx| {
        // Nobody may have taken the address or deleted the VPC in between.
        tag::find::<Subnet>(tx, &record.realm, &record.subnet, NO_SUBNET)?;
        tag::find::<Address>(tx, &record.realm, &record.allocation, NO_ADDRESS)?;
        let mut others = tx.scan_prefix::<Record>(&format!("{}/", record.realm));
        if others.any(|other| other.allocation == record.allocation && other.deleted.is_none()) {
            let message =
                format!("Elastic IP address [{}] is already associated", record.allocation);
            return Err(faults::of("Resource.AlreadyAssociated", message));
        }
        drop(others);
        tx.put(record);
        Ok::<_, Fault>(())
    });
    if let Err(fault) = write.await {
        let gone = ec2.delete_interface(&realm, &interface.id).await;
        gone.map_err(|error| faults::invalid(error.to_string()))?;
        return Err(fault);
    }
    ec2.apply_ways(&realm, &made.vpc).await?;
    Ok(answer(&made, input.client_token))
}

fn answer(record: &Record, token: Option<String>) -> CreateNatGatewayResult {
    CreateNatGatewayResult { client_token: token, nat_gateway: Some(told(record)) }
}

fn told(record: &Record) -> NatGateway {
    let state = if record.deleted.is_some() { "deleted" } else { "available" };
    NatGateway {
        create_time: Some(record.created),
        delete_time: record.deleted,
        nat_gateway_addresses: Some(vec![NatGatewayAddress {
            allocation_id: Some(record.allocation.clone()),
            network_interface_id: Some(record.eni.clone()),
            private_ip: Some(record.ip.to_string()),
            public_ip: Some(record.public_ip.to_string()),
            association_id: Some(record.id.replace("nat-", "eipassoc-")),
            is_primary: Some(true),
            status: NatGatewayAddressStatus::parse("succeeded"),
            ..NatGatewayAddress::default()
        }]),
        nat_gateway_id: Some(record.id.clone()),
        state: NatGatewayState::parse(state),
        subnet_id: Some(record.subnet.clone()),
        vpc_id: Some(record.vpc.clone()),
        tags: tag::told(&record.tags),
        connectivity_type: Some(ConnectivityType::Public),
        ..NatGateway::default()
    }
}

pub(crate) async fn delete_nat_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteNatGatewayRequest,
) -> Result<DeleteNatGatewayResult, Fault> {
    let id = input.nat_gateway_id;
    ctx.authorise("ec2:DeleteNatGateway", &ctx.arn("ec2", format!("natgateway/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let (realm, now, key) = (ctx.realm(), ctx.now, format!("{}/{id}", ctx.realm()));
    let name = id.clone();
    let write = ec2.store.write(move |tx| {
        let gateway = tag::find::<Record>(tx, &realm, &name, NO_NAT)?;
        tx.update::<Record>(&key, |gateway| {
            gateway.deleted.get_or_insert(now);
        });
        let old: Vec<_> = tx
            .scan_prefix::<Record>(&format!("{realm}/"))
            .filter(|one| one.deleted.is_some_and(|deleted| now.since(deleted) > REMEMBERED))
            .collect();
        old.iter().for_each(|one| {
            tx.delete::<Record>(&store::Record::key(one.as_ref()));
        });
        Ok::<_, Fault>(gateway)
    });
    let gateway = write.await?;
    ec2.apply_ways(&ctx.realm(), &gateway.vpc).await?;
    ec2.unroute(&gateway.vpc, gateway.public_ip).await?;
    let gone = ec2.delete_interface(&ctx.realm(), &gateway.eni).await;
    gone.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(nat = gateway.id, error, "a NAT gateway's interface could not be deleted");
        faults::not_applied()
    })?;
    Ok(DeleteNatGatewayResult { nat_gateway_id: Some(id) })
}

pub(crate) async fn describe_nat_gateways(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeNatGatewaysRequest,
) -> Result<DescribeNatGatewaysResult, Fault> {
    ctx.authorise("ec2:DescribeNatGateways", "*")?;
    stop_if_dry(input.dry_run)?;
    let snapshot = ec2.store.read();
    let wanted = input.nat_gateway_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_NAT)?;
    }
    let mut found = Vec::new();
    for gateway in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        if gateway.deleted.is_some_and(|deleted| ctx.now.since(deleted) > REMEMBERED) {
            continue;
        }
        let state = if gateway.deleted.is_some() { "deleted" } else { "available" };
        let passes = passes(input.filter.as_ref(), |name| match name {
            "nat-gateway-id" => Some(vec![gateway.id.clone()]),
            "vpc-id" => Some(vec![gateway.vpc.clone()]),
            "subnet-id" => Some(vec![gateway.subnet.clone()]),
            "state" => Some(vec![state.to_owned()]),
            name => tag_values(name, &gateway.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&gateway.id)) {
            found.push((gateway.id.clone(), told(&gateway)));
        }
    }
    let (nat_gateways, next_token) =
        page("DescribeNatGateways", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeNatGatewaysResult { nat_gateways, next_token })
}
