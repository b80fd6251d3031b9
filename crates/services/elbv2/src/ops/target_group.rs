//! Target groups.

use super::{
    find::{find, uses},
    health_check::{Family, Wanted, health_check},
    listing::{check_name, check_one, page},
    tag::{authorise_create, tags_in},
};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{LoadBalancer as Balancer, Target, TargetGroup as Record},
};
use ec2::model::Vpc;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::View;
use wire::{Context, Fault};

/// Target groups in one region, AWS's default quota.
const MOST_GROUPS: usize = 3000;

type Uses = BTreeMap<String, BTreeSet<String>>;

fn answer(view: &impl View, uses: &Uses, group: &Record) -> TargetGroup {
    let arn = group.arn();
    let check = &group.health_check;
    let balancers = uses.get(&arn).into_iter().flatten();
    let balancers =
        balancers.filter_map(|id| view.record::<Balancer>(&format!("{}/{id}", group.realm)));
    let http = check.protocol != ProtocolEnum::Tcp;
    let matcher = || match family(group) {
        Family::Grpc => Matcher { http_code: None, grpc_code: Some(check.matcher.clone()) },
        _ => Matcher { http_code: Some(check.matcher.clone()), grpc_code: None },
    };
    TargetGroup {
        load_balancer_arns: Some(balancers.map(|balancer| balancer.arn()).collect()),
        target_group_arn: Some(arn),
        target_group_name: Some(group.name.clone()),
        protocol: Some(group.protocol),
        port: Some(i32::from(group.port)),
        vpc_id: Some(group.vpc.clone()),
        health_check_protocol: Some(check.protocol),
        health_check_port: Some(check.port.clone()),
        health_check_enabled: Some(true),
        health_check_interval_seconds: Some(check.interval_seconds),
        health_check_timeout_seconds: Some(check.timeout_seconds),
        healthy_threshold_count: Some(check.healthy),
        unhealthy_threshold_count: Some(check.unhealthy),
        health_check_path: http.then(|| check.path.clone()),
        matcher: http.then(matcher),
        target_type: Some(group.target_type),
        protocol_version: group.protocol_version.clone(),
        ip_address_type: Some(TargetGroupIpAddressTypeEnum::Ipv4),
        target_control_port: None,
    }
}

fn check_target_type(target_type: Option<TargetTypeEnum>) -> Result<(), Fault> {
    let reason = match target_type {
        Some(TargetTypeEnum::Ip) => return Ok(()),
        None => {
            return Err(faults::not_built(
                "target type instance, which is the one without TargetType",
                "there are no instances on Fargate; set TargetType to ip",
            ));
        }
        Some(TargetTypeEnum::Instance) => "there are no instances on Fargate; use ip",
        Some(TargetTypeEnum::Lambda) => "there are no functions here; use ip",
        Some(TargetTypeEnum::Alb) => "load balancers as targets are not built yet; use ip",
    };
    let what = target_type.map_or("", TargetTypeEnum::as_str);
    Err(faults::not_built(&format!("target type {what}"), reason))
}

/// What a target group speaks, and its version.
fn protocol_in(
    protocol: Option<ProtocolEnum>,
    version: Option<String>,
) -> Result<(ProtocolEnum, Option<String>), Fault> {
    let protocol =
        protocol.ok_or_else(|| faults::invalid("A target group protocol must be specified"))?;
    let http = match protocol {
        ProtocolEnum::Http | ProtocolEnum::Https => true,
        ProtocolEnum::Tcp | ProtocolEnum::Tls | ProtocolEnum::Udp | ProtocolEnum::TcpUdp => false,
        other => {
            let what = format!("target group protocol {}", other.as_str());
            let reason = "only HTTP, HTTPS, TCP, TLS, UDP and TCP_UDP are built yet";
            return Err(faults::not_built(&what, reason));
        }
    };
    match version.as_deref() {
        None => Ok((protocol, http.then(|| "HTTP1".to_owned()))),
        Some("HTTP1" | "HTTP2" | "GRPC") if http => Ok((protocol, version)),
        Some(other) if http => {
            let other: String = other.chars().take(64).collect();
            let message = format!("Protocol version '{other}' must be one of 'GRPC, HTTP1, HTTP2'");
            Err(faults::invalid(message))
        }
        Some(_) => {
            let name = protocol.as_str();
            Err(faults::invalid(format!(
                "Protocol version is not supported for target groups with protocol '{name}'"
            )))
        }
    }
}

fn family(group: &Record) -> Family {
    Family::of(group.protocol, group.protocol_version.as_deref())
}

pub(crate) async fn create_target_group(
    elb: &ElbV2,
    ctx: &Context,
    input: CreateTargetGroupInput,
) -> Result<CreateTargetGroupOutput, Fault> {
    let name = format!("targetgroup/{}/*", input.name);
    let arn = ctx.arn("elasticloadbalancing", name);
    authorise_create(ctx, "CreateTargetGroup", &arn, input.tags.as_ref())?;
    check_name("Target group", &input.name)?;
    check_target_type(input.target_type)?;
    if input.ip_address_type == Some(TargetGroupIpAddressTypeEnum::Ipv6) {
        return Err(faults::not_built("IP address type ipv6", "IPv6 is not built"));
    }
    let (protocol, protocol_version) = protocol_in(input.protocol, input.protocol_version)?;
    let port = input.port.and_then(|port| u16::try_from(port).ok());
    let vpc = input.vpc_id.filter(|vpc| !vpc.is_empty());
    let wanted = Wanted {
        enabled: input.health_check_enabled,
        protocol: input.health_check_protocol,
        port: input.health_check_port,
        path: input.health_check_path,
        interval_seconds: input.health_check_interval_seconds,
        timeout_seconds: input.health_check_timeout_seconds,
        healthy: input.healthy_threshold_count,
        unhealthy: input.unhealthy_threshold_count,
        matcher: input.matcher,
    };
    let family = Family::of(protocol, protocol_version.as_deref());
    let group = Record {
        realm: ctx.realm(),
        id: elb.id(),
        name: input.name,
        protocol,
        protocol_version,
        port: port.ok_or_else(|| faults::invalid("A target group port must be specified"))?,
        vpc: vpc.ok_or_else(|| faults::invalid("A VPC ID must be specified"))?,
        target_type: TargetTypeEnum::Ip,
        health_check: health_check(family, None, wanted)?,
        attributes: BTreeMap::new(),
        tags: tags_in(input.tags)?,
        created: ctx.now,
    };
    elb.ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let made = elb.store.write(move |tx| {
        if tx.get::<Vpc>(&format!("{}/{}", group.realm, group.vpc)).is_none() {
            return Err(faults::invalid(format!("The VPC ID '{}' is not found", group.vpc)));
        }
        let groups = tx.records::<Record>(&format!("{}/", group.realm));
        if let Some(there) = groups.iter().find(|there| there.name == group.name) {
            return match same(there, &group) {
                true => Ok(answer(tx, &uses(tx, &group.realm), there)),
                false => Err(faults::target_group_exists(&group.name)),
            };
        }
        if groups.len() >= MOST_GROUPS {
            return Err(faults::too_many("TooManyTargetGroups", "target groups", MOST_GROUPS));
        }
        tx.put(group.clone());
        Ok(answer(tx, &Uses::new(), &group))
    });
    Ok(CreateTargetGroupOutput { target_groups: Some(vec![made.await?]) })
}

/// Whether creating one is as good as having the other.
fn same(there: &Record, wanted: &Record) -> bool {
    let settings = Record {
        id: there.id.clone(),
        created: there.created,
        attributes: there.attributes.clone(),
        ..wanted.clone()
    };
    settings == *there
}

pub(crate) async fn describe_target_groups(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeTargetGroupsInput,
) -> Result<DescribeTargetGroupsOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeTargetGroups", "*")?;
    let arns = input.target_group_arns.unwrap_or_default();
    let names = input.names.unwrap_or_default();
    check_one(&[!arns.is_empty(), !names.is_empty(), input.load_balancer_arn.is_some()])?;
    let snapshot = elb.store.read();
    let realm = ctx.realm();
    let uses = uses(&snapshot, &realm);
    let mut groups = snapshot.records::<Record>(&format!("{realm}/"));
    if !arns.is_empty() {
        let found = arns.iter().map(|arn| find::<Record>(&snapshot, &realm, arn));
        groups = found.collect::<Result<_, _>>()?;
    }
    let known = |name: &String| groups.iter().any(|group| group.name == *name);
    if !names.iter().all(known) {
        return Err(faults::no_target_group());
    }
    if !names.is_empty() {
        groups.retain(|group| names.contains(&group.name));
    }
    if let Some(arn) = &input.load_balancer_arn {
        let balancer = find::<Balancer>(&snapshot, &realm, arn)?;
        let used = |group: &Arc<Record>| uses.get(&group.arn());
        groups.retain(|group| used(group).is_some_and(|all| all.contains(&balancer.id)));
    }
    let answers = groups.iter().map(|group| (group.name.clone(), answer(&snapshot, &uses, group)));
    let (target_groups, next_marker) =
        page("DescribeTargetGroups", input.marker.as_deref(), input.page_size, answers.collect())?;
    Ok(DescribeTargetGroupsOutput { target_groups, next_marker })
}

pub(crate) async fn modify_target_group(
    elb: &ElbV2,
    ctx: &Context,
    input: ModifyTargetGroupInput,
) -> Result<ModifyTargetGroupOutput, Fault> {
    let arn = input.target_group_arn;
    ctx.authorise("elasticloadbalancing:ModifyTargetGroup", &arn)?;
    let wanted = Wanted {
        enabled: input.health_check_enabled,
        protocol: input.health_check_protocol,
        port: input.health_check_port,
        path: input.health_check_path,
        interval_seconds: input.health_check_interval_seconds,
        timeout_seconds: input.health_check_timeout_seconds,
        healthy: input.healthy_threshold_count,
        unhealthy: input.unhealthy_threshold_count,
        matcher: input.matcher,
    };
    let realm = ctx.realm();
    let changed = elb.store.write(move |tx| {
        let mut group = Arc::unwrap_or_clone(find::<Record>(tx, &realm, &arn)?);
        group.health_check = health_check(family(&group), Some(&group.health_check), wanted)?;
        tx.put(group.clone());
        Ok::<_, Fault>(answer(tx, &uses(tx, &realm), &group))
    });
    Ok(ModifyTargetGroupOutput { target_groups: Some(vec![changed.await?]) })
}

pub(crate) async fn delete_target_group(
    elb: &ElbV2,
    ctx: &Context,
    input: DeleteTargetGroupInput,
) -> Result<DeleteTargetGroupOutput, Fault> {
    let arn = input.target_group_arn;
    ctx.authorise("elasticloadbalancing:DeleteTargetGroup", &arn)?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| {
            let group = match find::<Record>(tx, &realm, &arn) {
                // Deleting what is not there is a success.
                Err(fault) if fault.code == "TargetGroupNotFound" => return Ok(()),
                found => found?,
            };
            if uses(tx, &realm).contains_key(&arn) {
                return Err(faults::target_group_in_use(&arn));
            }
            for target in tx.records::<Target>(&format!("{realm}/{}/", group.id)) {
                let key = Target::key_of(&realm, &group.id, target.ip, target.port);
                tx.delete::<Target>(&key);
            }
            tx.delete::<Record>(&format!("{realm}/{}", group.id));
            Ok(())
        })
        .await?;
    Ok(DeleteTargetGroupOutput {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_targets() {
        check_target_type(Some(TargetTypeEnum::Ip)).unwrap();
        let fault = check_target_type(None).unwrap_err();
        assert!(fault.message.contains("set TargetType to ip"), "{}", fault.message);
        for kind in [TargetTypeEnum::Instance, TargetTypeEnum::Lambda, TargetTypeEnum::Alb] {
            assert_eq!(check_target_type(Some(kind)).unwrap_err().code, "ValidationError");
        }
    }

    #[test]
    fn protocols_and_versions() {
        let read = |protocol, version: &str| {
            protocol_in(Some(protocol), Some(version.to_owned()).filter(|v| !v.is_empty()))
        };
        assert_eq!(read(ProtocolEnum::Http, "").unwrap().1.as_deref(), Some("HTTP1"));
        assert_eq!(read(ProtocolEnum::Https, "GRPC").unwrap().1.as_deref(), Some("GRPC"));
        assert_eq!(read(ProtocolEnum::Tls, "").unwrap().1, None);
        for (protocol, version) in
            [(ProtocolEnum::Geneve, ""), (ProtocolEnum::Http, "x"), (ProtocolEnum::Tcp, "HTTP1")]
        {
            assert_eq!(read(protocol, version).unwrap_err().code, "ValidationError");
        }
    }
}
