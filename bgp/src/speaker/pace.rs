//! How often one prefix may change towards a group of peers: twice at once, then no more until the epoch is over, and what
//! is then sent is its newest state. A prefix that flaps ten thousand times a second so costs each peer at most twenty
//! UPDATEs, and one that changes now and then is never kept waiting (unlike under RFC 4271's MinRouteAdvertisementInterval).

use crate::rib::queue::Bits;
use crate::rib::{DestId, DirtySet, Numbered};
use hashbrown::HashMap;
use std::time::{Duration, Instant};

/// Two changes of a prefix in so long a time: at most 16 in a second, whatever its phase.
const EPOCH: Duration = Duration::from_millis(150);

/// Prefixes that lost their number within an epoch and are remembered: 16 octets each. When there are more, who gets the number
/// of one waits as that one would.
const DEPARTED_MAX: usize = 4096;

/// What a group was sent lately. Two bits a destination while something changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    began: Option<Instant>,
    once: Bits,
    twice: Bits,
    later: DirtySet,
    /// Prefixes that changed in this epoch and whose number is another's now, by what they hash to; whether they changed twice.
    departed: HashMap<u64, bool>,
}

impl Pace {
    /// Begins an epoch if none runs, and ends one that is over: what waited may go on, into `dirty`.
    pub(super) fn turn(&mut self, now: Instant, dirty: &mut DirtySet) {
        match self.began {
            Some(began) if now.duration_since(began) < EPOCH => {}
            Some(_) => {
                self.once.clear_all();
                self.twice.clear_all();
                self.departed.clear();
                while let Some(id) = self.later.pop() {
                    dirty.insert(id);
                }
                self.began = Some(now).filter(|_| !dirty.is_empty());
            }
            None => self.began = Some(now).filter(|_| !dirty.is_empty()),
        }
    }

    /// Whether this change of a destination may be looked at now; else it waits for the next epoch.
    pub(super) fn admits(&mut self, id: DestId) -> bool {
        if self.once.set(id) || self.twice.set(id) {
            return true;
        }
        self.later.insert(id);
        false
    }

    /// A prefix has got a number: what was sent of the one that had it before is not this one's, and goes with that one, for
    /// who withdraws and announces flaps no less.
    pub(super) fn renumber(&mut self, numbered: &Numbered) {
        let id = numbered.dest;
        if let Some(before) = numbered.before
            && self.once.has(id)
        {
            if self.departed.len() >= DEPARTED_MAX {
                return;
            }
            self.once.clear(id);
            let twice = self.twice.clear(id);
            self.departed.insert(before, twice);
        }
        if self.departed.is_empty() {
            return;
        }
        if let Some(twice) = self.departed.remove(&numbered.now) {
            self.once.set(id);
            if twice {
                self.twice.set(id);
            }
        }
    }

    /// Whether the destination waits.
    pub(super) fn holds(&self, id: DestId) -> bool {
        self.later.has(id)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.later.is_empty()
    }

    /// When what waits may go on.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.began
            .filter(|_| !self.later.is_empty())
            .map(|began| began + EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_twice_at_once_and_then_when_the_epoch_is_over() {
        let (mut pace, mut dirty, mut now) = (Pace::default(), DirtySet::default(), Instant::now());
        let (flapping, calm) = (DestId::at(1), DestId::at(2));
        let mut looked = 0;
        let begun = now;
        for flap in 0..10_000_u32 {
            dirty.insert(flapping);
            pace.turn(now, &mut dirty);
            while let Some(id) = dirty.pop() {
                looked += u32::from(pace.admits(id));
            }
            if flap == 5_000 {
                dirty.insert(calm);
                assert!(
                    dirty.pop().is_some_and(|id| pace.admits(id)),
                    "another prefix does not wait"
                );
            }
            now += Duration::from_micros(100);
        }
        assert_eq!(now.duration_since(begun), Duration::from_secs(1));
        assert!((7..=16).contains(&looked), "{looked}");
        let due = pace.deadline().unwrap();
        assert!(pace.holds(flapping) && due > now);
        pace.turn(due, &mut dirty);
        assert_eq!(
            (dirty.pop(), pace.is_empty(), pace.deadline()),
            (Some(flapping), true, None)
        );
    }

    #[test]
    fn who_gets_a_number_does_not_wait_for_who_had_it() {
        let (mut pace, mut dirty, now) = (Pace::default(), DirtySet::default(), Instant::now());
        let id = DestId::at;
        let numbered = |at, now, before| Numbered {
            dest: id(at),
            now,
            before,
        };
        dirty.insert(id(1));
        pace.turn(now, &mut dirty);
        pace.renumber(&numbered(1, 0xa, None));
        assert_eq!([(); 3].map(|()| pace.admits(id(1))), [true, true, false]);
        pace.turn(now + EPOCH, &mut dirty);
        assert_eq!([(); 2].map(|()| pace.admits(id(1))), [true, true]);
        // Another prefix in the same place.
        pace.renumber(&numbered(1, 0xb, Some(0xa)));
        assert!(pace.admits(id(1)));
        // The one before, in a place of its own: it waits as if it had kept its old one.
        pace.renumber(&numbered(2, 0xa, None));
        assert!(!pace.admits(id(2)));
        // And back in its old one, from which the other took one change along.
        pace.renumber(&numbered(1, 0xa, Some(0xb)));
        pace.renumber(&numbered(3, 0xb, None));
        assert_eq!([(); 2].map(|()| pace.admits(id(3))), [true, false]);
        // A new epoch knows none of it.
        pace.turn(now + EPOCH * 2, &mut dirty);
        pace.renumber(&numbered(4, 0xa, None));
        assert_eq!([(); 3].map(|()| pace.admits(id(4))), [true, true, false]);
    }

    #[test]
    fn a_flood_of_departures_is_forgotten_on_the_side_of_waiting() {
        let (mut pace, mut dirty) = (Pace::default(), DirtySet::default());
        let many = u32::try_from(DEPARTED_MAX).unwrap() + 1;
        let ids = || (0..many).map(DestId::at);
        ids().for_each(|id| dirty.insert(id));
        pace.turn(Instant::now(), &mut dirty);
        for id in ids() {
            assert!(pace.admits(id) && pace.admits(id));
            let hash = u64::try_from(id.index()).unwrap();
            pace.renumber(&Numbered {
                dest: id,
                now: hash + (1 << 40),
                before: Some(hash),
            });
        }
        assert_eq!(pace.departed.len(), DEPARTED_MAX);
        assert!(pace.admits(DestId::at(0)) && !pace.admits(DestId::at(many - 1)));
    }
}
