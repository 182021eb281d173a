//! Forgetting connections: what conntrack remembers of an address goes before the address may be given to another pod.
//!
//! An entry outlives the pod: packets of its flow are `established` and pass by whatever policy the new pod has, until it times out
//! (five days for TCP). Sources: linux/netfilter/nfnetlink_conntrack.h.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::netlink::{NetlinkError, Socket};
use super::wire::{self, Message, Wire};

const SUBSYSTEM: u16 = 1 << 8;
const CT_GET: u16 = SUBSYSTEM | 1;
const CT_DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
/// Source and destination of either family.
const ADDRESSES: std::ops::RangeInclusive<u16> = 1..=4;
/// Bytes of `struct nfgenmsg`.
const GENMSG_LEN: usize = 4;

/// An entry, as far as it takes to delete it.
#[derive(Debug)]
struct Entry {
    family: u8,
    orig: Vec<u8>,
    zone: Option<Vec<u8>>,
    /// So that a new entry of the same flow is not taken for the old one.
    id: Option<Vec<u8>>,
}

/// Deletes every entry that one of `addresses` takes part in, before or after translation, and says how many there were. One
/// walk over the table for each family, however many addresses: about 60 ms for 100,000 entries.
///
/// `socket` speaks to netfilter in the node's namespace.
///
/// # Errors
/// When the kernel refuses; an entry that ended by itself meanwhile is none.
pub fn forget(socket: &mut Socket, addresses: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
    let mut deleted = 0;
    for (family, of_family) in [
        (libc::AF_INET, addresses.iter().any(IpAddr::is_ipv4)),
        (libc::AF_INET6, addresses.iter().any(IpAddr::is_ipv6)),
    ] {
        if !of_family {
            continue;
        }
        let family = u8::try_from(family).unwrap_or(0);
        let found: Vec<Entry> = socket.dump(
            CT_GET,
            &genmsg(family),
            |_| {},
            |found: &mut Vec<Entry>, m| {
                found.extend(entry(&m, addresses));
            },
        )?;
        for entry in found {
            let gone = socket.request(CT_DELETE, 0, &genmsg(entry.family), |w| entry.name(w));
            match gone {
                Ok(()) => deleted += 1,
                Err(e) if e.errno() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(deleted)
}

impl Entry {
    fn name(&self, wire: &mut Wire) {
        wire.nested(CTA_TUPLE_ORIG, |w| w.raw(&self.orig));
        let fields = [(CTA_ZONE, &self.zone), (CTA_ID, &self.id)];
        for (kind, field) in fields {
            if let Some(field) = field {
                wire.attr(kind, field);
            }
        }
    }
}

fn genmsg(family: u8) -> [u8; GENMSG_LEN] {
    [family, 0, 0, 0]
}

/// The entry of a message, if one of `addresses` takes part in it.
fn entry(message: &Message<'_>, addresses: &BTreeSet<IpAddr>) -> Option<Entry> {
    let family = *message.payload.first()?;
    let attrs = message.payload.get(GENMSG_LEN..)?;
    let orig = wire::find(attrs, CTA_TUPLE_ORIG)?;
    let reply = wire::find(attrs, CTA_TUPLE_REPLY).unwrap_or_default();
    let is_ours = [orig, reply].into_iter().any(|tuple| {
        let ip = wire::find(tuple, CTA_TUPLE_IP).unwrap_or_default();
        let ends = wire::attrs(ip).filter(|(kind, _)| ADDRESSES.contains(kind));
        let mut ends = ends.filter_map(|(_, payload)| address(payload));
        ends.any(|address| addresses.contains(&address))
    });
    let copied = |kind| wire::find(attrs, kind).map(<[u8]>::to_vec);
    is_ours.then(|| Entry {
        family,
        orig: orig.to_vec(),
        zone: copied(CTA_ZONE),
        id: copied(CTA_ID),
    })
}

fn address(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => <[u8; 4]>::try_from(payload).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(payload).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::Protocol;
    use crate::kernel::netns::Netns;
    use crate::kernel::testing::{eventually, run, try_run};

    /// Makes the namespace track connections, and gives it addresses to talk to itself by.
    fn tracking(addresses: &[&str]) {
        run("ip link set lo up");
        for address in addresses {
            run(&format!("ip address add {address} dev lo"));
        }
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook output priority 0 ; }");
        run("nft add rule inet t c ct state new counter");
    }

    fn entries() -> String {
        std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap()
    }

    fn pings(from: &str, to: &str) {
        eventually(to, || try_run(&format!("ping -n -c 1 -W 1 -I {from} {to}")).0);
    }

    fn forget_of(addresses: &[&str]) -> usize {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        forget(&mut Socket::open(Protocol::Netfilter).unwrap(), &addresses).unwrap()
    }

    #[test]
    fn entries_of_an_address_go_both_ways_and_those_of_others_stay() {
        Netns::new().unwrap().run(|| {
            tracking(&["10.65.0.1/32", "10.65.0.2/32", "10.65.0.3/32"]);
            pings("10.65.0.1", "10.65.0.2");
            pings("10.65.0.3", "10.65.0.1");
            pings("10.65.0.2", "10.65.0.3");
            assert_eq!(entries().matches("icmp ").count(), 3, "{}", entries());
            assert_eq!(forget_of(&["10.65.0.1", "10.65.0.9"]), 2);
            let left = entries();
            assert!(
                !left.contains("10.65.0.1 ") && left.contains("src=10.65.0.2 dst=10.65.0.3"),
                "{left}"
            );
            assert_eq!(forget_of(&["10.65.0.1"]), 0);
        });
    }

    #[test]
    fn an_entry_is_found_by_what_an_address_was_translated_to() {
        Netns::new().unwrap().run(|| {
            tracking(&["10.65.0.1/32", "10.65.0.2/32"]);
            run("nft add chain inet t n { type nat hook output priority -100 ; }");
            run("nft add rule inet t n ip daddr 192.0.2.7 dnat ip to 10.65.0.2");
            run("ip route add 192.0.2.7/32 dev lo");
            pings("10.65.0.1", "192.0.2.7");
            assert!(entries().contains("dst=192.0.2.7"), "{}", entries());
            assert_eq!(forget_of(&["10.65.0.2"]), 1);
            assert!(!entries().contains("dst=192.0.2.7"), "{}", entries());
        });
    }

    #[test]
    fn entries_of_ipv6_go_too() {
        Netns::new().unwrap().run(|| {
            tracking(&["fd65::1/128", "fd65::2/128"]);
            pings("fd65::1", "fd65::2");
            assert!(entries().contains("icmpv6"), "{}", entries());
            assert_eq!(forget_of(&["fd65::2"]), 1);
            assert!(!entries().contains("icmpv6"), "{}", entries());
        });
    }
}
