//! Real namespaces, real packets: two "tasks" and the host.

#![allow(clippy::unwrap_used)]

use network::{Attachment, Cidr, Group, Network, NetworkConfig, Peer, Ports, Rule, VpcSpec};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A namespace made with `ip netns`, as a task's would be; gone when dropped.
struct Task(String);

impl Task {
    fn new(name: &str) -> Self {
        let name = format!("ngtest-{}-{name}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs `work` on a thread in the namespace.
    fn inside<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let file = std::fs::File::open(self.path()).unwrap();
        let body = move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::spawn(body).join().unwrap()
    }

    /// Serves one word on a port, to any number of callers.
    fn serve(&self, port: u16, word: &'static str) {
        let listener = self.inside(move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).write_all(word.as_bytes());
            }
        });
    }

    fn fetch(&self, address: Ipv4Addr, port: u16) -> Option<String> {
        self.inside(move || fetch(address, port))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn fetch(address: Ipv4Addr, port: u16) -> Option<String> {
    let mut stream =
        TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(600)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn open_all() -> Rule {
    Rule { protocol: None, ports: None, peer: Peer::Block("0.0.0.0/0".parse().unwrap()) }
}

fn tcp(port: i32, peer: Peer) -> Rule {
    Rule { protocol: Some(6), ports: Some(Ports { from: port, to: port }), peer }
}

fn group(id: &str, ingress: Vec<Rule>, egress: Vec<Rule>) -> Group {
    Group { id: id.into(), ingress, egress }
}

async fn network(name: &str) -> (tempfile::TempDir, Network) {
    let directory = tempfile::tempdir().unwrap();
    let network = Network::open(config(name, directory.path())).await.unwrap();
    (directory, network)
}

fn config(name: &str, run_dir: &Path) -> NetworkConfig {
    NetworkConfig {
        instance: format!("{name}{:03}", std::process::id() % 1000),
        run_dir: run_dir.to_owned(),
        pool: "198.18.0.0/15".parse().unwrap(),
    }
}

fn attachment(
    task: &Task,
    vpc: &str,
    ip: &str,
    number: u8,
    public: Option<Ipv4Addr>,
) -> Attachment {
    Attachment {
        eni: format!("eni-0000000000000{number:04x}"),
        vpc: vpc.into(),
        mac: format!("02:00:00:00:00:{number:02x}"),
        ip: ip.parse().unwrap(),
        subnet: Cidr::new(ip.parse().unwrap(), 24),
        public_ip: public,
        outward: public,
        groups: vec![],
        netns: task.path(),
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn vpc(id: &str, number: u8) -> VpcSpec {
    let blocks = vec!["10.0.0.0/16".parse().unwrap()];
    VpcSpec { id: id.into(), blocks, number, groups: Vec::new(), attachments: Vec::new() }
}

#[tokio::test]
async fn groups_hold_between_neighbours_and_towards_the_host() {
    if !is_root() {
        return;
    }
    let (_directory, network) = network("a").await;
    network.set_up_vpc(vpc("vpc-1", 0)).await.unwrap();
    let any = Peer::Block("0.0.0.0/0".parse().unwrap());
    let web = |peer: Peer| group("sg-web", vec![tcp(80, peer)], vec![open_all()]);
    let client = group("sg-client", vec![], vec![open_all()]);
    network
        .set_groups("vpc-1", vec![web(Peer::Group("sg-client".into())), client.clone()])
        .await
        .unwrap();

    let (server, caller, stranger) = (Task::new("s"), Task::new("c"), Task::new("x"));
    let public = network.public_addresses().nth(5).unwrap();
    let with = |mut a: Attachment, group: &str| {
        a.groups = vec![group.into()];
        a
    };
    let server_port = with(attachment(&server, "vpc-1", "10.0.1.10", 1, Some(public)), "sg-web");
    network.attach(&server_port).await.unwrap();
    network.attach(&server_port).await.unwrap(); // again changes nothing
    network
        .attach(&with(attachment(&caller, "vpc-1", "10.0.1.11", 2, None), "sg-client"))
        .await
        .unwrap();
    network
        .attach(&with(attachment(&stranger, "vpc-1", "10.0.1.12", 3, None), "sg-web"))
        .await
        .unwrap();
    server.serve(80, "hello");
    server.serve(81, "closed");
    let ip = Ipv4Addr::new(10, 0, 1, 10);

    assert_eq!(caller.fetch(ip, 80).as_deref(), Some("hello"), "a member of the named group");
    assert_eq!(caller.fetch(ip, 81), None, "another port");
    assert_eq!(stranger.fetch(ip, 80), None, "a neighbour outside the named group");
    let host = |port| tokio::task::spawn_blocking(move || fetch(public, port));
    assert_eq!(host(80).await.unwrap(), None, "the host is in no group");

    network.set_groups("vpc-1", vec![web(any), client]).await.unwrap();
    assert_eq!(
        host(80).await.unwrap().as_deref(),
        Some("hello"),
        "the public address from the host"
    );
    assert_eq!(host(81).await.unwrap(), None, "still one port");
    assert_eq!(stranger.fetch(ip, 80).as_deref(), Some("hello"));

    // Without egress rules nobody gets out, and what comes in may still answer.
    let shut = group("sg-client", vec![], vec![]);
    network
        .set_groups("vpc-1", vec![group("sg-web", vec![open_all()], vec![]), shut])
        .await
        .unwrap();
    assert_eq!(caller.fetch(ip, 80), None, "no egress");
    assert_eq!(host(80).await.unwrap().as_deref(), Some("hello"), "answers go back");

    network.detach("vpc-1", &server_port.eni).await.unwrap();
    network.detach("vpc-1", &server_port.eni).await.unwrap();
    assert_eq!(host(80).await.unwrap(), None, "gone");
    network.close().await.unwrap();
}

#[tokio::test]
async fn vpcs_with_the_same_addresses_are_separate_worlds() {
    if !is_root() {
        return;
    }
    let (_directory, network) = network("b").await;
    let tasks = [Task::new("one"), Task::new("two")];
    let words = ["first", "second"];
    let public: Vec<Ipv4Addr> = network.public_addresses().take(2).collect();
    for (number, (task, word)) in tasks.iter().zip(words).enumerate() {
        let id = format!("vpc-{number}");
        let groups = vec![group("sg-0", vec![open_all()], vec![open_all()])];
        network.set_up_vpc(VpcSpec { groups, ..vpc(&id, number as u8) }).await.unwrap();
        let mut port = attachment(task, &id, "10.0.1.10", 1, Some(public[number]));
        port.groups = vec!["sg-0".into()];
        network.attach(&port).await.unwrap();
        task.serve(80, word);
    }
    for (address, word) in public.iter().copied().zip(words) {
        let text = tokio::task::spawn_blocking(move || fetch(address, 80)).await.unwrap();
        assert_eq!(text.as_deref(), Some(word));
    }
    // A VPC reaches the other only through public addresses, never its private ones.
    assert_eq!(tasks[0].fetch(Ipv4Addr::new(10, 0, 1, 10), 80).as_deref(), Some("first"));
    network.close().await.unwrap();
}

#[tokio::test]
async fn a_network_that_is_set_up_again_cuts_nobody_off() {
    if !is_root() {
        return;
    }
    let (directory, network) = network("d").await;
    let groups = vec![group("sg-0", vec![open_all()], vec![open_all()])];
    network.set_up_vpc(VpcSpec { groups: groups.clone(), ..vpc("vpc-1", 0) }).await.unwrap();
    let task = Task::new("again");
    let public = network.public_addresses().next().unwrap();
    let mut port = attachment(&task, "vpc-1", "10.0.1.10", 1, Some(public));
    port.groups = vec!["sg-0".into()];
    network.attach(&port).await.unwrap();
    task.serve(80, "still here");
    let reached = || tokio::task::spawn_blocking(move || fetch(public, 80));
    assert_eq!(reached().await.unwrap().as_deref(), Some("still here"));

    drop(network); // as a crash does: nothing is taken away
    let network = Network::open(config("d", directory.path())).await.unwrap();
    assert_eq!(reached().await.unwrap().as_deref(), Some("still here"));
    let attachments = vec![port];
    network.set_up_vpc(VpcSpec { groups, attachments, ..vpc("vpc-1", 0) }).await.unwrap();
    assert_eq!(reached().await.unwrap().as_deref(), Some("still here"));
    network.set_groups("vpc-1", vec![group("sg-0", vec![], vec![open_all()])]).await.unwrap();
    assert_eq!(reached().await.unwrap(), None);

    drop(network);
    // One that had no use for the VPC takes it away all the same.
    let network = Network::open(config("d", directory.path())).await.unwrap();
    network.close().await.unwrap();
    assert!(!config("d", directory.path()).run_dir.exists());
}

#[tokio::test]
async fn a_forged_source_address_gets_nowhere_and_services_answer_inside() {
    if !is_root() {
        return;
    }
    let (_directory, network) = network("c").await;
    let groups = vec![group("sg-0", vec![open_all()], vec![open_all()])];
    network.set_up_vpc(VpcSpec { groups, ..vpc("vpc-1", 0) }).await.unwrap();
    let (victim, forger) = (Task::new("v"), Task::new("f"));
    for (task, ip, number) in [(&victim, "10.0.1.10", 1), (&forger, "10.0.1.66", 2)] {
        let mut port = attachment(task, "vpc-1", ip, number, None);
        port.groups = vec!["sg-0".into()];
        network.attach(&port).await.unwrap();
    }
    let listener = network.listen("vpc-1", (network::TASK_SERVICE, 80).into()).await.unwrap();
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = (&stream).write_all(peer.as_bytes());
        }
    });
    assert_eq!(victim.fetch(network::TASK_SERVICE, 80).as_deref(), Some("10.0.1.10"));
    assert_eq!(forger.fetch(network::TASK_SERVICE, 80).as_deref(), Some("10.0.1.66"));
    let status = Command::new("ip")
        .args(["-n", &forger.0, "addr", "add", "10.0.1.77/32", "dev", "eth1"])
        .status();
    assert!(status.unwrap().success());
    let status = Command::new("ip")
        .args([
            "-n",
            &forger.0,
            "route",
            "replace",
            "default",
            "via",
            "10.0.1.1",
            "dev",
            "eth1",
            "onlink",
            "src",
            "10.0.1.77",
        ])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(forger.fetch(network::TASK_SERVICE, 80), None, "a forged source");
    victim.serve(80, "victim");
    assert_eq!(forger.fetch(Ipv4Addr::new(10, 0, 1, 10), 80), None, "a forged source");
    network.close().await.unwrap();
}
