//! A set that is also a queue: a prefix stands in it once however often it changed.

use super::table::DestId;
use std::collections::VecDeque;

/// Destinations to be looked at, in the order in which they first changed.
#[derive(Clone, Debug, Default)]
pub struct DirtySet {
    queue: VecDeque<DestId>,
    bits: Bits,
}

/// One bit a destination.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    const fn place(id: DestId) -> (usize, u64) {
        (id.index() / 64, 1 << (id.index() % 64))
    }

    /// Whether the bit is set.
    #[must_use]
    pub fn has(&self, id: DestId) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Sets the bit; `true` if it was clear.
    pub fn set(&mut self, id: DestId) -> bool {
        let (word, bit) = Self::place(id);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0.get_mut(word).is_some_and(|w| {
            let fresh = *w & bit == 0;
            *w |= bit;
            fresh
        })
    }

    /// Clears all bits.
    pub fn clear_all(&mut self) {
        self.0.fill(0);
    }

    /// Clears the bit; `true` if it was set.
    pub fn clear(&mut self, id: DestId) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get_mut(word).is_some_and(|w| {
            let was = *w & bit != 0;
            *w &= !bit;
            was
        })
    }
}

impl DirtySet {
    /// Adds a destination; one that waits already keeps its place.
    pub fn insert(&mut self, id: DestId) {
        if self.bits.set(id) {
            self.queue.push_back(id);
        }
    }

    /// Takes the one that has waited longest.
    pub fn pop(&mut self) -> Option<DestId> {
        let id = self.queue.pop_front()?;
        self.bits.clear(id);
        Some(id)
    }

    /// Whether the destination waits.
    #[must_use]
    pub fn has(&self, id: DestId) -> bool {
        self.bits.has(id)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}
