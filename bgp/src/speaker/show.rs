//! What operators ask: counts and routes, with the step of the decision that made or unmade each path.

use super::core::{Shared, Speaker};
use super::plane::Plane;
use crate::config::RangeConfig;
use crate::family::{Family, PerFamily};
use crate::prefix::Prefix;
use crate::rib::{DestId, Path, PeerId, Step, decision};
use crate::view::{PrefixCounts, RouteQuery, RouteTable, RouteView};
use crate::wire::as_path;
use hashbrown::HashMap;

/// Routes in one answer, whatever the query says.
const ROUTES_MAX: usize = 100_000;

impl Speaker {
    /// The running session of a peer.
    #[must_use]
    pub fn session(&self, peer: PeerId) -> Option<&crate::fsm::Session> {
        self.shared.peer(peer)?.session.as_ref()
    }

    /// Prefix counts of every peer. Walks the table once for peers with stale routes, once for each export group.
    #[must_use]
    pub fn prefix_counts(&self) -> HashMap<PeerId, PerFamily<PrefixCounts>> {
        let mut counts: HashMap<PeerId, PerFamily<PrefixCounts>> = self
            .shared
            .by_address
            .values()
            .filter_map(|peer| Some((*peer, self.shared.peer(*peer)?.counts)))
            .collect();
        self.v4.add_counts(&self.shared, &mut counts);
        self.v6.add_counts(&self.shared, &mut counts);
        counts
    }

    /// UPDATEs and octets handed to a peer's sessions so far.
    #[must_use]
    pub fn sent_counts(&self, peer: PeerId) -> (u64, u64) {
        self.shared
            .peer(peer)
            .map_or((0, 0), |s| (s.updates_out, s.octets_out))
    }

    /// The peer is configured as a route-reflector client, and so on: its configuration.
    #[must_use]
    pub fn peer_config(&self, peer: PeerId) -> Option<&crate::config::PeerConfig> {
        self.shared.peer(peer).map(|s| &s.config)
    }

    /// Peers by address.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.shared.by_address.values().copied()
    }

    /// The ranges of dynamic neighbours.
    #[must_use]
    pub fn ranges(&self) -> &[RangeConfig] {
        &self.shared.config.ranges
    }

    /// Routes, ascending by prefix and within it by decision.
    #[must_use]
    pub fn show_routes(&self, query: &RouteQuery) -> Vec<RouteView> {
        let mut out = Vec::new();
        self.v4.show(&self.shared, query, &mut out);
        self.v6.show(&self.shared, query, &mut out);
        out
    }
}

impl<P: Prefix> Plane<P> {
    fn add_counts(&self, shared: &Shared, counts: &mut HashMap<PeerId, PerFamily<PrefixCounts>>) {
        let keeps_stale = |p: &&PeerId| shared.peer(**p).is_some_and(|s| s.stale.at(P::FAMILY).is_some());
        let stale: Vec<PeerId> = counts.keys().filter(keeps_stale).copied().collect();
        if !stale.is_empty() {
            for path in self.table.iter().flat_map(|(id, _)| self.table.paths(id)) {
                if stale.contains(&path.peer)
                    && is_stale(shared, P::FAMILY, path)
                    && let Some(of) = counts.get_mut(&path.peer)
                {
                    of.at_mut(P::FAMILY).stale += 1;
                }
            }
        }
        for group in &self.groups {
            let (all, more) = group.counts();
            for member in &group.members {
                if let Some(of) = counts.get_mut(&member.peer) {
                    let count = all + more.get(&member.peer).copied().unwrap_or(0);
                    of.at_mut(P::FAMILY).advertised = u64::try_from(count).unwrap_or(0);
                }
            }
        }
    }

    fn show(&self, shared: &Shared, query: &RouteQuery, out: &mut Vec<RouteView>) {
        let limit = query.limit.min(ROUTES_MAX);
        let mut ids: Vec<(P, DestId)> = match query.prefix {
            Some(net) => P::of_net(net)
                .and_then(|p| Some((p, self.table.find(p)?)))
                .into_iter()
                .collect(),
            None => self.table.iter().map(|(id, p)| (p, id)).collect(),
        };
        ids.sort_unstable();
        let peer = query.peer.map(|a| shared.by_address.get(&a).copied());
        if peer == Some(None) {
            return;
        }
        let peer = peer.flatten();
        for (prefix, id) in ids {
            let paths = self.table.paths(id);
            for (place, path) in paths.iter().enumerate() {
                if out.len() >= limit {
                    return;
                }
                if self.wanted(shared, query.table, peer, id, place, path) {
                    out.push(view(shared, prefix, path, paths));
                }
            }
        }
    }

    fn wanted(
        &self,
        shared: &Shared,
        table: RouteTable,
        peer: Option<PeerId>,
        id: DestId,
        place: usize,
        path: &Path,
    ) -> bool {
        let of_peer = peer.is_none_or(|p| p == path.peer);
        match table {
            RouteTable::Received => of_peer && path.peer != PeerId::LOCAL,
            RouteTable::All => of_peer,
            RouteTable::Accepted => of_peer && path.eligible(),
            RouteTable::Best => of_peer && place == 0 && path.eligible(),
            RouteTable::Advertised => {
                let Some(group) = peer.and_then(|p| self.groups.iter().find(|g| g.has(p))) else {
                    return false;
                };
                let path_id = shared.path_id_out(path);
                let sent = if group.paths_max > 0 {
                    let to_peer = |only: Option<PeerId>| only.is_none() || only == peer;
                    let mut sent = group.sent_paths(id).iter();
                    sent.any(|s| Some(s.id) == path_id && to_peer(s.only))
                } else {
                    place == 0 && group.source(id) == Some(path.peer)
                };
                sent && peer != Some(path.peer)
            }
        }
    }
}

fn is_stale(shared: &Shared, family: Family, path: &Path) -> bool {
    path.peer != PeerId::LOCAL && *shared.sources.at(path.peer).generation.at(family) != path.generation
}

fn view<P: Prefix>(shared: &Shared, prefix: P, path: &Path, paths: &[Path]) -> RouteView {
    let (set, source) = (shared.attrs.at(path.attr), shared.sources.at(path.peer));
    let step = decision::step(path, paths, &shared.attrs, &shared.sources);
    RouteView {
        prefix: prefix.net(),
        peer: (path.peer != PeerId::LOCAL).then_some(source.address),
        path_id: path.path_id,
        next_hop: set.next_hop().address(),
        as_path: as_path::text(set.as_path()),
        origin: ["IGP", "EGP", "incomplete"]
            .get(usize::from(set.rank().origin))
            .copied()
            .unwrap_or("incomplete"),
        local_pref: set.rank().local_pref,
        med: set.rank().med,
        communities: set.communities().collect(),
        extended_communities: set.communities_of().collect(),
        large_communities: set.large_communities().collect(),
        best: step == Step::Best,
        multipath: decision::multipath(shared.multipath(), path, paths, &shared.attrs, &shared.sources)
            && path.eligible(),
        stale: is_stale(shared, P::FAMILY, path),
        why: step.text(),
    }
}
