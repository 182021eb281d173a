//! What a peer task lets others see: written by it after each step, read by the RIB task on request. The lock is never held
//! across a wait.

use crate::fsm::{Peer, Session};
use crate::view::{Counters, Event, PeerState};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Events kept for each peer.
const EVENTS_MAX: usize = 64;

/// The state of a peer's FSM, for people.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) state: PeerState,
    pub(super) since: Instant,
    pub(super) session: Option<Session>,
    pub(super) established_count: u64,
    pub(super) counters: Counters,
    pub(super) last_error_sent: Option<String>,
    pub(super) last_error_received: Option<String>,
    pub(super) offered: Vec<String>,
    events: VecDeque<(Instant, String)>,
}

/// A report with its two ends.
#[derive(Clone, Debug)]
pub(super) struct SharedReport(Arc<Mutex<Report>>);

impl SharedReport {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Report {
            state: PeerState::Idle,
            since: now,
            session: None,
            established_count: 0,
            counters: Counters::default(),
            last_error_sent: None,
            last_error_received: None,
            offered: Vec::new(),
            events: VecDeque::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Report> {
        // A report has no invariant that a panic could break.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what has changed.
    pub(super) fn update(&self, now: Instant, peer: &Peer) {
        let mut report = self.lock();
        let state = peer.state();
        if report.state != state {
            if (report.state == PeerState::Established) != (state == PeerState::Established) {
                report.session = peer.session().cloned();
                report.offered = peer.offered().to_vec();
            }
            report.state = state;
            report.since = now;
        }
        report.established_count = peer.established_count().into();
        report.counters = *peer.counters();
        let (sent, received) = peer.last_errors();
        if report.last_error_sent.as_deref() != sent {
            report.last_error_sent = sent.map(str::to_owned);
        }
        if report.last_error_received.as_deref() != received {
            report.last_error_received = received.map(str::to_owned);
        }
    }

    pub(super) fn event(&self, now: Instant, what: String) {
        let mut report = self.lock();
        if report.events.len() >= EVENTS_MAX {
            report.events.pop_front();
        }
        report.events.push_back((now, what));
    }

    pub(super) fn events(&self, now: Instant) -> Vec<Event> {
        let report = self.lock();
        let event = |(at, what): &(Instant, String)| Event {
            age: now.duration_since(*at),
            what: what.clone(),
        };
        report.events.iter().map(event).collect()
    }
}
