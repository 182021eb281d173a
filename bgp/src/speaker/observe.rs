//! What those who watch the speaker are shown: changes of the Adj-RIBs-In as they happen, and walks over the tables. Nothing is
//! kept, and nothing costs anything, while nobody watches.

use super::core::{Shared, Speaker};
use super::plane::Plane;
use crate::config::Config;
use crate::family::{Family, PerFamily};
use crate::monitor::{RouteChange, TableEntry, TablePath, View};
use crate::prefix::Prefix;
use crate::rib::table::{FILTERED, LOOPED};
use crate::rib::{AttrId, DestId, PeerId};
use crate::view::PrefixCounts;
use crate::wire::{AttrSet, Nlri, RouteRefresh};
use std::sync::Arc;

/// Destinations of one slice of a walk: about a millisecond of work.
const WALK_DESTS: u32 = 1024;

/// Something that a peer said, and what became of it.
#[derive(Clone, Debug)]
pub enum Observed {
    /// Routes have changed.
    Routes(PeerId, RouteChange),
    /// End-of-RIB.
    EndOfRib(PeerId, Family),
}

/// A slice of a table, and where the next begins.
#[derive(Debug, Default)]
pub struct TableSlice {
    /// Destinations with paths.
    pub entries: Vec<TableEntry>,
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
}

impl Speaker {
    /// The configuration in force, without its peers.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether somebody watches from now on. What was gathered and not taken is dropped.
    pub fn observe(&mut self, on: bool) {
        self.shared.observed = on.then(Vec::new);
    }

    /// What has happened since the last call. To be taken after each input: it is not bounded by itself.
    pub fn observed(&mut self) -> Vec<Observed> {
        self.shared
            .observed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// A slice of a family's table, from `from` (0 at first) on. Between slices the table may change; what changes is observed.
    #[must_use]
    pub fn walk(&self, family: Family, from: u32) -> TableSlice {
        match family {
            Family::Ipv4Unicast => self.v4.walk(&self.shared, from),
            Family::Ipv6Unicast => self.v6.walk(&self.shared, from),
        }
    }

    /// Whether import policy may have changed what the table holds of this peer, so that it does not show what was received.
    #[must_use]
    pub fn rewrites(&self, peer: PeerId) -> bool {
        self.shared.rewrites(peer)
    }

    /// Prefixes that a peer has in the Adj-RIB-In; those advertised to it are not counted.
    #[must_use]
    pub fn received_counts(&self, peer: PeerId) -> PerFamily<PrefixCounts> {
        self.shared.peer(peer).map(|s| s.counts).unwrap_or_default()
    }

    /// Asks a peer for its routes again, so that what it sends can be observed.
    pub fn ask_again(&mut self, peer: PeerId) {
        let Some(session) = self.shared.peer(peer).and_then(|s| s.session.clone()) else {
            return;
        };
        for family in session.families.iter().filter(|_| session.route_refresh) {
            self.shared.say_refresh(peer, RouteRefresh::Request(family));
        }
    }
}

impl Shared {
    fn rewrites(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|s| s.config.import.rewrites())
    }

    /// A peer announces these prefixes; `became` says for each which attributes and flags its path has.
    pub(super) fn observe_announced<P: Prefix>(
        &mut self,
        peer: PeerId,
        set: &Arc<AttrSet>,
        nlri: &[Nlri<P>],
        became: &[(AttrId, u8)],
    ) {
        let Some(mut observed) = self.observed.take() else {
            return;
        };
        observed.push(Observed::Routes(
            peer,
            change(View::PrePolicy, Some(Arc::clone(set)), nlri),
        ));
        let mut rest = nlri;
        let by_outcome = |a: &(AttrId, u8), b: &(AttrId, u8)| (a.0, passed(a.1)) == (b.0, passed(b.1));
        for run in became.chunk_by(by_outcome) {
            let (these, after) = rest.split_at(run.len().min(rest.len()));
            rest = after;
            let attrs = run
                .first()
                .filter(|(_, flags)| passed(*flags))
                .map(|(attr, _)| Arc::clone(self.attrs.at(*attr)));
            observed.push(Observed::Routes(peer, change(View::PostPolicy, attrs, these)));
        }
        self.observed = Some(observed);
    }

    /// A peer withdraws these prefixes.
    pub(super) fn observe_withdrawn<P: Prefix>(&mut self, peer: PeerId, nlri: &[Nlri<P>]) {
        if let Some(observed) = &mut self.observed {
            for view in [View::PrePolicy, View::PostPolicy] {
                observed.push(Observed::Routes(peer, change(view, None, nlri)));
            }
        }
    }

    pub(super) fn observe_end_of_rib(&mut self, peer: PeerId, family: Family) {
        if let Some(observed) = &mut self.observed {
            observed.push(Observed::EndOfRib(peer, family));
        }
    }
}

/// Import policy let the path through, and it is free of loops. That its next hop cannot be reached is no matter of policy.
const fn passed(flags: u8) -> bool {
    flags & (FILTERED | LOOPED) == 0
}

fn change<P: Prefix>(view: View, attrs: Option<Arc<AttrSet>>, nlri: &[Nlri<P>]) -> RouteChange {
    RouteChange {
        family: P::FAMILY,
        view,
        attrs,
        nlri: nlri.iter().map(|n| (n.prefix.net(), n.path_id)).collect(),
    }
}

impl<P: Prefix> Plane<P> {
    fn walk(&self, shared: &Shared, from: u32) -> TableSlice {
        let end = self.table.end();
        let until = end.min(from.saturating_add(WALK_DESTS));
        let entry = |id: DestId| {
            let prefix = self.table.prefix(id)?.net();
            let paths: Vec<TablePath> = self
                .table
                .paths(id)
                .iter()
                .filter(|p| p.peer == PeerId::LOCAL || shared.keeps(p.peer, P::FAMILY, p.generation))
                .map(|p| TablePath {
                    peer: (p.peer != PeerId::LOCAL).then(|| shared.sources.at(p.peer).address),
                    path_id: p.path_id,
                    accepted: passed(p.flags),
                    rewritten: shared.rewrites(p.peer),
                    attrs: Arc::clone(shared.attrs.at(p.attr)),
                })
                .collect();
            (!paths.is_empty()).then_some(TableEntry { prefix, paths })
        };
        TableSlice {
            entries: (from..until).map(DestId::at).filter_map(entry).collect(),
            next: (until < end).then_some(until),
        }
    }
}
