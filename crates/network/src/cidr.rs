//! IPv4 blocks.

use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 block, its address the first of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

/// The text is no block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 block like 10.0.0.0/16")]
pub struct BadCidr(String);

impl Cidr {
    /// The block of `prefix` bits that `address` lies in; `prefix` is at most 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        assert!(prefix <= 32, "an IPv4 prefix has at most 32 bits");
        Self { base: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// The first address.
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// The length of the prefix, in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address at `index`, which is less than the size.
    pub fn nth(&self, index: u64) -> Ipv4Addr {
        assert!(index < self.size(), "the block is smaller than that");
        Ipv4Addr::from_bits(self.base.to_bits() + index as u32)
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// Whether the blocks have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// Whether all of `other` lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(bad)?;
        Ok(Self::new(address, prefix))
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;
    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_contain_cover_and_overlap() {
        let block: Cidr = "10.0.17.3/16".parse().unwrap();
        assert_eq!(block.to_string(), "10.0.0.0/16");
        assert!(block.contains("10.0.255.255".parse().unwrap()));
        assert!(!block.contains("10.1.0.0".parse().unwrap()));
        let small: Cidr = "10.0.4.0/24".parse().unwrap();
        assert!(block.covers(&small) && !small.covers(&block) && small.overlaps(&block));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.covers(&block));
        assert_eq!((all.size(), small.nth(255).to_string()), (1 << 32, "10.0.4.255".into()));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "a/b"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
