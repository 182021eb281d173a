//! How often one prefix may change towards a group of peers: twice at once, then no more until the epoch is over, and what
//! is then sent is its newest state. A prefix that flaps ten thousand times a second so costs each peer at most twenty
//! UPDATEs, and one that changes now and then is never kept waiting (unlike under RFC 4271's MinRouteAdvertisementInterval).

use crate::rib::queue::Bits;
use crate::rib::{DestId, DirtySet};
use std::time::{Duration, Instant};

/// Two changes of a prefix in so long a time: at most 16 in a second, whatever its phase.
const EPOCH: Duration = Duration::from_millis(150);

/// What a group was sent lately. Two bits a destination while something changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    began: Option<Instant>,
    once: Bits,
    twice: Bits,
    later: DirtySet,
}

impl Pace {
    /// Begins an epoch if none runs, and ends one that is over: what waited may go on, into `dirty`.
    pub(super) fn turn(&mut self, now: Instant, dirty: &mut DirtySet) {
        match self.began {
            Some(began) if now.duration_since(began) < EPOCH => {}
            Some(_) => {
                self.once.clear_all();
                self.twice.clear_all();
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
}
