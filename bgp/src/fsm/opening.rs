//! How connections begin: dialling, being dialled, and our OPEN, at once or after a delay (RFC 4271 section 8.1.1, DelayOpen).

use super::conn::{Conn, ConnId, ConnState, Direction};
use super::end::Cause;
use super::open;
use super::peer::{Output, Peer};
use super::timers::{DIAL_WAIT, OPEN_WAIT, OPEN_WAIT_ACCEPTED};
use crate::wire::{HoldTime, Notification};
use std::net::IpAddr;
use std::time::Instant;

impl Peer {
    /// Started, and not shut down by configuration.
    pub(super) const fn may_run(&self) -> bool {
        self.enabled && self.config.shutdown.is_none()
    }

    /// Dials if it is time to.
    pub(super) fn connect(&mut self, now: Instant) {
        let busy = self
            .conns
            .iter()
            .any(|c| c.direction == Direction::Dialled || c.session().is_some());
        if !self.may_run() || self.config.passive || busy || self.timers.idle_hold.is_some() {
            return;
        }
        self.timers.connect_retry = None;
        let id = self.conn_id();
        let mut conn = Conn::new(id, Direction::Dialled);
        conn.timers.wait = Some(now + DIAL_WAIT);
        self.conns.push(conn);
        self.out.push_back(Output::Dial(id));
    }

    /// A connection stands: our OPEN goes out, or waits for the peer's (DelayOpen).
    pub(super) fn opened(&mut self, now: Instant, id: ConnId, local: IpAddr) {
        let established = self.session().is_some();
        if self.conn(id).is_none() {
            if !self.may_run() || self.timers.idle_hold.is_some() {
                self.out.push_back(Output::Close(id));
                return;
            }
            // The peer has given up on an earlier connection of its own that has not come far.
            let stale = self.conns.iter().find(|c| {
                c.direction == Direction::Accepted
                    && matches!(
                        c.state,
                        ConnState::Delayed | ConnState::OpenSent | ConnState::OpenConfirm(_)
                    )
            });
            if let Some(id) = stale.map(|c| c.id) {
                self.end(now, id, Cause::Sent(Notification::COLLISION));
            }
            self.conns.push(Conn::new(id, Direction::Accepted));
        }
        let delay = self.config.timers.delay_open;
        if let Some(conn) = self.conn(id) {
            conn.local = Some(local);
            conn.after_established = established;
            if let Some(delay) = delay {
                conn.timers.wait = None;
                conn.timers.delay_open = Some(now + delay);
                conn.state = ConnState::Delayed;
                return;
            }
        }
        self.send_open(now, id);
    }

    /// Our OPEN goes out.
    pub(super) fn send_open(&mut self, now: Instant, id: ConnId) {
        let hold = HoldTime::try_from(self.config.timers.hold_secs).or_else(|_| HoldTime::try_from(3));
        let Ok(hold) = hold else { return };
        let mut bytes = Vec::new();
        let offer = open::offer(&self.own, &self.config, self.sessions > 0, hold);
        self.offered = offer.capabilities.describe();
        offer.encode(&mut bytes);
        if let Some(conn) = self.conn(id) {
            let wait = if conn.direction == Direction::Accepted {
                OPEN_WAIT_ACCEPTED
            } else {
                OPEN_WAIT
            };
            conn.timers.delay_open = None;
            conn.timers.wait = Some(now + wait);
            conn.state = ConnState::OpenSent;
            conn.open_sent.clone_from(&bytes);
        }
        self.send(now, id, bytes);
    }
}
