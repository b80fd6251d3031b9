//! Security groups as nftables rules. Pure: from what should be to nft's text.
//!
//! Packets between tasks pass two base chains. `egress` asks the groups of the sender, `ingress` those of the
//! receiver; an `accept` in the first ends only the first. Both find the chain of an address through a map, so
//! the cost of a packet does not grow with the number of tasks. Each distinct list of groups has one pair of
//! chains.

use crate::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

/// The table that is ours in a VPC's namespace.
pub(crate) const TABLE: &str = "neargate";

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id, `sg-…`.
    pub id: String,
    /// Who may come in.
    pub ingress: Vec<Rule>,
    /// Who may be gone out to.
    pub egress: Vec<Rule>,
}

/// What a group lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The IP protocol's number; `None` for all.
    pub protocol: Option<u8>,
    /// Ports of TCP and UDP, or type and code of ICMP; `None` for all.
    pub ports: Option<Ports>,
    /// The other side.
    pub peer: Peer,
}

/// A range of ports, or an ICMP type and code (-1 for any).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The first port, or the ICMP type.
    pub from: i32,
    /// The last port, or the ICMP code.
    pub to: i32,
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// Every address of a block.
    Block(Cidr),
    /// Every interface that is in a group.
    Group(String),
}

/// An interface as the firewall sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its link in the VPC's namespace.
    pub link: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The address that the host knows it by.
    pub public_ip: Option<Ipv4Addr>,
    /// The address that it has outside of the VPC, when it may go there: its public one, or that of a NAT gateway.
    pub outward: Option<Ipv4Addr>,
    /// Its groups' ids, sorted.
    pub groups: Vec<String>,
}

/// The whole table of a VPC, replacing the one that is there in one step.
pub(crate) fn table<'a>(
    groups: &BTreeMap<String, Group>,
    ports: impl Iterator<Item = &'a Port> + Clone,
) -> String {
    let mut out =
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    out.push_str(
        "  set ports { type ipv4_addr . ifname; }\n\
         \x20 set public { type ipv4_addr; }\n\
         \x20 map from_public { type ipv4_addr : ipv4_addr; }\n\
         \x20 map to_public { type ipv4_addr : ipv4_addr; }\n\
         \x20 map out_of { type ipv4_addr : verdict; }\n\
         \x20 map in_to { type ipv4_addr : verdict; }\n",
    );
    for id in groups.keys() {
        put(&mut out, format!("  set {} {{ type ipv4_addr; }}", members(id)));
    }
    for group in groups.values() {
        chain(&mut out, &format!("in_{}", name(&group.id)), &group.ingress, "saddr", groups);
        chain(&mut out, &format!("out_{}", name(&group.id)), &group.egress, "daddr", groups);
    }
    let lists: BTreeSet<&Vec<String>> = ports.clone().map(|port| &port.groups).collect();
    for list in lists {
        list_chains(&mut out, list, groups);
    }
    out.push_str(BASE_CHAINS);
    out.push_str("}\n");
    for port in ports {
        add_elements(&mut out, port, groups);
    }
    out
}

/// What is the same in every VPC. Link-local services answer on the loopback, so they are input, not
/// forwarding; only those addresses can be reached there, and by tasks only.
const BASE_CHAINS: &str = "  chain input {
    type filter hook input priority 0; policy drop;
    iifname \"lo\" accept
    ct state established,related accept
    iifname \"e*\" ip saddr . iifname @ports ip daddr { 169.254.169.253, 169.254.170.2, 169.254.170.3 } accept
    iifname \"up0\" icmp type echo-request accept
  }
  chain egress {
    type filter hook forward priority 0; policy drop;
    iifname \"e*\" ip saddr . iifname != @ports drop
    ct state invalid drop
    ct state established,related accept
    iifname \"up0\" accept
    oifname \"up0\" ip saddr != @public drop
    ip saddr vmap @out_of
  }
  chain ingress {
    type filter hook forward priority 10; policy drop;
    ct state established,related accept
    oifname \"up0\" accept
    ip daddr vmap @in_to
  }
  chain from_host {
    type nat hook prerouting priority dstnat; policy accept;
    dnat ip to ip daddr map @from_public
  }
  chain to_host {
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"up0\" snat ip to ip saddr map @to_public
  }
";

/// The elements of one interface, for a table whose chains know its list of groups already.
pub(crate) fn port_added(port: &Port, groups: &BTreeMap<String, Group>, new_list: bool) -> String {
    let mut out = String::new();
    if new_list {
        put(&mut out, format!("table inet {TABLE} {{"));
        list_chains(&mut out, &port.groups, groups);
        put(&mut out, "}".to_owned());
    }
    add_elements(&mut out, port, groups);
    out
}

/// Takes one interface out.
pub(crate) fn port_removed(port: &Port, groups: &BTreeMap<String, Group>) -> String {
    let mut out = String::new();
    elements(&mut out, "delete", port, groups);
    out
}

fn add_elements(out: &mut String, port: &Port, groups: &BTreeMap<String, Group>) {
    elements(out, "add", port, groups);
}

fn elements(out: &mut String, verb: &str, port: &Port, groups: &BTreeMap<String, Group>) {
    let Port { link, ip, .. } = port;
    let list = list_name(&port.groups);
    // A map's element is deleted by its key alone.
    let value = |text: String| if verb == "add" { format!(" : {text}") } else { String::new() };
    let mut element = |set: &str, element: String| {
        put(out, format!("{verb} element inet {TABLE} {set} {{ {element} }}"));
    };
    element("ports", format!("{ip} . \"{link}\""));
    element("out_of", format!("{ip}{}", value(format!("jump out_of_{list}"))));
    element("in_to", format!("{ip}{}", value(format!("jump in_to_{list}"))));
    for id in port.groups.iter().filter(|id| groups.contains_key(*id)) {
        element(&members(id), ip.to_string());
    }
    if let Some(public) = port.public_ip {
        element("from_public", format!("{public}{}", value(ip.to_string())));
    }
    if let Some(outward) = port.outward {
        element("public", ip.to_string());
        element("to_public", format!("{ip}{}", value(outward.to_string())));
    }
}

/// The chains of one list of groups.
fn list_chains(out: &mut String, list: &[String], groups: &BTreeMap<String, Group>) {
    for (chain, prefix) in [("in_to", "in"), ("out_of", "out")] {
        put(out, format!("  chain {chain}_{} {{", list_name(list)));
        for id in list.iter().filter(|id| groups.contains_key(*id)) {
            put(out, format!("    jump {prefix}_{}", name(id)));
        }
        put(out, "  }".to_owned());
    }
}

fn chain(
    out: &mut String,
    chain: &str,
    rules: &[Rule],
    side: &str,
    groups: &BTreeMap<String, Group>,
) {
    put(out, format!("  chain {chain} {{"));
    for rule in rules {
        let from = match &rule.peer {
            Peer::Block(block) if block.prefix() == 0 => String::new(),
            Peer::Block(block) => format!("ip {side} {block} "),
            Peer::Group(id) if groups.contains_key(id) => format!("ip {side} @{} ", members(id)),
            // A group that is gone has no members.
            Peer::Group(_) => continue,
        };
        put(out, format!("    {from}{}accept", protocol(rule)));
    }
    put(out, "  }".to_owned());
}

fn protocol(rule: &Rule) -> String {
    let name = match rule.protocol {
        None => return String::new(),
        Some(1) => return icmp(rule.ports),
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(number) => return format!("meta l4proto {number} "),
    };
    match rule.ports {
        None => format!("meta l4proto {name} "),
        Some(Ports { from, to }) if from == to => format!("{name} dport {from} "),
        Some(Ports { from, to }) => format!("{name} dport {from}-{to} "),
    }
}

fn icmp(kind: Option<Ports>) -> String {
    match kind {
        None | Some(Ports { from: -1, .. }) => "meta l4proto icmp ".to_owned(),
        Some(Ports { from, to: -1 }) => format!("icmp type {from} "),
        Some(Ports { from, to }) => format!("icmp type {from} icmp code {to} "),
    }
}

pub(crate) fn put(out: &mut String, line: String) {
    writeln!(out, "{line}").expect("writing to a string");
}

/// Connections to a block of addresses arrive at one port of the address that they are for.
pub(crate) fn divert(block: Cidr, port: u16) -> String {
    format!(
        "add table ip diverted\ndelete table ip diverted\ntable ip diverted {{\n\
         \x20 chain output {{\n\
         \x20   type nat hook output priority -100; policy accept;\n\
         \x20   ip daddr {block} meta l4proto tcp dnat to :{port}\n  }}\n}}\n"
    )
}

/// A group's id as nft takes names.
fn name(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn members(id: &str) -> String {
    format!("m_{}", name(id))
}

/// The name of a list of groups. Ids are 17 hexadecimal digits and nft's names are short, so a list is named by its
/// first id and a sum over all.
fn list_name(list: &[String]) -> String {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325; // FNV-1a
    for byte in list.iter().flat_map(|id| id.bytes().chain([0])) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, ingress: Vec<Rule>) -> (String, Group) {
        (id.to_owned(), Group { id: id.to_owned(), ingress, egress: vec![] })
    }

    fn tcp(port: i32, peer: Peer) -> Rule {
        Rule { protocol: Some(6), ports: Some(Ports { from: port, to: port }), peer }
    }

    #[test]
    fn rules_become_text() {
        let block = |text: &str| Peer::Block(text.parse().unwrap());
        let text = |rule: Rule| {
            let groups = [group("sg-1", vec![rule])].into();
            let all = table(&groups, [].iter());
            let start = all.find("chain in_sg_1 {").unwrap();
            all[start..].lines().nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(text(tcp(80, block("0.0.0.0/0"))), "tcp dport 80 accept");
        assert_eq!(text(tcp(80, block("10.0.0.0/8"))), "ip saddr 10.0.0.0/8 tcp dport 80 accept");
        assert_eq!(
            text(tcp(80, Peer::Group("sg-1".into()))),
            "ip saddr @m_sg_1 tcp dport 80 accept"
        );
        assert_eq!(text(tcp(80, Peer::Group("sg-gone".into()))), "}");
        let all = Rule { protocol: None, ports: None, peer: block("0.0.0.0/0") };
        assert_eq!(text(all), "accept");
        let ping = Rule {
            protocol: Some(1),
            ports: Some(Ports { from: 8, to: -1 }),
            peer: block("0.0.0.0/0"),
        };
        assert_eq!(text(ping), "icmp type 8 accept");
    }
}
