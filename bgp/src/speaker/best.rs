//! Best-path changes for the FIB: which prefixes changed, and, when asked, to what.

use super::core::{Shared, Speaker};
use super::plane::Plane;
use crate::policy::{LearnedFrom, SessionType};
use crate::prefix::Prefix;
use crate::rib::queue::Bits;
use crate::rib::{DestId, DirtySet, decision};
use crate::view::Best;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Prefixes in one answer; the rest waits for the next question.
const CHANGES_MAX: usize = 4096;

/// What the FIB has not been told yet, and which prefixes it has.
#[derive(Debug, Default)]
pub(super) struct Fib {
    dirty: DirtySet,
    given: Bits,
}

impl Fib {
    pub(super) fn mark(&mut self, id: DestId) {
        self.dirty.insert(id);
    }

    pub(super) fn holds(&self, id: DestId) -> bool {
        self.dirty.has(id) || self.given.has(id)
    }
}

impl Speaker {
    /// Starts keeping changes for the FIB, with everything as the first.
    pub fn subscribe(&mut self) {
        for fib in self.fibs() {
            fib.get_or_insert_default();
        }
        self.v4.mark_all_for_fib();
        self.v6.mark_all_for_fib();
    }

    /// Starts keeping changes, with everything taken as known: for those who only want to see what happens.
    pub fn subscribe_from_now(&mut self) {
        for fib in self.fibs() {
            fib.get_or_insert_default();
        }
        self.v4.know_all(&self.shared);
        self.v6.know_all(&self.shared);
    }

    /// Stops keeping changes.
    pub fn unsubscribe(&mut self) {
        self.v4.forget_fib();
        self.v6.forget_fib();
    }

    /// Whether [`Speaker::best_changes`] would give something.
    #[must_use]
    pub fn has_best_changes(&self) -> bool {
        let waits = |f: &Option<Fib>, open: bool| open && f.as_ref().is_some_and(|f| !f.dirty.is_empty());
        let settled = |f| self.shared.deferral.at(f).until().is_none();
        waits(&self.v4.fib, settled(crate::Family::Ipv4Unicast))
            || waits(&self.v6.fib, settled(crate::Family::Ipv6Unicast))
    }

    /// The newest state of prefixes that changed, a bounded number of them. Nothing while selection is deferred.
    pub fn best_changes(&mut self) -> BTreeMap<IpNet, Option<Best>> {
        let mut changes = BTreeMap::new();
        if self.shared.deferral.ipv4.until().is_none() {
            self.v4.best_changes(&self.shared, &mut changes);
        }
        if self.shared.deferral.ipv6.until().is_none() {
            self.v6.best_changes(&self.shared, &mut changes);
        }
        changes
    }
}

impl<P: Prefix> Plane<P> {
    fn mark_all_for_fib(&mut self) {
        let ids: Vec<DestId> = self.table.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.touch(id));
    }

    fn know_all(&mut self, shared: &Shared) {
        let ids: Vec<DestId> = self.table.iter().map(|(id, _)| id).collect();
        for id in ids {
            if self.best_for_fib(shared, id).is_some()
                && let Some(fib) = &mut self.fib
            {
                fib.given.set(id);
            }
        }
    }

    fn forget_fib(&mut self) {
        self.fib = None;
        let ids: Vec<DestId> = self.table.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.try_free(id));
    }

    fn best_changes(&mut self, shared: &Shared, into: &mut BTreeMap<IpNet, Option<Best>>) {
        while into.len() < CHANGES_MAX {
            let Some(id) = self.fib.as_mut().and_then(|f| f.dirty.pop()) else {
                return;
            };
            let Some(prefix) = self.table.prefix(id) else {
                continue;
            };
            let best = self.best_for_fib(shared, id);
            let Some(fib) = &mut self.fib else { return };
            let told = match best {
                Some(_) => {
                    fib.given.set(id);
                    true
                }
                None => fib.given.clear(id),
            };
            if told {
                into.insert(prefix.net(), best);
            }
            self.try_free(id);
        }
    }

    fn best_for_fib(&self, shared: &Shared, id: DestId) -> Option<Best> {
        let paths = self.table.paths(id);
        let best = paths.first().filter(|p| p.eligible())?;
        let source = shared.sources.at(best.peer);
        let session = match source.from {
            LearnedFrom::Local => return None,
            LearnedFrom::Ibgp => SessionType::Ibgp,
            LearnedFrom::Ebgp => SessionType::Ebgp,
        };
        let hop = |attr| shared.attrs.at(attr).next_hop().address();
        let mut next_hops = vec![hop(best.attr)?];
        for path in paths.iter().skip(1) {
            if next_hops.len() >= usize::from(shared.config.paths_max.max(1)) {
                break;
            }
            if decision::multipath(shared.multipath(), path, paths, &shared.attrs, &shared.sources) {
                next_hops.extend(hop(path.attr).filter(|h| !next_hops.contains(h)));
            }
        }
        next_hops.sort_unstable();
        Some(Best {
            next_hops,
            source: source.address,
            session,
            local_pref: shared.attrs.at(best.attr).rank().local_pref,
            stale: *source.generation.at(P::FAMILY) != best.generation,
        })
    }
}
