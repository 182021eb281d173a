//! Attribute sets, interned: equal sets are one allocation, counted by the paths that hold them.

use crate::wire::AttrSet;
use hashbrown::HashTable;
use std::sync::Arc;

/// An interned set. Valid while somebody holds a reference to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttrId(u32);

#[derive(Debug)]
struct Slot {
    set: Option<Arc<AttrSet>>,
    references: u32,
}

/// The table of all sets in use.
#[derive(Debug, Default)]
pub struct AttrTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// Of all sets in use.
    octets: u64,
    /// Of these, in attributes that we do not know.
    unknown: u64,
    fallback: OnceSet,
}

#[derive(Debug)]
struct OnceSet(Arc<AttrSet>);

impl Default for OnceSet {
    fn default() -> Self {
        Self(Arc::new(AttrSet::new(
            crate::wire::NextHopValue::SelfAddress,
            &[],
        )))
    }
}

impl AttrTable {
    /// The set, shared with all equal ones, with one more reference.
    pub fn intern(&mut self, set: Arc<AttrSet>) -> AttrId {
        let hash = set.hash();
        let same = |id: &u32| {
            self.slots
                .get(*id as usize)
                .and_then(|s| s.set.as_ref())
                .is_some_and(|s| Arc::ptr_eq(s, &set) || *s == set)
        };
        if let Some(&id) = self.index.find(hash, same) {
            self.hold(AttrId(id));
            return AttrId(id);
        }
        self.octets += set.octets().len() as u64;
        self.unknown += u64::from(set.rank().unknown_octets);
        let slot = Slot {
            set: Some(set),
            references: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.slots.get_mut(id as usize) {
                    *place = slot;
                }
                id
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("memory ends before four thousand million sets")
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, id, |id| {
            slots
                .get(*id as usize)
                .and_then(|s| s.set.as_ref())
                .map_or(0, |s| s.hash())
        });
        AttrId(id)
    }

    /// One more reference to a set in use.
    pub fn hold(&mut self, id: AttrId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.references += 1;
        }
    }

    /// One reference less; the last frees the set.
    pub fn release(&mut self, id: AttrId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        slot.references = slot.references.saturating_sub(1);
        if slot.references > 0 {
            return;
        }
        if let Some(set) = slot.set.take() {
            self.octets -= set.octets().len() as u64;
            self.unknown -= u64::from(set.rank().unknown_octets);
            if let Ok(entry) = self.index.find_entry(set.hash(), |other| *other == id.0) {
                entry.remove();
            }
            self.free.push(id.0);
        }
    }

    /// The set. An id whose last reference is gone gives the empty set.
    #[must_use]
    pub fn at(&self, id: AttrId) -> &Arc<AttrSet> {
        self.slots
            .get(id.0 as usize)
            .and_then(|s| s.set.as_ref())
            .unwrap_or(&self.fallback.0)
    }

    /// Whether an equal set is in use.
    #[must_use]
    pub fn has(&self, set: &Arc<AttrSet>) -> bool {
        let same = |id: &u32| {
            let held = self.slots.get(*id as usize).and_then(|s| s.set.as_ref());
            held.is_some_and(|s| Arc::ptr_eq(s, set) || s == set)
        };
        self.index.find(set.hash(), same).is_some()
    }

    /// How often a set is held.
    #[must_use]
    pub fn references(&self, id: AttrId) -> u32 {
        self.slots.get(id.0 as usize).map_or(0, |s| s.references)
    }

    /// Octets of all sets in use.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Of these, octets of attributes that we do not know.
    #[must_use]
    pub const fn unknown_octets(&self) -> u64 {
        self.unknown
    }

    /// All sets in use.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<AttrSet>> {
        self.slots.iter().filter_map(|slot| slot.set.as_ref())
    }

    /// Distinct sets in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no set is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NextHopValue;
    use crate::wire::attr::{Attr, TRANSITIVE};
    use std::net::Ipv4Addr;

    fn set(origin: u8) -> Arc<AttrSet> {
        let hop = NextHopValue::V4(Ipv4Addr::new(192, 0, 2, 1));
        Arc::new(AttrSet::new(
            hop,
            &[Attr {
                code: 1,
                flags: TRANSITIVE,
                value: &[origin],
            }],
        ))
    }

    #[test]
    fn equal_sets_are_one_and_the_last_release_frees_it() {
        let mut table = AttrTable::default();
        let (a, b, c) = (table.intern(set(0)), table.intern(set(0)), table.intern(set(1)));
        assert!(a == b && a != c && table.len() == 2);
        table.release(a);
        assert_eq!(table.at(b).rank().origin, 0);
        assert_eq!(table.len(), 2);
        table.release(b);
        assert_eq!(table.len(), 1);
        assert_eq!(table.intern(set(2)), a, "a freed slot is used again");
        assert_eq!(table.at(c).rank().origin, 1);
        // Four octets each: flags, code, length and value.
        assert_eq!((table.octets(), table.unknown_octets()), (8, 0));
        [a, c].into_iter().for_each(|id| table.release(id));
        assert_eq!(table.octets(), 0);
    }
}
