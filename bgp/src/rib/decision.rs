//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9): which path is best, at which step, and which are equal to
//! it for multipath. The result depends on the paths alone, never on their order.

use super::attr_table::AttrTable;
use super::table::{Path, PeerId};
use crate::policy::{LOCAL_PREF_DEFAULT, LearnedFrom};
use crate::wire::attr::Rank;
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

/// What the decision needs to know of a path's peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSource {
    /// Ourselves, internal or external.
    pub from: LearnedFrom,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The peer's address.
    pub address: IpAddr,
    /// It is our route-reflector client.
    pub client: bool,
    /// Its present session generation of each family: paths of others are stale.
    pub generation: crate::family::PerFamily<u8>,
}

/// All peers by number. A number never seen counts as external with the highest identifier.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<PathSource>);

const UNKNOWN: PathSource = PathSource {
    from: LearnedFrom::Ebgp,
    router_id: Ipv4Addr::BROADCAST,
    address: IpAddr::V4(Ipv4Addr::BROADCAST),
    client: false,
    generation: crate::family::PerFamily { ipv4: 0, ipv6: 0 },
};

impl Sources {
    /// What is known of a peer.
    #[must_use]
    pub fn at(&self, peer: PeerId) -> &PathSource {
        self.0.get(peer.index()).unwrap_or(&UNKNOWN)
    }

    /// What is known of a peer, to change it.
    pub fn at_mut(&mut self, peer: PeerId) -> &mut PathSource {
        if self.0.len() <= peer.index() {
            self.0.resize(peer.index() + 1, UNKNOWN);
        }
        self.0.get_mut(peer.index()).expect("resized above")
    }
}

/// The step at which a path lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It won.
    Best,
    /// We originate the prefix ourselves.
    Local,
    /// Long stale, the best is not (RFC 9494).
    LongStale,
    /// Lower LOCAL_PREF.
    LocalPref,
    /// Longer AS path.
    AsPathLength,
    /// Worse ORIGIN.
    Origin,
    /// Higher MED among paths from the same neighbouring AS.
    Med,
    /// Internal against external.
    External,
    /// Higher BGP Identifier or ORIGINATOR_ID.
    RouterId,
    /// Longer CLUSTER_LIST.
    ClusterList,
    /// Higher peer address.
    PeerAddress,
    /// Higher path identifier.
    PathId,
    /// It takes no part: import policy turned it down.
    Filtered,
    /// It takes no part: we stand in it already.
    Loop,
    /// It takes no part: its next hop cannot be reached.
    Unreachable,
}

impl Step {
    /// The step for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Local => "we originate this prefix",
            Self::LongStale => "its peer has long been away (LLGR_STALE)",
            Self::LocalPref => "lower local preference",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse origin",
            Self::Med => "higher MED from the same neighbouring AS",
            Self::External => "internal, the best is external",
            Self::RouterId => "higher router id or originator id",
            Self::ClusterList => "longer cluster list",
            Self::PeerAddress => "higher peer address",
            Self::PathId => "higher path identifier",
            Self::Filtered => "rejected by import policy",
            Self::Loop => "our AS, router id or cluster is in the path",
            Self::Unreachable => "its next hop cannot be reached",
        }
    }
}

/// What comes before MED: lower is better.
type Head = (bool, bool, Reverse<u32>, u32, u8);
/// What comes after MED: lower is better.
type Tail = (bool, Ipv4Addr, u16, IpAddr, u32);

fn head(path: &Path, rank: &Rank, sources: &Sources) -> Head {
    let learned = sources.at(path.peer).from != LearnedFrom::Local;
    (
        learned,
        rank.is_long_stale(),
        Reverse(rank.local_pref.unwrap_or(LOCAL_PREF_DEFAULT)),
        rank.path_len,
        rank.origin,
    )
}

fn tail(path: &Path, rank: &Rank, sources: &Sources) -> Tail {
    let source = sources.at(path.peer);
    let router_id = rank.originator_id.unwrap_or(source.router_id);
    (
        source.from == LearnedFrom::Ibgp,
        router_id,
        rank.cluster_list_len,
        source.address,
        path.path_id,
    )
}

/// Whether `a` beats `b` by MED: the same neighbouring AS and a lower value; none counts as 0 (RFC 4271 section 9.1.2.2 c).
fn beats_by_med(a: &Rank, b: &Rank) -> bool {
    a.neighbour_as == b.neighbour_as && a.med.unwrap_or(0) < b.med.unwrap_or(0)
}

/// The best path's place among `paths`; `None` if none is eligible.
#[must_use]
pub fn best(paths: &[Path], attrs: &AttrTable, sources: &Sources) -> Option<usize> {
    let rank = |p: &Path| *attrs.at(p.attr).rank();
    let eligible = || paths.iter().enumerate().filter(|(_, p)| p.eligible());
    let top = eligible().map(|(_, p)| head(p, &rank(p), sources)).min()?;
    let contenders = || eligible().filter(|(_, p)| head(p, &rank(p), sources) == top);
    let with_med = contenders().any(|(_, p)| rank(p).med.is_some());
    contenders()
        .filter(|(_, p)| !with_med || !contenders().any(|(_, other)| beats_by_med(&rank(other), &rank(p))))
        .min_by_key(|(_, p)| tail(p, &rank(p), sources))
        .map(|(i, _)| i)
}

/// All eligible paths, the best first, then what would be best without it, and so on.
pub fn ranked(paths: &[Path], attrs: &AttrTable, sources: &Sources) -> impl Iterator<Item = Path> {
    let mut left: Vec<Path> = paths.iter().filter(|p| p.eligible()).copied().collect();
    std::iter::from_fn(move || best(&left, attrs, sources).map(|place| left.swap_remove(place)))
}

/// The step at which `path` loses to the best of `paths`, which stands first.
#[must_use]
pub fn step(path: &Path, paths: &[Path], attrs: &AttrTable, sources: &Sources) -> Step {
    if path.flags & super::table::LOOPED != 0 {
        return Step::Loop;
    }
    if path.flags & super::table::FILTERED != 0 {
        return Step::Filtered;
    }
    if path.flags & super::table::UNREACHABLE != 0 {
        return Step::Unreachable;
    }
    let Some(best) = paths.first() else {
        return Step::Best;
    };
    if best == path {
        return Step::Best;
    }
    let (mine, its) = (attrs.at(path.attr).rank(), attrs.at(best.attr).rank());
    let (h, t) = (head(path, mine, sources), head(best, its, sources));
    let steps = [
        (h.0 != t.0, Step::Local),
        (h.1 != t.1, Step::LongStale),
        (h.2 != t.2, Step::LocalPref),
        (h.3 != t.3, Step::AsPathLength),
        (h.4 != t.4, Step::Origin),
    ];
    if let Some((_, step)) = steps.into_iter().find(|(differs, _)| *differs) {
        return step;
    }
    let rank = |p: &Path| attrs.at(p.attr).rank();
    let contender = |p: &&Path| p.eligible() && head(p, rank(p), sources) == h;
    if paths
        .iter()
        .filter(contender)
        .any(|p| beats_by_med(rank(p), mine))
    {
        return Step::Med;
    }
    let (a, b) = (tail(path, mine, sources), tail(best, its, sources));
    let steps = [
        (a.0 != b.0, Step::External),
        (a.1 != b.1, Step::RouterId),
        (a.2 != b.2, Step::ClusterList),
        (a.3 != b.3, Step::PeerAddress),
    ];
    steps
        .into_iter()
        .find(|(differs, _)| *differs)
        .map_or(Step::PathId, |(_, step)| step)
}

/// Which AS paths of one length count as equal for multipath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multipath {
    /// Any.
    Relaxed,
    /// Only the same.
    SamePath,
}

/// Whether `path` is as good as the best of `paths`, which stands first, up to and including the preference of external
/// paths: then both may forward.
#[must_use]
pub fn multipath(mode: Multipath, path: &Path, paths: &[Path], attrs: &AttrTable, sources: &Sources) -> bool {
    let as_path = |p: &Path| attrs.at(p.attr).as_path();
    paths
        .first()
        .is_some_and(|best| best.eligible() && (mode == Multipath::Relaxed || as_path(best) == as_path(path)))
        && matches!(
            step(path, paths, attrs, sources),
            Step::Best | Step::RouterId | Step::ClusterList | Step::PeerAddress | Step::PathId
        )
}

#[cfg(test)]
mod tests;
