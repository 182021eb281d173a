//! Next-hop tracking (RFC 4271 section 9.1.2.1): the owner, who knows the node's own routes, says how each next hop is
//! reached. A path whose next hop is not reachable takes no part in the decision, and what would be forwarded straight back
//! to the link that an external peer is on is not announced to it.
//!
//! Off unless [`crate::Config::track_next_hops`]: then every next hop counts as reachable.

use super::core::{Shared, Speaker};
use super::export::ExportKey;
use super::plane::Plane;
use crate::config::{NextHopMode, PeerConfig};
use crate::link;
use crate::policy::{LearnedFrom, SessionType};
use crate::prefix::Prefix;
use crate::rib::table::UNREACHABLE;
use crate::rib::{AttrId, DestId, Path, PathSource};
use crate::view::Reach;
use crate::wire::AttrSet;
use hashbrown::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Next hops followed at most, about 100 octets each: a fabric has one a node. What comes beyond counts as reachable and is
/// not passed on to external peers.
const NEXT_HOPS_MAX: usize = 1 << 16;
/// Next hops below which none is forgotten.
const COLLECT_MIN: usize = 1024;

/// What is known of next hops.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    tracked: bool,
    /// Every next hop in use and every external peer; `None` until the owner has spoken of it.
    known: HashMap<IpAddr, Option<Reach>>,
    /// How many of them the owner has not spoken of.
    waiting: usize,
    /// The set has changed since it was last asked for.
    news: bool,
    /// With so many, those that nobody uses any more are forgotten.
    collect_at: usize,
}

impl NextHops {
    /// Some next hop has not been spoken of.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// A next hop comes into use; the flag for its paths.
    pub(super) fn used(&mut self, set: &AttrSet) -> u8 {
        match set.next_hop().address() {
            // On a link there is nothing to find out: the neighbour is there.
            Some(hop) if self.tracked && link::of(hop) == 0 => self.want(hop),
            _ => 0,
        }
    }

    fn want(&mut self, hop: IpAddr) -> u8 {
        if let Some(known) = self.known.get(&hop) {
            return flag(known.as_ref());
        }
        if self.known.len() < NEXT_HOPS_MAX {
            self.known.insert(hop, None);
            self.waiting += 1;
            self.news = true;
        }
        0
    }

    fn reach(&self, address: IpAddr) -> Option<&Reach> {
        self.known.get(&address)?.as_ref()
    }

    /// Takes what the owner says; the addresses of which it says something new.
    fn learn(&mut self, said: &BTreeMap<IpAddr, Reach>) -> HashSet<IpAddr> {
        let mut changed = HashSet::new();
        for (address, reach) in said {
            let Some(known) = self.known.get_mut(address) else {
                continue;
            };
            if known.as_ref() != Some(reach) {
                self.waiting -= usize::from(known.is_none());
                *known = Some(reach.clone());
                changed.insert(*address);
            }
        }
        changed
    }

    fn keep(&mut self, in_use: impl Fn(&IpAddr) -> bool) {
        self.known.retain(|hop, _| in_use(hop));
        self.waiting = self.known.values().filter(|r| r.is_none()).count();
        self.collect_at = COLLECT_MIN.max(2 * self.known.len());
    }

    /// Whether forwarding allows that a route goes to the peers of a group. We pass on what we forward to a neighbour on any
    /// link, but not what we forward through a gateway on the link of the peer itself: traffic that the peer sent us for it
    /// would go straight back to where it came from.
    pub(super) fn permits(&self, key: &ExportKey, source: &PathSource, attrs: &AttrSet) -> bool {
        let (Some(peer), Some(hop)) = (key.horizon, attrs.next_hop().address()) else {
            return true;
        };
        if source.from == LearnedFrom::Local || link::of(hop) != 0 {
            return true;
        }
        match (self.reach(hop), self.reach(peer)) {
            (Some(Reach::OnLink { .. }), _) => true,
            (Some(Reach::Via { links }), Some(Reach::OnLink { link })) => !links.contains(link),
            (Some(Reach::Via { links }), Some(Reach::Via { links: to_peer })) => {
                !to_peer.iter().any(|link| links.contains(link))
            }
            (Some(Reach::Via { .. }), Some(Reach::Unreachable)) => true,
            (Some(Reach::Unreachable) | None, _) | (Some(Reach::Via { .. }), None) => false,
        }
    }
}

fn flag(reach: Option<&Reach>) -> u8 {
    if reach == Some(&Reach::Unreachable) {
        UNREACHABLE
    } else {
        0
    }
}

impl Speaker {
    /// Every address of which the owner shall say how it is reached: next hops in use and external peers. `None` if they are
    /// those that were last given.
    pub fn next_hops_wanted(&mut self) -> Option<BTreeSet<IpAddr>> {
        if !std::mem::take(&mut self.shared.next_hops.news) {
            return None;
        }
        let shared = &mut self.shared;
        if shared.next_hops.known.len() >= shared.next_hops.collect_at {
            let used = shared.attrs.sets().filter_map(|set| set.next_hop().address());
            let used: HashSet<IpAddr> = used.chain(shared.external_peers()).collect();
            shared.next_hops.keep(|hop| used.contains(hop));
        }
        Some(shared.next_hops.known.keys().copied().collect())
    }

    /// The owner says how addresses are reached. What it does not speak of stays as it was.
    pub fn next_hops_reached(&mut self, said: &BTreeMap<IpAddr, Reach>) {
        let changed = self.shared.next_hops.learn(said);
        if !changed.is_empty() {
            self.v4.rejudge(&mut self.shared, &changed);
            self.v6.rejudge(&mut self.shared, &changed);
        }
    }

    /// The configuration is another.
    pub(super) fn follow_next_hops(&mut self) {
        self.shared.next_hops.tracked = self.shared.config.track_next_hops;
        if self.shared.config.track_next_hops {
            for peer in self.shared.external_peers().collect::<Vec<_>>() {
                self.shared.next_hops.want(peer);
            }
        }
    }
}

impl Shared {
    /// Addresses of external peers whose group keeps the split horizon.
    fn external_peers(&self) -> impl Iterator<Item = IpAddr> {
        let external = |c: &&PeerConfig| {
            c.session_type(self.config.asn) == SessionType::Ebgp
                && c.next_hop == NextHopMode::Auto
                && c.interface.is_none()
        };
        let slots = self.peers.iter().flatten().map(|slot| &slot.config);
        slots.filter(external).map(|config| config.address)
    }
}

impl<P: Prefix> Plane<P> {
    /// Decides again about paths with these next hops, and about what groups with these peers are sent. Walks the table once.
    fn rejudge(&mut self, shared: &mut Shared, changed: &HashSet<IpAddr>) {
        let hop = |shared: &Shared, attr: AttrId| shared.attrs.at(attr).next_hop().address();
        let regroup = self
            .groups
            .iter()
            .any(|g| g.key.horizon.is_some_and(|p| changed.contains(&p)));
        for id in (0..self.table.end()).map(DestId::at) {
            let touched = |path: &Path| hop(shared, path.attr).is_some_and(|h| changed.contains(&h));
            let paths: Vec<Path> = self
                .table
                .paths(id)
                .iter()
                .filter(|p| touched(p))
                .copied()
                .collect();
            if regroup || !paths.is_empty() {
                for group in self.groups.iter_mut().filter(|g| g.key.horizon.is_some()) {
                    group.mark(id);
                }
            }
            let Some(prefix) = self.table.prefix(id) else {
                continue;
            };
            for path in paths {
                let reach = hop(shared, path.attr).and_then(|h| shared.next_hops.reach(h));
                let flags = path.flags & !UNREACHABLE | flag(reach);
                if flags != path.flags {
                    shared.attrs.hold(path.attr);
                    self.insert(shared, prefix, Path { flags, ..path });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
