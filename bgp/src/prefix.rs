//! Prefixes as the RIB keys them: small, masked, ordered, one type a family.

use crate::family::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A prefix of one family. Bits beyond the length are zero, always.
pub trait Prefix: Copy + Debug + Eq + Ord + Hash + Send + Sync + 'static {
    /// The family whose prefixes these are.
    const FAMILY: Family;
    /// The greatest legal prefix length.
    const LEN_MAX: u8;

    /// The prefix of this length whose address begins with `octets`; what is missing counts as zero, what lies beyond
    /// the length is cleared. `None` if the length is beyond [`Prefix::LEN_MAX`].
    fn from_octets(octets: &[u8], len: u8) -> Option<Self>;
    /// The prefix length in bits.
    fn bits(self) -> u8;
    /// Appends the NLRI form: length, then as few octets as hold it (RFC 4271 section 4.3).
    fn encode(self, out: &mut Vec<u8>);
    /// The prefix in the form that people and the rest of the program use.
    fn net(self) -> IpNet;
    /// The prefix of such a form, if it is of this family.
    fn of_net(net: IpNet) -> Option<Self>;
    /// A prefix that no speaker may take a route for: loopback, link-local IPv6, multicast, class E, `0/8` and what
    /// begins with it but for the default and its lower half.
    fn is_martian(self) -> bool;
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4 {
    addr: u32,
    len: u8,
}

/// An IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6 {
    addr: [u8; 16],
    len: u8,
}

/// How many octets hold a prefix of this many bits.
#[must_use]
pub const fn octets(len: u8) -> usize {
    len.div_ceil(8) as usize
}

impl Prefix for V4 {
    const FAMILY: Family = Family::Ipv4Unicast;
    const LEN_MAX: u8 = 32;

    fn from_octets(octets: &[u8], len: u8) -> Option<Self> {
        if len > Self::LEN_MAX {
            return None;
        }
        let mut addr = [0; 4];
        addr.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        Some(Self {
            addr: u32::from_be_bytes(addr) & mask,
            len,
        })
    }

    fn bits(self) -> u8 {
        self.len
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.push(self.len);
        out.extend(self.addr.to_be_bytes().into_iter().take(octets(self.len)));
    }

    fn net(self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(self.addr), self.len))
    }

    fn of_net(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Self::from_octets(&net.addr().octets(), net.prefix_len()),
            IpNet::V6(_) => None,
        }
    }

    fn is_martian(self) -> bool {
        let first = self.addr >> 24;
        (first == 0 && self.len > 1) || first == 127 || first >= 224
    }
}

impl Prefix for V6 {
    const FAMILY: Family = Family::Ipv6Unicast;
    const LEN_MAX: u8 = 128;

    fn from_octets(octets: &[u8], len: u8) -> Option<Self> {
        if len > Self::LEN_MAX {
            return None;
        }
        let mut addr = [0; 16];
        addr.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Some(Self {
            addr: (u128::from_be_bytes(addr) & mask).to_be_bytes(),
            len,
        })
    }

    fn bits(self) -> u8 {
        self.len
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.push(self.len);
        out.extend(self.addr.into_iter().take(octets(self.len)));
    }

    fn net(self) -> IpNet {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(self.addr), self.len))
    }

    fn of_net(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Self::from_octets(&net.addr().octets(), net.prefix_len()),
        }
    }

    fn is_martian(self) -> bool {
        let addr = Ipv6Addr::from(self.addr);
        let link_local = self.len >= 10 && addr.is_unicast_link_local();
        link_local
            || addr.is_multicast()
            || (self.len == 128 && (addr.is_loopback() || addr.is_unspecified()))
    }
}

/// Whether a connection from `peer` is awaited rather than dialled in the node mesh: Calico's rule, the side whose peer's
/// address *string* is the greater one stays passive.
#[must_use]
pub fn mesh_passive(own: IpAddr, peer: IpAddr) -> bool {
    peer.to_string() > own.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> V4 {
        V4::of_net(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn bits_beyond_the_length_are_cleared() {
        assert_eq!(v4("10.1.2.3/8"), v4("10.0.0.0/8"));
        assert_eq!(V4::from_octets(&[255; 4], 0), V4::from_octets(&[], 0));
        assert_eq!(V6::from_octets(&[255; 16], 0), V6::from_octets(&[], 0));
        assert_eq!(
            V6::from_octets(&[0xff; 16], 9).unwrap().net().to_string(),
            "ff80::/9"
        );
    }

    #[test]
    fn lengths_beyond_the_family_are_refused() {
        assert!(V4::from_octets(&[1; 16], 33).is_none());
        assert!(V4::from_octets(&[1; 16], 32).is_some());
        assert!(V6::from_octets(&[1; 16], 129).is_none());
    }

    #[test]
    fn nlri_takes_as_few_octets_as_hold_the_length() {
        let mut out = Vec::new();
        v4("10.244.0.64/26").encode(&mut out);
        assert_eq!(out, [26, 10, 244, 0, 64]);
        out.clear();
        v4("0.0.0.0/0").encode(&mut out);
        assert_eq!(out, [0]);
    }

    #[test]
    fn martians_are_told_from_the_default_route() {
        assert!(!v4("0.0.0.0/0").is_martian());
        assert!(!v4("0.0.0.0/1").is_martian(), "half of all is no martian");
        assert!(v4("0.0.0.0/2").is_martian());
        assert!(v4("0.1.0.0/16").is_martian());
        assert!(v4("127.0.0.1/32").is_martian());
        assert!(v4("224.0.0.0/4").is_martian());
        assert!(!v4("10.0.0.0/8").is_martian());
        assert!(V6::of_net("fe80::/64".parse().unwrap()).unwrap().is_martian());
        assert!(!V6::of_net("::/0".parse().unwrap()).unwrap().is_martian());
    }

    #[test]
    fn the_mesh_rule_compares_strings_not_numbers() {
        let at = |s: &str| s.parse().unwrap();
        assert!(mesh_passive(at("172.31.0.1"), at("172.31.0.2")));
        assert!(!mesh_passive(at("172.31.0.2"), at("172.31.0.1")));
        assert!(mesh_passive(at("172.31.0.10"), at("172.31.0.9")));
    }
}
