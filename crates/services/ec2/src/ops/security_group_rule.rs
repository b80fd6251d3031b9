//! Rules of security groups.

use super::{
    filter::passes,
    listing::{page, stop_if_dry},
    security_group::{find, push},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{GroupRule, SecurityGroup as Group},
};
use network::{Cidr, Peer};
use std::sync::Arc;
use wire::{Context, Fault};

/// The most rules of a group in each direction.
const MOST_RULES: usize = 60;

/// Rules as DescribeSecurityGroups groups them: by protocol and ports.
pub(super) fn permissions(ctx: &Context, rules: &[GroupRule], egress: bool) -> Vec<IpPermission> {
    let mut permissions: Vec<IpPermission> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.egress == egress) {
        let ported = rule.protocol != "-1";
        let (from, to) = (ported.then_some(rule.from), ported.then_some(rule.to));
        let same = |p: &IpPermission| {
            p.ip_protocol.as_ref() == Some(&rule.protocol) && p.from_port == from && p.to_port == to
        };
        let index = permissions.iter().position(same).unwrap_or_else(|| {
            permissions.push(IpPermission {
                ip_protocol: Some(rule.protocol.clone()),
                from_port: from,
                to_port: to,
                user_id_group_pairs: Some(Vec::new()),
                ip_ranges: Some(Vec::new()),
                ipv6_ranges: Some(Vec::new()),
                prefix_list_ids: Some(Vec::new()),
            });
            permissions.len() - 1
        });
        let permission = &mut permissions[index];
        let description = rule.description.clone();
        match &rule.peer {
            Peer::Block(block) => permission
                .ip_ranges
                .get_or_insert_default()
                .push(IpRange { description, cidr_ip: Some(block.to_string()) }),
            Peer::Group(id) => {
                permission.user_id_group_pairs.get_or_insert_default().push(UserIdGroupPair {
                    description,
                    user_id: Some(ctx.account().to_owned()),
                    group_id: Some(id.clone()),
                    ..UserIdGroupPair::default()
                });
            }
        }
    }
    permissions
}

fn answer(ctx: &Context, group: &Group, rule: &GroupRule) -> SecurityGroupRule {
    let (cidr_ipv4, referenced_group_info) = match &rule.peer {
        Peer::Block(block) => (Some(block.to_string()), None),
        Peer::Group(id) => {
            let info = ReferencedSecurityGroup {
                group_id: Some(id.clone()),
                user_id: Some(ctx.account().to_owned()),
                ..ReferencedSecurityGroup::default()
            };
            (None, Some(info))
        }
    };
    SecurityGroupRule {
        security_group_rule_id: Some(rule.id.clone()),
        group_id: Some(group.id.clone()),
        group_owner_id: Some(ctx.account().to_owned()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(rule.protocol.clone()),
        from_port: Some(rule.from),
        to_port: Some(rule.to),
        cidr_ipv4,
        referenced_group_info,
        description: rule.description.clone(),
        security_group_rule_arn: Some(ctx.arn("ec2", format!("security-group-rule/{}", rule.id))),
        ..SecurityGroupRule::default()
    }
}

/// The rules that a request means, each with a new id.
fn rules(
    ec2: &Ec2,
    ctx: &Context,
    vpc: &str,
    egress: bool,
    permissions: Vec<IpPermission>,
) -> Result<Vec<GroupRule>, Fault> {
    let mut rules = Vec::new();
    for permission in permissions {
        let protocol =
            permission.ip_protocol.as_deref().ok_or_else(|| faults::missing("ipProtocol"))?;
        let protocol = protocol_name(protocol)?;
        let (from, to) = ports(&protocol, permission.from_port, permission.to_port)?;
        let mut peers = Vec::new();
        for range in permission.ip_ranges.unwrap_or_default() {
            let text = range.cidr_ip.ok_or_else(|| faults::missing("cidrIp"))?;
            let block: Cidr = text
                .parse()
                .map_err(|_| faults::invalid(format!("CIDR block {text} is malformed")))?;
            peers.push((Peer::Block(block), range.description));
        }
        for pair in permission.user_id_group_pairs.unwrap_or_default() {
            let group = find(ec2, ctx, pair.group_id.as_deref(), pair.group_name.as_deref())?;
            if group.vpc != vpc {
                return Err(faults::no_group(&group.id));
            }
            peers.push((Peer::Group(group.id.clone()), pair.description));
        }
        if peers.is_empty() {
            return Err(faults::missing("cidrIp"));
        }
        rules.extend(peers.into_iter().map(|(peer, description)| GroupRule {
            id: ec2.id("sgr"),
            egress,
            protocol: protocol.clone(),
            from,
            to,
            peer,
            description,
        }));
    }
    Ok(rules)
}

fn protocol_name(given: &str) -> Result<String, Fault> {
    let lower = given.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "tcp" | "6" => "tcp".to_owned(),
        "udp" | "17" => "udp".to_owned(),
        "icmp" | "1" => "icmp".to_owned(),
        "-1" | "all" => "-1".to_owned(),
        number if number.parse::<u8>().is_ok() => lower,
        _ => {
            let given: String = given.chars().take(64).collect();
            let message = format!("Invalid value '{given}' for IP protocol. Unknown protocol.");
            return Err(faults::invalid(message));
        }
    })
}

fn ports(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<(i32, i32), Fault> {
    match protocol {
        "tcp" | "udp" => {
            let (Some(from), Some(to)) = (from, to) else {
                return Err(faults::missing("fromPort"));
            };
            // -1 and -1 mean every port.
            if (from, to) == (-1, -1) || (from, to) == (0, 65_535) {
                return Ok((0, 65_535));
            }
            match 0 <= from && from <= to && to <= 65_535 {
                true => Ok((from, to)),
                false => Err(faults::invalid(format!("Invalid port range {from}-{to}."))),
            }
        }
        "icmp" => {
            let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
            match (-1..=255).contains(&kind) && (-1..=255).contains(&code) {
                true => Ok((kind, code)),
                false => Err(faults::invalid("Invalid ICMP type or code.")),
            }
        }
        _ => Ok((-1, -1)),
    }
}

async fn authorize(
    ec2: &Ec2,
    ctx: &Context,
    group: Arc<Group>,
    egress: bool,
    permissions: Vec<IpPermission>,
) -> Result<Vec<SecurityGroupRule>, Fault> {
    let new = rules(ec2, ctx, &group.vpc, egress, permissions)?;
    if new.is_empty() {
        return Err(faults::missing("ipPermissions"));
    }
    let answers = new.iter().map(|rule| answer(ctx, &group, rule)).collect();
    let key = format!("{}/{}", group.realm, group.id);
    let changed = ec2.store.write(move |tx| {
        let group = tx.get::<Group>(&key).ok_or_else(|| faults::no_group(&key))?;
        let mut group = Arc::unwrap_or_clone(group);
        for rule in new {
            if group.rules.iter().any(|there| there.same_effect(&rule)) {
                let peer = match &rule.peer {
                    Peer::Block(block) => block.to_string(),
                    Peer::Group(id) => id.clone(),
                };
                let text = format!(
                    "peer: {peer}, {}, from port: {}, to port: {}, ALLOW",
                    rule.protocol.to_uppercase(),
                    rule.from,
                    rule.to
                );
                return Err(faults::rule_exists(&text));
            }
            group.rules.push(rule);
        }
        if group.rules.iter().filter(|rule| rule.egress == egress).count() > MOST_RULES {
            let message = "The maximum number of rules per security group has been reached.";
            return Err(Fault::new("RulesPerSecurityGroupLimitExceeded", message));
        }
        tx.put(group.clone());
        Ok::<_, Fault>(group)
    });
    push(ec2, &changed.await?).await?;
    Ok(answers)
}

/// The old single-rule form of the request, which the AWS CLI still sends for `--protocol --port --cidr`.
fn single(
    protocol: Option<String>,
    ports: (Option<i32>, Option<i32>),
    cidr: Option<String>,
    group: Option<String>,
) -> Option<IpPermission> {
    let protocol = protocol?;
    Some(IpPermission {
        ip_protocol: Some(protocol),
        from_port: ports.0,
        to_port: ports.1,
        ip_ranges: cidr.map(|cidr| vec![IpRange { description: None, cidr_ip: Some(cidr) }]),
        user_id_group_pairs: group.map(|name| {
            vec![UserIdGroupPair { group_name: Some(name), ..UserIdGroupPair::default() }]
        }),
        ..IpPermission::default()
    })
}

pub(crate) async fn authorize_security_group_ingress(
    ec2: &Ec2,
    ctx: &Context,
    input: AuthorizeSecurityGroupIngressRequest,
) -> Result<AuthorizeSecurityGroupIngressResult, Fault> {
    let group = find(ec2, ctx, input.group_id.as_deref(), input.group_name.as_deref());
    let arn = group.as_ref().map_or_else(|_| "*".to_owned(), |group| group.arn());
    ctx.authorise("ec2:AuthorizeSecurityGroupIngress", &arn)?;
    stop_if_dry(input.dry_run)?;
    let mut permissions = input.ip_permissions.unwrap_or_default();
    let ports = (input.from_port, input.to_port);
    permissions.extend(single(
        input.ip_protocol,
        ports,
        input.cidr_ip,
        input.source_security_group_name,
    ));
    let rules = authorize(ec2, ctx, group?, false, permissions).await?;
    Ok(AuthorizeSecurityGroupIngressResult {
        r#return: Some(true),
        security_group_rules: Some(rules),
    })
}

pub(crate) async fn authorize_security_group_egress(
    ec2: &Ec2,
    ctx: &Context,
    input: AuthorizeSecurityGroupEgressRequest,
) -> Result<AuthorizeSecurityGroupEgressResult, Fault> {
    let group = find(ec2, ctx, Some(&input.group_id), None);
    let arn = group.as_ref().map_or_else(|_| "*".to_owned(), |group| group.arn());
    ctx.authorise("ec2:AuthorizeSecurityGroupEgress", &arn)?;
    stop_if_dry(input.dry_run)?;
    let permissions = input.ip_permissions.unwrap_or_default();
    let rules = authorize(ec2, ctx, group?, true, permissions).await?;
    Ok(AuthorizeSecurityGroupEgressResult {
        r#return: Some(true),
        security_group_rules: Some(rules),
    })
}

async fn revoke(
    ec2: &Ec2,
    ctx: &Context,
    group: Arc<Group>,
    egress: bool,
    permissions: Vec<IpPermission>,
    ids: Vec<String>,
) -> Result<(), Fault> {
    let gone = rules(ec2, ctx, &group.vpc, egress, permissions)?;
    if gone.is_empty() && ids.is_empty() {
        return Err(faults::missing("ipPermissions"));
    }
    let key = format!("{}/{}", group.realm, group.id);
    let changed = ec2.store.write(move |tx| {
        let group = tx.get::<Group>(&key).ok_or_else(|| faults::no_group(&key))?;
        let mut group = Arc::unwrap_or_clone(group);
        for rule in &gone {
            let before = group.rules.len();
            group.rules.retain(|there| !there.same_effect(rule));
            if group.rules.len() == before {
                return Err(faults::no_rule());
            }
        }
        for id in &ids {
            let before = group.rules.len();
            group.rules.retain(|there| there.id != *id || there.egress != egress);
            if group.rules.len() == before {
                return Err(faults::no_rule_id(id));
            }
        }
        tx.put(group.clone());
        Ok::<_, Fault>(group)
    });
    push(ec2, &changed.await?).await
}

pub(crate) async fn revoke_security_group_ingress(
    ec2: &Ec2,
    ctx: &Context,
    input: RevokeSecurityGroupIngressRequest,
) -> Result<RevokeSecurityGroupIngressResult, Fault> {
    let group = find(ec2, ctx, input.group_id.as_deref(), input.group_name.as_deref());
    let arn = group.as_ref().map_or_else(|_| "*".to_owned(), |group| group.arn());
    ctx.authorise("ec2:RevokeSecurityGroupIngress", &arn)?;
    stop_if_dry(input.dry_run)?;
    let mut permissions = input.ip_permissions.unwrap_or_default();
    let ports = (input.from_port, input.to_port);
    permissions.extend(single(
        input.ip_protocol,
        ports,
        input.cidr_ip,
        input.source_security_group_name,
    ));
    let ids = input.security_group_rule_ids.unwrap_or_default();
    revoke(ec2, ctx, group?, false, permissions, ids).await?;
    Ok(RevokeSecurityGroupIngressResult { r#return: Some(true), ..Default::default() })
}

pub(crate) async fn revoke_security_group_egress(
    ec2: &Ec2,
    ctx: &Context,
    input: RevokeSecurityGroupEgressRequest,
) -> Result<RevokeSecurityGroupEgressResult, Fault> {
    let group = find(ec2, ctx, Some(&input.group_id), None);
    let arn = group.as_ref().map_or_else(|_| "*".to_owned(), |group| group.arn());
    ctx.authorise("ec2:RevokeSecurityGroupEgress", &arn)?;
    stop_if_dry(input.dry_run)?;
    let permissions = input.ip_permissions.unwrap_or_default();
    let ids = input.security_group_rule_ids.unwrap_or_default();
    revoke(ec2, ctx, group?, true, permissions, ids).await?;
    Ok(RevokeSecurityGroupEgressResult { r#return: Some(true), ..Default::default() })
}

pub(crate) async fn describe_security_group_rules(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeSecurityGroupRulesRequest,
) -> Result<DescribeSecurityGroupRulesResult, Fault> {
    ctx.authorise("ec2:DescribeSecurityGroupRules", "*")?;
    stop_if_dry(input.dry_run)?;
    ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let wanted = input.security_group_rule_ids.unwrap_or_default();
    let snapshot = ec2.store.read();
    let mut rules = Vec::new();
    for group in snapshot.scan_prefix::<Group>(&format!("{}/", ctx.realm())) {
        for rule in &group.rules {
            let passes = passes(input.filters.as_ref(), |name| match name {
                "group-id" => Some(vec![group.id.clone()]),
                "security-group-rule-id" => Some(vec![rule.id.clone()]),
                name if name.starts_with("tag") => Some(Vec::new()),
                _ => None,
            })?;
            if passes && (wanted.is_empty() || wanted.contains(&rule.id)) {
                rules.push((rule.id.clone(), answer(ctx, &group, rule)));
            }
        }
    }
    if let Some(missing) = wanted.iter().find(|id| !rules.iter().any(|(known, _)| known == *id)) {
        return Err(faults::no_rule_id(missing));
    }
    rules.sort_by(|a, b| a.0.cmp(&b.0));
    let (security_group_rules, next_token) =
        page("DescribeSecurityGroupRules", input.next_token.as_deref(), input.max_results, rules)?;
    Ok(DescribeSecurityGroupRulesResult { security_group_rules, next_token })
}
