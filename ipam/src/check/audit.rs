//! The comparison itself, key by key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::Revision;
use twill_model::ipam::{AffinityState, BlockAffinity, BlockView, HandleView};
use twill_model::kind::Kind;
use twill_model::{AffinityOwner, Key, ResourceKey};

use super::{BlockUsage, Problem, ProblemKind, Report, Usage};
use crate::pool::Pool;
use crate::resources;

/// Compares what it is shown. Show pools, reservations and blocks first, then endpoints, handles and affinities in any order;
/// if it is [`unclear`](Audit::is_unclear) then, blocks and handles once more ([`Audit::again`]): [`check`](super::check) does.
///
/// It keeps two bits for each address and 16 bytes for each handle, not what they say: only where the stories differ are the
/// values looked at a second time.
#[derive(Debug, Default)]
pub struct Audit {
    problems: Vec<Problem>,
    pools: BTreeMap<String, Pool>,
    reserved: Vec<IpNet>,
    blocks: HashMap<IpNet, Bits>,
    /// Prefix lengths of blocks.
    lengths: BTreeSet<u8>,
    /// For each handle and block, by hash, what the block holds less what the handle says. What is even is dropped.
    tally: HashMap<u64, i64>,
    hasher: RandomState,
    /// For each handle that does not agree with the blocks, what they hold: found by the second look.
    held: HashMap<Box<str>, Vec<(IpNet, i64)>>,
    /// Blocks that have an owner whose affinity was not shown yet.
    owned: HashMap<IpNet, Box<str>>,
    usage: Vec<BlockUsage>,
}

/// The addresses of one block.
#[derive(Debug)]
struct Bits {
    /// Those allocated.
    taken: Box<[u64]>,
    /// Workloads' addresses whose endpoint was not shown yet.
    lonely: Box<[u64]>,
}

impl Bits {
    fn new(size: usize) -> Self {
        let words = vec![0; size.div_ceil(64)].into_boxed_slice();
        Self {
            taken: words.clone(),
            lonely: words,
        }
    }
}

fn bit(ordinal: u32) -> (usize, u64) {
    (
        usize::try_from(ordinal / 64).unwrap_or(usize::MAX),
        1 << (ordinal % 64),
    )
}

fn set(words: &mut [u64], ordinal: u32) {
    let (at, mask) = bit(ordinal);
    if let Some(word) = words.get_mut(at) {
        *word |= mask;
    }
}

fn clear(words: &mut [u64], ordinal: u32) {
    let (at, mask) = bit(ordinal);
    if let Some(word) = words.get_mut(at) {
        *word &= !mask;
    }
}

fn is_set(words: &[u64], ordinal: u32) -> bool {
    let (at, mask) = bit(ordinal);
    words.get(at).is_some_and(|word| word & mask != 0)
}

impl Audit {
    /// Takes in one key with its value.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(key);
        let result = match Kept::of(&text) {
            Some(Kept::Handle(id)) => HandleView::decode(value)
                .map(|h| self.handle(&text, id, &h))
                .map_err(|e| e.to_string()),
            Some(Kept::Endpoint) => resources::endpoint_addresses(value)
                .map(|held| held.into_iter().for_each(|address| self.endpoint(&text, address))),
            None => self.take_other(&text, value),
        };
        if let Err(reason) = result {
            self.report(
                &text,
                ProblemKind::Unreadable,
                None,
                format!("cannot be read: {reason}"),
            );
        }
    }

    fn take_other(&mut self, text: &str, value: &[u8]) -> Result<(), String> {
        match Key::parse(text) {
            Key::Block(cidr) => BlockView::decode(cidr, value)
                .inspect_err(|_| drop(self.blocks.insert(cidr, Bits::new(0))))
                .map(|block| self.block(text, &block))
                .map_err(|e| e.to_string()),
            Key::BlockAffinity(key) => BlockAffinity::decode(value)
                .map(|affinity| self.affinity(text, &key.owner, key.block, &affinity.state))
                .map_err(|e| e.to_string()),
            Key::Resource(key) => self.resource(&key, value),
            Key::Other(_) if text.starts_with(twill_model::key::IPAM) => {
                Err("no key of Calico's IPAM looks like this".to_owned())
            }
            Key::Handle(_) | Key::IpamConfig | Key::Other(_) => Ok(()),
        }
    }

    /// Whether stories differ, so that blocks and handles must be shown [`again`](Audit::again).
    #[must_use]
    pub fn is_unclear(&self) -> bool {
        let is_lonely = |bits: &Bits| bits.lonely.iter().any(|word| *word != 0);
        !self.tally.is_empty() || self.blocks.values().any(is_lonely)
    }

    /// The second look: blocks, then handles, as they were at the first.
    pub fn again(&mut self, key: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(key);
        if let Some(Kept::Handle(id)) = Kept::of(&text) {
            if let Ok(handle) = HandleView::decode(value) {
                self.handle_again(&text, id, &handle);
            }
        } else if let Key::Block(cidr) = Key::parse(&text)
            && let Ok(block) = BlockView::decode(cidr, value)
        {
            self.block_again(&text, &block);
        }
    }

    fn hash(&self, handle: &str, cidr: &str) -> u64 {
        self.hasher.hash_one((handle, cidr))
    }

    fn count(&mut self, handle: &str, cidr: &str, more: i64) {
        let hash = self.hash(handle, cidr);
        let entry = self.tally.entry(hash).or_default();
        *entry += more;
        if *entry == 0 {
            self.tally.remove(&hash);
        }
    }

    fn report(&mut self, key: &str, kind: ProblemKind, address: Option<IpAddr>, reason: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            kind,
            address,
            reason,
        });
    }

    fn resource(&mut self, key: &ResourceKey, value: &[u8]) -> Result<(), String> {
        match key.kind {
            Kind::IpPool => {
                let pool = resources::pool(&key.name, value)?;
                self.pools.insert(key.name.clone(), pool);
            }
            Kind::IpReservation => self.reserved.extend(resources::reservation(value)?),
            _ => {}
        }
        Ok(())
    }

    fn block(&mut self, key: &str, block: &BlockView<'_>) {
        for reason in block.problems() {
            self.report(key, ProblemKind::BlockInvariant, None, reason);
        }
        let pool = self.pools.values().find(|p| p.cidr.contains(&block.cidr));
        self.usage.push(BlockUsage::of(block, pool, &self.reserved));
        if pool.is_none() {
            let reason = format!("block {} is in no IPPool", block.cidr);
            self.report(key, ProblemKind::OutsidePools, None, reason);
        }
        match block.affinity() {
            Some(owner) => drop(self.owned.insert(block.cidr, owner.into())),
            None => {
                if let Some(host) = block.host() {
                    self.owned.insert(block.cidr, format!("host:{host}").into());
                }
            }
        }
        let mut bits = Bits::new(block.allocations.len());
        let cidr = block.cidr.to_string();
        for ordinal in (0u32..).take(block.allocations.len()) {
            let (Some(attribute), Some(address)) = (block.attribute(ordinal), block.address(ordinal)) else {
                continue;
            };
            if attribute.released_at().is_some() {
                continue;
            }
            set(&mut bits.taken, ordinal);
            let Some(handle) = attribute.handle() else {
                let reason = format!("{address} (ordinal {ordinal}) is allocated to no handle");
                self.report(key, ProblemKind::NoHandle, Some(address), reason);
                continue;
            };
            self.count(handle, &cidr, 1);
            // Tunnel addresses have a type, those of Services a service: neither has an endpoint.
            let of_workload = attribute
                .secondary
                .kind()
                .or(attribute.secondary.service())
                .is_none();
            if of_workload {
                set(&mut bits.lonely, ordinal);
            }
        }
        self.lengths.insert(block.cidr.prefix_len());
        self.blocks.insert(block.cidr, bits);
    }

    fn endpoint(&mut self, key: &str, address: IpAddr) {
        let nets = self
            .lengths
            .iter()
            .filter_map(|len| IpNet::new(address, *len).ok());
        let nets: Vec<IpNet> = nets.map(|net| net.trunc()).collect();
        for net in nets {
            let Some(bits) = self.blocks.get_mut(&net) else {
                continue;
            };
            if let Some(ordinal) = ordinal_in(&net, address)
                && is_set(&bits.taken, ordinal)
            {
                clear(&mut bits.lonely, ordinal);
                return;
            }
        }
        if self.pools.values().any(|p| p.cidr.contains(&address)) {
            let reason = format!("{address} is this endpoint's, but it is not allocated");
            self.report(key, ProblemKind::NotAllocated, Some(address), reason);
        }
    }

    fn block_again(&mut self, key: &str, block: &BlockView<'_>) {
        let cidr = block.cidr.to_string();
        for ordinal in (0u32..).take(block.allocations.len()) {
            let (Some(attribute), Some(address)) = (block.attribute(ordinal), block.address(ordinal)) else {
                continue;
            };
            let Some(handle) = attribute.handle().filter(|_| attribute.released_at().is_none()) else {
                continue;
            };
            if self.tally.contains_key(&self.hash(handle, &cidr)) {
                let blocks = self.held.entry(handle.into()).or_default();
                match blocks.iter_mut().find(|(known, _)| *known == block.cidr) {
                    Some((_, count)) => *count += 1,
                    None => blocks.push((block.cidr, 1)),
                }
            }
            let bits = self.blocks.get(&block.cidr);
            if bits.is_some_and(|bits| is_set(&bits.lonely, ordinal)) {
                let reason = format!(
                    "{address} (ordinal {ordinal}) is allocated to {handle}, but no workload endpoint has it"
                );
                self.report(key, ProblemKind::NoEndpoint, Some(address), reason);
            }
        }
    }

    fn handle(&mut self, key: &str, id: &str, handle: &HandleView<'_>) {
        if handle.counts().next().is_none() {
            let reason = format!("handle {id} names no block");
            self.report(key, ProblemKind::HandleWithoutBlock, None, reason);
        }
        for (cidr, count) in handle.counts() {
            self.count(id, cidr, -count);
        }
    }

    /// Where the handle and the blocks differ. What is in the tally is all that does.
    fn handle_again(&mut self, key: &str, id: &str, handle: &HandleView<'_>) {
        let mut held = self.held.remove(id).unwrap_or_default();
        for (cidr, count) in handle.counts() {
            if !self.tally.contains_key(&self.hash(id, cidr)) {
                continue;
            }
            let block = cidr.parse::<IpNet>().ok();
            let at = held.iter().position(|(known, _)| Some(*known) == block);
            match at.map(|at| held.remove(at).1) {
                Some(found) if found == count => {}
                Some(found) => {
                    let reason =
                        format!("handle {id} counts {count} addresses in {cidr}, the block holds {found}");
                    self.report(key, ProblemKind::HandleCount, None, reason);
                }
                None => {
                    let known = block.is_some_and(|b| self.blocks.contains_key(&b));
                    let what = if known {
                        "which holds no address for it"
                    } else {
                        "which does not exist"
                    };
                    let reason = format!("handle {id} names block {cidr}, {what}");
                    self.report(key, ProblemKind::HandleWithoutBlock, None, reason);
                }
            }
        }
        for (cidr, found) in held {
            let reason =
                format!("handle {id} does not name block {cidr}, which holds {found} addresses for it");
            self.report(key, ProblemKind::HandleCount, None, reason);
        }
    }

    fn affinity(&mut self, key: &str, owner: &AffinityOwner, cidr: IpNet, state: &AffinityState) {
        let is_owner = self
            .owned
            .get(&cidr)
            .is_some_and(|known| **known == *owner.to_string());
        if is_owner {
            self.owned.remove(&cidr);
            if !state.is_confirmed() {
                let reason = format!(
                    "{owner} owns block {cidr}, but its affinity is {:?}",
                    String::from(state.clone())
                );
                self.report(key, ProblemKind::AffinityUnconfirmed, None, reason);
            }
            return;
        }
        let what = if self.blocks.contains_key(&cidr) {
            "belongs to someone else"
        } else {
            "does not exist"
        };
        let reason = format!("{owner} has an affinity for block {cidr}, which {what}");
        self.report(key, ProblemKind::AffinityWithoutBlock, None, reason);
    }

    /// Everything has been shown, at `revision`.
    #[must_use]
    pub fn finish(mut self, revision: Revision) -> Report {
        for (id, blocks) in std::mem::take(&mut self.held) {
            for (cidr, count) in blocks {
                let reason = format!("{count} addresses are allocated to handle {id}, which does not exist");
                self.report(&Key::block(cidr).path(), ProblemKind::MissingHandle, None, reason);
            }
        }
        for (cidr, owner) in std::mem::take(&mut self.owned) {
            let reason = format!("block {cidr} belongs to {owner}, who has no affinity for it");
            self.report(
                &Key::block(cidr).path(),
                ProblemKind::BlockWithoutAffinity,
                None,
                reason,
            );
        }
        self.problems.sort();
        let usage = Usage::sum(&self.pools, self.usage, &self.reserved);
        Report {
            revision,
            problems: self.problems,
            usage,
        }
    }
}

/// The keys of which there is one for each pod, told from the others without taking the key apart: there are a million of them.
enum Kept<'k> {
    Handle(&'k str),
    Endpoint,
}

impl<'k> Kept<'k> {
    fn of(key: &'k str) -> Option<Self> {
        if let Some(id) = key.strip_prefix(twill_model::key::HANDLES) {
            return (!id.is_empty() && !id.contains('/')).then_some(Self::Handle(id));
        }
        let resource = key.strip_prefix(twill_model::key::RESOURCES)?;
        let name = resource
            .strip_prefix(Kind::WorkloadEndpoint.plural())?
            .strip_prefix('/')?;
        let (namespace, name) = name.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then_some(Self::Endpoint)
    }
}

/// The ordinal of `address` in a block, `None` outside it or beyond the largest block.
fn ordinal_in(block: &IpNet, address: IpAddr) -> Option<u32> {
    match (block, address) {
        (IpNet::V4(net), IpAddr::V4(a)) => u32::from(a).checked_sub(u32::from(net.network())),
        (IpNet::V6(net), IpAddr::V6(a)) => {
            u32::try_from(u128::from(a).checked_sub(u128::from(net.network()))?).ok()
        }
        _ => None,
    }
}
