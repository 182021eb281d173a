//! How full pools and blocks are.

use std::collections::BTreeMap;

use ipnet::IpNet;
use twill_model::ipam::BlockView;

use crate::pool::Pool;

/// How full everything is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The pools, by name.
    pub pools: Vec<PoolUsage>,
    /// The blocks, by CIDR.
    pub blocks: Vec<BlockUsage>,
}

/// How full a pool is. Numbers of addresses; an IPv6 pool has more than fit into 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// Whether no new addresses come from it.
    pub disabled: bool,
    /// All of them; saturates at 2^128 - 1.
    pub total: u128,
    /// Those allocated.
    pub used: u128,
    /// Those reserved and not allocated.
    pub reserved: u128,
    /// The rest.
    pub free: u128,
    /// Its blocks.
    pub blocks: usize,
}

/// How full a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUsage {
    /// Its addresses.
    pub cidr: IpNet,
    /// The pool that holds it, by name.
    pub pool: Option<String>,
    /// `host:<node>`, `virtual:<name>` or no one.
    pub owner: Option<String>,
    /// All addresses.
    pub total: usize,
    /// Those allocated.
    pub used: usize,
    /// Those reserved and not allocated.
    pub reserved: usize,
    /// Addresses allocated to workloads of other nodes than the owner.
    pub borrowed: usize,
}

impl BlockUsage {
    /// Those that can be given out.
    #[must_use]
    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.used).saturating_sub(self.reserved)
    }

    pub(super) fn of(block: &BlockView<'_>, pool: Option<&Pool>, reserved: &[IpNet]) -> Self {
        let touched: Vec<&IpNet> = reserved.iter().filter(|r| overlaps(r, &block.cidr)).collect();
        let is_reserved = |ordinal: u32| {
            let address = block.address(ordinal);
            !touched.is_empty() && address.is_some_and(|a| touched.iter().any(|r| r.contains(&a)))
        };
        let host = block.host();
        let is_borrowed = |ordinal: u32| {
            let node = block.attribute(ordinal).and_then(|a| a.secondary.node());
            node.is_some_and(|node| host != Some(node))
        };
        let (mut used, mut withheld, mut borrowed) = (0, 0, 0);
        for (ordinal, index) in (0u32..).zip(&block.allocations) {
            if index.is_some() {
                used += 1;
                borrowed += usize::from(is_borrowed(ordinal));
            } else {
                withheld += usize::from(is_reserved(ordinal));
            }
        }
        Self {
            cidr: block.cidr,
            pool: pool.map(|p| p.name.clone()),
            owner: block.affinity().map(str::to_owned),
            total: block.allocations.len(),
            used,
            reserved: withheld,
            borrowed,
        }
    }
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn size(net: &IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len().saturating_sub(net.prefix_len()));
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

impl Usage {
    pub(super) fn sum(
        pools: &BTreeMap<String, Pool>,
        mut blocks: Vec<BlockUsage>,
        reserved: &[IpNet],
    ) -> Self {
        blocks.sort_by_key(|b| b.cidr);
        // Overlapping reservations count once.
        let reserved = IpNet::aggregate(&reserved.to_vec());
        let pools = pools.values().map(|pool| {
            let inside = blocks.iter().filter(|b| b.pool.as_deref() == Some(&*pool.name));
            let (mut used, mut count, mut withheld_used) = (0u128, 0, 0u128);
            for block in inside {
                used += block.used as u128;
                count += 1;
                let of_block: u128 = reserved.iter().map(|r| shared(r, &block.cidr)).sum();
                withheld_used += of_block.saturating_sub(block.reserved as u128);
            }
            let total = size(&pool.cidr);
            let withheld: u128 = reserved.iter().map(|r| shared(r, &pool.cidr)).sum();
            let reserved = withheld.saturating_sub(withheld_used);
            let free = total.saturating_sub(used).saturating_sub(reserved);
            let (name, cidr, disabled) = (pool.name.clone(), pool.cidr, pool.disabled);
            PoolUsage {
                name,
                cidr,
                disabled,
                total,
                used,
                reserved,
                free,
                blocks: count,
            }
        });
        Self {
            pools: pools.collect(),
            blocks,
        }
    }
}

/// Addresses that both have.
fn shared(a: &IpNet, b: &IpNet) -> u128 {
    if a.contains(b) {
        size(b)
    } else if b.contains(a) {
        size(a)
    } else {
        0
    }
}
