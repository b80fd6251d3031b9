//! Attributes of load balancers.

use super::{
    attribute::{Known, Takes, changes, known, listed},
    find::find,
};
use crate::{ElbV2, api::*, faults, model::LoadBalancer as Record, reconcile::try_bucket};
use std::sync::Arc;
use wire::{Context, Fault};

/// Those of every load balancer.
const SHARED: [Known; 2] = [
    known("deletion_protection.enabled", "false", Takes::Flag),
    known("zonal_shift.config.enabled", "false", Takes::Unbuilt),
];

/// Those of Application Load Balancers only. HTTP/2 and the TLS headers need TLS on AWS, too: on the HTTP listeners
/// that are built they change nothing in either place.
const APPLICATION: [Known; 20] = [
    known("access_logs.s3.enabled", "false", Takes::Flag),
    known("access_logs.s3.bucket", "", Takes::Text(63)),
    known("access_logs.s3.prefix", "", Takes::Text(512)),
    known("load_balancing.cross_zone.enabled", "true", Takes::Fixed),
    known("idle_timeout.timeout_seconds", "60", Takes::Range(1, 4000)),
    known("client_keep_alive.seconds", "3600", Takes::Range(60, 604_800)),
    known("connection_logs.s3.enabled", "false", Takes::Unbuilt),
    known("connection_logs.s3.bucket", "", Takes::Unbuilt),
    known("connection_logs.s3.prefix", "", Takes::Unbuilt),
    known("health_check_logs.s3.enabled", "false", Takes::Unbuilt),
    known("health_check_logs.s3.bucket", "", Takes::Unbuilt),
    known("health_check_logs.s3.prefix", "", Takes::Unbuilt),
    known("routing.http.desync_mitigation_mode", "defensive", Takes::Unbuilt),
    known("routing.http.drop_invalid_header_fields.enabled", "false", Takes::Flag),
    known("routing.http.preserve_host_header.enabled", "false", Takes::Unbuilt),
    known("routing.http.x_amzn_tls_version_and_cipher_suite.enabled", "false", Takes::Unbuilt),
    known("routing.http.xff_client_port.enabled", "false", Takes::Flag),
    known(
        "routing.http.xff_header_processing.mode",
        "append",
        Takes::OneOf(&["append", "preserve", "remove"]),
    ),
    known("routing.http2.enabled", "true", Takes::Flag),
    known("waf.fail_open.enabled", "false", Takes::Unbuilt),
];

/// Those of Network Load Balancers only. Every node reaches the targets of all zones.
const NETWORK: [Known; 6] = [
    known("access_logs.s3.enabled", "false", Takes::Unbuilt),
    known("access_logs.s3.bucket", "", Takes::Unbuilt),
    known("access_logs.s3.prefix", "", Takes::Unbuilt),
    known("load_balancing.cross_zone.enabled", "false", Takes::Flag),
    known("dns_record.client_routing_policy", "any_availability_zone", Takes::Unbuilt),
    known("secondary_ips.auto_assigned.per_subnet", "0", Takes::Unbuilt),
];

/// The attributes that a load balancer has.
fn table(balancer: &Record) -> Vec<Known> {
    let own: &[Known] = match balancer.kind {
        LoadBalancerTypeEnum::Network => &NETWORK,
        _ => &APPLICATION,
    };
    let open = if balancer.internal { "true" } else { "false" };
    let gateway = known("ipv6.deny_all_igw_traffic", open, Takes::Unbuilt);
    SHARED.iter().chain([&gateway]).chain(own).copied().collect()
}

fn answer(balancer: &Record) -> Vec<LoadBalancerAttribute> {
    let listed = listed(&table(balancer), &balancer.attributes).into_iter();
    listed.map(|(key, value)| LoadBalancerAttribute { key, value }).collect()
}

pub(crate) async fn describe_load_balancer_attributes(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeLoadBalancerAttributesInput,
) -> Result<DescribeLoadBalancerAttributesOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeLoadBalancerAttributes", "*")?;
    let balancer = find::<Record>(&elb.store.read(), &ctx.realm(), &input.load_balancer_arn)?;
    Ok(DescribeLoadBalancerAttributesOutput { attributes: Some(answer(&balancer)) })
}

pub(crate) async fn modify_load_balancer_attributes(
    elb: &ElbV2,
    ctx: &Context,
    input: ModifyLoadBalancerAttributesInput,
) -> Result<ModifyLoadBalancerAttributesOutput, Fault> {
    let arn = input.load_balancer_arn;
    ctx.authorise("elasticloadbalancing:ModifyLoadBalancerAttributes", &arn)?;
    let realm = ctx.realm();
    let wanted = input.attributes.into_iter().map(|attribute| (attribute.key, attribute.value));
    let found = find::<Record>(&elb.store.read(), &realm, &arn)?;
    let changes = changes("Load balancer", &table(&found), wanted)?;
    if changes.keys().any(|key| key.starts_with("access_logs.")) {
        let mut balancer = Arc::unwrap_or_clone(found);
        balancer.attributes.extend(changes.clone());
        try_bucket(elb, &balancer).await.map_err(faults::invalid_configuration)?;
    }
    let changed = elb.store.write(move |tx| {
        let found = find::<Record>(tx, &realm, &arn)?;
        let mut balancer = Arc::unwrap_or_clone(found);
        balancer.attributes.extend(changes);
        tx.put(balancer.clone());
        Ok::<_, Fault>(balancer)
    });
    Ok(ModifyLoadBalancerAttributesOutput { attributes: Some(answer(&changed.await?)) })
}
