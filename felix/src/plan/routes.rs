//! Routes that this node should hold, and which of several wins for one destination.
//!
//! Each route of ours carries a protocol number by which we know it again after a restart: 80 for what follows
//! from the datastore (workloads, blackholes, tunnels), 81 for what BGP taught us. Other protocols are foreign
//! and never touched. All of ours have one metric, so that a change of class for a destination is one atomic replace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::name::IfName;

/// Route protocol of workload routes, blackholes and tunnels (Calico's Felix uses the same number).
pub const PROTOCOL_LOCAL: u8 = 80;
/// Route protocol of routes learned by BGP.
pub const PROTOCOL_BGP: u8 = 81;
/// Metric of all our routes (Calico's `ipv4NormalRoutePriority` default; the kernel's own default for IPv6).
pub const METRIC: u32 = 1024;
/// Gateway of every workload (Calico's value, `hostLinkLocal` of its CNI plugin).
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Most next hops in one multipath route. The kernel takes more; BGP multipath beyond this brings nothing here.
pub const NEXT_HOPS_MAX: usize = 64;

/// Desired routes by destination: at most one for each.
pub type Routes = BTreeMap<IpNet, Route>;

/// One desired route, without its destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// A workload of this node: `dev <link> scope link`. The destination is a /32 or /128.
    Workload {
        /// The host side of its link.
        link: IfName,
    },
    /// This node's own block: unassigned addresses end here rather than loop by the default route.
    Blackhole,
    /// 169.254.1.1/32 by `lo`: gives proxy-ARP a route to answer for on a node without a default route.
    /// Measured: without any route to it the kernel does not answer the pod's ARP request.
    ProxyArpGateway,
    /// Learned by BGP: sorted, without duplicates, at least one next hop. Build it with [`Route::bgp`].
    Bgp(Vec<NextHop>),
}

/// One next hop of a route learned by BGP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The gateway: of the destination's family, or of IPv6 for IPv4 (RFC 8950).
    pub via: IpAddr,
    /// Interface; needed for link-local gateways and for `onlink`.
    pub dev: Option<IfName>,
    /// Trust that the gateway is on `dev` even when no connected route covers it.
    pub onlink: bool,
    /// 1 to 256; the kernel spreads flows in proportion.
    pub weight: Weight,
}

/// Weight of a next hop: 1 to 256 (`rtnh_hops` holds one less in eight bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u8);

impl Weight {
    /// Weight of an ordinary next hop.
    pub const ONE: Self = Self(0);

    /// The nearest weight that the kernel can hold.
    #[must_use]
    pub fn saturating(weight: u32) -> Self {
        Self(u8::try_from(weight.clamp(1, 256) - 1).unwrap_or(u8::MAX))
    }

    /// As `rtnh_hops` holds it: the weight less one.
    #[must_use]
    pub fn rtnh_hops(self) -> u8 {
        self.0
    }

    /// From `rtnh_hops`.
    #[must_use]
    pub fn from_rtnh_hops(hops: u8) -> Self {
        Self(hops)
    }
}

impl NextHop {
    /// A plain gateway, resolved by the kernel through its connected routes.
    #[must_use]
    pub fn via(via: IpAddr) -> Self {
        Self {
            via,
            dev: None,
            onlink: false,
            weight: Weight::ONE,
        }
    }
}

impl Route {
    /// A route learned by BGP, in canonical order, cut to [`NEXT_HOPS_MAX`]. `None` when there is no next hop.
    #[must_use]
    pub fn bgp(hops: impl IntoIterator<Item = NextHop>) -> Option<Self> {
        let mut hops: Vec<_> = hops.into_iter().collect();
        hops.sort();
        hops.dedup();
        hops.truncate(NEXT_HOPS_MAX);
        if hops.is_empty() {
            None
        } else {
            Some(Self::Bgp(hops))
        }
    }

    /// The protocol number that the route carries in the kernel.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self {
            Self::Workload { .. } | Self::Blackhole | Self::ProxyArpGateway => PROTOCOL_LOCAL,
            Self::Bgp(_) => PROTOCOL_BGP,
        }
    }

    /// Which of two routes for one destination wins: the lower. A workload beats what BGP says of its address,
    /// and BGP beats a blackhole (a block whose affinity moved away while its blackhole is still listed).
    #[must_use]
    pub fn class(&self) -> u8 {
        match self {
            Self::Workload { .. } => 0,
            Self::ProxyArpGateway => 1,
            Self::Bgp(_) => 2,
            Self::Blackhole => 3,
        }
    }
}

/// The winner for each destination, out of this node's own routes and those that BGP learned.
#[must_use]
pub fn resolve(own: Routes, bgp: &Routes) -> Routes {
    let mut all = own;
    for (dst, route) in bgp {
        match all.get(dst) {
            Some(held) if held.class() <= route.class() => {}
            _ => {
                all.insert(*dst, route.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    #[test]
    fn workload_beats_bgp_and_bgp_beats_blackhole() {
        let bgp = Route::bgp([NextHop::via("172.31.0.2".parse().unwrap())]).unwrap();
        let pod = Route::Workload {
            link: IfName::new("cali1").unwrap(),
        };
        let own = Routes::from([
            (net("10.0.0.1/32"), pod.clone()),
            (net("10.0.0.0/26"), Route::Blackhole),
        ]);
        let learned = Routes::from([
            (net("10.0.0.1/32"), bgp.clone()),
            (net("10.0.0.0/26"), bgp.clone()),
        ]);
        let all = resolve(own, &learned);
        assert_eq!(all[&net("10.0.0.1/32")], pod);
        assert_eq!(all[&net("10.0.0.0/26")], bgp);
    }

    #[test]
    fn bgp_next_hops_are_canonical_and_never_empty() {
        let (a, b) = ("172.31.0.1".parse().unwrap(), "172.31.0.2".parse().unwrap());
        let one = Route::bgp([NextHop::via(b), NextHop::via(a), NextHop::via(b)]);
        assert_eq!(one, Route::bgp([NextHop::via(a), NextHop::via(b)]));
        assert_eq!(Route::bgp([]), None);
    }

    #[test]
    fn weight_fits_the_kernels_eight_bits() {
        assert_eq!(Weight::saturating(0).rtnh_hops(), 0);
        assert_eq!(Weight::saturating(256).rtnh_hops(), 255);
        assert_eq!(Weight::saturating(9999), Weight::saturating(256));
    }
}
