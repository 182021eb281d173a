//! The search for a free address: own blocks, a block to claim, one to take over, one to borrow from.
//!
//! Nothing here reads the store but for the one block that is to be taken over or borrowed from: which blocks there are is
//! known, and a walk goes from block to block, not from candidate to candidate.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use twill_datastore::Revision;
use twill_model::AffinityOwner;
use twill_model::ipam::Block;

use super::Stop;
use super::draft::Draft;
use crate::block;
use crate::keys;
use crate::pool::{Family, Pool};
use crate::request::Request;
use crate::state::{KnownBlock, Owner, State};

/// Most gaps looked at when a new block is wanted. Only reservations make more than one necessary.
const CANDIDATES_MAX: u32 = 1 << 12;

/// An address found for one want.
pub(super) struct Pick {
    pub(super) cidr: IpNet,
    pub(super) ordinal: u32,
    pub(super) address: IpAddr,
    pub(super) source: Source,
    pub(super) pool: (String, Revision),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A block of ours, or one that this transaction claims already.
    Own,
    /// A block that nobody has.
    Claim,
    /// An empty block that somebody else has, or nobody any more.
    TakeOver(Option<AffinityOwner>),
    /// A block of someone else, or of no one any more.
    Borrow,
}

impl Source {
    /// Whether the block becomes ours with this transaction.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::Claim | Self::TakeOver(_))
    }
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
        let block = self.draft.view(&cidr)?;
        // What the draft takes in hand it thaws first; here it is done to see what it would find.
        let mut block = Cow::Borrowed(block);
        if block.attributes().iter().any(|a| a.released_at.is_some()) {
            let cooldown = self.state.config.value.ip_cooldown_seconds;
            block::thaw(block.to_mut(), self.draft.now, cooldown);
        }
        self.pick_from(&block, source)
    }

    fn pick_from(&self, block: &Block, source: Source) -> Option<Pick> {
        let cidr = block.cidr;
        let pool = self.pools.iter().find(|p| p.cidr.contains(&cidr))?;
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
            let claims = taken.iter().filter(|p| p.source.is_new());
            claims
                .into_iter()
                .find_map(|p| self.fresh(p.cidr, p.source.clone()))
        };
        found.or_else(coming)
    }

    pub(super) fn is_claimable(&self, cidr: &IpNet) -> bool {
        !self.state.is_taken(cidr) && !self.draft.touches(cidr)
    }

    /// The first usable address of a block that is to be made.
    fn fresh(&self, cidr: IpNet, source: Source) -> Option<Pick> {
        self.pick_from(&block::new(cidr, "", self.draft.now)?, source)
    }

    /// A block that nobody has: one that a claim of ours was never finished for, otherwise the next in the walk.
    pub(super) fn claim(&self, family: Family) -> Option<Pick> {
        let sized = |cidr: &&IpNet| {
            self.pools
                .iter()
                .any(|p| p.cidr.contains(*cidr) && p.block_size == cidr.prefix_len())
        };
        let begun = self
            .state
            .affinities
            .keys()
            .filter(|cidr| Family::of(cidr.addr()) == family)
            .filter(sized)
            .filter(|cidr| self.is_claimable(cidr));
        let found = begun
            .into_iter()
            .find_map(|cidr| self.fresh(*cidr, Source::Claim));
        found.or_else(|| self.pools.iter().find_map(|pool| self.gap(pool)))
    }

    /// The first free block of the pool from this node's start, and round.
    fn gap(&self, pool: &Pool) -> Option<Pick> {
        if self.draft.walks.borrow().gapless.contains(&pool.name) {
            return None;
        }
        let (count, start) = (pool.block_count(), pool.start(self.state.node()));
        let mut walk = Walk {
            seen: 0,
            budget: CANDIDATES_MAX,
        };
        let found = self
            .gap_between(pool, start, count, &mut walk)
            .or_else(|| self.gap_between(pool, 0, start, &mut walk));
        if walk.seen == 0 {
            let mut walks = self.draft.walks.borrow_mut();
            walks.gapless.insert(pool.name.clone());
        }
        found
    }

    /// The first free block with an index in `from..to`.
    fn gap_between(&self, pool: &Pool, from: u64, to: u64, walk: &mut Walk) -> Option<Pick> {
        let mut next = from;
        let begin = pool.block_at(from)?;
        let known = self.state.blocks.range(keys::first_in(&begin)..);
        let mut known = known
            .map(|(cidr, _)| cidr)
            .take_while(|cidr| pool.cidr.contains(*cidr));
        while next < to {
            let block = known.next();
            let gap_end = block.map_or(to, |cidr| pool.index_of(cidr).min(to));
            while next < gap_end && walk.budget > 0 {
                let cidr = pool.block_at(next)?;
                if let Some(reserved) = self.state.reservation_of(&cidr) {
                    let last = IpNet::new(reserved.broadcast(), reserved.max_prefix_len()).ok()?;
                    let last = if pool.cidr.contains(&last) {
                        pool.index_of(&last)
                    } else {
                        to
                    };
                    next = last.saturating_add(1);
                    continue;
                }
                if self.is_claimable(&cidr) {
                    walk.seen += 1;
                    walk.budget -= 1;
                    if let Some(pick) = self.fresh(cidr, Source::Claim) {
                        return Some(pick);
                    }
                }
                next += 1;
            }
            let Some(cidr) = block else { break };
            let last = IpNet::new(cidr.broadcast(), cidr.max_prefix_len()).ok()?;
            next = next.max(pool.index_of(&last).saturating_add(1));
        }
        None
    }

    /// Others' blocks in `pool` that `fits`, in the order of our walk.
    fn others(&self, pool: &Pool, fits: impl Fn(&KnownBlock) -> bool) -> Rc<[IpNet]> {
        let (start, count) = (pool.start(self.state.node()), pool.block_count());
        let from = keys::first_in(&pool.cidr);
        let inside = self
            .state
            .blocks
            .range(from..)
            .take_while(|(cidr, _)| pool.cidr.contains(*cidr));
        let theirs = |b: &KnownBlock| matches!(b.owner, Owner::Other(_) | Owner::None);
        let mut found: Vec<(u64, IpNet)> = inside
            .filter(|(_, b)| theirs(b) && fits(b))
            .map(|(cidr, _)| {
                let index = pool.index_of(cidr);
                let distance = if index >= start {
                    index - start
                } else {
                    index + (count - start)
                };
                (distance, *cidr)
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, cidr)| cidr).collect()
    }

    /// An empty block of someone else who has had it for a while, beginning where we would begin to claim.
    pub(super) fn take_over(&self, request: &Request) -> Result<Option<Pick>, Stop> {
        let cooldown = self.state.config.value.ip_cooldown_seconds;
        for pool in self.pools {
            let known = self.draft.walks.borrow().idle.get(&pool.name).cloned();
            let idle = known.unwrap_or_else(|| {
                let fits = |b: &KnownBlock| b.rest.is_reclaimable(self.draft.now, cooldown);
                let found = self.others(pool, fits);
                let mut walks = self.draft.walks.borrow_mut();
                walks.idle.insert(pool.name.clone(), Rc::clone(&found));
                found
            });
            for cidr in idle.iter().filter(|cidr| !self.draft.touches(cidr)) {
                let owner = match self.state.blocks.get(cidr).map(|b| &b.owner) {
                    Some(Owner::Other(owner)) => match owner.parse::<AffinityOwner>() {
                        Ok(owner) => Some(owner),
                        // Whoever that is, it is not ours to judge.
                        Err(_) => continue,
                    },
                    _ => None,
                };
                if let Some(owner) = &owner {
                    let key = keys::affinity(owner, cidr);
                    if self.state.foreign(&key).is_none() {
                        if request.looked.contains(&key) {
                            continue;
                        }
                        return Err(Stop::Read(vec![key]));
                    }
                }
                if let Some(pick) = self.fresh(*cidr, Source::TakeOver(owner)) {
                    return Ok(Some(pick));
                }
            }
        }
        Ok(None)
    }

    /// A block of someone else with room, beginning where we would begin to claim.
    pub(super) fn borrow(&self, request: &Request) -> Result<Option<Pick>, Stop> {
        let cooldown = self.state.config.value.ip_cooldown_seconds;
        for pool in self.pools {
            let known = self.draft.walks.borrow().lenders.get(&pool.name).cloned();
            let lenders = known.unwrap_or_else(|| {
                let fits = |b: &KnownBlock| b.free > 0 || b.rest.may_thaw(self.draft.now, cooldown);
                let found = self.others(pool, fits);
                let mut walks = self.draft.walks.borrow_mut();
                walks.lenders.insert(pool.name.clone(), Rc::clone(&found));
                found
            });
            for cidr in lenders.iter() {
                let key = keys::block(cidr);
                if self.draft.view(cidr).is_some() {
                    if let Some(pick) = self.pick_in(*cidr, Source::Borrow) {
                        return Ok(Some(pick));
                    }
                } else if !self.draft.touches(cidr) && !request.looked.contains(&key) {
                    return Err(Stop::Read(vec![key]));
                }
            }
        }
        Ok(None)
    }
}

/// How far a walk has come.
struct Walk {
    /// Free blocks seen.
    seen: u32,
    /// Free blocks that may still be looked at.
    budget: u32,
}
