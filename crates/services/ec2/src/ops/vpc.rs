//! VPCs.

use super::{
    filter::passes,
    listing::{page, stop_if_dry},
};
use crate::{Ec2, api::*, faults, model::Vpc as Record};
use wire::{Context, Fault};

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
            name if name.starts_with("tag") => Some(Vec::new()),
            _ => None,
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
        ..Vpc::default()
    }
}
