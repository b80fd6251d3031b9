//! What callers do with the network.

use crate::{
    NAME_SERVICE, REGISTRY_SERVICE, TASK_SERVICE,
    cidr::Cidr,
    docker,
    error::NetworkError,
    firewall::{self, Group, Port},
    host::{self, Leak},
    inside::{self, Faults, Proxy},
    links::{Far, Mac},
    namespace::{self, Namespace},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// The MAC address of the near end of every veth: each is alone on its link.
const NEAR_MAC: Mac = [0x02, 0x6e, 0x67, 0x00, 0x00, 0x01];
const UPLINK_HOST_MAC: Mac = [0x02, 0x6e, 0x67, 0x00, 0x00, 0x02];
const UPLINK_VPC_MAC: Mac = [0x02, 0x6e, 0x67, 0x00, 0x00, 0x03];
/// The link that leads to the host, in every VPC.
const UPLINK: &str = "up0";
/// The link that a task sees, as on Fargate.
pub(crate) const TASK_LINK: &str = "eth1";
/// So many VPCs can have an uplink: two addresses each, at the end of the public block.
const MOST_VPCS: u64 = 256;

/// What a network is set up with.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Sets apart several Neargates on one host: up to six letters or digits.
    pub instance: String,
    /// Where namespaces are pinned: a directory that a reboot empties.
    pub run_dir: PathBuf,
    /// Where public addresses come from.
    pub pool: Cidr,
}

/// A VPC.
#[derive(Clone, Debug)]
pub struct VpcSpec {
    /// Its id, `vpc-…`.
    pub id: String,
    /// Its blocks.
    pub blocks: Vec<Cidr>,
    /// Its number among this Neargate's VPCs, less than 256, unique.
    pub number: u8,
    /// Its security groups.
    pub groups: Vec<Group>,
    /// The interfaces that it has already: those of tasks that outlived the last control plane. Their namespaces do
    /// not matter here.
    pub attachments: Vec<Attachment>,
}

/// A task's interface.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Its id, `eni-` and hexadecimal digits.
    pub eni: String,
    /// Its VPC's id.
    pub vpc: String,
    /// Its MAC address, `02:…`.
    pub mac: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its subnet.
    pub subnet: Cidr,
    /// The address that the host reaches it by.
    pub public_ip: Option<Ipv4Addr>,
    /// The address that it has outside of the VPC, when it may go there: its public one, or that of a NAT gateway.
    pub outward: Option<Ipv4Addr>,
    /// Its security groups' ids.
    pub groups: Vec<String>,
    /// The task's network namespace.
    pub netns: PathBuf,
}

/// All VPCs of one Neargate.
pub struct Network {
    config: NetworkConfig,
    block: Cidr,
    host: Namespace,
    vpcs: Mutex<HashMap<String, Arc<Vpc>>>,
    /// The interfaces that have a namespace of their own here.
    hosts: Mutex<BTreeSet<String>>,
}

struct Vpc {
    namespace: Namespace,
    number: u8,
    /// What its table says. Held while the table is changed, so that changes come in order.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<String, Group>,
    ports: BTreeMap<String, Port>,
}

impl Network {
    /// Sets the host's side up. Needs root, nft, and a kernel with network namespaces.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let told = |source| NetworkError::File { path: config.run_dir.clone(), source };
        fs::create_dir_all(&config.run_dir).map_err(told)?;
        let host = Namespace::host()?;
        let (pool, instance, file) =
            (config.pool, config.instance.clone(), config.run_dir.join("block"));
        let block =
            host.run(move |inside| host::claim_block(inside, pool, &instance, &file)).await?;
        let network = Self { config, block, host, vpcs: Mutex::default(), hosts: Mutex::default() };
        let (table, links) = (network.table(), network.link_prefix());
        let set_up = move |_: &namespace::Inside| {
            host::forward()?;
            host::masquerade(&table, &links, block)?;
            docker::let_through(block)
        };
        if let Err(error) = network.host.run(set_up).await {
            // What is there of an earlier process serves tasks that outlived it; otherwise nothing is left.
            if fs::read_dir(&network.config.run_dir).is_ok_and(|entries| entries.count() <= 1) {
                let release = move |inside: &namespace::Inside| inside.remove_unreachable(block);
                network.host.run(release).await?;
                network.forget()?;
            }
            return Err(error);
        }
        Ok(network)
    }

    fn forget(&self) -> Result<(), NetworkError> {
        let path = self.config.run_dir.clone();
        fs::remove_dir_all(&path).map_err(|source| NetworkError::File { path, source })
    }

    /// The addresses that interfaces can have as public ones.
    pub fn public_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let block = self.block;
        (1..block.size() - 2 * MOST_VPCS).map(move |index| block.nth(index))
    }

    fn table(&self) -> String {
        format!("neargate_{}", self.config.instance)
    }

    fn link_prefix(&self) -> String {
        format!("ng{}u", self.config.instance)
    }

    fn pin(&self, vpc: &str) -> PathBuf {
        self.config.run_dir.join(format!("{vpc}.netns"))
    }

    fn uplink(&self, number: u8) -> (String, Ipv4Addr, Ipv4Addr) {
        let first = self.block.size() - 2 * MOST_VPCS + 2 * u64::from(number);
        let name = format!("{}{number}", self.link_prefix());
        (name, self.block.nth(first), self.block.nth(first + 1))
    }

    /// Whether the VPC was set up, by this process.
    pub async fn has_vpc(&self, id: &str) -> bool {
        self.vpcs.lock().await.contains_key(id)
    }

    /// Sets a VPC up. What an earlier process set up stays as it is or is replaced in one step, so that its tasks never
    /// notice, wherever this process dies.
    pub async fn set_up_vpc(&self, spec: VpcSpec) -> Result<(), NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        let pin = self.pin(&spec.id);
        let namespace = tokio::task::spawn_blocking(move || Namespace::pinned(&pin));
        let namespace = namespace.await.expect("making a namespace does not panic")?;
        let (host_link, host_ip, vpc_ip) = self.uplink(spec.number);
        let file = fs::File::open(namespace.path()).map_err(|source| NetworkError::Namespace {
            step: "open",
            path: namespace.path().to_owned(),
            source,
        })?;
        self.host
            .run(move |inside| {
                let far = Far { name: UPLINK, mac: UPLINK_VPC_MAC, namespace: file.as_fd() };
                let index = inside.add_veth(&host_link, UPLINK_HOST_MAC, &far)?;
                inside.add_address(index, host_ip, 32)?;
                inside.add_route(Cidr::new(vpc_ip, 32), index, None)?;
                inside.add_neighbour(index, vpc_ip, UPLINK_VPC_MAC)
            })
            .await?;
        let blocks = spec.blocks;
        namespace
            .run(move |inside| {
                let lo = inside.up("lo")?;
                inside.add_address(lo, NAME_SERVICE, 32)?;
                inside.add_address(lo, TASK_SERVICE, 32)?;
                inside.add_address(lo, REGISTRY_SERVICE, 32)?;
                sysctl("net/ipv4/ip_forward", "1")?;
                // Sources are checked by our table, exactly; the kernel's check would refuse replies by the uplink.
                sysctl("net/ipv4/conf/all/rp_filter", "0")?;
                sysctl("net/ipv4/conf/default/rp_filter", "0")?;
                sysctl("net/ipv4/conf/all/send_redirects", "0")?;
                let index = inside.up(UPLINK)?;
                inside.add_address(index, vpc_ip, 32)?;
                inside.add_neighbour(index, host_ip, UPLINK_HOST_MAC)?;
                inside.add_route(Cidr::new(host_ip, 32), index, None)?;
                inside.add_route(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), index, Some(host_ip))?;
                blocks.into_iter().try_for_each(|block| inside.add_unreachable(block))
            })
            .await?;
        let state = State {
            groups: spec.groups.into_iter().map(|group| (group.id.clone(), group)).collect(),
            ports: spec.attachments.iter().map(|a| (a.eni.clone(), port(a))).collect(),
        };
        let script = firewall::table(&state.groups, state.ports.values());
        namespace.run(move |_| host::nft(&script)).await?;
        let vpc = Vpc { namespace, number: spec.number, state: Mutex::new(state) };
        vpcs.insert(spec.id, Arc::new(vpc));
        Ok(())
    }

    async fn vpc(&self, id: &str) -> Result<Arc<Vpc>, NetworkError> {
        let vpcs = self.vpcs.lock().await;
        vpcs.get(id).cloned().ok_or_else(|| NetworkError::NoVpc { vpc: id.to_owned() })
    }

    /// Takes the VPC away, with whatever is still in it.
    pub async fn remove_vpc(&self, id: &str) -> Result<(), NetworkError> {
        let vpc = self.vpcs.lock().await.remove(id);
        if let Some(vpc) = vpc {
            let (host_link, ..) = self.uplink(vpc.number);
            self.host.run(move |inside| inside.remove_link(&host_link)).await?;
        }
        namespace::unpin(&self.pin(id))
    }

    /// Sets all security groups of a VPC. What its table says is replaced in one step.
    pub async fn set_groups(&self, vpc: &str, groups: Vec<Group>) -> Result<(), NetworkError> {
        let vpc = self.vpc(vpc).await?;
        let mut state = vpc.state.lock().await;
        state.groups = groups.into_iter().map(|group| (group.id.clone(), group)).collect();
        let script = firewall::table(&state.groups, state.ports.values());
        vpc.namespace.run(move |_| host::nft(&script)).await
    }

    /// Makes a network namespace for an interface that is no task's, and answers where it is pinned. It is there until
    /// the interface is unplugged. Doing it again changes nothing.
    pub async fn make_host(&self, eni: &str) -> Result<PathBuf, NetworkError> {
        let mut hosts = self.hosts.lock().await;
        let pin = self.pin(eni);
        let place = pin.clone();
        let namespace = tokio::task::spawn_blocking(move || Namespace::pinned(&place));
        namespace.await.expect("making a namespace does not panic")?;
        hosts.insert(eni.to_owned());
        Ok(pin)
    }

    /// Plugs an interface into a task's namespace. Doing it again changes nothing.
    pub async fn attach(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        let vpc = self.vpc(&attachment.vpc).await?;
        let port = port(attachment);
        {
            let mut state = vpc.state.lock().await;
            if state.ports.get(&attachment.eni) != Some(&port) {
                let known = state.ports.values().any(|other| other.groups == port.groups);
                let replaced = state.ports.insert(attachment.eni.clone(), port.clone());
                let script = match replaced {
                    Some(_) => firewall::table(&state.groups, state.ports.values()),
                    None => firewall::port_added(&port, &state.groups, !known),
                };
                vpc.namespace.run(move |_| host::nft(&script)).await?;
            }
        }
        let netns = fs::File::open(&attachment.netns).map_err(|source| {
            NetworkError::Namespace { step: "open", path: attachment.netns.clone(), source }
        })?;
        let (mac, ip, link) = (mac(&attachment.mac), attachment.ip, port.link.clone());
        vpc.namespace
            .run(move |inside| {
                let far = Far { name: TASK_LINK, mac, namespace: netns.as_fd() };
                let index = inside.add_veth(&link, NEAR_MAC, &far)?;
                inside.add_neighbour(index, ip, mac)?;
                inside.add_route(Cidr::new(ip, 32), index, None)
            })
            .await?;
        let subnet = attachment.subnet;
        namespace::visit(&attachment.netns, move |inside| {
            inside.up("lo")?;
            let index = inside.up(TASK_LINK)?;
            let gateway = subnet.nth(1);
            inside.add_address(index, ip, subnet.prefix())?;
            inside.add_neighbour(index, gateway, NEAR_MAC)?;
            inside.add_route(Cidr::new(gateway, 32), index, None)?;
            inside.add_route(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), index, Some(gateway))
        })
        .await?;
        self.route_public(&vpc, attachment.public_ip).await
    }

    async fn route_public(
        &self,
        vpc: &Vpc,
        public_ip: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let Some(public_ip) = public_ip else { return Ok(()) };
        let (host_link, _, vpc_ip) = self.uplink(vpc.number);
        self.host
            .run(move |inside| {
                let index = inside.index(&host_link)?;
                inside.add_route(Cidr::new(public_ip, 32), index, Some(vpc_ip))
            })
            .await
    }

    /// Makes packets for an address outside of the VPC's blocks (a NAT gateway's) arrive there. Doing it again changes
    /// nothing.
    pub async fn route_address(&self, vpc: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let vpc = self.vpc(vpc).await?;
        self.route_public(&vpc, Some(address)).await
    }

    /// Takes an address's route away. Doing it again changes nothing.
    pub async fn unroute_address(&self, vpc: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let vpc = self.vpc(vpc).await?;
        let (host_link, ..) = self.uplink(vpc.number);
        self.host
            .run(move |inside| {
                let index = inside.index(&host_link)?;
                inside.remove_route(Cidr::new(address, 32), index)
            })
            .await
    }

    /// Says by which addresses the interfaces of a VPC are reached and go out: (interface, public, outward). What the
    /// table says is replaced in one step. Interfaces that are not there are passed over.
    pub async fn set_ways(
        &self,
        vpc: &str,
        ways: Vec<(String, Option<Ipv4Addr>, Option<Ipv4Addr>)>,
    ) -> Result<(), NetworkError> {
        let vpc = self.vpc(vpc).await?;
        let mut state = vpc.state.lock().await;
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (eni, public_ip, outward) in ways {
            let Some(port) = state.ports.get_mut(&eni) else { continue };
            if port.public_ip != public_ip {
                gone.extend(port.public_ip);
                come.extend(public_ip);
            }
            (port.public_ip, port.outward) = (public_ip, outward);
        }
        let script = firewall::table(&state.groups, state.ports.values());
        vpc.namespace.run(move |_| host::nft(&script)).await?;
        for address in come {
            self.route_public(&vpc, Some(address)).await?;
        }
        let (host_link, ..) = self.uplink(vpc.number);
        self.host
            .run(move |inside| {
                let index = inside.index(&host_link)?;
                gone.into_iter()
                    .try_for_each(|address| inside.remove_route(Cidr::new(address, 32), index))
            })
            .await
    }

    /// Makes TCP connections to a block of addresses, made in a network namespace, arrive at one port of the address
    /// that they are for; the kernel can be asked which port it was. Doing it again changes nothing.
    pub async fn divert(&self, netns: &Path, block: Cidr, port: u16) -> Result<(), NetworkError> {
        let script = firewall::divert(block, port);
        namespace::visit(netns, move |_| host::nft(&script)).await
    }

    /// Makes the TCP connections of a task go by its proxy. Doing it again changes nothing.
    pub async fn intercept(&self, netns: &Path, proxy: &Proxy) -> Result<(), NetworkError> {
        inside::intercept(netns, proxy).await
    }

    /// Makes exactly these faults befall a task.
    pub async fn set_faults(&self, netns: &Path, faults: &Faults) -> Result<(), NetworkError> {
        inside::set_faults(netns, faults).await
    }

    /// Unplugs an interface. Doing it again changes nothing.
    pub async fn detach(&self, vpc: &str, eni: &str) -> Result<(), NetworkError> {
        self.hosts.lock().await.remove(eni);
        namespace::unpin(&self.pin(eni))?;
        let vpc = self.vpc(vpc).await?;
        let mut state = vpc.state.lock().await;
        let Some(port) = state.ports.remove(eni) else { return Ok(()) };
        let script = firewall::port_removed(&port, &state.groups);
        let link = port.link.clone();
        vpc.namespace
            .run(move |inside| {
                inside.remove_link(&link)?;
                host::nft(&script)
            })
            .await?;
        drop(state);
        let Some(public_ip) = port.public_ip else { return Ok(()) };
        let (host_link, ..) = self.uplink(vpc.number);
        self.host
            .run(move |inside| {
                let index = inside.index(&host_link)?;
                inside.remove_route(Cidr::new(public_ip, 32), index)
            })
            .await
    }

    /// Listens on a TCP address inside a VPC. The socket does not block.
    pub async fn listen(
        &self,
        vpc: &str,
        address: SocketAddr,
    ) -> Result<TcpListener, NetworkError> {
        let vpc = self.vpc(vpc).await?;
        vpc.namespace.run(move |_| open_listener(address)).await
    }

    /// Listens on a TCP address inside a network namespace, which lives as long as the socket. The socket does not
    /// block.
    pub async fn listen_in(
        &self,
        netns: &Path,
        address: SocketAddr,
    ) -> Result<TcpListener, NetworkError> {
        namespace::visit(netns, move |_| open_listener(address)).await
    }

    /// Binds a UDP address inside a VPC. The socket does not block.
    pub async fn bind(&self, vpc: &str, address: SocketAddr) -> Result<UdpSocket, NetworkError> {
        let vpc = self.vpc(vpc).await?;
        let told = move |source| NetworkError::Socket { address, source };
        let open = move || {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        vpc.namespace.run(move |_| open().map_err(told)).await
    }

    /// What is ours on this host and belongs to no VPC that was set up.
    pub async fn leaks(&self) -> Result<Vec<Leak>, NetworkError> {
        let vpcs = self.vpcs.lock().await;
        let hosts = self.hosts.lock().await;
        let pins: Vec<PathBuf> = vpcs.keys().chain(&*hosts).map(|id| self.pin(id)).collect();
        let links: Vec<String> = vpcs.values().map(|vpc| self.uplink(vpc.number).0).collect();
        let (directory, prefix) = (self.config.run_dir.clone(), self.link_prefix());
        self.host
            .run(move |inside| Ok(host::leaks(inside, &directory, &pins, &prefix, &links)))
            .await
    }

    /// Whether the host's firewall drops what tasks send to the outside.
    pub async fn is_dropped(&self) -> Result<bool, NetworkError> {
        let block = self.block;
        self.host.run(move |_| docker::is_dropped(block)).await
    }

    /// Lets tasks through Docker's firewall again, if Docker came after us.
    pub async fn let_through(&self) -> Result<(), NetworkError> {
        let block = self.block;
        self.host.run(move |_| docker::let_through(block)).await
    }

    /// Removes a leak.
    pub async fn mend(&self, leak: Leak) -> Result<(), NetworkError> {
        self.host.run(move |inside| host::mend(inside, &leak)).await
    }

    /// Takes everything of ours away from the host.
    pub async fn close(&self) -> Result<(), NetworkError> {
        let ids: Vec<String> = self.vpcs.lock().await.keys().cloned().collect();
        for id in ids {
            self.remove_vpc(&id).await?;
        }
        for eni in std::mem::take(&mut *self.hosts.lock().await) {
            namespace::unpin(&self.pin(&eni))?;
        }
        // What an earlier process set up, and this one had no use for.
        for leak in self.leaks().await? {
            self.mend(leak).await?;
        }
        let (table, block) = (self.table(), self.block);
        self.host
            .run(move |inside| {
                host::stop_masquerade(&table)?;
                docker::take_back(block)?;
                inside.remove_unreachable(block)
            })
            .await?;
        self.forget()
    }
}

/// Writes a sysctl of the calling thread's namespace.
/// In the namespace of the calling thread.
fn open_listener(address: SocketAddr) -> Result<TcpListener, NetworkError> {
    let open = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    open().map_err(|source| NetworkError::Socket { address, source })
}

fn sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).map_err(|source| NetworkError::File { path, source })
}

fn port(attachment: &Attachment) -> Port {
    let digits = attachment.eni.trim_start_matches("eni-");
    // A link's name has 15 letters at most; the last 13 digits are random enough within one VPC.
    let tail = &digits[digits.len().saturating_sub(13)..];
    let mut groups = attachment.groups.clone();
    groups.sort();
    groups.dedup();
    let (ip, public_ip, outward) = (attachment.ip, attachment.public_ip, attachment.outward);
    Port { link: format!("e{tail}"), ip, public_ip, outward, groups }
}

/// `02:…` as bytes; text of another form (which we never made) becomes a fixed local address.
fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> =
        text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().unwrap_or([0x02, 0x6e, 0x67, 0x00, 0x00, 0x04])
}
