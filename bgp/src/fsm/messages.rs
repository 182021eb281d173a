//! What the peer's messages do (RFC 4271 sections 6 and 8.2.2).

use super::conn::{ConnId, ConnState, Direction};
use super::end::Cause;
use super::open;
use super::peer::{Output, Peer};
use crate::monitor::Opens;
use crate::wire::header::{self, HEADER_LEN, MessageType};
use crate::wire::update::{Action, Decoder, Verdict};
use crate::wire::{Notification, Open, RouteRefresh, Routes};
use bytes::{Buf, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Peer {
    /// Takes whole messages from the front of `buf`, until the connection ends or the rest is incomplete.
    pub(super) fn receive(&mut self, now: Instant, id: ConnId, buf: &mut BytesMut) {
        let mut routes = Routes::default();
        while let Some(message_max) = self.conn(id).map(|c| c.message_max()) {
            match header::peek(buf, message_max) {
                Ok(Some((kind, len))) if buf.len() >= len => {
                    let body = buf.get(HEADER_LEN..len).unwrap_or_default();
                    self.counters.octets_in += len as u64;
                    self.message(now, id, kind, body, &mut routes);
                    buf.advance(len);
                }
                Ok(_) => break,
                Err(error) => self.end(now, id, Cause::Sent(error.notification())),
            }
        }
        self.flush(&mut routes);
    }

    /// Hands over what has been decoded so far; before a session's end, so that nothing of it comes after.
    fn flush(&mut self, routes: &mut Routes) {
        if !routes.is_empty() {
            self.out.push_back(Output::Routes(std::mem::take(routes)));
        }
    }

    fn message(&mut self, now: Instant, id: ConnId, kind: MessageType, body: &[u8], routes: &mut Routes) {
        if kind == MessageType::Notification {
            self.flush(routes);
            return self.end(now, id, Cause::Received(Notification::decode(body)));
        }
        let Some(conn) = self.conn(id) else { return };
        // The hold timer restarts on whole messages only, and only on what keeps the session alive (section 8.2.2).
        if let (Some(hold), MessageType::Update | MessageType::Keepalive | MessageType::RouteRefresh) =
            (conn.timers.hold, kind)
        {
            let secs = conn.session().map_or(0, |s| s.hold_secs);
            conn.timers.hold = Some(hold.max(now + Duration::from_secs(secs.into())));
        }
        let subcode = match (&mut conn.state, kind) {
            (ConnState::OpenSent, MessageType::Open) => return self.open(now, id, body),
            (ConnState::Delayed, MessageType::Open) => {
                self.send_open(now, id);
                return self.open(now, id, body);
            }
            (ConnState::OpenConfirm(_), MessageType::Keepalive) => {
                self.counters.keepalives_in += 1;
                return self.establish(now, id);
            }
            (ConnState::Established(..), MessageType::Keepalive) => {
                self.counters.keepalives_in += 1;
                return;
            }
            (ConnState::Established(_, decoder), MessageType::Update) => {
                let result = decoder.decode(body, routes);
                self.counters.updates_in += 1;
                match result {
                    Ok(verdicts) if verdicts.is_empty() => {}
                    Ok(verdicts) => self.judge(&verdicts),
                    Err(error) => {
                        self.flush(routes);
                        self.end(now, id, Cause::Sent(error.notification()));
                    }
                }
                return;
            }
            (ConnState::Established(..), MessageType::RouteRefresh) => {
                self.counters.refreshes_in += 1;
                self.flush(routes);
                return self.refresh(now, id, body);
            }
            (ConnState::Connect | ConnState::Delayed, _) => 0,
            (ConnState::OpenSent, _) => 1,
            (ConnState::OpenConfirm(_), _) => 2,
            (ConnState::Established(..), _) => 3,
        };
        self.flush(routes);
        // The data says which type was not expected (RFC 6608 section 4).
        let unexpected = Notification::with(5, subcode, &[kind.code()]);
        self.end(now, id, Cause::Sent(unexpected));
    }

    fn judge(&mut self, verdicts: &[Verdict]) {
        let worst = verdicts.iter().map(|v| v.action).max();
        match worst {
            Some(Action::TreatAsWithdraw) => self.counters.treated_as_withdraw += 1,
            Some(Action::AttributeDiscard) => self.counters.attributes_discarded += 1,
            Some(Action::Ignore) | None => return,
        }
        if let Some(v) = verdicts.iter().find(|v| Some(v.action) == worst) {
            let attribute = v.attribute.map_or(String::new(), |a| format!(" (attribute {a})"));
            self.event(format!("{:?}: {}{attribute}", v.action, v.reason));
        }
    }

    fn refresh(&mut self, now: Instant, id: ConnId, body: &[u8]) {
        match RouteRefresh::decode(body) {
            Ok(RouteRefresh::Ignored) => {}
            Ok(refresh) => self.out.push_back(Output::Refresh(refresh)),
            Err(notification) => self.end(now, id, Cause::Sent(notification)),
        }
    }

    fn open(&mut self, now: Instant, id: ConnId, body: &[u8]) {
        let Some((local, sent)) = self
            .conn(id)
            .and_then(|c| Some((c.local?, std::mem::take(&mut c.open_sent))))
        else {
            return;
        };
        let next = self.sessions + 1;
        let session =
            Open::decode(body).and_then(|open| open::negotiate(&self.own, &self.config, &open, local, next));
        let mut session = match session {
            Ok(session) => session,
            Err(error) => return self.end(now, id, Cause::Sent(error.notification())),
        };
        if session.families == crate::family::Families::NONE {
            // 2/7 would be the RFC's answer, but Calico's BIRD then comes back without any capability.
            self.event("the peer offers none of our address families");
            return self.end(now, id, Cause::Sent(Notification::REJECTED));
        }
        if !self.survives_collision(now, id, &session) {
            return self.end(now, id, Cause::Sent(Notification::COLLISION));
        }
        let mut received = Vec::new();
        header::message(&mut received, MessageType::Open, |out| {
            out.extend_from_slice(body)
        });
        session.opens = Arc::new(Opens { sent, received });
        let hold = Duration::from_secs(session.hold_secs.into());
        let keepalive = self.config.timers.keepalive_of(hold);
        if let Some(conn) = self.conn(id) {
            if hold > Duration::ZERO {
                conn.timers.wait = None;
                conn.timers.hold = Some(now + hold);
                conn.timers.keepalive = Some(now + keepalive);
            }
            conn.state = ConnState::OpenConfirm(Box::new(session));
        }
        self.send_keepalive(now, id);
    }

    /// Collision resolution (section 6.8) when the OPEN of connection `id` has come: the other connection ends, or this one
    /// does (`false`). The connection that the side with the higher BGP Identifier opened stays (RFC 6286: then AS number).
    fn survives_collision(&mut self, now: Instant, id: ConnId, session: &open::Session) -> bool {
        let ours_stay = (self.own.router_id, self.own.asn) > (session.router_id, session.peer_asn);
        let keep = if ours_stay {
            Direction::Dialled
        } else {
            Direction::Accepted
        };
        let Some(this) = self.conns.iter().find(|c| c.id == id) else {
            return false;
        };
        let (direction, restarted) = (
            this.direction,
            this.after_established && this.direction == Direction::Accepted,
        );
        let others: Vec<ConnId> = self.conns.iter().map(|c| c.id).filter(|o| *o != id).collect();
        for other in others {
            let Some(conn) = self.conn(other) else { continue };
            match &conn.state {
                ConnState::Established(old, _) if restarted && old.restart.is_some() => {
                    self.end(now, other, Cause::Replaced);
                }
                ConnState::Established(..) => return false,
                ConnState::OpenConfirm(_) if direction == keep || conn.direction == direction => {
                    self.end(now, other, Cause::Sent(Notification::COLLISION));
                }
                ConnState::OpenConfirm(_) => return false,
                // Its OPEN has not come, but we know whose it will be.
                ConnState::OpenSent | ConnState::Delayed | ConnState::Connect if direction == keep => {
                    self.end(now, other, Cause::Sent(Notification::COLLISION));
                }
                ConnState::OpenSent | ConnState::Delayed | ConnState::Connect => {}
            }
        }
        true
    }

    fn establish(&mut self, now: Instant, id: ConnId) {
        let context = self.conns.iter().find(|c| c.id == id).and_then(|c| c.session());
        let Some(context) = context.map(|s| s.update_context(&self.config)) else {
            return;
        };
        let others: Vec<ConnId> = self.conns.iter().map(|c| c.id).filter(|o| *o != id).collect();
        for other in others {
            self.end(now, other, Cause::Sent(Notification::COLLISION));
        }
        self.timers.connect_retry = None;
        self.sessions += 1;
        self.up_since = Some(now);
        let sessions = self.sessions;
        let Some(conn) = self.conn(id) else { return };
        let ConnState::OpenConfirm(session) = std::mem::replace(&mut conn.state, ConnState::Connect) else {
            return;
        };
        let mut session = session;
        session.id = sessions;
        conn.timers.wait = None;
        conn.state = ConnState::Established(session.clone(), Box::new(Decoder::new(context)));
        self.event("established");
        self.out.push_back(Output::Up(id, session));
    }
}
