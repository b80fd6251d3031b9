//! Targets: addresses and ports that a target group's requests go to. ECS registers its tasks by the same functions,
//! inside transactions of its own.

use super::find::{find, uses};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{Target as Record, TargetGroup as Group},
};
use ec2::model::Subnet;
use std::net::{Ipv4Addr, SocketAddrV4};
use store::{Tx, View};
use wire::{Context, Fault};
use world::Timestamp;

/// Targets of one target group.
const MOST_TARGETS: usize = 1000;

impl ElbV2 {
    /// Registers an address with a target group, inside any transaction over the same store. One that was draining gets
    /// requests again; one that is registered stays as it is. Answers whether the group exists: nothing is registered
    /// with one that does not.
    pub fn register_target(
        tx: &mut Tx,
        realm: &str,
        group_id: &str,
        ip: Ipv4Addr,
        port: u16,
        now: Timestamp,
    ) -> bool {
        if tx.get::<Group>(&format!("{realm}/{group_id}")).is_none() {
            return false;
        }
        let there = tx.get::<Record>(&Record::key_of(realm, group_id, ip, port));
        if there.is_none_or(|there| there.draining_since.is_some()) {
            tx.put(Record {
                realm: realm.to_owned(),
                group: group_id.to_owned(),
                ip,
                port,
                draining_since: None,
                registered: now,
            });
        }
        true
    }

    /// Deregisters an address from a target group, inside any transaction over the same store. While a load balancer
    /// sends to the group the target drains first; otherwise nothing can be in flight and it is gone at once. Answers
    /// whether it was registered.
    pub fn deregister_target(
        tx: &mut Tx,
        realm: &str,
        group_id: &str,
        ip: Ipv4Addr,
        port: u16,
        now: Timestamp,
    ) -> bool {
        let key = Record::key_of(realm, group_id, ip, port);
        let Some(there) = tx.get::<Record>(&key) else { return false };
        let group = tx.get::<Group>(&format!("{realm}/{group_id}"));
        let used = group.is_some_and(|group| uses(tx, realm).contains_key(&group.arn()));
        if !used {
            tx.delete::<Record>(&key);
        } else if there.draining_since.is_none() {
            tx.update::<Record>(&key, |target| target.draining_since = Some(now));
        }
        true
    }
}

/// The address and port that a request means.
fn address(group: &Group, target: &TargetDescription) -> Result<SocketAddrV4, Fault> {
    let ip: Ipv4Addr = target.id.parse().map_err(|_| {
        let id: String = target.id.chars().take(64).collect();
        faults::invalid(format!("The IP address '{id}' is not a valid IPv4 address"))
    })?;
    let port = target.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(group.port);
    Ok(SocketAddrV4::new(ip, port))
}

/// The zone of the subnet that an address of the VPC is in.
fn zone(view: &impl View, group: &Group, ip: Ipv4Addr) -> Option<String> {
    let subnets = view.records::<Subnet>(&format!("{}/", group.realm));
    let mut own = subnets.iter().filter(|subnet| subnet.vpc == group.vpc);
    own.find(|subnet| subnet.block.contains(ip)).map(|subnet| subnet.zone.clone())
}

/// Whether an address can be a target where the request says that it is.
fn check_zone(
    view: &impl View,
    group: &Group,
    ip: Ipv4Addr,
    wanted: Option<&str>,
) -> Result<(), Fault> {
    match (zone(view, group, ip), wanted) {
        (None, None) => Err(faults::invalid(format!(
            "The Availability Zone is required for IP address '{ip}' because it is not in the VPC"
        ))),
        (None, Some(_)) => Err(faults::invalid_target(format!(
            "The IP address '{ip}' is not in the VPC '{}', and Neargate does not reach targets outside it",
            group.vpc
        ))),
        (Some(zone), Some(wanted)) if wanted != zone => Err(faults::invalid(format!(
            "The IP address '{ip}' is within the VPC, and cannot have its Availability Zone \
             overridden to '{wanted}' from '{zone}'"
        ))),
        _ => Ok(()),
    }
}

fn check_some(targets: &[TargetDescription]) -> Result<(), Fault> {
    match targets.is_empty() {
        true => Err(faults::invalid("At least one target must be specified")),
        false => Ok(()),
    }
}

pub(crate) async fn register_targets(
    elb: &ElbV2,
    ctx: &Context,
    input: RegisterTargetsInput,
) -> Result<RegisterTargetsOutput, Fault> {
    let arn = input.target_group_arn;
    ctx.authorise("elasticloadbalancing:RegisterTargets", &arn)?;
    check_some(&input.targets)?;
    let (realm, now) = (ctx.realm(), ctx.now);
    elb.store
        .write(move |tx| {
            let group = find::<Group>(tx, &realm, &arn)?;
            for target in &input.targets {
                let address = address(&group, target)?;
                check_zone(tx, &group, *address.ip(), target.availability_zone.as_deref())?;
                ElbV2::register_target(tx, &realm, &group.id, *address.ip(), address.port(), now);
            }
            match tx.records::<Record>(&format!("{realm}/{}/", group.id)).len() > MOST_TARGETS {
                true => Err(faults::too_many("TooManyTargets", "targets", MOST_TARGETS)),
                false => Ok(()),
            }
        })
        .await?;
    Ok(RegisterTargetsOutput {})
}

pub(crate) async fn deregister_targets(
    elb: &ElbV2,
    ctx: &Context,
    input: DeregisterTargetsInput,
) -> Result<DeregisterTargetsOutput, Fault> {
    let arn = input.target_group_arn;
    ctx.authorise("elasticloadbalancing:DeregisterTargets", &arn)?;
    check_some(&input.targets)?;
    let (realm, now) = (ctx.realm(), ctx.now);
    elb.store
        .write(move |tx| {
            let group = find::<Group>(tx, &realm, &arn)?;
            for target in &input.targets {
                let address = address(&group, target)?;
                // AWS: "If the specified target does not exist, the action returns successfully."
                ElbV2::deregister_target(tx, &realm, &group.id, *address.ip(), address.port(), now);
            }
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(DeregisterTargetsOutput {})
}

fn told(
    state: TargetHealthStateEnum,
    reason: TargetHealthReasonEnum,
    description: &str,
) -> TargetHealth {
    let description = Some(description.to_owned());
    TargetHealth { state: Some(state), reason: Some(reason), description }
}

/// A target's health: what is known here, and else what the data plane said last.
fn health(elb: &ElbV2, group: &Group, used: bool, target: Option<&Record>) -> TargetHealth {
    use TargetHealthReasonEnum as Reason;
    use TargetHealthStateEnum as State;
    let Some(target) = target else {
        let text = "Target is not registered to the target group";
        return told(State::Unused, Reason::TargetNotRegistered, text);
    };
    if !used {
        let text = "Target group is not configured to receive traffic from the load balancer";
        return told(State::Unused, Reason::TargetNotInUse, text);
    }
    if target.draining_since.is_some() {
        let text = "Target deregistration is in progress";
        return told(State::Draining, Reason::TargetDeregistrationInProgress, text);
    }
    match elb.healths.of(&group.id, SocketAddrV4::new(target.ip, target.port)) {
        Some(health) => TargetHealth {
            state: State::parse(health.state),
            reason: health.reason.and_then(Reason::parse),
            description: health.description,
        },
        None => {
            let text = "Target registration is in progress";
            told(State::Initial, Reason::ElbRegistrationInProgress, text)
        }
    }
}

pub(crate) async fn describe_target_health(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeTargetHealthInput,
) -> Result<DescribeTargetHealthOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeTargetHealth", "*")?;
    let snapshot = elb.store.read();
    let realm = ctx.realm();
    let group = find::<Group>(&snapshot, &realm, &input.target_group_arn)?;
    let used = uses(&snapshot, &realm).contains_key(&input.target_group_arn);
    let addresses: Vec<SocketAddrV4> = match input.targets {
        Some(targets) if !targets.is_empty() => {
            targets.iter().map(|target| address(&group, target)).collect::<Result<_, _>>()?
        }
        _ => {
            let targets = snapshot.records::<Record>(&format!("{realm}/{}/", group.id));
            targets.iter().map(|target| SocketAddrV4::new(target.ip, target.port)).collect()
        }
    };
    let described = addresses.into_iter().map(|address| {
        let (ip, port) = (*address.ip(), address.port());
        let target = snapshot.get::<Record>(&Record::key_of(&realm, &group.id, ip, port));
        let check_port = match group.health_check.port.as_str() {
            "traffic-port" => port.to_string(),
            port => port.to_owned(),
        };
        TargetHealthDescription {
            target: Some(TargetDescription {
                id: ip.to_string(),
                port: Some(i32::from(port)),
                availability_zone: zone(&snapshot, &group, ip),
                quic_server_id: None,
            }),
            health_check_port: Some(check_port),
            target_health: Some(health(elb, &group, used, target.as_deref())),
            anomaly_detection: None,
            administrative_override: None,
        }
    });
    Ok(DescribeTargetHealthOutput { target_health_descriptions: Some(described.collect()) })
}
