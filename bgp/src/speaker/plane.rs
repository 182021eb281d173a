//! One family's routes: the table, the export groups over it, the sweeps that remove departed paths, the FIB's changes.

use super::best::Fib;
use super::chunk::{Audience, Packer, end_of_rib, room};
use super::core::{Batch, Shared};
use super::export::{ExportKey, Exported};
use super::group::{Group, Member, SPLIT_AFTER, WINDOW};
use crate::policy::{Candidate, Changes, Judgement, Verdict};
use crate::prefix::Prefix;
use crate::rib::{AttrId, DestId, Path, PeerId, Table};
use crate::wire::attr::NEVER_STALE;
use crate::wire::community::LLGR_STALE;
use crate::wire::{Nlri, RouteRefresh};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Destinations that one slice of a group looks at: enough to pack well, about a millisecond of work.
const CHUNK_DESTS: u32 = 2048;
/// Octets after which a slice ends early.
const CHUNK_OCTETS: usize = 256 * 1024;
/// Destinations that one slice of a sweep looks at.
const SWEEP_DESTS: u32 = 16 * 1024;

/// A walk over the table that removes what a peer no longer gives us.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    peer: PeerId,
    next: u32,
}

/// One family.
#[derive(Debug)]
pub(super) struct Plane<P> {
    pub(super) table: Table<P>,
    pub(super) groups: Vec<Group>,
    sweeps: VecDeque<Sweep>,
    pub(super) fib: Option<Fib>,
}

impl<P> Default for Plane<P> {
    fn default() -> Self {
        Self {
            table: Table::default(),
            groups: Vec::new(),
            sweeps: VecDeque::new(),
            fib: None,
        }
    }
}

/// What is announced in one chunk with the same attributes.
pub(super) struct Bucket {
    exported: Option<Exported>,
    source: PeerId,
    /// The member that is the next hop: nobody is sent himself (RFC 4271 section 5.1.3).
    pub(super) owner: Option<PeerId>,
    /// For this member alone.
    only: Option<PeerId>,
    head: u32,
    tail: u32,
}

/// Ends a bucket's list.
const END: u32 = u32::MAX;

type BucketKey = (AttrId, PeerId, Judgement, Option<PeerId>);

/// What a slice of a group's work has gathered.
pub(super) struct Chunk<P> {
    last: Option<(BucketKey, u32)>,
    index: HashMap<BucketKey, u32>,
    pub(super) buckets: Vec<Bucket>,
    entries: Vec<(Nlri<P>, u32)>,
    pub(super) withdrawn: Vec<(Option<PeerId>, Nlri<P>)>,
    pub(super) withdrawn_only: Vec<(PeerId, Nlri<P>)>,
}

impl<P> Default for Chunk<P> {
    fn default() -> Self {
        Self {
            last: None,
            index: HashMap::new(),
            buckets: Vec::new(),
            entries: Vec::new(),
            withdrawn: Vec::new(),
            withdrawn_only: Vec::new(),
        }
    }
}

impl<P: Prefix> Plane<P> {
    /// A destination's best path has changed.
    pub(super) fn mark(&mut self, id: DestId) {
        self.groups.iter_mut().for_each(|g| g.mark(id));
    }

    /// A path of a destination has changed, be it the best or not.
    pub(super) fn touch(&mut self, id: DestId) {
        if let Some(fib) = &mut self.fib {
            fib.mark(id);
        }
        let several = self.groups.iter_mut().filter(|g| g.paths_max > 0);
        several.for_each(|g| g.mark(id));
    }

    /// The best path of a destination is kept over its peer's restart: the FIB hears of it, though nothing else is new.
    fn touch_stale(&mut self, shared: &Shared, id: DestId, peer: PeerId) {
        let best = self.table.best(id).filter(|best| best.peer == peer);
        let present = *shared.sources.at(peer).generation.at(P::FAMILY);
        if let Some(fib) = &mut self.fib
            && best.is_some_and(|best| best.generation != present)
        {
            fib.mark(id);
        }
    }

    /// Frees a destination that nobody needs any more.
    pub(super) fn try_free(&mut self, id: DestId) {
        let held = self.groups.iter().any(|g| g.holds(id)) || self.fib.as_ref().is_some_and(|f| f.holds(id));
        if !held && self.table.paths(id).is_empty() {
            self.table.free(id);
        }
    }

    /// Adds a peer that has been sent nothing, beside its equals where they have been sent nothing either.
    pub(super) fn join(&mut self, key: ExportKey, peer: PeerId) {
        self.leave(peer);
        let member = Member {
            peer,
            end_of_rib: true,
            end_of_refresh: false,
        };
        match self.groups.iter_mut().find(|g| g.is_fresh() && g.key == key) {
            Some(group) => group.members.push(member),
            None => {
                let paths_max = *key.add_path.at(P::FAMILY);
                self.groups.push(Group::new(key, member, paths_max));
            }
        }
    }

    /// Takes a peer out of its group.
    pub(super) fn leave(&mut self, peer: PeerId) {
        for group in &mut self.groups {
            group.members.retain(|m| m.peer != peer);
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        let before = self.groups.len();
        self.groups.retain(|g| !g.members.is_empty());
        if self.groups.len() < before {
            self.free_orphans();
        }
    }

    fn free_orphans(&mut self) {
        for id in (0..self.table.end()).map(DestId::at) {
            if self.table.paths(id).is_empty() {
                self.try_free(id);
            }
        }
    }

    /// Sends a peer everything again, under this key: on its request (`refresh`), or since the key is another.
    pub(super) fn repeat(&mut self, key: ExportKey, peer: PeerId, refresh: bool) {
        let Some(group) = self.groups.iter().find(|g| g.has(peer)) else {
            return;
        };
        let Some(member) = group.members.iter().find(|m| m.peer == peer).copied() else {
            return;
        };
        let mut alone = group.split(Member {
            end_of_refresh: member.end_of_refresh || refresh,
            ..member
        });
        alone.key = key;
        alone.start_over();
        self.leave(peer);
        // Peers whose policy changes alike start over together.
        match self.groups.iter_mut().find(|g| g.starts_like(&alone)) {
            Some(equal) => equal.members.append(&mut alone.members),
            None => self.groups.push(alone),
        }
    }

    /// Removes what the peer gave us in sessions whose generation does not count any more.
    pub(super) fn start_sweep(&mut self, peer: PeerId) {
        self.sweeps.retain(|s| s.peer != peer);
        self.sweeps.push_back(Sweep { peer, next: 0 });
    }

    pub(super) fn is_sweeping(&self, peer: PeerId) -> bool {
        self.sweeps.iter().any(|s| s.peer == peer)
    }

    /// One slice of the first sweep; `true` if there was one.
    pub(super) fn sweep(&mut self, shared: &mut Shared) -> bool {
        let Some(Sweep { peer, next }) = self.sweeps.front().copied() else {
            return false;
        };
        let end = self.table.end().min(next.saturating_add(SWEEP_DESTS));
        for id in (next..end).map(DestId::at) {
            self.sweep_dest(shared, id, peer);
        }
        match self.sweeps.front_mut() {
            Some(sweep) if end < self.table.end() => sweep.next = end,
            _ => {
                self.sweeps.pop_front();
            }
        }
        true
    }

    /// Removes what the peer does not give us any more, and makes a last resort of what is kept as one (RFC 9494 section 4.2).
    fn sweep_dest(&mut self, shared: &mut Shared, id: DestId, peer: PeerId) {
        let Some(prefix) = self.table.prefix(id) else {
            return;
        };
        let paths: Vec<Path> = self
            .table
            .paths(id)
            .iter()
            .filter(|p| p.peer == peer)
            .copied()
            .collect();
        for path in paths {
            if !shared.keeps(peer, P::FAMILY, path.generation) {
                self.remove(shared, id, peer, path.path_id);
                continue;
            }
            let rank = shared.attrs.at(path.attr).rank();
            if rank.is_long_stale() || !shared.is_last_resort(peer, P::FAMILY, path.generation) {
                continue;
            }
            if rank.marks & NEVER_STALE != 0 {
                self.remove(shared, id, peer, path.path_id);
                continue;
            }
            let set = Arc::clone(shared.attrs.at(path.attr));
            let mut changes = Changes::default();
            changes.add_communities(&[LLGR_STALE], &set);
            let attr = shared.attrs.intern(Arc::new(changes.apply(&set)));
            self.insert(shared, prefix, Path { attr, ..path });
        }
        self.touch_stale(shared, id, peer);
    }

    /// One slice of each group's work; `true` if there was any.
    pub(super) fn flush(&mut self, now: Instant, shared: &mut Shared) -> bool {
        let mut worked = false;
        let mut place = 0;
        while place < self.groups.len() {
            if self.ready(now, place, shared) {
                worked |= self.flush_group(place, shared);
            }
            self.settle(place, shared);
            place += 1;
        }
        self.merge();
        worked
    }

    /// Whether a group may be worked for: it is not deferred, and all its members can take more. Members that keep the others
    /// waiting for long leave it.
    fn ready(&mut self, now: Instant, place: usize, shared: &Shared) -> bool {
        let Some(group) = self.groups.get_mut(place) else {
            return false;
        };
        group.pace.turn(now, &mut group.dirty);
        if !group.has_work() || shared.defers(&group.key, P::FAMILY) {
            return false;
        }
        let in_flight = |m: &Member| shared.peer(m.peer).map_or(0, |s| s.in_flight);
        if group.members.iter().all(|m| in_flight(m) < WINDOW) {
            group.blocked_since = None;
            return true;
        }
        if !group.members.iter().any(|m| in_flight(m) == 0) {
            group.blocked_since = None;
            return false;
        }
        let since = *group.blocked_since.get_or_insert(now);
        if now.duration_since(since) < SPLIT_AFTER {
            return false;
        }
        let (fast, slow): (Vec<Member>, Vec<Member>) =
            group.members.iter().partition(|m| in_flight(m) < WINDOW);
        group.members = fast;
        group.blocked_since = None;
        let alone: Vec<Group> = slow.into_iter().map(|m| group.split(m)).collect();
        self.groups.extend(alone);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.groups
            .iter()
            .flat_map(|g| {
                [
                    g.blocked_since.map(|since| since + SPLIT_AFTER),
                    g.pace.deadline(),
                ]
            })
            .flatten()
            .min()
    }

    fn flush_group(&mut self, place: usize, shared: &mut Shared) -> bool {
        let mut chunk = Chunk::default();
        let (mut emptied, mut looked) = (Vec::new(), 0);
        let Some(group) = self.groups.get_mut(place) else {
            return false;
        };
        let mut packer = Packer::new(group.key.message_max, group.path_ids());
        while looked < CHUNK_DESTS && chunk.octets() < CHUNK_OCTETS {
            let Some(id) = group.next(self.table.end()) else {
                break;
            };
            looked += 1;
            let emptied_now = if group.paths_max > 0 {
                chunk.look_at_paths(group, &self.table, shared, id)
            } else {
                chunk.look(group, &self.table, shared, id)
            };
            if emptied_now {
                emptied.push(id);
            }
        }
        chunk.pack(group, &mut packer);
        if packer.len() > 0 {
            for (peer, batch) in packer.finish(group.members.iter().map(|m| m.peer)) {
                shared.send(peer, batch);
            }
        }
        emptied.into_iter().for_each(|id| self.try_free(id));
        looked > 0
    }

    /// What follows when a group is clean: End-of-RIB, where it may be said, and the end of repetitions.
    fn settle(&mut self, place: usize, shared: &mut Shared) {
        let Some(group) = self.groups.get_mut(place) else {
            return;
        };
        if !group.is_clean() {
            return;
        }
        // What waits for word of its next hop belongs to what the peer is sent first.
        let waits = group.key.horizon.is_some() && shared.next_hops.is_waiting();
        let final_ = shared.own_routes_known && !waits && !shared.defers(&group.key, P::FAMILY);
        for member in &mut group.members {
            if member.end_of_rib && final_ {
                member.end_of_rib = false;
                shared.send(
                    member.peer,
                    Batch {
                        parts: vec![end_of_rib(P::FAMILY)],
                        messages: 1,
                    },
                );
            }
            if member.end_of_refresh {
                member.end_of_refresh = false;
                shared.say_refresh(member.peer, RouteRefresh::End(P::FAMILY));
            }
        }
    }

    /// Clean groups with the same key have been sent the same: they become one.
    fn merge(&mut self) {
        let mut place = 0;
        while place < self.groups.len() {
            let (head, tail) = self.groups.split_at_mut(place);
            let twin = tail.first_mut().filter(|g| g.is_clean()).and_then(|group| {
                let twin = head.iter_mut().find(|g| g.is_clean() && g.key == group.key)?;
                twin.members.append(&mut group.members);
                Some(())
            });
            if twin.is_some() {
                self.groups.remove(place);
            } else {
                place += 1;
            }
        }
    }
}

impl<P: Prefix> Chunk<P> {
    fn octets(&self) -> usize {
        let prefix = 1 + usize::from(P::LEN_MAX) / 8;
        let attrs: usize = self
            .buckets
            .iter()
            .rev()
            .take(1)
            .map(|b| b.exported.as_ref().map_or(0, |e| e.attrs.len()))
            .sum();
        self.buckets.len() * (attrs + 32) + (self.entries.len() + self.withdrawn.len()) * prefix
    }

    /// Compares what the group was sent for a destination with what it should be sent, and notes the difference. `true` if
    /// the destination has no path any more.
    fn look(&mut self, group: &mut Group, table: &Table<P>, shared: &Shared, id: DestId) -> bool {
        let Some(prefix) = table.prefix(id) else {
            return false;
        };
        let nlri = Nlri { prefix, path_id: 0 };
        let before = group.source(id);
        let best = table.best(id);
        let after = best.and_then(|best| {
            self.bucket(group, shared, prefix, &best, None)
                .map(|b| (best.peer, b))
        });
        group.set_source(id, after.map(|(source, _)| source));
        match (before, after) {
            (None, None) => {}
            (Some(source), None) => self
                .withdrawn
                .push((Some(source).filter(|s| group.has(*s)), nlri)),
            (before, Some((source, bucket))) => {
                // Alone, the source is told nothing; what the group was sent is recorded all the same, for it may be joined.
                let owner = self.buckets.get(bucket as usize).and_then(|b| b.owner);
                if !matches!(&group.members[..], [only] if only.peer == source || Some(only.peer) == owner) {
                    self.push(bucket, nlri);
                }
                // It may have been sent another path before.
                if before.is_some()
                    && let Some(owner) = owner
                {
                    self.withdrawn_only.push((owner, nlri));
                }
                if before.is_some_and(|b| b != source) && group.has(source) {
                    self.withdrawn_only.push((source, nlri));
                }
            }
        }
        table.paths(id).is_empty()
    }

    /// The bucket of a path, for all members or `only` one; `None` if it is not for this group.
    pub(super) fn bucket(
        &mut self,
        group: &Group,
        shared: &Shared,
        prefix: P,
        best: &Path,
        only: Option<PeerId>,
    ) -> Option<u32> {
        let attrs = shared.attrs.at(best.attr);
        let source = shared.sources.at(best.peer);
        if !group.key.permits(source, attrs) || !shared.next_hops.permits(&group.key, source, attrs) {
            return None;
        }
        let policy = &group.key.policy;
        let judgement = if policy.terms.is_empty() {
            Judgement {
                verdict: policy.default,
                terms: Vec::new(),
            }
        } else {
            policy.judge(&Candidate {
                prefix: prefix.net(),
                attrs,
                from: source.from,
                session: group.key.session,
            })
        };
        if judgement.verdict == Verdict::Reject {
            return None;
        }
        let key = (best.attr, best.peer, judgement, only);
        let bucket = match &self.last {
            Some((last, bucket)) if *last == key => *bucket,
            _ => {
                let bucket = match self.index.get(&key) {
                    Some(bucket) => *bucket,
                    None => {
                        let changes = policy.changes(&key.2, attrs);
                        let v4 = P::LEN_MAX == 32;
                        let exported = group.key.export(v4, attrs, source, &changes);
                        let exported = exported.filter(|e| {
                            room(P::FAMILY, e, group.key.message_max) > usize::from(P::LEN_MAX / 8)
                        });
                        let owner = exported.as_ref().and_then(|e| shared.by_address.get(&e.next_hop));
                        let bucket = u32::try_from(self.buckets.len()).unwrap_or(END);
                        self.buckets.push(Bucket {
                            owner: owner.copied().filter(|o| group.has(*o)),
                            exported,
                            source: best.peer,
                            only,
                            head: END,
                            tail: END,
                        });
                        self.index.insert(key.clone(), bucket);
                        bucket
                    }
                };
                self.last = Some((key, bucket));
                bucket
            }
        };
        self.buckets
            .get(bucket as usize)?
            .exported
            .as_ref()
            .map(|_| bucket)
    }

    pub(super) fn push(&mut self, bucket: u32, nlri: Nlri<P>) {
        let entry = u32::try_from(self.entries.len()).unwrap_or(END);
        self.entries.push((nlri, END));
        let Some(bucket) = self.buckets.get_mut(bucket as usize) else {
            return;
        };
        match self.entries.get_mut(bucket.tail as usize) {
            Some((_, next)) if bucket.tail != END => *next = entry,
            _ => bucket.head = entry,
        }
        bucket.tail = entry;
    }

    fn pack(mut self, group: &Group, packer: &mut Packer) {
        let audience = |source: Option<PeerId>| source.map_or(Audience::All, |p| Audience::AllBut([p, p]));
        self.withdrawn.sort_unstable();
        for same in self.withdrawn.chunk_by(|a, b| a.0 == b.0) {
            let Some((source, _)) = same.first() else { continue };
            packer.withdraw(audience(*source), same.iter().map(|(_, p)| *p));
        }
        for bucket in &self.buckets {
            let Some(exported) = bucket.exported.as_ref().filter(|_| bucket.head != END) else {
                continue;
            };
            let mut at = bucket.head;
            let entries = std::iter::from_fn(|| {
                let (nlri, next) = self.entries.get(at as usize)?;
                at = *next;
                Some(*nlri)
            });
            let source = Some(bucket.source).filter(|s| group.has(*s));
            let audience = match (bucket.only, source, bucket.owner) {
                (Some(member), ..) => Audience::Only(member),
                (None, Some(source), Some(owner)) => Audience::AllBut([source, owner]),
                (None, one, other) => audience(one.or(other)),
            };
            packer.announce(audience, exported, entries);
        }
        self.withdrawn_only.sort_unstable();
        for same in self.withdrawn_only.chunk_by(|a, b| a.0 == b.0) {
            let Some((source, _)) = same.first() else { continue };
            packer.withdraw(Audience::Only(*source), same.iter().map(|(_, p)| *p));
        }
    }
}
