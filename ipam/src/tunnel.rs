//! The addresses of a node's tunnel devices: which it should have, from which pools, under which handle. Pure.
//!
//! As Calico's node does it: the device of an encapsulation gets an address while an enabled pool of that encapsulation selects
//! the node, WireGuard's while it is on; the address is kept while it lies in such a pool.

use std::collections::BTreeMap;
use std::net::IpAddr;

use twill_model::resources::ippool::AllowedUse;

use crate::pool::{Encapsulation, Family, Pool};
use crate::request::{Assign, Release, ReleaseTarget, Riders, Want};
use crate::resources;

/// A tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// `tunl0`.
    Ipip,
    /// `vxlan.calico`.
    Vxlan,
    /// `vxlan-v6.calico`.
    VxlanV6,
    /// `wireguard.cali`.
    Wireguard,
    /// `wg-v6.cali`.
    WireguardV6,
}

impl Tunnel {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ipip,
        Self::Vxlan,
        Self::VxlanV6,
        Self::Wireguard,
        Self::WireguardV6,
    ];

    /// The handle of its address on `node`.
    #[must_use]
    pub fn handle(self, node: &str) -> String {
        let device = match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::VxlanV6 => "vxlan-v6",
            Self::Wireguard => "wireguard",
            Self::WireguardV6 => "wireguard-v6",
        };
        format!("{device}-tunnel-addr-{node}")
    }

    /// The `type` of the allocation.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Ipip => "ipipTunnelAddress",
            Self::Vxlan => "vxlanTunnelAddress",
            Self::VxlanV6 => "vxlanV6TunnelAddress",
            Self::Wireguard => "wireguardTunnelAddress",
            Self::WireguardV6 => "wireguardV6TunnelAddress",
        }
    }

    /// The family of its address.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Ipip | Self::Vxlan | Self::Wireguard => Family::V4,
            Self::VxlanV6 | Self::WireguardV6 => Family::V6,
        }
    }

    /// The pools, by name, that its address may come from: enabled, of its family and encapsulation (WireGuard takes any), for
    /// tunnels, and selecting a node with `labels`. A selector that cannot be read selects nobody.
    #[must_use]
    pub fn pools(self, pools: &[&Pool], labels: &BTreeMap<String, String>) -> Vec<String> {
        let carries = |pool: &Pool| match self {
            Self::Ipip => pool.encapsulation == Encapsulation::Ipip,
            Self::Vxlan | Self::VxlanV6 => pool.encapsulation == Encapsulation::Vxlan,
            Self::Wireguard | Self::WireguardV6 => true,
        };
        let selects = |pool: &Pool| {
            pool.node_selector.trim().is_empty()
                || resources::selects(&pool.node_selector, labels).unwrap_or(false)
        };
        let fits = |pool: &&&Pool| {
            !pool.disabled
                && pool.family() == self.family()
                && pool.allows(AllowedUse::Tunnel)
                && carries(pool)
                && selects(pool)
        };
        pools.iter().filter(fits).map(|pool| pool.name.clone()).collect()
    }

    /// What to do about its address on `node`, given the one that it has and the pools as [`Tunnel::pools`] names them.
    #[must_use]
    pub fn step(self, node: &str, current: Option<IpAddr>, pools: &[&Pool], chosen: &[String]) -> Step {
        let is_in = |address: IpAddr| {
            pools
                .iter()
                .any(|p| chosen.contains(&p.name) && p.cidr.contains(&address))
        };
        match current {
            Some(address) if is_in(address) => Step::Keep,
            Some(_) => Step::Release(self.release(node)),
            None if chosen.is_empty() => Step::Keep,
            None => Step::Assign(self.assign(node, chosen.to_vec())),
        }
    }

    /// The request for its address.
    #[must_use]
    pub fn assign(self, node: &str, pools: Vec<String>) -> Assign {
        Assign {
            handle: self.handle(node),
            attributes: BTreeMap::from([
                ("node".to_owned(), node.to_owned()),
                ("type".to_owned(), self.attribute().to_owned()),
            ]),
            wants: vec![Want::Any {
                family: self.family(),
                pools,
            }],
            purpose: AllowedUse::Tunnel,
            namespace_labels: BTreeMap::new(),
            riders: Riders::default(),
        }
    }

    /// The request to give its address back.
    #[must_use]
    pub fn release(self, node: &str) -> Release {
        Release {
            target: ReleaseTarget::Handle(self.handle(node)),
            riders: Riders::default(),
        }
    }
}

/// What to do about a tunnel's address.
#[derive(Clone, Debug)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Ask for one.
    Assign(Assign),
    /// Give it back; then look again.
    Release(Release),
}
