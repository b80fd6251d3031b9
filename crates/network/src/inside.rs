//! What happens to connections inside a task's own network namespace: a proxy of the task takes them, or faults that
//! the task asked for befall them.

use crate::{Cidr, NetworkError, TASK_SERVICE, firewall::put, host, namespace, vpc::TASK_LINK};
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, path::Path, process::Command};

/// A proxy inside a task that takes its TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Where connections from outside to `app_ports` arrive.
    pub ingress_port: u16,
    /// Where connections that the task makes arrive.
    pub egress_port: u16,
    /// The ports that the task's programs serve.
    pub app_ports: Vec<u16>,
    /// What processes of this user, as it is called inside, do is let be.
    pub ignored_uid: Option<u32>,
    /// What processes of this group, as it is called inside, do is let be.
    pub ignored_gid: Option<u32>,
    /// Connections to these ports are let be.
    pub ignored_ports: Vec<u16>,
    /// Connections to these blocks are let be; those to the link-local services always are.
    pub ignored_blocks: Vec<Cidr>,
}

/// What befalls the packets of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Packets to these ports are dropped.
    pub black_holes: Vec<BlackHole>,
    /// Packets to some places are lost.
    pub loss: Option<Loss>,
    /// Packets to some places are late.
    pub latency: Option<Latency>,
}

/// A port whose packets are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlackHole {
    /// Whether it is a port that others call in the task, not one that the task calls.
    pub ingress: bool,
    /// Of which protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The other sides that are spared.
    pub spared: Vec<Cidr>,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Packets that are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// How many of a hundred.
    pub percent: u8,
    /// To where.
    pub to: Vec<Cidr>,
    /// To where not.
    pub spared: Vec<Cidr>,
}

/// Packets that are late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// By how much, in ms.
    pub delay_ms: u64,
    /// By how much more or less, in ms.
    pub jitter_ms: u64,
    /// To where.
    pub to: Vec<Cidr>,
    /// To where not.
    pub spared: Vec<Cidr>,
}

/// Makes a task's connections go by its proxy. Doing it again changes nothing.
pub(crate) async fn intercept(netns: &Path, proxy: &Proxy) -> Result<(), NetworkError> {
    let script = proxy_table(proxy);
    namespace::visit(netns, move |_| host::nft(&script)).await
}

/// Makes exactly these faults befall a task.
pub(crate) async fn set_faults(netns: &Path, faults: &Faults) -> Result<(), NetworkError> {
    let (script, latency) = (faults_table(faults), faults.latency.clone());
    namespace::visit(netns, move |_| {
        host::nft(&script)?;
        // What is not there cannot be taken away.
        let _ = tc(&["qdisc", "del", "dev", TASK_LINK, "root"]);
        latency.map_or(Ok(()), |latency| delay(&latency))
    })
    .await
}

fn list<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", values.join(", "))
}

/// A set of blocks that may overlap, as nft takes it.
fn set(out: &mut String, name: &str, blocks: &[Cidr]) {
    put(out, format!("  set {name} {{\n    type ipv4_addr; flags interval; auto-merge"));
    if !blocks.is_empty() {
        put(out, format!("    elements = {}", list(blocks)));
    }
    put(out, "  }".to_owned());
}

fn proxy_table(proxy: &Proxy) -> String {
    let mut out = "add table ip proxied\ndelete table ip proxied\ntable ip proxied {\n".to_owned();
    let mut spared = proxy.ignored_blocks.clone();
    spared.push(Cidr::new(TASK_SERVICE, 24));
    set(&mut out, "spared", &spared);
    put(
        &mut out,
        "  chain output {\n    type nat hook output priority -90; policy accept;".to_owned(),
    );
    put(&mut out, "    meta l4proto != tcp accept\n    fib daddr type local accept".to_owned());
    for (kind, id) in [("skuid", proxy.ignored_uid), ("skgid", proxy.ignored_gid)] {
        if let Some(id) = id {
            put(&mut out, format!("    meta {kind} {id} accept"));
        }
    }
    if !proxy.ignored_ports.is_empty() {
        put(&mut out, format!("    tcp dport {} accept", list(&proxy.ignored_ports)));
    }
    put(&mut out, "    ip daddr @spared accept".to_owned());
    put(&mut out, format!("    meta l4proto tcp redirect to :{}\n  }}", proxy.egress_port));
    put(
        &mut out,
        "  chain prerouting {\n    type nat hook prerouting priority -90; policy accept;"
            .to_owned(),
    );
    if !proxy.app_ports.is_empty() {
        let (ports, to) = (list(&proxy.app_ports), proxy.ingress_port);
        put(&mut out, format!("    fib saddr type != local tcp dport {ports} redirect to :{to}"));
    }
    out + "  }\n}\n"
}

fn faults_table(faults: &Faults) -> String {
    let mut out = "add table ip faults\ndelete table ip faults\ntable ip faults {\n".to_owned();
    for (number, hole) in faults.black_holes.iter().enumerate() {
        set(&mut out, &format!("hole_{number}"), &hole.spared);
    }
    if let Some(loss) = &faults.loss {
        set(&mut out, "loss_to", &loss.to);
        set(&mut out, "loss_spared", &loss.spared);
    }
    for (chain, ingress, side) in [("input", true, "saddr"), ("output", false, "daddr")] {
        put(
            &mut out,
            format!(
                "  chain {chain} {{\n    type filter hook {chain} priority -300; policy accept;"
            ),
        );
        for (number, hole) in faults.black_holes.iter().enumerate() {
            if hole.ingress == ingress {
                let (protocol, port) = (hole.protocol.name(), hole.port);
                put(
                    &mut out,
                    format!("    {protocol} dport {port} ip {side} != @hole_{number} drop"),
                );
            }
        }
        if let Some(loss) = faults.loss.as_ref().filter(|_| !ingress) {
            // The generator gives 0 to 99.
            let last = loss.percent.clamp(1, 100) - 1;
            put(
                &mut out,
                format!(
                    "    ip daddr @loss_to ip daddr != @loss_spared numgen random mod 100 <= {last} drop"
                ),
            );
        }
        put(&mut out, "  }".to_owned());
    }
    out + "}\n"
}

/// Delays packets by the kernel's network emulator (tc-netem(8)): the first band is late, the others are as they were.
fn delay(latency: &Latency) -> Result<(), NetworkError> {
    let (delay, jitter) = (format!("{}ms", latency.delay_ms), format!("{}ms", latency.jitter_ms));
    let prompt = ["2"; 16];
    tc(&[
        &["qdisc", "add", "dev", TASK_LINK, "root", "handle", "1:", "prio", "priomap"][..],
        &prompt,
    ]
    .concat())?;
    let parent = ["qdisc", "add", "dev", TASK_LINK, "parent", "1:1", "handle", "10:"];
    tc(&[&parent[..], &["netem", "delay", &delay, &jitter]].concat())?;
    let classify = |block: &Cidr, preference: &str, band: &str| {
        let block = block.to_string();
        let filter = ["filter", "add", "dev", TASK_LINK, "protocol", "ip", "parent", "1:0"];
        let which = ["prio", preference, "u32", "match", "ip", "dst", &block, "flowid", band];
        tc(&[&filter[..], &which].concat())
    };
    latency.spared.iter().try_for_each(|block| classify(block, "1", "1:3"))?;
    latency.to.iter().try_for_each(|block| classify(block, "2", "1:1"))
}

fn tc(words: &[&str]) -> Result<(), NetworkError> {
    let output = Command::new("tc").args(words).output().map_err(NetworkError::Tc)?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let message =
                String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
            Err(NetworkError::Traffic { message })
        }
    }
}

/// An address or a block of them; addresses of version 6 are none that tasks have.
pub fn block(text: &str) -> Option<Cidr> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse::<Ipv4Addr>().ok().map(|address| Cidr::new(address, 32)),
    }
}
