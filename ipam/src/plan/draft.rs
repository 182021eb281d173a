//! A transaction in the making: changed blocks, what they rely on, and who takes part.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use twill_datastore::{Bytes, COMPARES_MAX, Compare, OPS_MAX, Op, Revision};
use twill_model::AffinityOwner;
use twill_model::ipam::{Attribute, Block, Handle};

use super::{Commit, GROUP_MAX, GROUP_OPS_MAX, Stop, commit::Member};
use crate::block;
use crate::error::Error;
use crate::keys;
use crate::now::Now;
use crate::request::{Reply, Request, Riders};
use crate::state::State;

/// What is known of a key that the transaction writes: its revision, or that it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    At(Revision),
    Absent,
}

impl Base {
    pub(super) fn compare(self, key: Bytes) -> Compare {
        match self {
            Self::At(revision) => Compare::mod_revision(key, revision),
            Self::Absent => Compare::absent(key),
        }
    }
}

/// What happens to our affinity of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AffinityStep {
    /// Relied on as it is.
    Keep,
    /// Written as `confirmed`.
    Confirm,
    /// Deleted.
    Delete,
}

struct DraftBlock {
    /// `None`: only compared, or deleted.
    block: Option<Block>,
    base: Base,
    changed: bool,
}

/// What one request adds beside its blocks.
#[derive(Default)]
pub(super) struct Part {
    /// The handle with what is known of it, and what it becomes (`None`: it is deleted or stays absent).
    pub(super) handle: Option<(String, Base, Option<Handle>)>,
    /// Addresses for the riders.
    pub(super) addresses: Vec<IpAddr>,
    /// Pools relied on.
    pub(super) pools: Vec<(String, Revision)>,
    /// Compares and operations beside those of the request's riders.
    pub(super) extra: Riders,
    /// Blocks that it touches for the first time in this draft.
    pub(super) blocks_new: usize,
}

pub(super) struct Draft<'s> {
    pub(super) state: &'s State,
    pub(super) now: Now,
    blocks: BTreeMap<IpNet, DraftBlock>,
    affinities: BTreeMap<IpNet, (Base, AffinityStep)>,
    /// Blocks that this transaction claims or takes over.
    claimed: BTreeSet<IpNet>,
    /// Affinities of other owners that end with it, at these revisions.
    ended: BTreeMap<Bytes, Revision>,
    pools: BTreeMap<String, Revision>,
    handles: BTreeSet<String>,
    waiting: BTreeSet<String>,
    members: Vec<Member>,
    compares: Vec<Compare>,
    ops: Vec<Op>,
    rider_keys: BTreeSet<Bytes>,
    /// Freed in this very transaction: not to be given again by it.
    freed: BTreeSet<IpAddr>,
    full: bool,
    /// What searches of earlier requests found out about pools.
    pub(super) walks: RefCell<Walks>,
}

/// What holds for a pool whoever asks, found out once for all requests of a plan.
#[derive(Default)]
pub(super) struct Walks {
    /// Pools whose every block is taken.
    pub(super) gapless: BTreeSet<String>,
    /// Others' blocks with room, in the order in which they are borrowed from.
    pub(super) lenders: BTreeMap<String, Rc<[IpNet]>>,
    /// Others' blocks that may be taken over, in the order in which they are.
    pub(super) idle: BTreeMap<String, Rc<[IpNet]>>,
}

impl<'s> Draft<'s> {
    pub(super) fn new(state: &'s State, now: Now) -> Self {
        Self {
            state,
            now,
            blocks: BTreeMap::new(),
            affinities: BTreeMap::new(),
            claimed: BTreeSet::new(),
            ended: BTreeMap::new(),
            pools: BTreeMap::new(),
            handles: BTreeSet::new(),
            waiting: BTreeSet::new(),
            members: Vec::new(),
            compares: Vec::new(),
            ops: Vec::new(),
            rider_keys: BTreeSet::new(),
            freed: BTreeSet::new(),
            full: false,
            walks: RefCell::default(),
        }
    }

    /// Whether the request must wait for a later transaction: this one is full, or holds its handle already.
    pub(super) fn is_blocked(&self, request: &Request) -> bool {
        self.full
            || self.members.len() >= GROUP_MAX
            || request
                .work
                .handle()
                .is_some_and(|h| self.handles.contains(h) || self.waiting.contains(h))
    }

    /// Keeps later requests of the same handle behind this one.
    pub(super) fn block_handle(&mut self, request: &Request) {
        if let Some(handle) = request.work.handle() {
            self.waiting.insert(handle.to_owned());
        }
    }

    /// Whether this draft changes `handle` already.
    pub(super) fn holds(&self, handle: &str) -> bool {
        self.handles.contains(handle) || self.waiting.contains(handle)
    }

    pub(super) fn is_freed(&self, address: IpAddr) -> bool {
        self.freed.contains(&address)
    }

    /// The block as it would be after this transaction; `None` if it is not known whole or would be gone.
    pub(super) fn view(&self, cidr: &IpNet) -> Option<&Block> {
        match self.blocks.get(cidr) {
            Some(drafted) => drafted.block.as_ref(),
            None => self.state.blocks.get(cidr)?.whole.as_deref(),
        }
    }

    /// Whether this transaction touches the block.
    pub(super) fn touches(&self, cidr: &IpNet) -> bool {
        self.blocks.contains_key(cidr)
    }

    /// Blocks that this transaction claims or takes over.
    pub(super) fn claims(&self) -> impl Iterator<Item = IpNet> {
        self.claimed.iter().copied()
    }

    /// Makes sure that `part` and the riders of `request` fit, and reserves their place.
    /// After this nothing can fail any more: blocks may be changed.
    pub(super) fn admit(&mut self, request: &Request, part: Part, reply: Reply) -> Result<(), Stop> {
        let riders = request.work.riders().cloned().unwrap_or(part.extra);
        let built = riders.build(&part.addresses);
        if built.len() != riders.ops {
            return Err(Stop::Fail(Error::BadRiders { limit: riders.ops }));
        }
        let own = usize::from(part.handle.is_some());
        let (compares, ops) = (own + riders.compares.len(), own + built.len());
        let pools_new = part
            .pools
            .iter()
            .filter(|(name, _)| !self.pools.contains_key(name))
            .count();
        // The lock and the fence; affinities of others, one of them perhaps this request's; for each block itself and its
        // affinity; the pools.
        let shared = 2
            + self.ended.len()
            + 1
            + 2 * (self.blocks.len() + self.affinity_only() + part.blocks_new)
            + self.pools.len()
            + pools_new;
        let group = self.compares.len() + compares;
        let group_ops = self.ops.len() + ops;
        if group > GROUP_OPS_MAX
            || group_ops > GROUP_OPS_MAX
            || group + shared > COMPARES_MAX
            || group_ops + shared > OPS_MAX
        {
            self.full = true;
            return Err(Stop::Later);
        }
        let keys: Vec<Bytes> = built.iter().filter_map(written_key).cloned().collect();
        if keys.iter().any(|key| self.rider_keys.contains(key)) {
            return Err(Stop::Later);
        }
        self.rider_keys.extend(keys);
        let is_put = |op: &&Op| matches!(op, Op::Put { .. });
        let puts = built
            .iter()
            .filter(is_put)
            .filter_map(written_key)
            .cloned()
            .collect();
        let mut member = Member {
            id: request.id,
            reply,
            handle_compare: None,
            rider_compares: riders.compares.clone(),
            puts,
        };
        if let Some((id, base, _)) = &part.handle {
            member.handle_compare = Some(base.compare(keys::handle(id)));
        }
        if let Reply::Released(released) = &mut member.reply {
            released.addresses.clone_from(&part.addresses);
            self.freed.extend(&part.addresses);
        }
        if let Some((id, base, value)) = part.handle {
            self.compares.push(base.compare(keys::handle(&id)));
            match value {
                Some(handle) => self.ops.push(Op::put(keys::handle(&id), encode(&handle)?)),
                None if base != Base::Absent => self.ops.push(Op::delete(keys::handle(&id))),
                None => {}
            }
            self.handles.insert(id);
        }
        self.compares.extend(riders.compares);
        self.ops.extend(built);
        self.pools.extend(part.pools);
        self.members.push(member);
        Ok(())
    }

    fn affinity_only(&self) -> usize {
        self.affinities
            .keys()
            .filter(|cidr| !self.blocks.contains_key(*cidr))
            .count()
    }

    /// The block for changing; `None` if it is not known whole.
    pub(super) fn block_mut(&mut self, cidr: &IpNet) -> Option<&mut Block> {
        if !self.blocks.contains_key(cidr) {
            let known = self.state.blocks.get(cidr)?;
            let mut block = known.whole.as_deref()?.clone();
            block::thaw(&mut block, self.now, self.state.config.value.ip_cooldown_seconds);
            let drafted = DraftBlock {
                block: Some(block),
                base: Base::At(known.revision),
                changed: false,
            };
            self.blocks.insert(*cidr, drafted);
        }
        let drafted = self.blocks.get_mut(cidr)?;
        drafted.changed = true;
        drafted.block.as_mut()
    }

    /// Starts a new block of ours, whose affinity the same transaction confirms.
    pub(super) fn claim(&mut self, block: Block) {
        let cidr = block.cidr;
        self.blocks.insert(
            cidr,
            DraftBlock {
                block: Some(block),
                base: Base::Absent,
                changed: true,
            },
        );
        let base = self.affinity_base(&cidr);
        self.claimed.insert(cidr);
        self.affinities.insert(cidr, (base, AffinityStep::Confirm));
    }

    /// Puts a new block of ours in the place of an empty one of `owner`, whose affinity ends with it.
    pub(super) fn take_over(&mut self, block: Block, owner: Option<&AffinityOwner>) {
        let cidr = block.cidr;
        if let Some(key) = owner.map(|owner| keys::affinity(owner, &cidr)) {
            let revision = self.state.foreign(&key).unwrap_or(0);
            self.ended.insert(key, revision);
        }
        let known = self.state.blocks.get(&cidr).map(|known| known.revision);
        self.claim(block);
        if let (Some(drafted), Some(revision)) = (self.blocks.get_mut(&cidr), known) {
            drafted.base = Base::At(revision);
        }
    }

    /// Gives the address at `ordinal` away.
    pub(super) fn assign(&mut self, cidr: &IpNet, ordinal: u32, attribute: &Attribute) {
        if let Some(block) = self.block_mut(cidr) {
            block::assign(block, ordinal, attribute);
        }
    }

    /// Takes the addresses back; an empty block that belongs to no one goes altogether.
    pub(super) fn release(&mut self, cidr: &IpNet, ordinals: &[u32]) {
        let (now, cooling) = (self.now, self.state.cooling());
        let Some(block) = self.block_mut(cidr) else { return };
        block::free(block, ordinals, now, cooling);
        if block::is_empty(block) && block.affinity.is_none() {
            self.delete_block(cidr);
        }
    }

    /// Deletes the block.
    pub(super) fn delete_block(&mut self, cidr: &IpNet) {
        if let Some(drafted) = self.blocks.get_mut(cidr) {
            drafted.block = None;
        }
    }

    /// Relies on the block's being as known, without changing it.
    pub(super) fn rely_on_block(&mut self, cidr: &IpNet) {
        let base = self
            .state
            .blocks
            .get(cidr)
            .map_or(Base::Absent, |known| Base::At(known.revision));
        self.blocks.entry(*cidr).or_insert(DraftBlock {
            block: None,
            base,
            changed: false,
        });
    }

    fn affinity_base(&self, cidr: &IpNet) -> Base {
        self.state
            .affinities
            .get(cidr)
            .map_or(Base::Absent, |a| Base::At(a.revision))
    }

    /// Relies on our affinity of `cidr` and confirms it if it is not.
    pub(super) fn rely_on_affinity(&mut self, cidr: &IpNet) {
        let confirmed = self
            .state
            .affinities
            .get(cidr)
            .is_some_and(|a| a.value.state.is_confirmed());
        let step = if confirmed {
            AffinityStep::Keep
        } else {
            AffinityStep::Confirm
        };
        self.step_affinity(cidr, step);
    }

    /// Changes our affinity of `cidr`. What was decided first for this transaction stays.
    pub(super) fn step_affinity(&mut self, cidr: &IpNet, step: AffinityStep) {
        let base = self.affinity_base(cidr);
        self.affinities.entry(*cidr).or_insert((base, step));
    }

    /// The transaction, if anyone takes part in it.
    pub(super) fn finish(mut self) -> Option<Commit> {
        if self.members.is_empty() {
            return None;
        }
        let mut ops = Vec::with_capacity(self.ops.len() + 2 * self.blocks.len());
        let fence = self.state.fence_key().clone();
        let mut shared = vec![Compare::mod_revision(fence, self.state.fence)];
        for (key, revision) in self.ended {
            shared.push(Compare::mod_revision(key.clone(), revision));
            if revision > 0 {
                ops.push(Op::delete(key));
            }
        }
        for (cidr, drafted) in self.blocks {
            let key = keys::block(&cidr);
            shared.push(drafted.base.compare(key.clone()));
            match drafted.block {
                Some(mut block) if drafted.changed => {
                    block::written(&mut block);
                    ops.push(Op::put(key, encode(&block).ok()?));
                }
                None if drafted.changed => ops.push(Op::delete(key)),
                Some(_) | None => {}
            }
        }
        for (cidr, (base, step)) in self.affinities {
            let key = keys::affinity(self.state.owner(), &cidr);
            shared.push(base.compare(key.clone()));
            match step {
                AffinityStep::Keep => {}
                AffinityStep::Confirm => ops.push(Op::put(key, encode(&self.state.confirmed(&cidr)).ok()?)),
                AffinityStep::Delete => ops.push(Op::delete(key)),
            }
        }
        for (name, revision) in self.pools {
            shared.push(Compare::mod_revision(keys::pool(&name), revision));
        }
        if let Some(cluster) = &self.state.cluster {
            shared.push(Compare::mod_revision(keys::cluster(), cluster.revision));
        }
        ops.append(&mut self.ops);
        shared.append(&mut self.compares);
        Some(Commit::new(shared, ops, self.members))
    }
}

/// The bytes as Calico would write them.
fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    twill_model::gojson::to_vec(value).map_err(|e| Error::Unreadable {
        key: "an object of ours".to_owned(),
        reason: e.to_string(),
    })
}

fn written_key(op: &Op) -> Option<&Bytes> {
    match op {
        Op::Put { key, .. } => Some(key),
        Op::Delete { range } => Some(range.start()),
        Op::Range(_) => None,
    }
}
