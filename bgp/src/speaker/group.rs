//! Export groups: peers that are sent the same octets share one dirty set, one walk of the table and one encoding (update
//! groups). What a group was sent is one source number a prefix: no Adj-RIB-Out.

use super::export::ExportKey;
use crate::rib::{DestId, DirtySet, PeerId};
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

/// Peers that are sent the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: ExportKey,
    pub(super) members: Vec<Member>,
    /// By destination: the peer whose path the group was sent, or [`NONE`].
    advertised: Vec<u16>,
    pub(super) dirty: DirtySet,
    /// The next destination of a walk over the whole table; `None` once it is done.
    pub(super) walk: Option<u32>,
    pub(super) blocked_since: Option<Instant>,
}

impl Group {
    /// A group of one that has been sent nothing and shall see everything.
    pub(super) fn new(key: ExportKey, member: Member) -> Self {
        Self {
            key,
            members: vec![member],
            advertised: Vec::new(),
            dirty: DirtySet::default(),
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
            dirty: self.dirty.clone(),
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

    /// Whether the group still needs the destination.
    pub(super) fn holds(&self, id: DestId) -> bool {
        self.source(id).is_some() || self.dirty.has(id)
    }

    /// A destination has changed. What the walk will still see need not wait.
    pub(super) fn mark(&mut self, id: DestId) {
        if self.walk.is_none_or(|next| id.index() < next as usize) {
            self.dirty.insert(id);
        }
    }

    /// The next destination to look at.
    pub(super) fn next(&mut self, end: u32) -> Option<DestId> {
        if let Some(id) = self.dirty.pop() {
            return Some(id);
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
        self.dirty.is_empty() && self.walk.is_none()
    }

    /// Nothing has been sent yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.walk == Some(0) && self.advertised.is_empty() && self.dirty.is_empty()
    }

    /// Both are at the start of a walk and have been sent the same.
    pub(super) fn starts_like(&self, other: &Self) -> bool {
        let starts = |g: &Self| g.walk == Some(0) && g.dirty.is_empty();
        starts(self) && starts(other) && self.key == other.key && self.advertised == other.advertised
    }

    /// How many destinations the group was sent, all and by source.
    pub(super) fn counts(&self) -> (u64, hashbrown::HashMap<PeerId, u64>) {
        let (mut all, mut by_source) = (0, hashbrown::HashMap::new());
        for source in self.advertised.iter().filter(|s| **s != NONE) {
            all += 1;
            *by_source.entry(PeerId(*source)).or_default() += 1;
        }
        (all, by_source)
    }
}
