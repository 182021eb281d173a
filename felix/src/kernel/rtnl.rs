//! Numbers and small pieces of rtnetlink (linux/rtnetlink.h, if_link.h, neighbour.h), shared by routes, links and pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::wire::Wire;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;
pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_NEWNETCONF: u16 = 80;

pub(super) const RTNLGRP_LINK: u32 = 1;
pub(super) const RTNLGRP_NEIGH: u32 = 3;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(super) const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub(super) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(super) const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub(super) const RTNLGRP_IPV4_NETCONF: u32 = 24;
pub(super) const RTNLGRP_IPV6_NETCONF: u32 = 25;

pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_EXT_MASK: u16 = 29;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const VETH_INFO_PEER: u16 = 1;
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
pub(super) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
pub(super) const IFF_UP: u32 = 1;
/// Up, with carrier, and its queue working.
pub(super) const IFF_RUNNING: u32 = 0x40;
/// Leaves statistics out of a dump of links.
pub(super) const RTEXT_FILTER_SKIP_STATS: u32 = 8;

pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFA_FLAGS: u16 = 8;
pub(super) const IFA_F_NODAD: u32 = 2;

pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
pub(super) const NDA_IFINDEX: u16 = 8;
pub(super) const NUD_PERMANENT: u16 = 0x80;

pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_MULTIPATH: u16 = 9;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_VIA: u16 = 18;
pub(super) const FRA_SRC: u16 = 2;
pub(super) const FRA_PRIORITY: u16 = 6;
pub(super) const FRA_TABLE: u16 = 15;
/// The rule leads to a table.
pub(super) const FR_ACT_TO_TBL: u8 = 1;
/// The table's number stands in an attribute.
pub(super) const RT_TABLE_UNSPEC: u8 = 0;
pub(super) const RT_TABLE_MAIN: u8 = 254;
pub(super) const RT_TABLE_LOCAL: u8 = 255;
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(super) const RT_SCOPE_LINK: u8 = 253;
pub(super) const RT_SCOPE_NOWHERE: u8 = 255;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTN_LOCAL: u8 = 2;
pub(super) const RTN_BLACKHOLE: u8 = 6;
pub(super) const RTNH_F_ONLINK: u8 = 4;
/// RTPROT_BOOT: of Felix's routes to pods.
pub(super) const RTPROT_BOOT: u8 = 3;
/// RTPROT_BIRD: of BIRD's routes.
pub(super) const RTPROT_BIRD: u8 = 12;
/// RTPROT_STATIC: of the routes inside a pod.
pub(super) const RTPROT_STATIC: u8 = 4;

/// Bytes of `struct rtmsg`, `ifinfomsg`, `ndmsg`, `ifaddrmsg`.
pub(super) const RTMSG_LEN: usize = 12;
pub(super) const IFINFOMSG_LEN: usize = 16;
pub(super) const NDMSG_LEN: usize = 12;
pub(super) const IFADDRMSG_LEN: usize = 8;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

pub(super) fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An address out of 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| Ipv6Addr::from(sixteen).into())
}

/// `struct ifinfomsg`: `change` says which of the flags count.
pub(super) fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_LEN] {
    let mut body = [0; IFINFOMSG_LEN];
    for (at, value) in [(4, index), (8, flags), (12, change)] {
        put(&mut body, at, &value.to_ne_bytes());
    }
    body
}

/// `struct ndmsg` of a permanent neighbour.
pub(super) fn ndmsg(family: u8, index: u32) -> [u8; NDMSG_LEN] {
    let mut body = [0; NDMSG_LEN];
    put(&mut body, 0, &[family]);
    put(&mut body, 4, &index.to_ne_bytes());
    put(&mut body, 8, &NUD_PERMANENT.to_ne_bytes());
    body
}

/// `struct ifaddrmsg`.
pub(super) fn ifaddrmsg(ip: IpAddr, prefix_len: u8, scope: u8, index: u32) -> [u8; IFADDRMSG_LEN] {
    let mut body = [0; IFADDRMSG_LEN];
    put(&mut body, 0, &[family(ip), prefix_len, 0, scope]);
    put(&mut body, 4, &index.to_ne_bytes());
    body
}

/// `struct rtmsg` in the main table.
pub(super) fn rtmsg(dst: IpNet, protocol: u8, scope: u8, kind: u8) -> [u8; RTMSG_LEN] {
    [
        family(dst.addr()),
        dst.prefix_len(),
        0,
        0,
        RT_TABLE_MAIN,
        protocol,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ]
}

/// `struct fib_rule_hdr` of a rule that sends what comes from one address to a table.
pub(super) fn fib_rule_hdr(from: IpAddr) -> [u8; RTMSG_LEN] {
    let len = if from.is_ipv4() { 32 } else { 128 };
    [
        family(from),
        0,
        len,
        0,
        RT_TABLE_UNSPEC,
        0,
        0,
        FR_ACT_TO_TBL,
        0,
        0,
        0,
        0,
    ]
}

/// Attributes of an address: local and peer are the same.
pub(super) fn address_attrs(w: &mut Wire, ip: IpAddr) {
    w.attr(IFA_LOCAL, &octets(ip));
    w.attr(IFA_ADDRESS, &octets(ip));
    if ip.is_ipv6() {
        w.attr_u32(IFA_FLAGS, IFA_F_NODAD);
    }
}

fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in body.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
