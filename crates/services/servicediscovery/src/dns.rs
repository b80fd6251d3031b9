//! What the names of private DNS namespaces stand for, in their VPC.
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsRecord.html>

use crate::{
    ServiceDiscovery,
    api::{DnsConfig, RecordType, RoutingPolicy},
    model::{Instance, Namespace, Service},
    ops::instance::{CNAME, IPV4, PORT},
};
use std::{net::Ipv4Addr, sync::Arc};
use store::Snapshot;
use world::World;

/// The most instances in one answer.
const MOST_ANSWERED: usize = 8;
/// The name of a service that stands for its namespace's own name.
const APEX: &str = ".";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is in no namespace of the VPC.
    Foreign,
    /// It is in one, and does not exist. That holds for so many seconds.
    NoName(u32),
    /// Its records, of every type. None when nothing is registered: the name is there all the same.
    Records(Vec<DnsAnswer>),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// How long it holds, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: DnsData,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsData {
    /// An address.
    A(Ipv4Addr),
    /// A port of another name.
    Srv {
        /// The port.
        port: u16,
        /// The name.
        target: String,
    },
    /// Another name.
    Cname(String),
}

/// Puts items into an order that nobody chose.
pub(crate) fn shuffle<T>(world: &World, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let mut bytes = [0; 4];
        world.fill(&mut bytes);
        items.swap(last, u32::from_le_bytes(bytes) as usize % (last + 1));
    }
}

impl ServiceDiscovery {
    /// What a name, in lower case, stands for in a VPC.
    pub fn resolve(&self, vpc: &str, name: &str) -> Resolved {
        let snapshot = self.store.read();
        let inner = |namespace: &Namespace| {
            let rest = name.strip_suffix(namespace.name.to_ascii_lowercase().as_str())?;
            match rest {
                "" => Some(String::new()),
                rest => rest.strip_suffix('.').map(str::to_owned),
            }
        };
        let here = |namespace: &Arc<Namespace>| {
            namespace.zone.as_ref().is_some_and(|zone| zone.vpc == vpc)
        };
        let zones = snapshot.scan::<Namespace>().filter(here);
        // The innermost of namespaces that lie in each other.
        let found = zones.filter_map(|n| Some((inner(&n)?, n))).max_by_key(|(_, n)| n.name.len());
        let Some((inner, namespace)) = found else { return Resolved::Foreign };
        let no_name = namespace.zone.as_ref().map_or(0, |zone| zone.soa_ttl);
        let prefix = format!("{}/", namespace.realm);
        let services = snapshot.scan_prefix::<Service>(&prefix);
        let own = services.filter(|service| service.namespace == namespace.id);
        for service in own {
            let Some(dns) = &service.dns else { continue };
            let named = match service.name.as_str() {
                APEX => String::new(),
                name => name.to_ascii_lowercase(),
            };
            if named == inner {
                return Resolved::Records(self.records(&snapshot, &namespace, &service, dns));
            }
            // An SRV record names its instance by a name of its own.
            let instance = inner.strip_suffix(named.as_str()).and_then(|rest| {
                if named.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
            });
            if let Some(found) =
                instance.and_then(|id| instance_address(&snapshot, &service, dns, id))
            {
                return Resolved::Records(vec![found]);
            }
        }
        match inner.is_empty() {
            true => Resolved::Records(Vec::new()),
            false => Resolved::NoName(u32::try_from(no_name).unwrap_or(u32::MAX)),
        }
    }

    /// The records of a service: those of instances that are well, or of all where none is.
    fn records(
        &self,
        snapshot: &Snapshot,
        namespace: &Namespace,
        service: &Service,
        dns: &DnsConfig,
    ) -> Vec<DnsAnswer> {
        let all = snapshot.scan_prefix::<Instance>(&service.instances_prefix());
        let (mut well, ill): (Vec<_>, Vec<_>) = all.partition(|instance| instance.is_healthy());
        if well.is_empty() {
            well = ill;
        }
        shuffle(&self.world, &mut well);
        well.truncate(match dns.routing_policy {
            Some(RoutingPolicy::Weighted) => 1,
            _ => MOST_ANSWERED,
        });
        let suffix = match service.name.as_str() {
            APEX => namespace.name.clone(),
            name => format!("{name}.{}", namespace.name),
        };
        let record = |instance: &Arc<Instance>| {
            let of = |kind: RecordType, ttl: i64| {
                let attribute = |name: &str| instance.attributes.get(name);
                let data = match kind {
                    RecordType::A => DnsData::A(attribute(IPV4)?.parse().ok()?),
                    RecordType::Srv => DnsData::Srv {
                        port: attribute(PORT)?.parse().ok()?,
                        target: format!("{}.{suffix}", instance.id),
                    },
                    RecordType::Cname => DnsData::Cname(attribute(CNAME)?.clone()),
                    RecordType::Aaaa => return None,
                };
                Some(DnsAnswer { ttl: u32::try_from(ttl).unwrap_or(u32::MAX), data })
            };
            dns.dns_records.iter().filter_map(|r| of(r.r#type, r.ttl)).collect::<Vec<_>>()
        };
        well.iter().flat_map(record).collect()
    }
}

/// The address of an instance that SRV records name.
fn instance_address(
    snapshot: &Snapshot,
    service: &Service,
    dns: &DnsConfig,
    id: &str,
) -> Option<DnsAnswer> {
    let srv = dns.dns_records.iter().find(|record| record.r#type == RecordType::Srv)?;
    let mut instances = snapshot.scan_prefix::<Instance>(&service.instances_prefix());
    let found = instances.find(|instance| instance.id.eq_ignore_ascii_case(id))?;
    let address = found.attributes.get(IPV4)?.parse().ok()?;
    Some(DnsAnswer { ttl: u32::try_from(srv.ttl).unwrap_or(u32::MAX), data: DnsData::A(address) })
}
