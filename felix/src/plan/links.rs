//! Host side of workload links, and settings of the node as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::name::Mac;

/// Source validation by reverse path, `net.ipv4.conf.*.rp_filter` (RFC 3704).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpFilter {
    /// 0: none.
    Off,
    /// 1: the best route back must leave by the same interface.
    Strict,
    /// 2: some route back must exist.
    Loose,
}

/// What the host side of one workload interface should be. The device itself is made by `kernel::pod`; the
/// settings below are applied to it whenever it appears, and again when somebody changes them.
///
/// Always set, and therefore not a field: `forwarding` 1, `proxy_arp` 1, `proxy_delay` 0 (the kernel's default
/// delays the first answer by up to 0.8 s), `route_localnet` 0, `accept_ra` 0, link up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Permanent neighbours: the workload's addresses at its own MAC. Other neighbours of the link are left alone.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// Puts `fe80::1/64` on the link: the workload's IPv6 gateway.
    pub gateway_v6: bool,
    /// `None` leaves `rp_filter` as found: anti-spoofing is done in nf_tables.
    pub rp_filter: Option<RpFilter>,
}

/// Settings of the node as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// Makes the node forward IPv4 (`net.ipv4.ip_forward`). `false` leaves it as found: it is never turned off.
    pub forward_v4: bool,
    /// Makes the node forward IPv6 (`net.ipv6.conf.all.forwarding`). `false` leaves it as found.
    pub forward_v6: bool,
}
