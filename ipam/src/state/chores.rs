//! What an allocator tidies up on its own blocks without being asked.

use ipnet::IpNet;

use twill_model::ipam::Block;

use super::{Owner, State};
use crate::block;
use crate::now::Now;
use crate::request::Chore;
use crate::resources;

/// How long an affinity without a block, or an unconfirmed affinity of an empty block, is left to whoever may be
/// at work on it. Calico's own steps are milliseconds apart.
pub const UNFINISHED_GRACE_MS: u64 = 10_000;

impl State {
    /// What should be tidied up now.
    #[must_use]
    pub fn chores(&self, now: Now) -> Vec<Chore> {
        let stale = |since: u64| now.mono_ms.saturating_sub(since) >= UNFINISHED_GRACE_MS;
        let mut chores = Vec::new();
        for block in self.own_blocks() {
            let affinity = self.affinities.get(&block.cidr);
            // An empty block may be on its way out of the cluster: do not fight for it at once.
            let hurry = !block::is_empty(block);
            match affinity {
                Some(a) if a.value.state.is_confirmed() && !self.is_to_give_up(block, now) => {}
                Some(a) if a.value.state.is_confirmed() => chores.push(Chore::GiveUp(block.cidr)),
                Some(a) if hurry || stale(a.since_ms) => chores.push(Chore::Confirm(block.cidr)),
                None if hurry => chores.push(Chore::Confirm(block.cidr)),
                _ => {}
            }
        }
        for (cidr, affinity) in &self.affinities {
            let ours = self
                .blocks
                .get(cidr)
                .is_some_and(|b| matches!(b.owner, Owner::Mine | Owner::Unreadable(_)));
            if !ours && stale(affinity.since_ms) {
                chores.push(Chore::DropAffinity(*cidr));
            }
        }
        chores
    }

    /// Whether the block is empty, but for cool-downs that are over, and its pool selects other nodes than this one.
    pub(crate) fn is_to_give_up(&self, block: &Block, now: Now) -> bool {
        let cooldown = self.config.value.ip_cooldown_seconds;
        block::is_empty_at(block, now.unix_secs(), cooldown) && self.is_deselected(&block.cidr)
    }

    /// Whether the block's pool is there, enabled, and selects other nodes than this one.
    pub(crate) fn is_deselected(&self, cidr: &IpNet) -> bool {
        let (Some(pool), Some(labels)) = (self.pool_of(cidr), &self.node_labels) else {
            return false;
        };
        let selector = pool.value.node_selector.trim();
        !pool.value.disabled
            && !selector.is_empty()
            && resources::selects(selector, &labels.value).is_ok_and(|selects| !selects)
    }
}
