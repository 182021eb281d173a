//! Link-local addresses with their links. `fe80::1` says nothing by itself; the same address may be a neighbour on every link.
//! Where only one address has room, the link stands inside it, in octets 4 to 7, which are zero in every link-local address
//! (RFC 4291 section 2.5.6): `fe80:0:0:3::1` is `fe80::1` on link 3. Such an address is never seen on the wire.
//!
//! For next hops and for our own end of a session the link is the interface's index; for a peer, whose interface need not be
//! there yet, it stands for the interface's name.

use std::net::{IpAddr, Ipv6Addr};

/// Longest name of an interface (`IFNAMSIZ` of linux/if.h, less the zero at its end).
pub const NAME_OCTETS_MAX: usize = 15;

/// A link-local address on a link; any other address stays as it is.
#[must_use]
pub const fn scoped(address: Ipv6Addr, link: u32) -> Ipv6Addr {
    if !address.is_unicast_link_local() {
        return address;
    }
    let octets = address.octets();
    let [a, b, c, d] = link.to_be_bytes();
    let [x0, x1, .., x8, x9, x10, x11, x12, x13, x14, x15] = octets;
    Ipv6Addr::from_octets([x0, x1, 0, 0, a, b, c, d, x8, x9, x10, x11, x12, x13, x14, x15])
}

/// The address as the wire knows it, and its link; 0 is none.
#[must_use]
pub const fn split(address: Ipv6Addr) -> (Ipv6Addr, u32) {
    if !address.is_unicast_link_local() {
        return (address, 0);
    }
    let [_, _, _, _, a, b, c, d, ..] = address.octets();
    (scoped(address, 0), u32::from_be_bytes([a, b, c, d]))
}

/// The address as the wire knows it.
#[must_use]
pub const fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(split(v6).0),
    }
}

/// The link of an address; 0 is none.
#[must_use]
pub const fn of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) => split(v6).1,
    }
}

/// What a peer on an interface is known by: its link-local address there, or, without one, whoever is the neighbour.
#[must_use]
pub fn identity(interface: &str, address: Option<Ipv6Addr>) -> IpAddr {
    // FNV-1a. That two names of one host have the same is refused as two entries for one peer.
    let hash = interface.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    let none = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    scoped(address.unwrap_or(none), hash.max(1)).into()
}

/// The address that an identity was made with, if it was made with one.
#[must_use]
pub fn named(identity: Ipv6Addr) -> Option<Ipv6Addr> {
    let plain = split(identity).0;
    (plain.segments() != [0xfe80, 0, 0, 0, 0, 0, 0, 0]).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_link_goes_into_a_link_local_address_and_comes_out_again() {
        let on = scoped(v6("fe80::1:2"), 0x0102_0304);
        assert_eq!(on, v6("fe80:0:102:304::1:2"));
        assert_eq!(split(on), (v6("fe80::1:2"), 0x0102_0304));
        // Whatever stood there is no link of ours.
        assert_eq!(scoped(on, 7), v6("fe80:0:0:7::1:2"));
        assert_eq!(split(v6("fe80::1")), (v6("fe80::1"), 0));
    }

    #[test]
    fn other_addresses_have_no_link() {
        for address in ["fd00::1", "2001:db8:1:2::3", "::1", "ff02::1"].map(v6) {
            assert_eq!((scoped(address, 7), split(address)), (address, (address, 0)));
        }
        assert_eq!(
            (
                plain("10.0.0.1".parse().unwrap()),
                of("10.0.0.1".parse().unwrap())
            ),
            ("10.0.0.1".parse().unwrap(), 0)
        );
    }

    #[test]
    fn peers_on_links_are_told_apart_by_name_and_address() {
        let one = identity("eth0", Some(v6("fe80::1")));
        assert_ne!(one, identity("eth1", Some(v6("fe80::1"))));
        assert_ne!(one, identity("eth0", None));
        assert_eq!(one, identity("eth0", Some(v6("fe80::1"))));
        let named_of = |a: IpAddr| match a {
            IpAddr::V6(a) => named(a),
            IpAddr::V4(_) => None,
        };
        assert_eq!(
            (named_of(one), named_of(identity("eth0", None))),
            (Some(v6("fe80::1")), None)
        );
    }
}
