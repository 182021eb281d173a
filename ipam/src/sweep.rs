//! Taking addresses out of one block that their holders no longer have: for the collector, for a removed node and for
//! `ipam release --from-report`. Pure.
//!
//! A [`Sweep`] says exactly what it means to free: address, handle and sequence number as they were found. It is carried out
//! in [`Round`]s, each one read and one transaction. The transaction compares all that was read, so that whoever gave the
//! address away, took it back or moved it meanwhile wins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Bytes, Compare, KeyRange, KeyValue, Op, OpReply, RangeRequest, Target, Txn, TxnReply};
use twill_model::AffinityOwner;
use twill_model::ipam::{Block, Handle};

use crate::block::{self, Cooling};
use crate::keys;
use crate::now::Now;
use crate::resources;

/// Most keys that one round reads: with what its transaction compares besides (block, affinity, node, lock, election) it
/// stays below etcd's 128 operations.
const ROUND_KEYS_MAX: usize = 112;
/// Most endpoints looked at for one address. A pod with more interfaces than this keeps its addresses.
const GUARDED_MAX: u32 = 8;

/// An address to be freed, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Take {
    /// The address.
    pub address: IpAddr,
    /// The handle that holds it.
    pub handle: Option<String>,
    /// The sequence number at which it was assigned; `None` leaves it unchecked.
    pub sequence: Option<u64>,
    /// What the keys of its workload's endpoints begin with. If one of them has the address, it stays.
    pub guard: Option<Bytes>,
    /// The endpoint that goes with it.
    pub endpoint: Option<Bytes>,
}

/// What to free in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The block.
    pub block: IpNet,
    /// The addresses.
    pub take: Vec<Take>,
    /// The owner who gives the block up: it is deleted once it is empty, and is nobody's until then.
    pub disown: Option<AffinityOwner>,
}

/// What a transaction relies on beside what it reads.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What else must hold: the lock, an election, the absence of a node.
    pub guards: Vec<Compare>,
    /// What becomes of freed addresses.
    pub cooling: Cooling,
    /// Now.
    pub now: Now,
}

/// One read and one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    block: IpNet,
    take: Vec<Take>,
    disown: Option<AffinityOwner>,
}

/// What a round comes to.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// What to send; `None` if there is nothing left to do.
    pub txn: Option<Txn>,
    /// What it frees.
    pub freed: Vec<IpAddr>,
    /// What stays, and why.
    pub kept: Vec<(IpAddr, String)>,
}

impl Sweep {
    /// The rounds in which it is carried out, in order.
    #[must_use]
    pub fn rounds(&self) -> Vec<Round> {
        let mut rounds = Vec::new();
        let mut round = Round::of(self.block);
        let mut keys = 0;
        for take in &self.take {
            let more = 1 + usize::from(take.guard.is_some()) + usize::from(take.endpoint.is_some());
            if keys + more > ROUND_KEYS_MAX {
                rounds.push(std::mem::replace(&mut round, Round::of(self.block)));
                keys = 0;
            }
            keys += more;
            round.take.push(take.clone());
        }
        round.disown.clone_from(&self.disown);
        rounds.push(round);
        rounds
    }
}

impl Round {
    fn of(block: IpNet) -> Self {
        Self {
            block,
            take: Vec::new(),
            disown: None,
        }
    }

    /// The block.
    #[must_use]
    pub fn block(&self) -> IpNet {
        self.block
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let mut ranges = vec![KeyRange::key(keys::block(&self.block))];
        ranges.extend(
            self.disown
                .iter()
                .map(|owner| KeyRange::key(keys::affinity(owner, &self.block))),
        );
        let handles: BTreeSet<&str> = self.take.iter().filter_map(|t| t.handle.as_deref()).collect();
        ranges.extend(handles.into_iter().map(|id| KeyRange::key(keys::handle(id))));
        let guards: BTreeSet<&Bytes> = self.take.iter().filter_map(|t| t.guard.as_ref()).collect();
        ranges.extend(guards.into_iter().map(|prefix| KeyRange::prefix(prefix.clone())));
        let endpoints: BTreeSet<&Bytes> = self.take.iter().filter_map(|t| t.endpoint.as_ref()).collect();
        ranges.extend(endpoints.into_iter().map(|key| KeyRange::key(key.clone())));
        ranges
    }

    /// What must be read first, linearised.
    #[must_use]
    pub fn read(&self) -> Txn {
        let read = |range: KeyRange| Op::Range(RangeRequest::new(range).limit(GUARDED_MAX));
        Txn::default().then(self.ranges().into_iter().map(read).collect())
    }

    /// The transaction, from what [`Round::read`] found.
    #[must_use]
    pub fn plan(&self, reply: &TxnReply, context: &Context) -> Planned {
        let found: BTreeMap<Bytes, &[KeyValue]> = self
            .ranges()
            .into_iter()
            .map(|range| range.start().clone())
            .zip(reply.responses.iter().map(OpReply::kvs))
            .collect();
        let seen = Seen { found: &found };
        let Some(kv) = seen.one(&keys::block(&self.block)) else {
            return self.without_block(&seen, context);
        };
        let block = match Block::decode(self.block, &kv.value) {
            Ok(block) => block,
            Err(error) => {
                let kept = |t: &Take| (t.address, format!("block {} cannot be read: {error}", self.block));
                return Planned {
                    kept: self.take.iter().map(kept).collect(),
                    ..Planned::default()
                };
            }
        };
        self.with_block(&seen, context, block, kv)
    }

    /// The block is gone, and every address in it: only the affinity may be left.
    fn without_block(&self, seen: &Seen<'_>, context: &Context) -> Planned {
        let affinity = self.disown.as_ref().map(|o| keys::affinity(o, &self.block));
        let left = affinity.and_then(|key| seen.one(&key));
        let txn = left.map(|kv| {
            let mut compares = context.guards.clone();
            compares.push(Compare::absent(keys::block(&self.block)));
            compares.push(Compare::mod_revision(kv.key.clone(), kv.mod_revision));
            Txn::when(compares).then(vec![Op::delete(kv.key.clone())])
        });
        Planned {
            txn,
            ..Planned::default()
        }
    }

    fn with_block(&self, seen: &Seen<'_>, context: &Context, old: Block, kv: &KeyValue) -> Planned {
        let mut planned = Planned::default();
        let mut draft = Draft {
            compares: context.guards.clone(),
            ops: Vec::new(),
        };
        let mut ordinals = Vec::new();
        let mut freed_of: BTreeSet<&str> = BTreeSet::new();
        for take in &self.take {
            match take.judge(&old, seen) {
                Ok(ordinal) => {
                    ordinals.push(ordinal);
                    planned.freed.push(take.address);
                    freed_of.extend(take.handle.as_deref());
                    draft.follow(take, seen);
                }
                Err(Some(reason)) => planned.kept.push((take.address, reason)),
                Err(None) => {}
            }
        }
        let mut block = old.clone();
        block::thaw(&mut block, context.now, context.cooling.secs);
        block::free(&mut block, &ordinals, context.now, context.cooling);
        for id in freed_of {
            draft.handle(id, &block, seen);
        }
        if let Some(owner) = &self.disown {
            draft.disown(owner, &mut block, seen);
        }
        let goes = block::is_empty(&block) && block.affinity.is_none() && block.host_affinity.is_none();
        if goes {
            draft.ops.push(Op::delete(kv.key.clone()));
        } else if block != old {
            block::written(&mut block);
            let Ok(bytes) = twill_model::gojson::to_vec(&block) else {
                return Planned::default();
            };
            draft.ops.push(Op::put(kv.key.clone(), bytes));
        }
        draft
            .compares
            .push(Compare::mod_revision(kv.key.clone(), kv.mod_revision));
        planned.txn = (!draft.ops.is_empty()).then(|| Txn::when(draft.compares).then(draft.ops));
        planned
    }
}

impl Take {
    /// Its ordinal if it is still exactly what was found; otherwise why it stays, `None` if it is free already.
    fn judge(&self, block: &Block, seen: &Seen<'_>) -> Result<u32, Option<String>> {
        let ordinal = block
            .ordinal(self.address)
            .ok_or_else(|| Some(format!("it is not in block {}", block.cidr)))?;
        let Some(attribute) = block.attribute(ordinal).filter(|a| a.released_at.is_none()) else {
            return Err(None);
        };
        if attribute.handle() != self.handle.as_deref() {
            let holder = attribute.handle().unwrap_or("something without a handle");
            return Err(Some(format!("it is held by {holder} now")));
        }
        let number = block::sequence_of(block, ordinal);
        if self.sequence.is_some() && self.sequence != number {
            return Err(Some("it was released and assigned again meanwhile".to_owned()));
        }
        let guarded = self.guard.as_ref().map_or(&[][..], |prefix| seen.all(prefix));
        let holder = guarded.iter().find(|kv| {
            resources::endpoint_addresses(&kv.value).map_or(true, |held| held.contains(&self.address))
        });
        match holder {
            // One that cannot be read counts as one that has it.
            Some(kv) => Err(Some(format!("endpoint {} has it", keys::text(&kv.key)))),
            None => Ok(ordinal),
        }
    }
}

/// What a round read, by the first key of each range.
struct Seen<'r> {
    found: &'r BTreeMap<Bytes, &'r [KeyValue]>,
}

impl<'r> Seen<'r> {
    fn all(&self, key: &Bytes) -> &'r [KeyValue] {
        self.found.get(key).copied().unwrap_or_default()
    }

    fn one(&self, key: &Bytes) -> Option<&'r KeyValue> {
        self.all(key).first()
    }
}

struct Draft {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

impl Draft {
    fn compare(&mut self, compare: Compare) {
        if !self.compares.contains(&compare) {
            self.compares.push(compare);
        }
    }

    /// The endpoints that were looked at must still be those, and the one that goes with the address goes.
    fn follow(&mut self, take: &Take, seen: &Seen<'_>) {
        if let Some(prefix) = &take.guard {
            let range = KeyRange::prefix(prefix.clone());
            match seen.all(prefix) {
                [] => self.compare(Compare::none_in(range)),
                [one] => self.compare(Compare {
                    range,
                    target: Target::ModRevision(one.mod_revision),
                }),
                many => many
                    .iter()
                    .for_each(|kv| self.compare(Compare::mod_revision(kv.key.clone(), kv.mod_revision))),
            }
        }
        let Some(kv) = take.endpoint.as_ref().and_then(|key| seen.one(key)) else {
            return;
        };
        let delete = Op::delete(kv.key.clone());
        if !self.ops.contains(&delete) {
            self.compare(Compare::mod_revision(kv.key.clone(), kv.mod_revision));
            self.ops.push(delete);
        }
    }

    /// The handle counts what the block still holds for it. One that is missing, or that cannot be read, is left so.
    fn handle(&mut self, id: &str, block: &Block, seen: &Seen<'_>) {
        let key = keys::handle(id);
        let Some(kv) = seen.one(&key) else {
            self.compare(Compare::absent(key));
            return;
        };
        self.compare(Compare::mod_revision(key.clone(), kv.mod_revision));
        let Ok(mut handle) = Handle::decode(&kv.value) else {
            return;
        };
        let left = block::ordinals_of(block, id).len();
        handle.set(&block.cidr, i64::try_from(left).unwrap_or(i64::MAX));
        if handle.block.is_empty() {
            self.ops.push(Op::delete(key));
        } else if let Ok(bytes) = twill_model::gojson::to_vec(&handle) {
            self.ops.push(Op::put(key, bytes));
        }
    }

    /// `owner` has the block no longer; its affinity goes whatever the block says.
    fn disown(&mut self, owner: &AffinityOwner, block: &mut Block, seen: &Seen<'_>) {
        let is_theirs = block.affinity.as_deref() == Some(owner.to_string().as_str())
            || (owner.host().is_some() && block.host() == owner.host());
        if is_theirs {
            block.affinity = None;
            block.affinity_claim_time = None;
            block.host_affinity = None;
        }
        let key = keys::affinity(owner, &block.cidr);
        match seen.one(&key) {
            Some(kv) => {
                self.compare(Compare::mod_revision(key.clone(), kv.mod_revision));
                self.ops.push(Op::delete(key));
            }
            None => self.compare(Compare::absent(key)),
        }
    }
}
