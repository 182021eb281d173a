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

/// Frees what another writer put into cool-down more than `cooldown_secs` ago (Calico 3.33 and later; a negative
/// number frees all of it). An unreadable time stays.
pub fn thaw(block: &mut Block, now: Now, cooldown_secs: i64) {
    if block.attributes().iter().all(|a| a.released_at.is_none()) {
        return;
    }
    let secs = i64::try_from(now.unix_nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let over = |attribute: &Attribute| {
        let released = attribute
            .released_at
            .as_deref()?
            .parse::<jiff::Timestamp>()
            .ok()?;
        Some(cooldown_secs < 0 || released.as_second() < secs.saturating_sub(cooldown_secs))
    };
    let done: Vec<u32> = (0u32..)
        .take(block.allocations.len())
        .filter(|ordinal| block.attribute(*ordinal).and_then(over) == Some(true))
        .collect();
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
