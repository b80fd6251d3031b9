//! Which way leads out of a subnet, and making the network go it.

use crate::{
    Ec2, InterfaceError, faults,
    model::{
        EndpointKind, GroupRule, InternetGateway, NatGateway, NetworkInterface, RouteTable,
        SecurityGroup, Subnet, VpcEndpoint,
    },
};
use network::{NetworkError, Peer};
use std::net::Ipv4Addr;
use store::View;
use wire::Fault;

/// The way out of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By an internet gateway: interfaces go out and are reached by their public addresses.
    Internet,
    /// By a NAT gateway, which has this address.
    Nat(Ipv4Addr),
    /// There is none.
    None,
}

impl Way {
    /// By which address an interface is reached, and by which it goes out.
    pub(crate) fn of(self, interface: &NetworkInterface) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
        match self {
            Self::Internet => (interface.public_ip, interface.public_ip),
            Self::Nat(address) => (None, Some(address)),
            Self::None => (None, None),
        }
    }
}

/// The route table of a subnet.
pub(crate) fn table_of(view: &impl View, subnet: &Subnet) -> Option<std::sync::Arc<RouteTable>> {
    let tables = view.records::<RouteTable>(&format!("{}/", subnet.realm));
    let of_vpc = || tables.iter().filter(|table| table.vpc == subnet.vpc);
    let own = of_vpc().find(|table| table.associations.values().any(|id| *id == subnet.id));
    own.or_else(|| of_vpc().find(|table| table.main.is_some())).cloned()
}

/// The way out of a subnet.
pub(crate) fn way(view: &impl View, subnet: &Subnet) -> Way {
    match table_of(view, subnet) {
        // A default VPC that was made when there was no other way.
        None => Way::Internet,
        Some(table) => outside(view, &table),
    }
}

fn outside(view: &impl View, table: &RouteTable) -> Way {
    let Some(target) = &table.outside else { return Way::None };
    let key = format!("{}/{target}", table.realm);
    if let Some(gateway) = view.record::<InternetGateway>(&key) {
        return match gateway.vpc.as_ref() == Some(&table.vpc) {
            true => Way::Internet,
            false => Way::None,
        };
    }
    let gateway = view.record::<NatGateway>(&key).filter(|gateway| gateway.deleted.is_none());
    let Some(gateway) = gateway else { return Way::None };
    // It must have a way out itself.
    let subnet = view.record::<Subnet>(&format!("{}/{}", gateway.realm, gateway.subnet));
    let public = subnet.and_then(|subnet| table_of(view, &subnet)).is_some_and(|table| {
        table.outside.as_ref().is_some_and(|target| {
            let gateway = view.record::<InternetGateway>(&format!("{}/{target}", table.realm));
            gateway.is_some_and(|gateway| gateway.vpc.as_ref() == Some(&table.vpc))
        })
    });
    if public { Way::Nat(gateway.public_ip) } else { Way::None }
}

/// The addresses of a VPC's NAT gateways.
pub(crate) fn nat_addresses(view: &impl View, realm: &str, vpc: &str) -> Vec<Ipv4Addr> {
    let gateways = view.records::<NatGateway>(&format!("{realm}/")).into_iter();
    let live = gateways.filter(|gateway| gateway.vpc == vpc && gateway.deleted.is_none());
    live.map(|gateway| gateway.public_ip).collect()
}

/// What a task's agent reaches on the task's behalf.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// One of AWS's services, by its part of an endpoint's name: `ecr.dkr`.
    Service(&'a str),
    /// Any other place outside.
    Outside,
}

/// The port that AWS's services have.
const HTTPS: u16 = 443;

/// Whether one of an interface's groups lets TCP through to, or from, a port of another interface; of places outside
/// none is known.
fn lets(
    view: &impl View,
    one: &NetworkInterface,
    egress: bool,
    other: Option<&NetworkInterface>,
    port: u16,
) -> bool {
    let groups = one.groups.iter();
    let groups =
        groups.filter_map(|id| view.record::<SecurityGroup>(&format!("{}/{id}", one.realm)));
    let passes = |rule: &GroupRule| {
        let protocol = matches!(rule.protocol.as_str(), "-1" | "tcp" | "6");
        let all = rule.protocol == "-1" || (rule.from, rule.to) == (-1, -1);
        let peer = match (&rule.peer, other) {
            (Peer::Block(block), Some(other)) => block.contains(other.ip),
            (Peer::Group(group), Some(other)) => other.groups.contains(group),
            (Peer::Block(_), None) => true,
            (Peer::Group(_), None) => false,
        };
        rule.egress == egress
            && protocol
            && peer
            && (all || (rule.from..=rule.to).contains(&i32::from(port)))
    };
    groups.into_iter().any(|group| group.rules.iter().any(passes))
}

/// Whether the groups of both sides let TCP through from one interface to a port of another.
fn passes(view: &impl View, from: &NetworkInterface, to: &NetworkInterface, port: u16) -> bool {
    lets(view, from, true, Some(to), port) && lets(view, to, false, Some(from), port)
}

impl Ec2 {
    /// Whether one interface reaches a TCP port of another in its VPC: what their security groups say.
    pub fn lets_through(&self, from: &NetworkInterface, to: &NetworkInterface, port: u16) -> bool {
        from.vpc == to.vpc && passes(&self.store.read(), from, to, port)
    }

    /// Whether what an interface's subnet, its routes, the VPC's endpoints and the security groups say leads to a
    /// destination.
    pub fn reaches(&self, interface: &NetworkInterface, destination: Destination<'_>) -> bool {
        let view = self.store.read();
        let realm = &interface.realm;
        let Some(subnet) = view.record::<Subnet>(&format!("{realm}/{}", interface.subnet)) else {
            return false;
        };
        let (_, outward) = way(&view, &subnet).of(interface);
        let Destination::Service(name) = destination else {
            return outward.is_some() && lets(&view, interface, true, None, HTTPS);
        };
        let table = table_of(&view, &subnet);
        let mut endpoints = view.records::<VpcEndpoint>(&format!("{realm}/"));
        endpoints.retain(|endpoint| endpoint.vpc == interface.vpc && endpoint.service == name);
        let mut named = endpoints.iter().filter(|endpoint| {
            matches!(endpoint.kind, EndpointKind::Interface { private_dns: true, .. })
        });
        if let Some(endpoint) = named.next() {
            // The service's name leads to the endpoint, and nowhere else.
            let mut doors = crate::ops::vpc_endpoint::interfaces(self, endpoint).into_values();
            return doors.any(|door| passes(&view, interface, &door, HTTPS));
        }
        let routed =
            table.is_some_and(|table| endpoints.iter().any(|endpoint| endpoint.is_in(&table.id)));
        (routed || outward.is_some()) && lets(&view, interface, true, None, HTTPS)
    }

    /// Makes the interfaces of a VPC go the ways that its route tables say now.
    async fn push_ways(&self, realm: &str, vpc: &str) -> Result<(), InterfaceError> {
        // So that a VPC that is being set up from an older snapshot is told, too.
        let _setting_up = self.setting_up.lock().await;
        if !self.network.has_vpc(vpc).await {
            // A VPC without interfaces is not set up yet; it learns its ways when it is.
            return Ok(());
        }
        let snapshot = self.store.read();
        for address in nat_addresses(&snapshot, realm, vpc) {
            self.network.route_address(vpc, address).await?;
        }
        let interfaces = snapshot.scan_prefix::<NetworkInterface>(&format!("{realm}/"));
        let ways = interfaces.filter(|interface| interface.vpc == vpc).filter_map(|interface| {
            let subnet = snapshot.get::<Subnet>(&format!("{realm}/{}", interface.subnet))?;
            let (public, outward) = way(&snapshot, &subnet).of(&interface);
            Some((interface.id.clone(), public, outward))
        });
        let ways = ways.collect();
        self.network.set_ways(vpc, ways).await.map_err(InterfaceError::from)
    }

    /// [`Ec2::push_ways`] for a handler: the call answers when the kernel does as was asked.
    pub(crate) async fn apply_ways(&self, realm: &str, vpc: &str) -> Result<(), Fault> {
        self.push_ways(realm, vpc).await.map_err(|error| not_applied(vpc, &error))
    }

    /// Forgets what a NAT gateway had outside.
    pub(crate) async fn unroute(&self, vpc: &str, address: Ipv4Addr) -> Result<(), Fault> {
        match self.network.unroute_address(vpc, address).await {
            Err(NetworkError::NoVpc { .. }) => Ok(()),
            result => result.map_err(|error| not_applied(vpc, &error.into())),
        }
    }
}

fn not_applied(vpc: &str, error: &InterfaceError) -> Fault {
    let error = error as &dyn std::error::Error;
    tracing::error!(vpc, error, "routes could not be applied");
    faults::not_applied()
}
