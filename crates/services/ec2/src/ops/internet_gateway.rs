//! Internet gateways.

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag::{self, NO_GATEWAY},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{InternetGateway as Record, NatGateway, NetworkInterface},
};
use wire::{Context, Fault};

pub(crate) async fn create_internet_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateInternetGatewayRequest,
) -> Result<CreateInternetGatewayResult, Fault> {
    ctx.authorise("ec2:CreateInternetGateway", &ctx.arn("ec2", "internet-gateway/*"))?;
    stop_if_dry(input.dry_run)?;
    let tags = tag::read(input.tag_specifications)?;
    let record = Record { realm: ctx.realm(), id: ec2.id("igw"), vpc: None, tags };
    let answer = told(ctx, &record);
    let write = ec2.store.write(move |tx| {
        tx.put(record);
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(CreateInternetGatewayResult { internet_gateway: Some(answer) })
}

fn told(ctx: &Context, record: &Record) -> InternetGateway {
    let attachments = record.vpc.iter().map(|vpc| InternetGatewayAttachment {
        // As AWS tells it of internet gateways.
        state: AttachmentStatus::parse("available"),
        vpc_id: Some(vpc.clone()),
    });
    InternetGateway {
        attachments: Some(attachments.collect()),
        internet_gateway_id: Some(record.id.clone()),
        owner_id: Some(ctx.account().to_owned()),
        tags: tag::told(&record.tags),
    }
}

pub(crate) async fn attach_internet_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: AttachInternetGatewayRequest,
) -> Result<(), Fault> {
    let (id, vpc) = (input.internet_gateway_id, input.vpc_id);
    ctx.authorise("ec2:AttachInternetGateway", &ctx.arn("ec2", format!("internet-gateway/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let (realm, place) = (ctx.realm(), vpc.clone());
    let write = ec2.store.write(move |tx| {
        let gateway = tag::find::<Record>(tx, &realm, &id, NO_GATEWAY)?;
        tag::vpc(tx, &realm, &vpc)?;
        if gateway.vpc.is_some() {
            let message = format!(
                "resource {id} is already attached to network {}",
                gateway.vpc.as_deref().unwrap_or_default()
            );
            return Err(faults::of("Resource.AlreadyAssociated", message));
        }
        let mut others = tx.scan_prefix::<Record>(&format!("{realm}/"));
        if others.any(|other| other.vpc.as_ref() == Some(&vpc)) {
            let message = format!("Network {vpc} already has an internet gateway attached");
            return Err(faults::invalid(message));
        }
        drop(others);
        tx.update::<Record>(&format!("{realm}/{id}"), |gateway| gateway.vpc = Some(vpc));
        Ok(())
    });
    write.await?;
    ec2.apply_ways(&ctx.realm(), &place).await
}

pub(crate) async fn detach_internet_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: DetachInternetGatewayRequest,
) -> Result<(), Fault> {
    let (id, vpc) = (input.internet_gateway_id, input.vpc_id);
    ctx.authorise("ec2:DetachInternetGateway", &ctx.arn("ec2", format!("internet-gateway/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let (realm, place) = (ctx.realm(), vpc.clone());
    let write = ec2.store.write(move |tx| {
        let gateway = tag::find::<Record>(tx, &realm, &id, NO_GATEWAY)?;
        if gateway.vpc.as_ref() != Some(&vpc) {
            let message = format!("resource {id} is not attached to network {vpc}");
            return Err(faults::of("Gateway.NotAttached", message));
        }
        let prefix = format!("{realm}/");
        let mapped = tx
            .scan_prefix::<NetworkInterface>(&prefix)
            .any(|one| one.vpc == vpc && one.public_ip.is_some())
            || tx
                .scan_prefix::<NatGateway>(&prefix)
                .any(|one| one.vpc == vpc && one.deleted.is_none());
        if mapped {
            let message = format!(
                "Network {vpc} has some mapped public address(es). Please unmap those public \
             address(es) before detaching the gateway."
            );
            return Err(faults::of("DependencyViolation", message));
        }
        tx.update::<Record>(&format!("{realm}/{id}"), |gateway| gateway.vpc = None);
        Ok(())
    });
    write.await?;
    ec2.apply_ways(&ctx.realm(), &place).await
}

pub(crate) async fn delete_internet_gateway(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteInternetGatewayRequest,
) -> Result<(), Fault> {
    let id = input.internet_gateway_id;
    ctx.authorise("ec2:DeleteInternetGateway", &ctx.arn("ec2", format!("internet-gateway/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        let gateway = tag::find::<Record>(tx, &realm, &id, NO_GATEWAY)?;
        if gateway.vpc.is_some() {
            return Err(faults::dependency("internetGateway", &id));
        }
        tx.delete::<Record>(&format!("{realm}/{id}"));
        Ok(())
    });
    write.await
}

pub(crate) async fn describe_internet_gateways(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeInternetGatewaysRequest,
) -> Result<DescribeInternetGatewaysResult, Fault> {
    ctx.authorise("ec2:DescribeInternetGateways", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let snapshot = ec2.store.read();
    let wanted = input.internet_gateway_ids.unwrap_or_default();
    for id in &wanted {
        tag::find::<Record>(&snapshot, &ctx.realm(), id, NO_GATEWAY)?;
    }
    let mut found = Vec::new();
    for gateway in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "internet-gateway-id" => Some(vec![gateway.id.clone()]),
            "attachment.vpc-id" => Some(gateway.vpc.clone().into_iter().collect()),
            "attachment.state" => {
                Some(gateway.vpc.iter().map(|_| "available".to_owned()).collect())
            }
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name => tag_values(name, &gateway.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&gateway.id)) {
            found.push((gateway.id.clone(), told(ctx, &gateway)));
        }
    }
    let (internet_gateways, next_token) =
        page("DescribeInternetGateways", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeInternetGatewaysResult { internet_gateways, next_token })
}
