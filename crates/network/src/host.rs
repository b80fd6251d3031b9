//! The host's side: the block of public addresses, forwarding, and what earlier crashes left.

use crate::{
    cidr::Cidr,
    error::NetworkError,
    namespace::{self, Inside},
};
use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The size of one Neargate's block, as a prefix: 4096 addresses.
const BLOCK_PREFIX: u8 = 20;

/// Something of ours that belongs to nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A pinned namespace of a VPC that is not known.
    Namespace(PathBuf),
    /// A link to such a VPC.
    Link(String),
}

/// Chooses this Neargate's block from the pool, one without a route on this host, and remembers the choice at
/// `file`. A route of ours claims it: addresses of it that no task has are unreachable, not the Internet's.
/// Runs in the host's namespace.
pub(crate) fn claim_block(
    inside: &Inside,
    pool: Cidr,
    instance: &str,
    file: &Path,
) -> Result<Cidr, NetworkError> {
    let told = |source| NetworkError::File { path: file.to_owned(), source };
    let shared = file.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    // Between looking and claiming nobody else may look. The lock goes with the file.
    let lock = fs::File::open(shared).map_err(told)?;
    lock.lock().map_err(told)?;
    let block = choose_block(pool, instance, file)?;
    inside.add_unreachable(block)?;
    fs::write(file, format!("{block}\n")).map_err(told)?;
    Ok(block)
}

fn choose_block(pool: Cidr, instance: &str, file: &Path) -> Result<Cidr, NetworkError> {
    if let Ok(text) = fs::read_to_string(file)
        && let Ok(block) = text.trim().parse::<Cidr>()
        && pool.covers(&block)
    {
        return Ok(block);
    }
    let taken = routes()?;
    let prefix = BLOCK_PREFIX.max(pool.prefix());
    let count = 1u64 << (prefix - pool.prefix());
    // Where the search begins follows from the name, so that a data directory keeps its block for long.
    let begin = instance.bytes().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let blocks = (0..count).map(|step| {
        let index = (begin.wrapping_add(step)) % count;
        Cidr::new(pool.nth(index << (32 - prefix)), prefix)
    });
    let free = blocks.into_iter().find(|block| !taken.iter().any(|route| route.overlaps(block)));
    free.ok_or_else(|| NetworkError::NoBlock { pool: pool.to_string() })
}

/// The blocks that the host has routes to, the default route aside.
fn routes() -> Result<Vec<Cidr>, NetworkError> {
    let path = Path::new("/proc/net/route");
    let text = fs::read_to_string(path)
        .map_err(|source| NetworkError::File { path: path.to_owned(), source })?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (base, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        let prefix = mask.count_ones() as u8;
        (prefix > 0).then(|| Cidr::new(Ipv4Addr::from_bits(base), prefix))
    };
    Ok(text.lines().skip(1).filter_map(route).collect())
}

/// Lets the host forward packets of the block to the outside, in the block's own name: a table of ours, so that
/// nobody's rules are touched. `links` is the beginning of our links' names.
pub(crate) fn masquerade(table: &str, links: &str, block: Cidr) -> Result<(), NetworkError> {
    nft(&format!(
        "add table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {block} oifname != \"{links}*\" masquerade\n  }}\n}}\n"
    ))
}

/// Removes that table.
pub(crate) fn stop_masquerade(table: &str) -> Result<(), NetworkError> {
    nft(&format!("add table ip {table}\ndelete table ip {table}\n"))
}

/// Turns the host's forwarding on. It stays on for good: by the time we leave, others may rely on it.
pub(crate) fn forward() -> Result<(), NetworkError> {
    let switch = Path::new("/proc/sys/net/ipv4/ip_forward");
    let told = |source| NetworkError::File { path: switch.to_owned(), source };
    if fs::read_to_string(switch).map_err(told)?.trim() == "0" {
        fs::write(switch, "1").map_err(told)?;
    }
    Ok(())
}

/// Gives nft a script, in the namespace of the calling thread.
pub(crate) fn nft(script: &str) -> Result<(), NetworkError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetworkError::Nft)?;
    // nft reads all of its input before it says anything, so writing it whole cannot block both sides.
    let written = child.stdin.take().expect("stdin is piped").write_all(script.as_bytes());
    let output = child.wait_with_output().map_err(NetworkError::Nft)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).chars().take(2000).collect();
        return Err(NetworkError::Rules { message });
    }
    written.map_err(NetworkError::Nft)
}

/// The pinned namespaces under `directory` whose VPC is not among `known`, and links of ours that lead nowhere
/// known.
pub(crate) fn leaks(
    inside: &Inside,
    directory: &Path,
    known: &[PathBuf],
    link_prefix: &str,
    known_links: &[String],
) -> Vec<Leak> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let pinned = entries.map(|entry| entry.path()).filter(|path| {
        path.extension().is_some_and(|extension| extension == "netns") && !known.contains(path)
    });
    let mut leaks: Vec<Leak> = pinned.map(Leak::Namespace).collect();
    let links = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = links.lines().filter_map(|line| line.split(':').next()).map(str::trim);
    let stray = names.filter(|name| {
        name.starts_with(link_prefix)
            && !known_links.iter().any(|known| known == name)
            && inside.has_link(name)
    });
    leaks.extend(stray.map(|name| Leak::Link(name.to_owned())));
    leaks
}

/// Removes a leak.
pub(crate) fn mend(inside: &Inside, leak: &Leak) -> Result<(), NetworkError> {
    match leak {
        Leak::Namespace(path) => namespace::unpin(path),
        Leak::Link(name) => inside.remove_link(name),
    }
}
