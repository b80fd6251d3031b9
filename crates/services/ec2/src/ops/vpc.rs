//! VPCs.

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    tag,
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{
        InternetGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet, Vpc as Record,
        VpcEndpoint,
    },
};
use network::Cidr;
use store::Tx;
use wire::{Context, Fault};

/// The block of a VPC or a subnet, in its canonical form: from `/16` to `/28`, as on AWS.
pub(super) fn block(code: &'static str, text: &str) -> Result<Cidr, Fault> {
    let wrong = |message: String| faults::of(code, message);
    let block: Cidr = text.parse().map_err(|_| {
        let message = format!(
            "Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
        );
        faults::invalid(message)
    })?;
    match (16..=28).contains(&block.prefix()) {
        true => Ok(block),
        false => Err(wrong(format!("The CIDR '{text}' is invalid."))),
    }
}

pub(crate) async fn create_vpc(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateVpcRequest,
) -> Result<CreateVpcResult, Fault> {
    ctx.authorise("ec2:CreateVpc", &ctx.arn("ec2", "vpc/*"))?;
    stop_if_dry(input.dry_run)?;
    // The default VPC comes first, so that there always is one.
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    if input.instance_tenancy.is_some_and(|tenancy| tenancy != Tenancy::Default) {
        return Err(faults::of(
            "UnsupportedOperation",
            "Neargate does not support dedicated tenancy",
        ));
    }
    let given = input.cidr_block.ok_or_else(|| faults::missing("cidrBlock"))?;
    let block = block("InvalidVpc.Range", &given)?;
    let (realm, id) = (ctx.realm(), ec2.id("vpc"));
    let tags = tag::read(input.tag_specifications)?;
    let table = ec2.main_table(&realm, &id);
    let group = SecurityGroup::default_of(&realm, &id, ec2.id("sg"), || ec2.id("sgr"));
    let write = ec2.store.write(move |tx| {
        let number = crate::free_number(tx).ok_or_else(|| {
            faults::of("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
        })?;
        let (default, dns_hostnames) = (false, false);
        let vpc = Record { realm, id, block, number, default, dns_hostnames, tags };
        tx.put(vpc.clone());
        tx.put(table);
        tx.put(group);
        Ok::<_, Fault>(vpc)
    });
    let vpc = write.await?;
    Ok(CreateVpcResult { vpc: Some(answer(ctx, &vpc)) })
}

/// Whether something is left in a VPC.
fn is_used(tx: &Tx, realm: &str, vpc: &str) -> bool {
    let prefix = format!("{realm}/");
    tx.scan_prefix::<Subnet>(&prefix).any(|one| one.vpc == vpc)
        || tx.scan_prefix::<InternetGateway>(&prefix).any(|one| one.vpc.as_deref() == Some(vpc))
        || tx.scan_prefix::<NetworkInterface>(&prefix).any(|one| one.vpc == vpc)
        || tx.scan_prefix::<VpcEndpoint>(&prefix).any(|one| one.vpc == vpc)
        || tx
            .scan_prefix::<SecurityGroup>(&prefix)
            .any(|one| one.vpc == vpc && one.name != "default")
        || tx.scan_prefix::<RouteTable>(&prefix).any(|one| one.vpc == vpc && one.main.is_none())
}

pub(crate) async fn delete_vpc(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteVpcRequest,
) -> Result<(), Fault> {
    let id = input.vpc_id;
    ctx.authorise("ec2:DeleteVpc", &ctx.arn("ec2", format!("vpc/{id}")))?;
    stop_if_dry(input.dry_run)?;
    let (realm, name) = (ctx.realm(), id.clone());
    // So that nobody sets it up while it goes.
    let _setting_up = ec2.setting_up.lock().await;
    let write = ec2.store.write(move |tx| {
        let vpc = tag::vpc(tx, &realm, &name)?;
        if vpc.default {
            let message = "Neargate keeps the default VPC of every account and region";
            return Err(faults::of("OperationNotPermitted", message));
        }
        if is_used(tx, &realm, &name) {
            return Err(faults::dependency("vpc", &name));
        }
        let prefix = format!("{realm}/");
        let groups: Vec<_> =
            tx.scan_prefix::<SecurityGroup>(&prefix).filter(|one| one.vpc == name).collect();
        let tables: Vec<_> =
            tx.scan_prefix::<RouteTable>(&prefix).filter(|one| one.vpc == name).collect();
        groups.iter().for_each(|group| {
            tx.delete::<SecurityGroup>(&store::Record::key(group.as_ref()));
        });
        tables.iter().for_each(|table| {
            tx.delete::<RouteTable>(&store::Record::key(table.as_ref()));
        });
        tx.delete::<Record>(&format!("{realm}/{name}"));
        Ok(())
    });
    write.await?;
    ec2.network.remove_vpc(&id).await.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(vpc = id, error, "a VPC's network could not be taken away");
        faults::not_applied()
    })
}

pub(crate) async fn describe_vpc_attribute(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeVpcAttributeRequest,
) -> Result<DescribeVpcAttributeResult, Fault> {
    ctx.authorise("ec2:DescribeVpcAttribute", &ctx.arn("ec2", format!("vpc/{}", input.vpc_id)))?;
    stop_if_dry(input.dry_run)?;
    let vpc = tag::vpc(&ec2.store.read(), &ctx.realm(), &input.vpc_id)?;
    let told = |value: bool| Some(AttributeBooleanValue { value: Some(value) });
    let mut answer =
        DescribeVpcAttributeResult { vpc_id: Some(input.vpc_id), ..Default::default() };
    match input.attribute {
        VpcAttributeName::EnableDnsSupport => answer.enable_dns_support = told(true),
        VpcAttributeName::EnableDnsHostnames => {
            answer.enable_dns_hostnames = told(vpc.dns_hostnames)
        }
        VpcAttributeName::EnableNetworkAddressUsageMetrics => {
            answer.enable_network_address_usage_metrics = told(false);
        }
    }
    Ok(answer)
}

pub(crate) async fn modify_vpc_attribute(
    ec2: &Ec2,
    ctx: &Context,
    input: ModifyVpcAttributeRequest,
) -> Result<(), Fault> {
    let id = input.vpc_id;
    ctx.authorise("ec2:ModifyVpcAttribute", &ctx.arn("ec2", format!("vpc/{id}")))?;
    if input.enable_dns_support.is_some_and(|wanted| wanted.value == Some(false)) {
        let message = "Neargate does not support VPCs without a name service";
        return Err(faults::of("UnsupportedOperation", message));
    }
    let (realm, wanted) = (ctx.realm(), input.enable_dns_hostnames.and_then(|wanted| wanted.value));
    let write = ec2.store.write(move |tx| {
        tag::vpc(tx, &realm, &id)?;
        if let Some(wanted) = wanted {
            tx.update::<Record>(&format!("{realm}/{id}"), |vpc| vpc.dns_hostnames = wanted);
        }
        Ok::<_, Fault>(())
    });
    write.await
}

pub(crate) async fn describe_vpcs(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeVpcsRequest,
) -> Result<DescribeVpcsResult, Fault> {
    ctx.authorise("ec2:DescribeVpcs", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let snapshot = ec2.store.read();
    let wanted = input.vpc_ids.unwrap_or_default();
    for id in &wanted {
        let known = snapshot.get::<Record>(&format!("{}/{id}", ctx.realm()));
        known.ok_or_else(|| faults::not_found("InvalidVpcID.NotFound", "vpc", id))?;
    }
    let mut vpcs = Vec::new();
    for vpc in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "vpc-id" => Some(vec![vpc.id.clone()]),
            "isDefault" | "is-default" => Some(vec![vpc.default.to_string()]),
            "cidr" | "cidr-block" | "cidr-block-association.cidr-block" => {
                Some(vec![vpc.block.to_string()])
            }
            "state" => Some(vec!["available".to_owned()]),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name => tag_values(name, &vpc.tags),
        })?;
        if passes && (wanted.is_empty() || wanted.contains(&vpc.id)) {
            vpcs.push((vpc.id.clone(), answer(ctx, &vpc)));
        }
    }
    let (vpcs, next_token) =
        page("DescribeVpcs", input.next_token.as_deref(), input.max_results, vpcs)?;
    Ok(DescribeVpcsResult { next_token, vpcs })
}

fn answer(ctx: &Context, vpc: &Record) -> Vpc {
    Vpc {
        owner_id: Some(ctx.account().to_owned()),
        instance_tenancy: Some(Tenancy::Default),
        cidr_block_association_set: Some(vec![VpcCidrBlockAssociation {
            association_id: Some(vpc.id.replace("vpc-", "vpc-cidr-assoc-")),
            cidr_block: Some(vpc.block.to_string()),
            cidr_block_state: Some(VpcCidrBlockState {
                state: Some(VpcCidrBlockStateCode::Associated),
                status_message: None,
            }),
        }]),
        is_default: Some(vpc.default),
        vpc_id: Some(vpc.id.clone()),
        state: Some(VpcState::Available),
        cidr_block: Some(vpc.block.to_string()),
        dhcp_options_id: Some("default".to_owned()),
        tags: tag::told(&vpc.tags),
        ..Vpc::default()
    }
}
