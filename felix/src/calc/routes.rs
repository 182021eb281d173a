//! Routes of this node's own making, and the prefixes that it should announce.
//!
//! Ownership of a block is its own `affinity` field, not the affinity key: that is what Calico's Felix goes by.
//! An address that this node took out of another's block is announced by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::ipam::Block;

use super::endpoint::{EndpointId, Local};
use crate::plan::routes::{GATEWAY_V4, Route, Routes as Plan};

/// Attribute of an allocation that names its node.
const NODE_ATTRIBUTE: &str = "node";

/// What a block means to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockFacts {
    /// It is this node's.
    Own,
    /// It is not, but these addresses of it are.
    Borrowed(Vec<IpAddr>),
}

impl BlockFacts {
    /// Reads a block; `None` if it means nothing to this node.
    #[must_use]
    pub fn read(block: &Block, node: &str) -> Option<Self> {
        if block.host() == Some(node) {
            return Some(Self::Own);
        }
        let ours = |ordinal: &u32| {
            let attribute = block.attribute(*ordinal);
            attribute.is_some_and(|a| a.secondary.get(NODE_ATTRIBUTE).is_some_and(|n| n == node))
        };
        let ordinals = 0..u32::try_from(block.allocations.len()).unwrap_or(u32::MAX);
        let borrowed: Vec<_> = ordinals.filter(ours).filter_map(|o| block.address(o)).collect();
        (!borrowed.is_empty()).then_some(Self::Borrowed(borrowed))
    }
}

/// The inputs of this node's routes.
#[derive(Debug)]
pub struct Routes {
    blocks: BTreeMap<IpNet, BlockFacts>,
    links: BTreeMap<EndpointId, Local>,
    dirty: bool,
}

impl Default for Routes {
    /// Nothing known: dirty, because even then there is a route to hold (the proxy-ARP gateway's).
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            links: BTreeMap::new(),
            dirty: true,
        }
    }
}

impl Routes {
    /// Adds, replaces or removes a block.
    pub fn set_block(&mut self, cidr: IpNet, facts: Option<BlockFacts>) {
        let old = match facts.clone() {
            Some(facts) => self.blocks.insert(cidr, facts),
            None => self.blocks.remove(&cidr),
        };
        self.dirty |= old != facts;
    }

    /// Adds, replaces or removes an endpoint of this node.
    pub fn set_local(&mut self, id: &EndpointId, local: Option<Local>) {
        let old = match local.clone() {
            Some(local) => self.links.insert(id.clone(), local),
            None => self.links.remove(id),
        };
        self.dirty |= old != local;
    }

    /// Whether anything changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The endpoints of this node.
    pub fn links(&self) -> impl Iterator<Item = (&EndpointId, &Local)> {
        self.links.iter()
    }

    /// The routes that this node should hold by itself.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::new();
        plan.insert(IpNet::from(IpAddr::from(GATEWAY_V4)), Route::ProxyArpGateway);
        for (cidr, facts) in &self.blocks {
            // A block of one address is the address itself: a blackhole would only compete with it.
            if *facts == BlockFacts::Own && cidr.prefix_len() < cidr.max_prefix_len() {
                plan.insert(*cidr, Route::Blackhole);
            }
        }
        for local in self.links.values() {
            for addr in &local.addrs {
                plan.insert(IpNet::from(*addr), Route::Workload { link: local.link });
            }
        }
        plan
    }

    /// The prefixes that this node should announce: its blocks, and what it borrowed.
    #[must_use]
    pub fn announce(&self) -> BTreeSet<IpNet> {
        let of = |(cidr, facts): (&IpNet, &BlockFacts)| match facts {
            BlockFacts::Own => vec![*cidr],
            BlockFacts::Borrowed(addrs) => addrs.iter().copied().map(IpNet::from).collect(),
        };
        self.blocks.iter().flat_map(of).collect()
    }
}
