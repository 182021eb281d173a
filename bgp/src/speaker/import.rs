//! What a peer's announcements and withdrawals do to the table (RFC 4271 sections 9 and 9.1.2).

use super::core::{Output, Shared};
use super::peers::PeerSlot;
use super::plane::Plane;
use crate::config::PeerConfig;
use crate::policy::{Candidate, Judgement, LearnedFrom, Policy, SessionType, Verdict};
use crate::prefix::Prefix;
use crate::rib::table::{FILTERED, LOOPED};
use crate::rib::{AttrId, Change, DestId, Path, PeerId};
use crate::wire::attr::{SHUTTING_DOWN, code};
use crate::wire::{AttrSet, Nlri, Notification, as_path};
use std::sync::Arc;

/// What import policy made of one attribute set: each outcome is interned once an UPDATE.
type Imported = Vec<(Vec<u16>, AttrId)>;

impl<P: Prefix> Plane<P> {
    /// The peer announces these prefixes with these attributes.
    pub(super) fn announce(
        &mut self,
        shared: &mut Shared,
        peer: PeerId,
        set: &Arc<AttrSet>,
        nlri: &[Nlri<P>],
    ) {
        let Some(slot) = shared.peer(peer) else { return };
        let inbound = Inbound::of(shared, peer, slot, set);
        let generation = *shared.sources.at(peer).generation.at(P::FAMILY);
        let loop_flag = if loops(shared, &slot.config, set) {
            LOOPED
        } else {
            0
        };
        let set = &inbound.received(&slot.config, set);
        let set = &shared.bounded(set);
        let raw = shared.attrs.intern(Arc::clone(set));
        let mut unreachable = (raw, shared.next_hops.used(set));
        let mut imported = Imported::new();
        if let Some(slot) = shared.peer_mut(peer) {
            nlri.iter().for_each(|n| slot.path_numbers.learn(n.path_id));
        }
        let mut became = Vec::new();
        for Nlri { prefix, path_id } in nlri {
            let (attr, flag) = inbound.import(shared, *prefix, set, raw, &mut imported);
            shared.attrs.hold(attr);
            if unreachable.0 != attr {
                unreachable = (attr, shared.next_hops.used(&Arc::clone(shared.attrs.at(attr))));
            }
            let path = Path {
                attr,
                path_id: *path_id,
                peer,
                generation,
                flags: loop_flag | flag | unreachable.1,
            };
            if shared.observed.is_some() {
                became.push((attr, path.flags));
            }
            self.insert(shared, *prefix, path);
        }
        shared.observe_announced(peer, set, nlri, &became);
        shared.attrs.release(raw);
        imported
            .into_iter()
            .for_each(|(_, attr)| shared.attrs.release(attr));
        self.enforce_limit(shared, peer);
    }

    /// The peer withdraws these prefixes.
    pub(super) fn withdraw(&mut self, shared: &mut Shared, peer: PeerId, nlri: &[Nlri<P>]) {
        shared.observe_withdrawn(peer, nlri);
        for Nlri { prefix, path_id } in nlri {
            if let Some(id) = self.table.find(*prefix) {
                self.remove(shared, id, peer, *path_id);
            }
        }
    }

    /// Puts a path into the table, with all that follows. The path's attributes are held for it already.
    pub(super) fn insert(&mut self, shared: &mut Shared, prefix: P, path: Path) {
        let change = self.table.insert(prefix, path, &shared.attrs, &shared.sources);
        if let Some(numbered) = self.table.take_numbered() {
            self.groups.iter_mut().for_each(|g| g.pace.renumber(&numbered));
        }
        shared.count::<P>(path.peer, &path, 1);
        self.changed(shared, path.peer, change);
    }

    /// Takes a path out of the table, with all that follows.
    pub(super) fn remove(&mut self, shared: &mut Shared, id: DestId, peer: PeerId, path_id: u32) {
        let Some(change) = self
            .table
            .remove(id, peer, path_id, &shared.attrs, &shared.sources)
        else {
            return;
        };
        self.changed(shared, peer, change);
        if self.table.paths(id).is_empty() {
            self.try_free(id);
        }
    }

    fn changed(&mut self, shared: &mut Shared, peer: PeerId, change: Change) {
        if let Some(before) = change.before {
            shared.attrs.release(before.attr);
            shared.count::<P>(peer, &before, -1);
        }
        if change.best {
            self.mark(change.dest);
        }
        self.touch(change.dest);
    }

    /// Too many prefixes end the session (RFC 4271 section 6.7, Cease 6/1); nearly too many are told, once.
    fn enforce_limit(&mut self, shared: &mut Shared, peer: PeerId) {
        let Some(slot) = shared.peer_mut(peer) else { return };
        let received = slot.counts.at(P::FAMILY).received;
        let Some(max) = slot.config.prefixes_max.map(u64::from) else {
            return;
        };
        if received > max && !slot.over_limit {
            slot.over_limit = true;
            let reset = Output::Reset(peer, Notification::max_prefixes(P::FAMILY, max));
            shared.out.push_back(reset);
            return;
        }
        let percent = u64::from(slot.config.prefixes_warn_percent);
        let near = (1..100).contains(&percent) && received * 100 >= max * percent;
        let warned = std::mem::replace(slot.near_limit.at_mut(P::FAMILY), near);
        if near && !warned {
            let what = format!(
                "{received} {} prefixes are {percent} % or more of the {max} that the peer may send",
                P::FAMILY
            );
            shared.out.push_back(Output::Warning(peer, what));
        }
    }
}

impl<P: Prefix> Plane<P> {
    /// Judges what a peer has sent again, by the policy that it has now, from what the table holds of it: what was received,
    /// but for the LOCAL_PREF of routes on their way out (RFC 8326), which goes where it was `marked`. Walks the table once.
    pub(super) fn judge_again(&mut self, shared: &mut Shared, peer: PeerId, marked: bool) {
        let Some(config) = shared.peer(peer).map(|s| s.config.clone()) else {
            return;
        };
        for id in (0..self.table.end()).map(DestId::at) {
            let mine = |p: &&Path| p.peer == peer;
            let paths: Vec<Path> = self.table.paths(id).iter().filter(mine).copied().collect();
            let Some(prefix) = self.table.prefix(id).filter(|_| !paths.is_empty()) else {
                continue;
            };
            for path in paths {
                self.judge_path(shared, &config, prefix, path, marked);
            }
        }
    }

    fn judge_path(&mut self, shared: &mut Shared, config: &PeerConfig, prefix: P, path: Path, marked: bool) {
        let mut set = Arc::clone(shared.attrs.at(path.attr));
        if marked && set.rank().marks & SHUTTING_DOWN != 0 {
            set = Arc::new(set.with(set.next_hop(), &[(code::LOCAL_PREF, None)]));
        }
        let Some(slot) = shared.peer(path.peer) else {
            return;
        };
        let inbound = Inbound::of(shared, path.peer, slot, &set);
        let raw = shared.attrs.intern(Arc::clone(&set));
        let mut imported = Imported::new();
        let (attr, filtered) = inbound.import(shared, prefix, &set, raw, &mut imported);
        shared.attrs.hold(attr);
        let looped = if loops(shared, config, &set) { LOOPED } else { 0 };
        let unreachable = shared.next_hops.used(&Arc::clone(shared.attrs.at(attr)));
        let flags = looped | filtered | unreachable;
        if (attr, flags) == (path.attr, path.flags) {
            shared.attrs.release(attr);
        } else {
            let path_id = path.path_id;
            shared.observe_announced(path.peer, &set, &[Nlri { prefix, path_id }], &[(attr, flags)]);
            self.insert(shared, prefix, Path { attr, flags, ..path });
        }
        shared.attrs.release(raw);
        imported
            .into_iter()
            .for_each(|(_, attr)| shared.attrs.release(attr));
    }
}

impl Shared {
    fn count<P: Prefix>(&mut self, peer: PeerId, path: &Path, by: i64) {
        if let Some(slot) = self.peer_mut(peer) {
            let counts = slot.counts.at_mut(P::FAMILY);
            counts.received = counts.received.saturating_add_signed(by);
            if path.eligible() {
                counts.accepted = counts.accepted.saturating_add_signed(by);
            }
            self.usage.routes = self.usage.routes.saturating_add_signed(by);
        }
    }
}

/// Whether we stand in the route already: our AS too often, our router id as its originator, our cluster in its list.
fn loops(shared: &Shared, config: &PeerConfig, set: &AttrSet) -> bool {
    let own = &shared.config;
    let ours = |asn| as_path::count(set.as_path(), asn) > usize::from(config.own_as_allowed);
    ours(own.asn)
        || config.local_as.is_some_and(|l| l.asn != own.asn && ours(l.asn))
        || set.rank().originator_id == Some(own.router_id)
        || (set.rank().cluster_list_len > 0 && set.clusters().any(|c| c == shared.cluster_id()))
}

/// How the routes of one UPDATE come in.
struct Inbound {
    policy: Arc<Policy>,
    from: LearnedFrom,
    session: SessionType,
    /// The sender is about to go (RFC 8326): whatever policy says, these routes come last.
    shutting_down: bool,
}

impl Inbound {
    fn of(shared: &Shared, peer: PeerId, slot: &PeerSlot, set: &AttrSet) -> Self {
        let from = shared.sources.at(peer).from;
        let external = from == LearnedFrom::Ebgp;
        Self {
            policy: Arc::clone(&slot.config.import),
            from,
            session: if external {
                SessionType::Ebgp
            } else {
                SessionType::Ibgp
            },
            shutting_down: external
                && slot.config.honour_graceful_shutdown
                && set.rank().marks & SHUTTING_DOWN != 0,
        }
    }

    /// The attributes before policy: where the peer knows us by another AS number, this may stand in the path.
    fn received(&self, config: &PeerConfig, set: &Arc<AttrSet>) -> Arc<AttrSet> {
        match config.local_as {
            Some(local) if local.prepend_received && self.from == LearnedFrom::Ebgp => {
                let mut path = Vec::new();
                as_path::prepend(set.as_path(), local.asn, 1, &mut path);
                Arc::new(set.with(set.next_hop(), &[(code::AS_PATH, Some(path))]))
            }
            _ => Arc::clone(set),
        }
    }

    /// What becomes of a route: attributes, borrowed from `raw` or `imported`, and flags.
    fn import<P: Prefix>(
        &self,
        shared: &mut Shared,
        prefix: P,
        set: &Arc<AttrSet>,
        raw: AttrId,
        imported: &mut Imported,
    ) -> (AttrId, u8) {
        let judgement = if self.policy.terms.is_empty() {
            Judgement {
                verdict: self.policy.default,
                terms: Vec::new(),
            }
        } else {
            self.policy.judge(&Candidate {
                prefix: prefix.net(),
                attrs: set,
                from: self.from,
                session: self.session,
            })
        };
        if judgement.verdict == Verdict::Reject {
            return (raw, FILTERED);
        }
        if judgement.terms.is_empty() && !self.shutting_down {
            return (raw, 0);
        }
        if let Some((_, attr)) = imported.iter().find(|(terms, _)| *terms == judgement.terms) {
            return (*attr, 0);
        }
        let mut changes = self.policy.changes(&judgement, set);
        if self.shutting_down {
            changes.local_pref = Some(0);
        }
        let attr = shared.attrs.intern(Arc::new(changes.apply(set)));
        imported.push((judgement.terms, attr));
        (attr, 0)
    }
}
