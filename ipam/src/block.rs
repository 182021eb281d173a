//! What an allocator does to a block: create, assign, release, thaw. Pure, and step for step what Calico's
//! `ipam_block.go` does, so that the bytes come out the same.
//!
//! None of these writes the store or counts the write: call [`written`] once per write, after all changes of a
//! group. An ordinal that is assigned remembers the sequence number from *before* that.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::Map;
use twill_model::ipam::{Attribute, Block};

use crate::now::Now;

/// A new, empty block of `owner` (`host:<node>`), as Calico's claim creates it. `None` if it would be larger than
/// [`twill_model::ipam::BLOCK_ADDRESSES_MAX`].
#[must_use]
pub fn new(cidr: IpNet, owner: &str, now: Now) -> Option<Block> {
    let size = u32::try_from(Block::addresses_in(&cidr)?).ok()?;
    Some(Block {
        cidr,
        affinity: Some(owner.to_owned()),
        affinity_claim_time: Some(now.rfc3339()),
        allocations: vec![None; usize::try_from(size).ok()?],
        unallocated: (0..size).collect(),
        attributes: None,
        sequence_number: now.unix_nanos,
        sequence_number_for_allocation: Some(BTreeMap::new()),
        deleted: false,
        host_affinity: None,
        extra: Map::new(),
    })
}

/// Counts one write of the block.
pub fn written(block: &mut Block) {
    block.sequence_number = block.sequence_number.wrapping_add(1);
}

/// Whether no address is allocated (an address in cool-down is).
#[must_use]
pub fn is_empty(block: &Block) -> bool {
    block.allocations.iter().all(Option::is_none)
}

/// The first free ordinal, in the order of release, that `usable` accepts.
pub fn next_free(block: &Block, mut usable: impl FnMut(u32) -> bool) -> Option<u32> {
    block.unallocated.iter().copied().find(|ordinal| usable(*ordinal))
}

/// Gives the free address at `ordinal` to the holder of `attribute`. Says whether it was free.
pub fn assign(block: &mut Block, ordinal: u32, attribute: &Attribute) -> bool {
    let Some(at) = block.unallocated.iter().position(|free| *free == ordinal) else {
        return false;
    };
    let attributes = block.attributes.get_or_insert_default();
    let index = attributes.iter().position(|a| a == attribute).unwrap_or_else(|| {
        attributes.push(attribute.clone());
        attributes.len() - 1
    });
    let (Ok(index), Some(slot)) = (
        u32::try_from(index),
        usize::try_from(ordinal)
            .ok()
            .and_then(|o| block.allocations.get_mut(o)),
    ) else {
        return false;
    };
    *slot = Some(index);
    block.unallocated.remove(at);
    let numbers = block.sequence_number_for_allocation.get_or_insert_default();
    numbers.insert(ordinal.to_string(), block.sequence_number);
    true
}

/// The ordinals that `handle` holds, in address order. Addresses in cool-down belong to no one.
#[must_use]
pub fn ordinals_of(block: &Block, handle: &str) -> Vec<u32> {
    let held = |ordinal: &u32| {
        block
            .attribute(*ordinal)
            .is_some_and(|a| a.handle() == Some(handle) && a.released_at.is_none())
    };
    // Blocks are searched for every request: look at the few attributes before the many ordinals.
    if !block.attributes().iter().any(|a| a.handle() == Some(handle)) {
        return Vec::new();
    }
    (0u32..).take(block.allocations.len()).filter(held).collect()
}

/// Frees `ordinals`, in this order, at the end of the queue, and drops attributes that no address uses any more.
/// Ordinals that are free already are left alone.
pub fn release(block: &mut Block, ordinals: &[u32]) {
    for ordinal in ordinals {
        let slot = usize::try_from(*ordinal)
            .ok()
            .and_then(|o| block.allocations.get_mut(o));
        if slot.is_some_and(|slot| slot.take().is_some()) {
            block.unallocated.push(*ordinal);
            if let Some(numbers) = &mut block.sequence_number_for_allocation {
                numbers.remove(&ordinal.to_string());
            }
        }
    }
    compact(block);
}

/// The sequence number at which the address at `ordinal` was assigned.
#[must_use]
pub fn sequence_of(block: &Block, ordinal: u32) -> Option<u64> {
    let numbers = block.sequence_number_for_allocation.as_ref()?;
    numbers.get(&ordinal.to_string()).copied()
}

/// What becomes of an address that is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooling {
    /// `ipCooldownSeconds`.
    pub secs: i64,
    /// Whether the time of the release is stored with the address (`releasedAt`): only where every Calico component is 3.33 or
    /// later, because an older one would turn it into an attribute that nobody ever frees.
    pub is_stored: bool,
}

/// Gives `ordinals` back: into the cool-down if there is one and it is stored, else to the end of the queue.
/// Ordinals that are free, or cooling down already, are left alone.
pub fn free(block: &mut Block, ordinals: &[u32], now: Now, cooling: Cooling) {
    if !cooling.is_stored || cooling.secs <= 0 {
        release(block, ordinals);
        return;
    }
    let held = |ordinal: &&u32| {
        block
            .attribute(**ordinal)
            .is_some_and(|a| a.released_at.is_none())
    };
    let held: Vec<u32> = ordinals.iter().filter(held).copied().collect();
    if held.is_empty() {
        return;
    }
    let attributes = block.attributes.get_or_insert_default();
    let Ok(index) = u32::try_from(attributes.len()) else {
        return;
    };
    attributes.push(Attribute {
        released_at: Some(now.rfc3339()),
        ..Attribute::default()
    });
    let number = block.sequence_number;
    for ordinal in held {
        let slot = usize::try_from(ordinal)
            .ok()
            .and_then(|o| block.allocations.get_mut(o));
        if let Some(slot) = slot {
            *slot = Some(index);
            let numbers = block.sequence_number_for_allocation.get_or_insert_default();
            numbers.insert(ordinal.to_string(), number);
        }
    }
    compact(block);
}

/// Whether no address is held, those aside whose cool-down is over at `unix_secs`.
#[must_use]
pub fn is_empty_at(block: &Block, unix_secs: i64, cooldown_secs: i64) -> bool {
    let cold = |index: &u32| {
        let attribute = usize::try_from(*index)
            .ok()
            .and_then(|i| block.attributes().get(i));
        attribute.is_some_and(|a| is_over(a, unix_secs, cooldown_secs))
    };
    block.allocations.iter().flatten().all(cold)
}

/// Whether the address was released, and long enough ago.
fn is_over(attribute: &Attribute, unix_secs: i64, cooldown_secs: i64) -> bool {
    let released = attribute
        .released_at
        .as_deref()
        .and_then(|at| at.parse::<jiff::Timestamp>().ok());
    released.is_some_and(|at| cooldown_secs < 0 || at.as_second() < unix_secs.saturating_sub(cooldown_secs))
}

/// Frees what another writer put into cool-down more than `cooldown_secs` ago (Calico 3.33 and later; a negative
/// number frees all of it). An unreadable time stays.
pub fn thaw(block: &mut Block, now: Now, cooldown_secs: i64) {
    if block.attributes().iter().all(|a| a.released_at.is_none()) {
        return;
    }
    let secs = now.unix_secs();
    let over = |ordinal: &u32| {
        block
            .attribute(*ordinal)
            .is_some_and(|a| is_over(a, secs, cooldown_secs))
    };
    let done: Vec<u32> = (0u32..).take(block.allocations.len()).filter(over).collect();
    release(block, &done);
}

/// Drops attributes that no address uses and renumbers the others.
fn compact(block: &mut Block) {
    let Some(attributes) = &mut block.attributes else {
        return;
    };
    let mut used = vec![false; attributes.len()];
    for index in block.allocations.iter().flatten() {
        if let Some(used) = usize::try_from(*index).ok().and_then(|i| used.get_mut(i)) {
            *used = true;
        }
    }
    if used.iter().all(|used| *used) {
        return;
    }
    let mut renumbered = Vec::with_capacity(used.len());
    let mut next = 0u32;
    for used in &used {
        renumbered.push(next);
        next += u32::from(*used);
    }
    let mut keep = used.iter();
    attributes.retain(|_| keep.next() == Some(&true));
    for index in block.allocations.iter_mut().flatten() {
        if let Some(new) = usize::try_from(*index).ok().and_then(|i| renumbered.get(i)) {
            *index = *new;
        }
    }
}

#[cfg(test)]
mod tests;
