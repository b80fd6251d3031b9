//! Security groups.

use super::{
    filter::{passes, tag_values},
    listing::{page, stop_if_dry},
    security_group_rule::permissions,
    tag,
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{GroupRule, NetworkInterface as Interface, SecurityGroup as Record, Vpc as VpcRecord},
};
use network::{Cidr, Peer};
use std::{net::Ipv4Addr, sync::Arc};
use wire::{Context, Fault};

/// The longest name and description.
const MOST_TEXT: usize = 255;

pub(crate) async fn create_security_group(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateSecurityGroupRequest,
) -> Result<CreateSecurityGroupResult, Fault> {
    ctx.authorise("ec2:CreateSecurityGroup", &ctx.arn("ec2", "security-group/*"))?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    check_text("GroupName", &input.group_name)?;
    check_text("GroupDescription", &input.description)?;
    if input.group_name == "default" || input.group_name.starts_with("sg-") {
        return Err(faults::invalid("Cannot use reserved security group name"));
    }
    let tags = tag::read(input.tag_specifications)?;
    let id = ec2.id("sg");
    let egress = GroupRule {
        id: ec2.id("sgr"),
        egress: true,
        protocol: "-1".to_owned(),
        from: -1,
        to: -1,
        peer: Peer::Block(Cidr::new(Ipv4Addr::UNSPECIFIED, 0)),
        description: None,
    };
    let realm = ctx.realm();
    let made = ec2.store.write(move |tx| {
        let vpcs = tx.scan_prefix::<VpcRecord>(&format!("{realm}/"));
        let wanted = |vpc: &VpcRecord| match &input.vpc_id {
            Some(id) => vpc.id == *id,
            None => vpc.default,
        };
        let vpc = vpcs.into_iter().find(|vpc| wanted(vpc)).ok_or_else(|| {
            let id = input.vpc_id.clone().unwrap_or_default();
            faults::not_found("InvalidVpcID.NotFound", "vpc", &id)
        })?;
        let mut groups = tx.scan_prefix::<Record>(&format!("{realm}/"));
        if groups.any(|group| group.vpc == vpc.id && group.name == input.group_name) {
            return Err(faults::group_exists(&input.group_name, &vpc.id));
        }
        drop(groups);
        let group = Record {
            realm,
            id,
            vpc: vpc.id.clone(),
            name: input.group_name,
            description: input.description,
            tags,
            rules: vec![egress],
        };
        tx.put(group.clone());
        Ok(group)
    });
    let group = made.await?;
    push(ec2, &group).await?;
    Ok(CreateSecurityGroupResult {
        security_group_arn: Some(group.arn()),
        tags: tag::told(&group.tags),
        group_id: Some(group.id),
    })
}

fn check_text(what: &str, text: &str) -> Result<(), Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    match text.is_empty() || text.len() > MOST_TEXT || !text.chars().all(fits) {
        true => Err(faults::invalid(format!(
            "Value ({text}) for parameter {what} is invalid. Character sets beyond ASCII are not supported."
        ))),
        false => Ok(()),
    }
}

/// Makes the kernel enforce what was just stored: the call answers when it does.
pub(super) async fn push(ec2: &Ec2, group: &Record) -> Result<(), Fault> {
    ec2.push_groups(&group.realm, &group.vpc).await.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(group = group.id, error, "security groups could not be applied");
        faults::not_applied()
    })
}

/// The group of an id, or in the default VPC of a name.
pub(super) fn find(
    ec2: &Ec2,
    ctx: &Context,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<Arc<Record>, Fault> {
    let snapshot = ec2.store.read();
    match (id, name) {
        (Some(id), _) => {
            let group = snapshot.get::<Record>(&format!("{}/{id}", ctx.realm()));
            group.ok_or_else(|| faults::no_group(id))
        }
        (None, Some(name)) => {
            let mut groups = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm()));
            groups.find(|group| group.name == name).ok_or_else(|| faults::no_group(name))
        }
        (None, None) => Err(faults::missing("groupId")),
    }
}

pub(crate) async fn describe_security_groups(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeSecurityGroupsRequest,
) -> Result<DescribeSecurityGroupsResult, Fault> {
    ctx.authorise("ec2:DescribeSecurityGroups", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let snapshot = ec2.store.read();
    let ids = input.group_ids.unwrap_or_default();
    let names = input.group_names.unwrap_or_default();
    ids.iter().try_for_each(|id| find(ec2, ctx, Some(id), None).map(drop))?;
    names.iter().try_for_each(|name| find(ec2, ctx, None, Some(name)).map(drop))?;
    let mut groups = Vec::new();
    for group in snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm())) {
        let passes = passes(input.filters.as_ref(), |name| match name {
            "group-id" => Some(vec![group.id.clone()]),
            "group-name" => Some(vec![group.name.clone()]),
            "vpc-id" => Some(vec![group.vpc.clone()]),
            "description" => Some(vec![group.description.clone()]),
            "owner-id" => Some(vec![ctx.account().to_owned()]),
            name => tag_values(name, &group.tags),
        })?;
        let named = ids.is_empty() && names.is_empty()
            || ids.contains(&group.id)
            || names.contains(&group.name);
        if passes && named {
            groups.push((group.id.clone(), answer(ctx, &group)));
        }
    }
    let (security_groups, next_token) =
        page("DescribeSecurityGroups", input.next_token.as_deref(), input.max_results, groups)?;
    Ok(DescribeSecurityGroupsResult { next_token, security_groups })
}

fn answer(ctx: &Context, group: &Record) -> SecurityGroup {
    SecurityGroup {
        group_id: Some(group.id.clone()),
        ip_permissions_egress: Some(permissions(ctx, &group.rules, true)),
        tags: tag::told(&group.tags),
        vpc_id: Some(group.vpc.clone()),
        security_group_arn: Some(group.arn()),
        owner_id: Some(ctx.account().to_owned()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        ip_permissions: Some(permissions(ctx, &group.rules, false)),
    }
}

pub(crate) async fn delete_security_group(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteSecurityGroupRequest,
) -> Result<DeleteSecurityGroupResult, Fault> {
    let found = find(ec2, ctx, input.group_id.as_deref(), input.group_name.as_deref());
    let arn = match &found {
        Ok(group) => group.arn(),
        Err(_) => ctx.arn("ec2", "security-group/*"),
    };
    ctx.authorise("ec2:DeleteSecurityGroup", &arn)?;
    stop_if_dry(input.dry_run)?;
    let group = found?;
    if group.name == "default" {
        return Err(faults::default_group());
    }
    let id = group.id.clone();
    let key = format!("{}/{id}", group.realm);
    let realm = group.realm.clone();
    ec2.store
        .write(move |tx| {
            let mut interfaces = tx.scan_prefix::<Interface>(&format!("{realm}/"));
            let used = interfaces.any(|interface| interface.groups.contains(&id));
            drop(interfaces);
            let mut groups = tx.scan_prefix::<Record>(&format!("{realm}/"));
            let named = |rule: &GroupRule| rule.peer == Peer::Group(id.clone());
            let named = groups.any(|other| other.id != id && other.rules.iter().any(named));
            drop(groups);
            if used || named {
                return Err(faults::group_in_use(&id));
            }
            tx.delete::<Record>(&key);
            Ok::<_, Fault>(())
        })
        .await?;
    push(ec2, &group).await?;
    Ok(DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(group.id.clone()) })
}
