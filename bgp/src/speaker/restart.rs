//! Graceful restart (RFC 4724): as helper, a departed peer's routes stay until it has sent them again or its time is up; as
//! restarter, selection waits for what the peers have.
//!
//! A path carries the generation of the peer's session in which it came. A peer's end only counts the generation up; a sweep
//! removes what no generation in force covers.

use super::core::{Output, Shared, Speaker, on_plane};
use super::export::ExportKey;
use crate::config::Restart;
use crate::family::{Family, PerFamily};
use crate::fsm::{Down, Session};
use crate::policy::SessionType;
use crate::rib::PeerId;
use std::time::{Duration, Instant};

/// A peer that is back must have sent everything within this time.
const END_OF_RIB_WAIT: Duration = Duration::from_secs(360);

/// Repetitions begun and not ended that are told apart: a generation has eight bits.
const GENERATIONS_MAX: u8 = 200;

/// Routes of a peer and family that are kept for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    /// When they go at the latest.
    pub(super) until: Instant,
    /// The oldest generation that is kept.
    pub(super) since: u8,
    pub(super) kept: Kept,
}

/// Why routes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The peer restarts (RFC 4724); then they are kept so long as a last resort, seconds (RFC 9494).
    Restart { long_lived_secs: u32 },
    /// The peer has long been away: they are a last resort (RFC 9494).
    LongLived,
    /// The peer is sending everything again (RFC 7313).
    Refresh,
}

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
            let stale = slot.stale.at_mut(family);
            let fresh = |d: &Down| Stale {
                until: now + Duration::from_secs(d.restart_secs.into()),
                // What waited in vain for an earlier restart goes now (section 4.2); long-lived stale routes stay (RFC 9494
                // section 4.2), and an interrupted repetition has nothing to do with restarts.
                since: stale
                    .filter(|s| !matches!(s.kept, Kept::Restart { .. }))
                    .map_or(before, |s| s.since),
                kept: Kept::Restart {
                    long_lived_secs: *d.long_lived_secs.at(family),
                },
            };
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
            let restart = session.restart.and_then(|r| *r.families.at(family));
            let long_lived = session.long_lived.and_then(|l| *l.families.at(family));
            let Some(slot) = self.shared.peer_mut(peer) else {
                return;
            };
            let kept = slot.stale.at_mut(family);
            let preserved = |stale: &Stale| {
                session.families.has(family)
                    && (restart == Some(true)
                        || stale.kept == Kept::LongLived && long_lived.is_some_and(|l| l.preserved))
            };
            match kept {
                None => {}
                Some(stale) if preserved(stale) => {
                    stale.until = now + END_OF_RIB_WAIT;
                    if let Kept::Restart { long_lived_secs } = &mut stale.kept {
                        *long_lived_secs = 0;
                    }
                }
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

    /// The peer begins to send everything again (RFC 7313): what it does not repeat until it says that it has ended goes.
    pub(super) fn begin_refresh(&mut self, now: Instant, peer: PeerId, family: Family) {
        let enhanced = self.shared.peer(peer).and_then(|s| s.session.as_ref());
        if !enhanced.is_some_and(|s| s.enhanced_refresh && s.families.has(family)) {
            return;
        }
        let before = *self.shared.sources.at(peer).generation.at(family);
        let Some(slot) = self.shared.peer_mut(peer) else {
            return;
        };
        let stale = slot.stale.at_mut(family);
        let since = stale.map_or(before, |s| s.since);
        if before.wrapping_sub(since) >= GENERATIONS_MAX {
            return;
        }
        let until = now + END_OF_RIB_WAIT;
        *stale = Some(Stale {
            until,
            since,
            kept: stale.map_or(Kept::Refresh, |s| s.kept),
        });
        let generation = self.shared.sources.at_mut(peer).generation.at_mut(family);
        *generation = generation.wrapping_add(1);
    }

    /// The peer has sent everything again.
    pub(super) fn end_refresh(&mut self, peer: PeerId, family: Family) {
        let Some(slot) = self.shared.peer_mut(peer) else {
            return;
        };
        // End-of-RIB ends what a restart began (RFC 4724); this ends what Begin began.
        if slot
            .stale
            .at_mut(family)
            .take_if(|s| s.kept == Kept::Refresh)
            .is_some()
        {
            self.start_sweep(peer, family);
        }
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
                let stale = slot.stale.at_mut(family);
                let Some(due) = stale.filter(|s| s.until <= now) else {
                    continue;
                };
                *stale = match due.kept {
                    Kept::Restart { long_lived_secs } if long_lived_secs > 0 => Some(Stale {
                        until: now + Duration::from_secs(long_lived_secs.into()),
                        kept: Kept::LongLived,
                        ..due
                    }),
                    _ => None,
                };
                self.start_sweep(peer, family);
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
