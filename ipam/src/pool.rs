//! Pools as the allocator sees them, and which of them may serve a request.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::resources::ippool::{AllowedUse, IpPoolSpec};

use crate::error::Error;

/// The address family of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The part of an `IPPool` that decides about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Which nodes use it; empty means all.
    pub node_selector: String,
    /// Which namespaces use it; empty means all.
    pub namespace_selector: String,
    /// What its addresses may be used for.
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether it is used without being asked for by name.
    pub automatic: bool,
    /// No new addresses come from it.
    pub disabled: bool,
    /// How packets to its addresses travel between nodes.
    pub encapsulation: Encapsulation,
}

/// How packets to a pool's addresses travel between nodes, always or where subnets differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// As they are.
    None,
    /// In IPIP.
    Ipip,
    /// In VXLAN.
    Vxlan,
}

impl Pool {
    /// Reads a stored `IPPool`, with Calico's defaults for what it leaves out.
    ///
    /// # Errors
    /// What makes it unusable, for people: not JSON, or a block size that does not suit it.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, String> {
        crate::resources::pool(name, bytes)
    }

    /// As [`Pool::decode`], from the decoded object.
    ///
    /// # Errors
    /// A block size that does not suit it.
    pub fn of(name: &str, spec: &IpPoolSpec) -> Result<Self, String> {
        crate::resources::pool_of(name, spec)
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }

    /// Whether its addresses may be used for `purpose`.
    #[must_use]
    pub fn allows(&self, purpose: AllowedUse) -> bool {
        self.allowed_uses.contains(&purpose)
    }

    /// The CIDR of the block that holds `address`.
    #[must_use]
    pub fn block_of(&self, address: IpAddr) -> Option<IpNet> {
        let block = IpNet::new(address, self.block_size).ok()?.trunc();
        self.cidr.contains(&block).then_some(block)
    }

    /// How many blocks it has; saturates for IPv6 pools wider than 2^64 blocks.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        1u64.checked_shl(u32::from(self.block_size.saturating_sub(self.cidr.prefix_len())))
            .unwrap_or(u64::MAX)
    }

    /// The `index`-th block, counted from the pool's first address.
    #[must_use]
    pub fn block_at(&self, index: u64) -> Option<IpNet> {
        let bits = u32::from(self.cidr.max_prefix_len().checked_sub(self.block_size)?);
        let address: IpAddr = match self.cidr {
            IpNet::V4(net) => {
                let offset = u32::try_from(index)
                    .ok()?
                    .checked_shl(bits)
                    .filter(|_| bits < 32)?;
                std::net::Ipv4Addr::from(u32::from(net.network()).checked_add(offset)?).into()
            }
            IpNet::V6(net) => {
                let offset = u128::from(index).checked_shl(bits)?;
                std::net::Ipv6Addr::from(u128::from(net.network()).checked_add(offset)?).into()
            }
        };
        let block = IpNet::new(address, self.block_size).ok()?;
        self.cidr.contains(&block).then_some(block)
    }

    /// Where `node` begins to look for blocks, so that nodes rarely want the same one.
    #[must_use]
    pub fn start(&self, node: &str) -> u64 {
        let hash = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV alone are poor for short names.
        (hash ^ (hash >> 32)) % self.block_count().max(1)
    }

    /// The index of the block that begins at or holds the first address of `cidr`.
    #[must_use]
    pub fn index_of(&self, cidr: &IpNet) -> u64 {
        let bits = u32::from(self.cidr.max_prefix_len().saturating_sub(self.block_size));
        let offset = match (self.cidr, cidr.network()) {
            (IpNet::V4(net), IpAddr::V4(a)) => {
                u128::from(u32::from(a).saturating_sub(u32::from(net.network())))
            }
            (IpNet::V6(net), IpAddr::V6(a)) => u128::from(a).saturating_sub(u128::from(net.network())),
            _ => 0,
        };
        u64::try_from(offset.checked_shr(bits).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// What a request says about pools.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The family wanted.
    pub family: Family,
    /// Pools asked for, by name or CIDR; empty means "choose".
    pub requested: &'a [String],
    /// What the address is for.
    pub purpose: AllowedUse,
    /// Labels of the node; `None` if the node has no resource.
    pub node_labels: Option<&'a BTreeMap<String, String>>,
    /// Labels of the pod's namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
}

/// The pools that may serve a request, in the order in which they are tried: as asked for, otherwise by name.
///
/// As in Calico, pools that are asked for ignore selectors and `assignmentMode`, but not `disabled` and
/// `allowedUses`.
///
/// # Errors
/// [`Error::NoSuchPool`], [`Error::PoolDisabled`], [`Error::NoPool`], [`Error::NoNode`] or [`Error::BadSelector`].
pub fn select<'p>(pools: &[&'p Pool], choice: &Choice<'_>) -> Result<Vec<&'p Pool>, Error> {
    let of_family = || pools.iter().copied().filter(|p| p.family() == choice.family);
    let mut chosen = Vec::new();
    if choice.requested.is_empty() {
        let node = choice.node_labels.ok_or(Error::NoNode)?;
        for pool in of_family().filter(|p| !p.disabled && p.automatic) {
            if matches(pool, "nodeSelector", &pool.node_selector, node)?
                && matches(
                    pool,
                    "namespaceSelector",
                    &pool.namespace_selector,
                    choice.namespace_labels,
                )?
            {
                chosen.push(pool);
            }
        }
    } else {
        for wanted in choice.requested {
            let cidr: Option<IpNet> = wanted.parse().ok();
            let mut named = of_family().filter(|p| p.name == *wanted || Some(p.cidr) == cidr);
            let pool = named.next().ok_or_else(|| Error::NoSuchPool {
                pool: wanted.clone(),
                family: choice.family,
            })?;
            if pool.disabled {
                return Err(Error::PoolDisabled {
                    pool: pool.name.clone(),
                });
            }
            chosen.push(pool);
        }
    }
    chosen.retain(|p| p.allows(choice.purpose));
    if chosen.is_empty() {
        return Err(Error::NoPool {
            family: choice.family,
            purpose: choice.purpose,
        });
    }
    Ok(chosen)
}

/// Whether the labels satisfy one of the pool's selectors.
fn matches(
    pool: &Pool,
    field: &'static str,
    selector: &str,
    labels: &BTreeMap<String, String>,
) -> Result<bool, Error> {
    if selector.trim().is_empty() {
        return Ok(true);
    }
    crate::resources::selects(selector, labels).map_err(|reason| Error::BadSelector {
        pool: pool.name.clone(),
        field,
        reason,
    })
}

#[cfg(test)]
mod tests;
