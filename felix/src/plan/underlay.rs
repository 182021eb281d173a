//! How next hops are reached: the node's routes that are not ours, and the longest match over them.
//!
//! A next hop that BGP teaches need not be a neighbour: another rack's node is reached by the way the node's own
//! routes lead there (RFC 4271 section 5.1.3, recursive resolution). Only routes of others count. Ours (protocols 80
//! and 81) are never looked at: a route that BGP taught cannot carry its own next hop, by a default route or any other.
//! Rules, other tables than main, and routes for single types of service are not looked at either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::name::IfName;
use super::routes::{NEXT_HOPS_MAX, NextHop, Weight};

/// Routes of others that are kept at most, about 200 bytes each. A node that holds more of them than a small router is fed
/// by another routing daemon; those with the longest prefixes that do not fit are passed over.
pub const UNDERLAY_MAX: usize = 1 << 16;

/// The routes of others in the main table, and the node's own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// By destination: the lowest metric, and what it does.
    routes: BTreeMap<IpNet, (u32, Forward)>,
    own: BTreeSet<IpAddr>,
}

/// What a route of others does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forward {
    /// It forwards by these; a live route has one at least.
    Hops(Vec<Hop>),
    /// Blackhole, unreachable, prohibit, throw: nothing is forwarded.
    Refuse,
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The gateway; `None` when the destination is a neighbour on the link.
    pub via: Option<IpAddr>,
    /// The interface.
    pub dev: IfName,
    /// The gateway counts as a neighbour although no subnet covers it.
    pub onlink: bool,
    /// Its share of the flows.
    pub weight: Weight,
}

/// How a next hop is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is a neighbour on this interface.
    OnLink(IfName),
    /// It is behind these gateways: sorted, at least one.
    Via(Vec<Hop>),
}

/// Why a next hop is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// No route of others covers it.
    NoRoute,
    /// The route that covers it refuses it, or none of its ways is alive or of its family.
    Refused(IpNet),
    /// It is an address of this node.
    Own,
    /// It means nothing without an interface.
    LinkLocal,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route of this node leads there"),
            Self::Refused(net) => write!(f, "the route to {net}, which covers it, forwards nothing there"),
            Self::Own => f.write_str("it is an address of this node"),
            Self::LinkLocal => f.write_str("it is link-local and nothing says on which interface"),
        }
    }
}

impl Underlay {
    /// Takes a route of somebody else. Of several for one destination that with the lowest metric counts, whatever the
    /// order; a destination beyond [`UNDERLAY_MAX`] pushes out the longest prefix.
    pub fn add(&mut self, dst: IpNet, metric: u32, forward: Forward) {
        let new = (metric, forward);
        match self.routes.get_mut(&dst) {
            Some(held) if *held <= new => {}
            Some(held) => *held = new,
            None => {
                self.routes.insert(dst, new);
            }
        }
        if self.routes.len() > UNDERLAY_MAX {
            let longest = self
                .routes
                .keys()
                .max_by_key(|net| (net.prefix_len(), **net))
                .copied();
            longest.and_then(|net| self.routes.remove(&net));
        }
    }

    /// Takes an address of this node.
    pub fn add_own(&mut self, address: IpAddr) {
        self.own.insert(address);
    }

    /// How an address is reached: by the longest prefix that covers it.
    ///
    /// # Errors
    /// [`Unreached`] says why it is not.
    pub fn reach(&self, address: IpAddr) -> Result<Reached, Unreached> {
        if self.own.contains(&address) {
            return Err(Unreached::Own);
        }
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return Err(Unreached::LinkLocal);
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let covering = (0..=longest).rev().filter_map(|len| {
            let net = IpNet::new(address, len).ok()?.trunc();
            self.routes.get_key_value(&net)
        });
        let (net, (_, forward)) = covering.into_iter().next().ok_or(Unreached::NoRoute)?;
        let Forward::Hops(hops) = forward else {
            return Err(Unreached::Refused(*net));
        };
        if let Some(hop) = hops.iter().find(|hop| hop.via.is_none()) {
            return Ok(Reached::OnLink(hop.dev));
        }
        let same_family = |hop: &&Hop| hop.via.is_some_and(|via| via.is_ipv4() == address.is_ipv4());
        let mut usable: Vec<Hop> = hops.iter().filter(same_family).cloned().collect();
        usable.sort();
        usable.dedup();
        usable.truncate(NEXT_HOPS_MAX);
        if usable.is_empty() {
            return Err(Unreached::Refused(*net));
        }
        Ok(Reached::Via(usable))
    }
}

impl Reached {
    /// The next hops to put into the kernel for one that BGP taught.
    #[must_use]
    pub fn resolve(&self, taught: &NextHop) -> Vec<NextHop> {
        match self {
            Self::OnLink(dev) => vec![NextHop {
                dev: Some(*dev),
                ..taught.clone()
            }],
            Self::Via(hops) => {
                let one = |hop: &Hop| {
                    Some(NextHop {
                        via: hop.via?,
                        dev: Some(hop.dev),
                        onlink: hop.onlink,
                        weight: if hops.len() == 1 {
                            taught.weight
                        } else {
                            hop.weight
                        },
                    })
                };
                hops.iter().filter_map(one).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
