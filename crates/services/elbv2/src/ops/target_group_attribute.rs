//! Attributes of target groups.

use super::{
    attribute::{Known, Takes, changes, known, listed},
    find::find,
};
use crate::{ElbV2, api::*, faults, model::TargetGroup as Record};
use std::sync::Arc;
use wire::{Context, Fault};

/// Those of every target group.
const SHARED: [Known; 6] = [
    known("deregistration_delay.timeout_seconds", "300", Takes::Range(0, 3600)),
    known("load_balancing.cross_zone.enabled", "use_load_balancer_configuration", Takes::Unbuilt),
    known("target_group_health.dns_failover.minimum_healthy_targets.count", "1", Takes::Unbuilt),
    known(
        "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        "off",
        Takes::Unbuilt,
    ),
    known(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        "1",
        Takes::Unbuilt,
    ),
    known(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        "off",
        Takes::Unbuilt,
    ),
];

/// Those of groups that Application Load Balancers send to.
const HTTP: [Known; 8] = [
    known("stickiness.enabled", "false", Takes::Flag),
    known("stickiness.type", "lb_cookie", Takes::OneOf(&["lb_cookie"])),
    known("stickiness.lb_cookie.duration_seconds", "86400", Takes::Range(1, 604_800)),
    known("stickiness.app_cookie.cookie_name", "", Takes::Unbuilt),
    known("stickiness.app_cookie.duration_seconds", "86400", Takes::Unbuilt),
    known(
        "load_balancing.algorithm.type",
        "round_robin",
        Takes::OneOf(&["round_robin", "least_outstanding_requests"]),
    ),
    known("load_balancing.algorithm.anomaly_mitigation", "off", Takes::Unbuilt),
    known("slow_start.duration_seconds", "0", Takes::ZeroOr(30, 900)),
];

/// Those of groups that Network Load Balancers send to.
const TCP: [Known; 7] = [
    known("deregistration_delay.connection_termination.enabled", "false", Takes::Unbuilt),
    known("preserve_client_ip.enabled", "false", Takes::Unbuilt),
    known("proxy_protocol_v2.enabled", "false", Takes::Flag),
    known("stickiness.enabled", "false", Takes::Unbuilt),
    known("stickiness.type", "source_ip", Takes::Unbuilt),
    known("target_health_state.unhealthy.connection_termination.enabled", "true", Takes::Unbuilt),
    known("target_health_state.unhealthy.draining_interval_seconds", "0", Takes::Unbuilt),
];

/// Values that AWS takes and that are not built.
const UNBUILT: [(&str, &str, &str); 2] = [
    ("stickiness.type", "app_cookie", "stickiness by the application's cookie is not built yet"),
    ("load_balancing.algorithm.type", "weighted_random", "this algorithm is not built yet"),
];

/// The attributes that a target group has.
fn table(group: &Record) -> Vec<Known> {
    match group.protocol {
        ProtocolEnum::Http | ProtocolEnum::Https => SHARED.iter().chain(&HTTP).copied().collect(),
        _ => SHARED.iter().chain(&TCP).copied().collect(),
    }
}

fn answer(group: &Record) -> Vec<TargetGroupAttribute> {
    let listed = listed(&table(group), &group.attributes).into_iter();
    listed.map(|(key, value)| TargetGroupAttribute { key, value }).collect()
}

pub(crate) async fn describe_target_group_attributes(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeTargetGroupAttributesInput,
) -> Result<DescribeTargetGroupAttributesOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeTargetGroupAttributes", "*")?;
    let group = find::<Record>(&elb.store.read(), &ctx.realm(), &input.target_group_arn)?;
    Ok(DescribeTargetGroupAttributesOutput { attributes: Some(answer(&group)) })
}

pub(crate) async fn modify_target_group_attributes(
    elb: &ElbV2,
    ctx: &Context,
    input: ModifyTargetGroupAttributesInput,
) -> Result<ModifyTargetGroupAttributesOutput, Fault> {
    let arn = input.target_group_arn;
    ctx.authorise("elasticloadbalancing:ModifyTargetGroupAttributes", &arn)?;
    for attribute in &input.attributes {
        let pair = (attribute.key.as_deref(), attribute.value.as_deref());
        let unbuilt = UNBUILT.iter().find(|(key, value, _)| pair == (Some(*key), Some(*value)));
        if let Some((key, value, reason)) = unbuilt {
            return Err(faults::not_built(&format!("{key} {value}"), reason));
        }
    }
    let realm = ctx.realm();
    let wanted = input.attributes.into_iter().map(|attribute| (attribute.key, attribute.value));
    let changed = elb.store.write(move |tx| {
        let found = find::<Record>(tx, &realm, &arn)?;
        let changes = changes("Target group", &table(&found), wanted)?;
        let mut group = Arc::unwrap_or_clone(found);
        group.attributes.extend(changes);
        let in_turn =
            group.attribute("load_balancing.algorithm.type", "round_robin") == "round_robin";
        if !in_turn && group.attribute("slow_start.duration_seconds", "0") != "0" {
            let message = "Slow start can be enabled with the round robin algorithm only";
            return Err(faults::invalid_configuration(message));
        }
        tx.put(group.clone());
        Ok::<_, Fault>(group)
    });
    Ok(ModifyTargetGroupAttributesOutput { attributes: Some(answer(&changed.await?)) })
}
