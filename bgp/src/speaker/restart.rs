//! Graceful restart (RFC 4724): as helper, a departed peer's routes stay until it has sent them again or its time is up; as
//! restarter, selection waits for what the peers have.
//!
//! A path carries the generation of the peer's session in which it came. A peer's end only counts the generation up; a sweep
//! removes what no generation in force covers.

use super::core::{Output, Shared, Speaker, on_plane};
use super::export::ExportKey;
use super::peers::Stale;
use crate::config::Restart;
use crate::family::{Family, PerFamily};
use crate::fsm::{Down, Session};
use crate::policy::SessionType;
use crate::rib::PeerId;
use std::time::{Duration, Instant};

/// A peer that is back must have sent everything within this time.
const END_OF_RIB_WAIT: Duration = Duration::from_secs(360);

/// Whether route selection waits for the peers (RFC 4724 section 4.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deferral(Option<Instant>);

impl Deferral {
    pub(super) fn begin(now: Instant, restart: &Restart) -> Self {
        Self(restart.restarting.then(|| now + restart.deferral))
    }

    /// When the waiting ends at the latest; `None` if it has.
    pub(super) const fn until(self) -> Option<Instant> {
        self.0
    }
}

impl Shared {
    /// Whether these peers have to wait for our selection. Internal peers that we reflect nothing to do not: what they get
    /// depends on no other internal peer, and a restarting Calico node waits for our End-of-RIB.
    pub(super) fn defers(&self, key: &ExportKey, family: Family) -> bool {
        let learned = key.session == SessionType::Ebgp || key.client;
        learned && self.deferral.at(family).until().is_some()
    }
}

impl Speaker {
    /// A session is over: its routes of a family become stale, or go.
    pub(super) fn departed(&mut self, now: Instant, peer: PeerId, family: Family, down: Option<&Down>) {
        let retain = down.filter(|d| d.retain.has(family));
        // A session lost to a collision before the peer had sent everything was no restart: what was kept stays kept.
        let collision = retain.is_some_and(|d| d.cause.is_collision());
        let generation = self.shared.sources.at_mut(peer).generation.at_mut(family);
        let before = *generation;
        *generation = generation.wrapping_add(1);
        if let Some(slot) = self.shared.peer_mut(peer) {
            let fresh = |d: &Down| Stale {
                until: now + Duration::from_secs(d.restart_secs.into()),
                since: before,
            };
            let stale = slot.stale.at_mut(family);
            *stale = match *stale {
                Some(kept) if collision => Some(kept),
                _ => retain.map(fresh),
            };
            *slot.complete.at_mut(family) = false;
        }
        // With routes retained this sweep takes only those that were stale already (section 4.2).
        self.start_sweep(peer, family);
    }

    /// A peer is back: what it did not preserve goes at once, the rest when it has sent everything.
    pub(super) fn returned(&mut self, now: Instant, peer: PeerId, session: &Session) {
        for family in Family::ALL {
            let preserved = session.families.has(family)
                && session
                    .restart
                    .is_some_and(|r| *r.families.at(family) == Some(true));
            let Some(slot) = self.shared.peer_mut(peer) else {
                return;
            };
            let kept = slot.stale.at_mut(family);
            match kept {
                None => {}
                Some(stale) if preserved => stale.until = now + END_OF_RIB_WAIT,
                Some(_) => {
                    *kept = None;
                    self.start_sweep(peer, family);
                }
            }
        }
    }

    /// The peer has sent all it has of a family.
    pub(super) fn end_of_rib(&mut self, _now: Instant, peer: PeerId, family: Family) {
        let Some(slot) = self.shared.peer_mut(peer) else {
            return;
        };
        *slot.complete.at_mut(family) = true;
        if slot.stale.at_mut(family).take().is_some() {
            self.start_sweep(peer, family);
        }
        self.check_deferral();
    }

    fn start_sweep(&mut self, peer: PeerId, family: Family) {
        // Who never gave us anything costs no walk of the table.
        if self
            .shared
            .peer(peer)
            .is_some_and(|s| s.counts.at(family).received == 0)
        {
            return;
        }
        on_plane!(self, family, |plane, _shared| plane.start_sweep(peer));
    }

    pub(super) fn expire_stale(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.shared.by_address.values().copied().collect();
        for peer in peers {
            for family in Family::ALL {
                let Some(slot) = self.shared.peer_mut(peer) else {
                    continue;
                };
                if slot.stale.at_mut(family).take_if(|s| s.until <= now).is_some() {
                    self.start_sweep(peer, family);
                }
            }
        }
    }

    pub(super) fn expire_deferral(&mut self, now: Instant) {
        let due = PerFamily::from_fn(|f| {
            self.shared
                .deferral
                .at(f)
                .until()
                .is_some_and(|until| until <= now)
        });
        self.settle_selection(due);
    }

    /// Ends the deferral of families for which every peer has sent all it has, or will not say when.
    pub(super) fn check_deferral(&mut self) {
        let complete = |family: Family| {
            let wanted = |s: &&super::peers::PeerSlot| s.config.families.has(family);
            self.shared
                .peers
                .iter()
                .flatten()
                .filter(wanted)
                .all(|s| s.session.is_some() && *s.complete.at(family))
        };
        let due = PerFamily::from_fn(|f| self.shared.deferral.at(f).until().is_some() && complete(f));
        self.settle_selection(due);
    }

    fn settle_selection(&mut self, due: PerFamily<bool>) {
        if due.ipv4 || due.ipv6 {
            for family in due.iter() {
                *self.shared.deferral.at_mut(family) = Deferral::default();
            }
            self.shared
                .out
                .push_back(Output::Converged(self.converged(), self.shared.own()));
        }
    }

    /// Families whose selection is settled.
    #[must_use]
    pub fn converged(&self) -> PerFamily<bool> {
        PerFamily::from_fn(|f| self.shared.deferral.at(f).until().is_none())
    }
}
