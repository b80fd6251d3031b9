//! Load balancers.

use super::{
    find::{find, listeners_of, rules_of},
    listing::{check_name, check_one, page},
    tag::{authorise_create, tags_in},
};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{
        Listener as ListenerRecord, LoadBalancer as Record, LoadBalancerState as State, Node,
        Rule as RuleRecord,
    },
};
use ec2::model::{InternetGateway, SecurityGroup, Subnet};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Tx, View};
use wire::{Context, Fault};

/// Load balancers in one region, AWS's default quota.
const MOST_BALANCERS: usize = 50;
/// Security groups of one load balancer.
const MOST_GROUPS: usize = 5;
/// Clients keep it in alias records; here it means nothing.
const HOSTED_ZONE: &str = "Z35SXDOTRQ7X7K";

pub(super) fn answer(elb: &ElbV2, balancer: &Record) -> LoadBalancer {
    let network = balancer.kind == LoadBalancerTypeEnum::Network;
    let zone = |node: &Node| {
        let public = node.public_ip.filter(|_| network).map(|ip| LoadBalancerAddress {
            ip_address: Some(ip.to_string()),
            ..LoadBalancerAddress::default()
        });
        AvailabilityZone {
            zone_name: Some(node.zone.clone()),
            subnet_id: Some(node.subnet.clone()),
            load_balancer_addresses: Some(public.into_iter().collect()),
            ..AvailabilityZone::default()
        }
    };
    let scheme = match balancer.internal {
        true => LoadBalancerSchemeEnum::Internal,
        false => LoadBalancerSchemeEnum::InternetFacing,
    };
    let code = match balancer.state {
        State::Provisioning => LoadBalancerStateEnum::Provisioning,
        State::Active => LoadBalancerStateEnum::Active,
        State::Failed => LoadBalancerStateEnum::Failed,
    };
    let groups = Some(balancer.groups.clone());
    let troubles = Some(elb.troubles(balancer).join("; ")).filter(|text| !text.is_empty());
    let reason = balancer.reason.clone().or(troubles);
    LoadBalancer {
        load_balancer_arn: Some(balancer.arn()),
        dns_name: Some(balancer.dns_name()),
        canonical_hosted_zone_id: Some(HOSTED_ZONE.to_owned()),
        created_time: Some(balancer.created),
        load_balancer_name: Some(balancer.name.clone()),
        scheme: Some(scheme),
        vpc_id: Some(balancer.vpc.clone()),
        state: Some(LoadBalancerState { code: Some(code), reason }),
        r#type: Some(balancer.kind),
        availability_zones: Some(balancer.nodes.iter().map(zone).collect()),
        security_groups: groups.filter(|groups| !groups.is_empty()),
        ip_address_type: Some(IpAddressType::Ipv4),
        ..LoadBalancer::default()
    }
}

pub(crate) async fn create_load_balancer(
    elb: &ElbV2,
    ctx: &Context,
    input: CreateLoadBalancerInput,
) -> Result<CreateLoadBalancerOutput, Fault> {
    let kind = input.r#type.unwrap_or(LoadBalancerTypeEnum::Application);
    let short = if kind == LoadBalancerTypeEnum::Network { "net" } else { "app" };
    let name = format!("loadbalancer/{short}/{}/*", input.name);
    let arn = ctx.arn("elasticloadbalancing", name);
    authorise_create(ctx, "CreateLoadBalancer", &arn, input.tags.as_ref())?;
    check(&input)?;
    let subnets = subnets_in(input.subnets, input.subnet_mappings)?;
    let groups = input.security_groups.unwrap_or_default();
    // Nine digits and no zero in front, so that the name in DNS is of one length.
    let number = format!("{}{}", elb.world.text(1, b"123456789"), elb.world.text(8, b"0123456789"));
    let draft = Record {
        realm: ctx.realm(),
        id: elb.id(),
        name: input.name,
        kind,
        internal: input.scheme == Some(LoadBalancerSchemeEnum::Internal),
        vpc: String::new(),
        nodes: Vec::new(),
        groups: Vec::new(),
        number: number.parse().expect("nine digits fit"),
        domain: elb.domain.clone(),
        attributes: BTreeMap::new(),
        tags: tags_in(input.tags)?,
        state: State::Provisioning,
        reason: None,
        created: ctx.now,
    };
    elb.ec2.ensure_default::<Fault>(&ctx.realm()).await?;
    let made = elb.store.write(move |tx| create(tx, draft, &subnets, groups)).await?;
    Ok(CreateLoadBalancerOutput { load_balancers: Some(vec![answer(elb, &made)]) })
}

/// What needs no record to be judged.
fn check(input: &CreateLoadBalancerInput) -> Result<(), Fault> {
    check_name("Load balancer", &input.name)?;
    if input.name.starts_with("internal-") {
        let message = format!("Load balancer name '{}' cannot begin with 'internal-'", input.name);
        return Err(faults::invalid(message));
    }
    if input.r#type == Some(LoadBalancerTypeEnum::Gateway) {
        let reason = "Gateway Load Balancers are not built";
        return Err(faults::not_built("load balancer type gateway", reason));
    }
    match input.ip_address_type {
        None | Some(IpAddressType::Ipv4) => Ok(()),
        Some(other) => {
            let what = format!("IP address type {}", other.as_str());
            Err(faults::not_built(&what, "IPv6 is not built"))
        }
    }
}

fn subnets_in(
    subnets: Option<Vec<String>>,
    mappings: Option<Vec<SubnetMapping>>,
) -> Result<Vec<String>, Fault> {
    let (subnets, mappings) = (subnets.unwrap_or_default(), mappings.unwrap_or_default());
    match (subnets.is_empty(), mappings.is_empty()) {
        (false, true) => Ok(subnets),
        (true, false) => {
            let ids = mappings.into_iter().map(|mapping| mapping.subnet_id);
            let ids: Option<Vec<String>> = ids.collect();
            ids.ok_or_else(|| faults::invalid("A subnet mapping must have a subnet ID"))
        }
        _ => Err(faults::invalid("You must specify either subnets or subnet mappings")),
    }
}

/// Puts a load balancer into its subnets and security groups, and stores it; or answers the one that is there already.
fn create(
    tx: &mut Tx,
    mut draft: Record,
    subnets: &[String],
    groups: Vec<String>,
) -> Result<Record, Fault> {
    place(tx, &mut draft, subnets)?;
    draft.groups = match (groups.is_empty(), draft.kind) {
        (true, LoadBalancerTypeEnum::Application) => vec![default_group(tx, &draft)?],
        _ => checked_groups(tx, &draft, groups)?,
    };
    let balancers = tx.records::<Record>(&format!("{}/", draft.realm));
    if let Some(there) = balancers.iter().find(|there| there.name == draft.name) {
        return match same(there, &draft) {
            true => Ok(Record::clone(there)),
            false => Err(faults::balancer_exists(&draft.name)),
        };
    }
    if balancers.len() >= MOST_BALANCERS {
        return Err(faults::too_many("TooManyLoadBalancers", "load balancers", MOST_BALANCERS));
    }
    tx.put(draft.clone());
    Ok(draft)
}

/// Whether creating one is as good as having the other.
fn same(there: &Record, wanted: &Record) -> bool {
    let subnets = |balancer: &Record| -> BTreeSet<String> {
        balancer.nodes.iter().map(|node| node.subnet.clone()).collect()
    };
    let groups =
        |balancer: &Record| -> BTreeSet<String> { balancer.groups.iter().cloned().collect() };
    there.kind == wanted.kind
        && there.internal == wanted.internal
        && there.tags == wanted.tags
        && subnets(there) == subnets(wanted)
        && groups(there) == groups(wanted)
}

/// Gives a load balancer a node in each subnet.
fn place(view: &impl View, draft: &mut Record, subnets: &[String]) -> Result<(), Fault> {
    let mut zones = BTreeSet::new();
    for id in subnets {
        let subnet = view.record::<Subnet>(&format!("{}/{id}", draft.realm));
        let subnet = subnet.ok_or_else(|| faults::no_subnet(id))?;
        if !draft.vpc.is_empty() && draft.vpc != subnet.vpc {
            let message = "All subnets must belong to the same VPC";
            return Err(faults::invalid_configuration(message));
        }
        if !zones.insert(subnet.zone.clone()) {
            let message = "A load balancer cannot be attached to multiple subnets in the same \
                           Availability Zone";
            return Err(faults::invalid_configuration(message));
        }
        draft.vpc.clone_from(&subnet.vpc);
        draft.nodes.push(Node {
            zone: subnet.zone.clone(),
            subnet: id.clone(),
            interface: None,
            ip: None,
            public_ip: None,
        });
    }
    if draft.kind == LoadBalancerTypeEnum::Application && zones.len() < 2 {
        let message = "At least two subnets in two different Availability Zones must be specified";
        return Err(faults::invalid(message));
    }
    let gateways = view.records::<InternetGateway>(&format!("{}/", draft.realm));
    let reached = gateways.iter().any(|gateway| gateway.vpc.as_ref() == Some(&draft.vpc));
    match draft.internal || reached {
        true => Ok(()),
        false => Err(faults::no_internet_gateway(&draft.vpc)),
    }
}

fn default_group(view: &impl View, draft: &Record) -> Result<String, Fault> {
    let groups = view.records::<SecurityGroup>(&format!("{}/", draft.realm));
    let mut groups = groups.iter().filter(|group| group.vpc == draft.vpc);
    let group = groups.find(|group| group.name == "default");
    group.map(|group| group.id.clone()).ok_or_else(faults::invalid_groups)
}

/// Security groups that are there, in the load balancer's VPC, each once.
fn checked_groups(
    view: &impl View,
    balancer: &Record,
    groups: Vec<String>,
) -> Result<Vec<String>, Fault> {
    let mut checked: Vec<String> = Vec::new();
    for id in groups {
        let group = view.record::<SecurityGroup>(&format!("{}/{id}", balancer.realm));
        let group = group.filter(|group| group.vpc == balancer.vpc);
        group.ok_or_else(faults::invalid_groups)?;
        if !checked.contains(&id) {
            checked.push(id);
        }
    }
    match checked.len() > MOST_GROUPS {
        true => Err(faults::invalid_configuration(format!(
            "A load balancer can have at most {MOST_GROUPS} security groups"
        ))),
        false => Ok(checked),
    }
}

pub(crate) async fn describe_load_balancers(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeLoadBalancersInput,
) -> Result<DescribeLoadBalancersOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeLoadBalancers", "*")?;
    let arns = input.load_balancer_arns.unwrap_or_default();
    let names = input.names.unwrap_or_default();
    check_one(&[!arns.is_empty(), !names.is_empty()])?;
    let snapshot = elb.store.read();
    let realm = ctx.realm();
    let mut balancers = snapshot.records::<Record>(&format!("{realm}/"));
    if !arns.is_empty() {
        let found = arns.iter().map(|arn| find::<Record>(&snapshot, &realm, arn));
        balancers = found.collect::<Result<_, _>>()?;
    }
    if !names.is_empty() {
        for name in &names {
            let known = balancers.iter().any(|balancer| balancer.name == *name);
            known.then_some(()).ok_or_else(|| faults::no_balancer_named(name))?;
        }
        balancers.retain(|balancer| names.contains(&balancer.name));
    }
    let answers = balancers.iter().map(|balancer| (balancer.name.clone(), answer(elb, balancer)));
    let (load_balancers, next_marker) =
        page("DescribeLoadBalancers", input.marker.as_deref(), input.page_size, answers.collect())?;
    Ok(DescribeLoadBalancersOutput { load_balancers, next_marker })
}

pub(crate) async fn delete_load_balancer(
    elb: &ElbV2,
    ctx: &Context,
    input: DeleteLoadBalancerInput,
) -> Result<DeleteLoadBalancerOutput, Fault> {
    let arn = input.load_balancer_arn;
    ctx.authorise("elasticloadbalancing:DeleteLoadBalancer", &arn)?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| {
            let balancer = match find::<Record>(tx, &realm, &arn) {
                // Deleting what is not there is a success.
                Err(fault) if fault.code == "LoadBalancerNotFound" => return Ok(()),
                found => found?,
            };
            let protection = balancer.attributes.get("deletion_protection.enabled");
            if protection.is_some_and(|value| value == "true") {
                return Err(faults::protected(&arn));
            }
            for listener in listeners_of(tx, &balancer) {
                delete_with_rules(tx, &listener);
            }
            tx.delete::<Record>(&format!("{realm}/{}", balancer.id));
            Ok(())
        })
        .await?;
    Ok(DeleteLoadBalancerOutput {})
}

/// Deletes a listener and its rules.
pub(super) fn delete_with_rules(tx: &mut Tx, listener: &ListenerRecord) {
    for rule in rules_of(tx, listener) {
        tx.delete::<RuleRecord>(&format!("{}/{}", rule.realm, rule.id));
    }
    tx.delete::<ListenerRecord>(&format!("{}/{}", listener.realm, listener.id));
}

pub(crate) async fn set_security_groups(
    elb: &ElbV2,
    ctx: &Context,
    input: SetSecurityGroupsInput,
) -> Result<SetSecurityGroupsOutput, Fault> {
    let arn = input.load_balancer_arn;
    ctx.authorise("elasticloadbalancing:SetSecurityGroups", &arn)?;
    let realm = ctx.realm();
    let set = elb.store.write(move |tx| {
        let mut balancer = Arc::unwrap_or_clone(find::<Record>(tx, &realm, &arn)?);
        if balancer.kind == LoadBalancerTypeEnum::Network && balancer.groups.is_empty() {
            let message = format!(
                "Security groups cannot be set for Network Load Balancer '{arn}', which was created without them"
            );
            return Err(faults::invalid_configuration(message));
        }
        if input.security_groups.is_empty() {
            return Err(faults::invalid("At least one security group must be specified"));
        }
        balancer.groups = checked_groups(tx, &balancer, input.security_groups)?;
        let groups = balancer.groups.clone();
        tx.put(balancer);
        Ok::<_, Fault>(groups)
    });
    Ok(SetSecurityGroupsOutput {
        security_group_ids: Some(set.await?),
        enforce_security_group_inbound_rules_on_private_link_traffic: None,
    })
}
