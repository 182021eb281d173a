//! Bounds over all peers ([`crate::config::limits`]): what is counted, who goes when there is too much, and what operators are
//! told before.

use super::core::{Output, Shared, Speaker};
use super::peers::PeerSlot;
use super::plane::Plane;
use crate::config::limits::WARN_PERCENT;
use crate::prefix::Prefix;
use crate::rib::PeerId;
use crate::view::Totals;
use crate::wire::attr::is_recognised;
use crate::wire::{AttrSet, Notification};
use hashbrown::HashMap;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// What is used of the bounds.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Routes of all peers that are there; those of departed ones are on their way out.
    pub(super) routes: u64,
    /// Announcements taken without their unknown attributes.
    stripped: u64,
    /// Sessions ended with Cease, Out of Resources.
    ended: u64,
    /// What operators were told and what still holds.
    alarms: BTreeMap<Alarm, String>,
}

/// What operators are told of, each once until it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    RoutesNear,
    RoutesFull,
    AttributesNear,
    AttributesFull,
    UnknownNear,
    UnknownFull,
    RangeNear(IpNet),
    RangeFull(IpNet),
    PeersFull,
}

/// Use of a bound in [`WARN_PERCENT`].
fn near(used: u64, max: u64) -> bool {
    used.saturating_mul(100) >= max.saturating_mul(WARN_PERCENT)
}

impl Shared {
    /// Tells operators of something that holds now, if it has not been told, and forgets what holds no more.
    pub(super) fn alarm(&mut self, alarm: Alarm, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.usage.alarms.remove(&alarm);
        } else if let Entry::Vacant(place) = self.usage.alarms.entry(alarm) {
            let what = what();
            place.insert(what.clone());
            self.out.push_back(Output::Alarm(what));
        }
    }

    /// The set as it is kept: without what we do not know, where there is too much of that already.
    pub(super) fn bounded(&mut self, set: &Arc<AttrSet>) -> Arc<AttrSet> {
        let max = self.config.limits.unknown_octets;
        let more = u64::from(set.rank().unknown_octets);
        if more == 0 || self.attrs.unknown_octets() + more <= max || self.attrs.has(set) {
            return Arc::clone(set);
        }
        self.usage.stripped += 1;
        self.alarm(Alarm::UnknownFull, true, || {
            format!(
                "unknown path attributes take up all of the {max} octets that they may; routes are taken without them"
            )
        });
        let unknown = set.iter().filter(|a| !is_recognised(a.code));
        let without: Vec<_> = unknown.map(|a| (a.code, None)).collect();
        Arc::new(set.with(set.next_hop(), &without))
    }

    /// Ends a peer's session for want of resources; its routes go with it.
    fn exhaust(&mut self, peer: PeerId) {
        let Some(slot) = self
            .peer_mut(peer)
            .filter(|s| s.session.is_some() && !s.over_limit)
        else {
            return;
        };
        slot.over_limit = true;
        self.usage.ended += 1;
        self.out
            .push_back(Output::Reset(peer, Notification::OUT_OF_RESOURCES));
    }

    fn present(&self) -> impl Iterator<Item = (PeerId, &PeerSlot)> {
        let all = self.by_address.values();
        all.filter_map(|peer| Some((*peer, self.peer(*peer)?)))
    }

    /// Routes of peers whose sessions are being ended for too many.
    fn leaving(&self) -> u64 {
        let leaving = self.present().filter(|(_, s)| s.over_limit);
        leaving.map(|(_, s)| s.received()).sum()
    }

    fn alarms(&mut self) {
        let limits = self.config.limits;
        let (routes, max) = (self.usage.routes, u64::from(limits.routes));
        self.alarm(Alarm::RoutesNear, near(routes, max), || {
            format!(
                "{routes} routes of all peers are {WARN_PERCENT} % or more of the {max} that there may be"
            )
        });
        self.alarm(Alarm::RoutesFull, routes > max, || {
            format!("{routes} routes of all peers are more than the {max} that there may be; who sent the most is ended")
        });
        let (octets, max) = (self.attrs.octets(), limits.attribute_octets);
        self.alarm(Alarm::AttributesNear, near(octets, max), || {
            format!(
                "path attributes take up {octets} octets, {WARN_PERCENT} % or more of the {max} that they may"
            )
        });
        self.alarm(Alarm::AttributesFull, octets > max, || {
            format!("path attributes take up {octets} octets, more than the {max} that they may; who holds the most is ended")
        });
        let (octets, max) = (self.attrs.unknown_octets(), limits.unknown_octets);
        let unknown = octets > 0 && near(octets, max);
        self.alarm(Alarm::UnknownNear, unknown, || {
            format!("unknown path attributes take up {octets} octets, {WARN_PERCENT} % or more of the {max} that they may")
        });
        if !unknown {
            self.alarm(Alarm::UnknownFull, false, String::new);
        }
    }
}

impl Speaker {
    /// After routes of `sender` came in, or went: ends who takes too much.
    pub(super) fn enforce_limits(&mut self, sender: Option<PeerId>) {
        let shared = &mut self.shared;
        let limits = shared.config.limits;
        let (routes, octets) = (shared.usage.routes, shared.attrs.octets());
        let (most, most_octets) = (u64::from(limits.routes), limits.attribute_octets);
        let calm = !near(routes, most)
            && !near(octets, most_octets)
            && !near(shared.attrs.unknown_octets(), limits.unknown_octets);
        if calm && shared.usage.alarms.is_empty() {
            return;
        }
        shared.alarms();
        if routes > most && routes - shared.leaving().min(routes) > most {
            let here = shared
                .present()
                .filter(|(_, s)| s.session.is_some() && !s.over_limit);
            let most = here.max_by_key(|(_, s)| s.received()).map(|(peer, _)| peer);
            if let Some(peer) = most {
                shared.exhaust(peer);
            }
        }
        if octets > most_octets
            && shared.leaving() == 0
            && let Some(peer) = self.heaviest()
        {
            self.shared.exhaust(peer);
        }
        // Somebody is on his way out and others go on sending: the bound gives way a little, but not for ever.
        let far =
            routes > most.saturating_add(most / 8) || octets > most_octets.saturating_add(most_octets / 8);
        if let Some(sender) = sender.filter(|_| far) {
            self.shared.exhaust(sender);
        }
    }

    /// The peer in session whose routes hold most of the attribute octets, shared ones in parts. Walks the tables: done only
    /// when they are over their bound.
    fn heaviest(&self) -> Option<PeerId> {
        let mut octets = HashMap::new();
        self.v4.weigh(&self.shared, &mut octets);
        self.v6.weigh(&self.shared, &mut octets);
        let here = |p: &PeerId| self.shared.peer(*p).is_some_and(|s| s.session.is_some());
        let here = octets.into_iter().filter(|(peer, _)| here(peer));
        here.max_by_key(|(peer, octets)| (*octets, *peer))
            .map(|(peer, _)| peer)
    }

    /// What is used of the bounds over all peers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (shared, usage) = (&self.shared, &self.shared.usage);
        Totals {
            limits: shared.config.limits,
            routes: usage.routes,
            attribute_sets: shared.attrs.len() as u64,
            attribute_octets: shared.attrs.octets(),
            unknown_octets: shared.attrs.unknown_octets(),
            unknown_stripped: usage.stripped,
            sessions_exhausted: usage.ended,
            alarms: usage.alarms.values().cloned().collect(),
            ..Totals::default()
        }
    }
}

impl<P: Prefix> Plane<P> {
    fn weigh(&self, shared: &Shared, octets: &mut HashMap<PeerId, u64>) {
        for path in self.table.iter().flat_map(|(id, _)| self.table.paths(id)) {
            let whole = shared.attrs.at(path.attr).octets().len() as u64;
            let part = whole / u64::from(shared.attrs.references(path.attr).max(1));
            *octets.entry(path.peer).or_default() += part.max(1);
        }
    }
}
