//! The search for a free address: own blocks, a block to claim, a block to borrow from.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::Revision;

use super::Stop;
use super::draft::Draft;
use crate::block;
use crate::keys;
use crate::pool::{Family, Pool};
use crate::request::Request;
use crate::state::{Owner, State};

/// Most candidates looked at when a new block is wanted: each is a look-up in memory, and a pool of IPv6 may have
/// more blocks than there are atoms to count them with.
const CANDIDATES_MAX: u64 = 1 << 20;

/// An address found for one want.
pub(super) struct Pick {
    pub(super) cidr: IpNet,
    pub(super) ordinal: u32,
    pub(super) address: IpAddr,
    pub(super) source: Source,
    pub(super) pool: (String, Revision),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A block of ours, or one that this transaction claims already.
    Own,
    /// A block that nobody has.
    Claim,
    /// A block of someone else, or of no one any more.
    Borrow,
}

/// Looks for any address in `pools` that `usable` accepts.
pub(super) struct Search<'a, 'd> {
    pub(super) state: &'a State,
    pub(super) draft: &'a Draft<'d>,
    pub(super) pools: &'a [&'a Pool],
    pub(super) usable: &'a dyn Fn(&IpNet, u32, IpAddr) -> bool,
}

impl Search<'_, '_> {
    fn pool_revision(&self, pool: &Pool) -> (String, Revision) {
        let revision = self.state.pools.get(&pool.name).map_or(0, |p| p.revision);
        (pool.name.clone(), revision)
    }

    fn pick_in(&self, cidr: IpNet, source: Source) -> Option<Pick> {
        let pool = self.pools.iter().find(|p| p.cidr.contains(&cidr))?;
        let block = self.draft.view(&cidr)?;
        let usable = |ordinal| {
            block
                .address(ordinal)
                .is_some_and(|a| (self.usable)(&cidr, ordinal, a))
        };
        let ordinal = block::next_free(block, usable)?;
        let address = block.address(ordinal)?;
        Some(Pick {
            cidr,
            ordinal,
            address,
            source,
            pool: self.pool_revision(pool),
        })
    }

    /// The first own block with room: ours, claimed by this transaction, or about to be for this very request.
    pub(super) fn own(&self, taken: &[Pick]) -> Option<Pick> {
        let ours = self.state.own_cidrs().chain(self.draft.claims());
        let found = ours.into_iter().find_map(|cidr| self.pick_in(cidr, Source::Own));
        let coming = || {
            let claims = taken.iter().filter(|p| p.source == Source::Claim);
            claims.into_iter().find_map(|p| self.fresh(p.cidr))
        };
        found.or_else(coming)
    }

    pub(super) fn is_claimable(&self, cidr: &IpNet) -> bool {
        !self.state.is_taken(cidr) && !self.draft.touches(cidr)
    }

    /// The first usable address of a block that does not exist yet.
    fn fresh(&self, cidr: IpNet) -> Option<Pick> {
        let pool = self.pools.iter().find(|p| p.cidr.contains(&cidr))?;
        let block = block::new(cidr, "", self.draft.now)?;
        let usable = |ordinal| {
            block
                .address(ordinal)
                .is_some_and(|a| (self.usable)(&cidr, ordinal, a))
        };
        let ordinal = block::next_free(&block, usable)?;
        let address = block.address(ordinal)?;
        Some(Pick {
            cidr,
            ordinal,
            address,
            source: Source::Claim,
            pool: self.pool_revision(pool),
        })
    }

    /// A block that nobody has: one that a claim of ours was never finished for, otherwise the next in the walk.
    pub(super) fn claim(&self, family: Family) -> Option<Pick> {
        let begun = self
            .state
            .affinities
            .keys()
            .filter(|cidr| Family::of(cidr.addr()) == family);
        let sized = |cidr: &&IpNet| {
            self.pools
                .iter()
                .any(|p| p.cidr.contains(*cidr) && p.block_size == cidr.prefix_len())
        };
        let begun = begun
            .filter(sized)
            .filter(|cidr| self.is_claimable(cidr))
            .copied();
        if let Some(pick) = begun.into_iter().find_map(|cidr| self.fresh(cidr)) {
            return Some(pick);
        }
        self.pools.iter().find_map(|pool| {
            let count = pool.block_count();
            let start = pool.start(self.state.node());
            let candidates = (0..count.min(CANDIDATES_MAX)).filter_map(|step| {
                // Wraps without overflow, also for pools of 2^64 blocks.
                let index = if step < count - start {
                    start + step
                } else {
                    step - (count - start)
                };
                pool.block_at(index)
            });
            candidates
                .filter(|cidr| self.is_claimable(cidr))
                .find_map(|cidr| self.fresh(cidr))
        })
    }

    /// A block of someone else with room, beginning where we would begin to claim.
    pub(super) fn borrow(&self, request: &Request) -> Result<Option<Pick>, Stop> {
        for pool in self.pools {
            let (start, count) = (pool.start(self.state.node()), pool.block_count());
            let from = keys::first_in(&pool.cidr);
            let inside = self
                .state
                .blocks
                .range(from..)
                .take_while(|(cidr, _)| pool.cidr.contains(*cidr));
            let mut lenders: Vec<(u64, IpNet)> = inside
                .filter(|(_, b)| b.free > 0 && matches!(b.owner, Owner::Other(_) | Owner::None))
                .map(|(cidr, _)| {
                    let index = pool.index_of(cidr);
                    (
                        if index >= start {
                            index - start
                        } else {
                            index + (count - start)
                        },
                        *cidr,
                    )
                })
                .collect();
            lenders.sort_unstable();
            for (_, cidr) in lenders {
                let key = keys::block(&cidr);
                if self.draft.view(&cidr).is_some() {
                    if let Some(pick) = self.pick_in(cidr, Source::Borrow) {
                        return Ok(Some(pick));
                    }
                } else if !request.looked.contains(&key) {
                    return Err(Stop::Read(vec![key]));
                }
            }
        }
        Ok(None)
    }
}
