//! Docker's firewall. Where Docker turned forwarding on, it drops whatever else is forwarded; tasks would reach
//! the host but not the outside. Docker keeps a chain for rules of others, and there our block is let through.
//! <https://docs.docker.com/engine/network/packet-filtering-firewalls/>

use crate::{cidr::Cidr, error::NetworkError};
use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

const CHAIN: &str = "DOCKER-USER";

/// Lets the block through where Docker is; elsewhere there is nothing to do. Doing it again changes nothing.
pub(crate) fn let_through(block: Cidr) -> Result<(), NetworkError> {
    if !iptables(&["-n", "-L", CHAIN])? {
        return Ok(());
    }
    for rule in rules(block) {
        if !iptables_rule("-C", &rule)? && !iptables_rule("-I", &rule)? {
            let message = format!("iptables does not take a rule into {CHAIN}: {}", rule.join(" "));
            return Err(NetworkError::Rules { message });
        }
    }
    Ok(())
}

/// Takes [`let_through`] back.
pub(crate) fn take_back(block: Cidr) -> Result<(), NetworkError> {
    for rule in rules(block) {
        while iptables_rule("-C", &rule)? && iptables_rule("-D", &rule)? {}
    }
    Ok(())
}

/// Whether the host drops what the block forwards: the policy of its forward chain says so, and nobody lets it through.
pub(crate) fn is_dropped(block: Cidr) -> Result<bool, NetworkError> {
    let output = Command::new("iptables").args(["-w", "5", "-S", "FORWARD"]).output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        output => output.map_err(NetworkError::Iptables)?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.lines().any(|line| line == "-P FORWARD DROP") {
        return Ok(false);
    }
    for rule in rules(block) {
        if !iptables_rule("-C", &rule)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the block sends, and the replies.
fn rules(block: Cidr) -> [Vec<String>; 2] {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    [
        words(&format!("-s {block} -j ACCEPT")),
        words(&format!("-d {block} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")),
    ]
}

fn iptables_rule(command: &str, rule: &[String]) -> Result<bool, NetworkError> {
    let mut words = vec![command, CHAIN];
    words.extend(rule.iter().map(String::as_str));
    iptables(&words)
}

/// Whether iptables did it; where there is no iptables, there is no Docker, and nothing is done.
fn iptables(words: &[&str]) -> Result<bool, NetworkError> {
    let status = Command::new("iptables")
        .args(["-w", "5"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        status => Ok(status.map_err(NetworkError::Iptables)?.success()),
    }
}
