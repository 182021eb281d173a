//! Export groups: peers that are sent the same octets share one dirty set, one walk of the table and one encoding (update
//! groups). What a group was sent is one source number a prefix: no Adj-RIB-Out.

use super::export::ExportKey;
use super::pace::Pace;
use crate::rib::{DestId, DirtySet, PeerId};
use hashbrown::HashMap;
use std::time::{Duration, Instant};

/// Batches that may be on their way to a peer's socket; then it counts as slow.
pub(super) const WINDOW: u32 = 8;
/// A group waits so long for its slowest member while others are idle; then the slow ones go on by themselves.
pub(super) const SPLIT_AFTER: Duration = Duration::from_millis(200);
/// Nothing is advertised.
const NONE: u16 = u16::MAX;

/// One peer of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) peer: PeerId,
    /// End-of-RIB is still to be sent.
    pub(super) end_of_rib: bool,
    /// The end of a repetition that the peer asked for is still to be said (RFC 7313).
    pub(super) end_of_refresh: bool,
}

/// One path that a group was sent for a destination, where it is sent several (RFC 7911).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentPath {
    /// The path identifier that we gave it.
    pub(super) id: u32,
    /// Whose path it is.
    pub(super) source: PeerId,
    /// Stands for what was said; 0 is nothing that could be said.
    pub(super) said: u64,
    /// For this peer alone, in place of one of its own.
    pub(super) only: Option<PeerId>,
}

/// Peers that are sent the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: ExportKey,
    pub(super) members: Vec<Member>,
    /// By destination: the peer whose path the group was sent, or [`NONE`].
    advertised: Vec<u16>,
    /// How many paths a destination may have; 0 without add-path, where it has one.
    pub(super) paths_max: u8,
    /// By destination: what the group was sent, with add-path.
    paths: HashMap<DestId, Vec<SentPath>>,
    pub(super) dirty: DirtySet,
    pub(super) pace: Pace,
    /// The next destination of a walk over the whole table; `None` once it is done.
    pub(super) walk: Option<u32>,
    pub(super) blocked_since: Option<Instant>,
}

impl Group {
    /// A group of one that has been sent nothing and shall see everything.
    pub(super) fn new(key: ExportKey, member: Member, paths_max: u8) -> Self {
        Self {
            key,
            members: vec![member],
            advertised: Vec::new(),
            paths_max,
            paths: HashMap::new(),
            dirty: DirtySet::default(),
            pace: Pace::default(),
            walk: Some(0),
            blocked_since: None,
        }
    }

    /// A group of one that has been sent what this one has.
    pub(super) fn split(&self, member: Member) -> Self {
        Self {
            key: self.key.clone(),
            members: vec![member],
            advertised: self.advertised.clone(),
            paths_max: self.paths_max,
            paths: self.paths.clone(),
            dirty: self.dirty.clone(),
            pace: self.pace.clone(),
            walk: self.walk,
            blocked_since: None,
        }
    }

    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.members.iter().any(|m| m.peer == peer)
    }

    /// The source of what was sent for a destination.
    pub(super) fn source(&self, id: DestId) -> Option<PeerId> {
        self.advertised
            .get(id.index())
            .filter(|s| **s != NONE)
            .map(|s| PeerId(*s))
    }

    pub(super) fn set_source(&mut self, id: DestId, source: Option<PeerId>) {
        if source.is_none() && self.advertised.len() <= id.index() {
            return;
        }
        if self.advertised.len() <= id.index() {
            self.advertised.resize(id.index() + 1, NONE);
        }
        if let Some(place) = self.advertised.get_mut(id.index()) {
            *place = source.map_or(NONE, |p| p.0);
        }
    }

    /// The paths sent for a destination, with add-path.
    pub(super) fn sent_paths(&self, id: DestId) -> &[SentPath] {
        self.paths.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Replaces the paths sent for a destination; those before come back.
    pub(super) fn set_paths(&mut self, id: DestId, paths: Vec<SentPath>) -> Vec<SentPath> {
        if paths.is_empty() {
            self.paths.remove(&id)
        } else {
            self.paths.insert(id, paths)
        }
        .unwrap_or_default()
    }

    /// Everything is to be said again.
    pub(super) fn start_over(&mut self) {
        self.walk = Some(0);
        self.dirty = DirtySet::default();
        self.pace = Pace::default();
        for sent in self.paths.values_mut().flatten() {
            sent.said = 0;
        }
    }

    /// Whether the group still needs the destination.
    pub(super) fn holds(&self, id: DestId) -> bool {
        self.source(id).is_some() || self.paths.contains_key(&id) || self.dirty.has(id) || self.pace.holds(id)
    }

    /// A destination has changed. What the walk will still see need not wait.
    pub(super) fn mark(&mut self, id: DestId) {
        if self.walk.is_none_or(|next| id.index() < next as usize) {
            self.dirty.insert(id);
        }
    }

    /// The next destination to look at.
    pub(super) fn next(&mut self, end: u32) -> Option<DestId> {
        while let Some(id) = self.dirty.pop() {
            if self.pace.admits(id) {
                return Some(id);
            }
        }
        let at = self.walk?;
        if at >= end {
            self.walk = None;
            return None;
        }
        self.walk = Some(at + 1);
        Some(DestId::at(at))
    }

    /// Nothing is left to be sent.
    pub(super) fn is_clean(&self) -> bool {
        !self.has_work() && self.pace.is_empty()
    }

    /// Something may be sent now.
    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || self.walk.is_some()
    }

    /// Nothing has been sent yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.walk == Some(0)
            && self.advertised.is_empty()
            && self.paths.is_empty()
            && self.dirty.is_empty()
            && self.pace.is_empty()
    }

    /// Both are at the start of a walk and have been sent the same.
    pub(super) fn starts_like(&self, other: &Self) -> bool {
        let starts = |g: &Self| g.walk == Some(0) && g.dirty.is_empty() && g.pace.is_empty();
        starts(self)
            && starts(other)
            && self.key == other.key
            && self.advertised == other.advertised
            && self.paths == other.paths
    }

    /// How many paths the group was sent, and how many more or fewer certain peers.
    pub(super) fn counts(&self) -> (i64, HashMap<PeerId, i64>) {
        let (mut all, mut more): (i64, HashMap<PeerId, i64>) = (0, HashMap::new());
        let single = self.advertised.iter().filter(|s| **s != NONE).map(|s| PeerId(*s));
        let several = self.paths.values().flatten();
        let common = several.clone().filter(|p| p.only.is_none()).map(|p| p.source);
        for source in single.chain(common) {
            all += 1;
            *more.entry(source).or_default() -= 1;
        }
        for member in several.filter_map(|p| p.only) {
            *more.entry(member).or_default() += 1;
        }
        (all, more)
    }
}
