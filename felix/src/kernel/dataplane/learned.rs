//! What BGP taught, and which of it the kernel may not hold yet.
//!
//! A change costs what changed, whatever the size of the table: changes are gathered by prefix and compared with what the kernel
//! holds one by one. Everything is compared only when anything may differ: at the start, after what the kernel holds had to be
//! read again, when a next hop is reached another way, and when routes of an earlier process may go at last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::hops::Hops;
use super::status::{UNREACHED_TOLD_MAX, Withheld};
use crate::kernel::routes::{Change, Held, RoutesApplied, Sweep, delta, delta_at};
use crate::plan::routes::{Route, Routes};

/// What may differ from the kernel.
#[derive(Debug)]
enum Doubt {
    All,
    /// These; no more than are learned and were learned at the last comparison.
    Some(BTreeSet<IpNet>),
}

/// Routes learned by BGP, what of them is to be compared, and what became of the rest.
#[derive(Debug)]
pub(super) struct Learned {
    routes: Routes,
    doubt: Doubt,
    /// Routes of an earlier process could go at the last comparison.
    swept: bool,
    /// Routes that are kept back, and their next hops.
    withheld: BTreeMap<IpNet, Vec<IpAddr>>,
    /// How many of them name a next hop.
    unreached: BTreeMap<IpAddr, usize>,
    failed: BTreeMap<IpNet, String>,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            routes: Routes::new(),
            doubt: Doubt::All,
            swept: false,
            withheld: BTreeMap::new(),
            unreached: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }
}

impl Learned {
    /// Everything that is learned.
    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the kernel refused, and why.
    pub(super) fn failed(&self) -> &BTreeMap<IpNet, String> {
        &self.failed
    }

    /// Takes the newest state of a route; `None` when it is no more.
    pub(super) fn learn(&mut self, dst: IpNet, route: Option<Route>) {
        if self.routes.get(&dst) == route.as_ref() {
            return;
        }
        match route {
            Some(route) => drop(self.routes.insert(dst, route)),
            None => drop(self.routes.remove(&dst)),
        }
        if let Doubt::Some(open) = &mut self.doubt {
            open.insert(dst);
        }
    }

    /// Forgets all routes.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.doubt_all();
    }

    /// The kernel may hold anything.
    pub(super) fn doubt_all(&mut self) {
        self.doubt = Doubt::All;
    }

    /// What the kernel refused may succeed now.
    pub(super) fn retry(&mut self) {
        if let Doubt::Some(open) = &mut self.doubt {
            open.extend(self.failed.keys());
        }
    }

    /// What to do so that the kernel holds what was learned. It is gone over again until [`Learned::applied`] has the outcome.
    pub(super) fn changes(&mut self, hops: &mut Hops, held: &Held, sweep: bool) -> Vec<Change> {
        // What was spared may go now.
        if sweep && !self.swept {
            self.doubt_all();
        }
        self.swept = sweep;
        let may = Sweep {
            own: false,
            bgp: sweep,
        };
        if let Doubt::Some(open) = &self.doubt {
            let open: Vec<IpNet> = open.iter().copied().collect();
            let wanted: Vec<_> = open
                .into_iter()
                .map(|dst| (dst, self.settle(hops, dst)))
                .collect();
            return delta_at(wanted.iter().map(|(dst, route)| (dst, route.as_ref())), held, may);
        }
        self.withheld.clear();
        self.unreached.clear();
        let all: Vec<IpNet> = self.routes.keys().copied().collect();
        let settled = all.into_iter().map(|dst| (dst, self.settle(hops, dst)));
        let ready: Routes = settled.filter_map(|(dst, route)| Some((dst, route?))).collect();
        delta(&ready, held, may)
    }

    /// What became of the changes that [`Learned::changes`] asked for last.
    pub(super) fn applied(&mut self, applied: &RoutesApplied) {
        match std::mem::replace(&mut self.doubt, Doubt::Some(BTreeSet::new())) {
            Doubt::All => self.failed.clear(),
            Doubt::Some(done) => done.iter().for_each(|dst| drop(self.failed.remove(dst))),
        }
        self.failed.extend(applied.failed.clone());
    }

    /// One destination as the kernel should hold it, after what was noted of its being kept back is corrected.
    fn settle(&mut self, hops: &mut Hops, dst: IpNet) -> Option<Route> {
        for hop in self.withheld.remove(&dst).unwrap_or_default() {
            if let Some(count) = self.unreached.get_mut(&hop) {
                *count -= 1;
                if *count == 0 {
                    self.unreached.remove(&hop);
                }
            }
        }
        let Some(Route::Bgp(taught)) = self.routes.get(&dst) else {
            return None;
        };
        let ready = hops.resolve_one(taught);
        if ready.is_none() {
            let vias: Vec<IpAddr> = taught.iter().map(|hop| hop.via).collect();
            for via in &vias {
                *self.unreached.entry(*via).or_default() += 1;
            }
            self.withheld.insert(dst, vias);
        }
        ready
    }

    /// What is kept back, and why.
    pub(super) fn withheld(&self, hops: &mut Hops) -> Withheld {
        let named = self.unreached.keys().take(UNREACHED_TOLD_MAX);
        Withheld {
            routes: self.withheld.len(),
            next_hops: named
                .filter_map(|hop| Some((*hop, hops.unreached(*hop)?)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
