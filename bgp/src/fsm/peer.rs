//! The peer: inputs, outputs, timers, the life of its connections. What messages do stands in [`super::messages`].

use super::conn::{Conn, ConnId, ConnState, Direction};
use super::end::{Cause, Down};
use super::open::{Own, Session};
use super::timers::{IDLE_HOLD_MAX, IDLE_HOLD_MIN, PeerTimers, STABLE_AFTER, fired};
use crate::config::PeerConfig;
use crate::view::{Counters, PeerState};
use crate::wire::header::keepalive;
use crate::wire::{Notification, RouteRefresh, Routes};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What happens to a peer.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer may connect and be connected to.
    Start,
    /// There is reason to believe that a dial succeeds now.
    Retry,
    /// The peer shall be down.
    Stop(Stop),
    /// A dial succeeded; our end has this address.
    Connected(ConnId, IpAddr),
    /// The peer opened a connection to this address of ours.
    Accepted(ConnId, IpAddr),
    /// Octets arrived; whole messages are taken from the front.
    Bytes(ConnId, &'a mut BytesMut),
    /// The connection, or the attempt, is over.
    Closed(ConnId, String),
    /// Octets wait to be written.
    Queued(ConnId),
    /// The socket took octets; `drained` if none wait any more.
    Written {
        /// The connection.
        conn: ConnId,
        /// Nothing waits to be written.
        drained: bool,
    },
    /// A new configuration; the session ends if it cannot live with it.
    Configure(Box<PeerConfig>, Own),
    /// A deadline has passed.
    Tick,
}

/// How a peer is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// For a restart: no NOTIFICATION, unless the peer keeps routes over one (RFC 8538).
    Restart,
    /// For good, or until started again.
    Notify(Notification),
    /// The session ends with this, and the peer may come back by itself (after a penalty for too many prefixes).
    Reset(Notification),
}

/// What a peer wants done or known.
#[derive(Debug)]
pub enum Output {
    /// Open a connection and name it so.
    Dial(ConnId),
    /// Write this.
    Send(ConnId, Vec<u8>),
    /// Write what waits, then close.
    Close(ConnId),
    /// The session is established, on this connection.
    Up(ConnId, Box<Session>),
    /// The session is over.
    Down(Down),
    /// The peer's routes, in order.
    Routes(Routes),
    /// The peer's wish for ours.
    Refresh(RouteRefresh),
    /// Something for the event ring.
    Event(String),
}

/// The FSM of one peer.
#[derive(Debug)]
pub struct Peer {
    pub(super) config: PeerConfig,
    pub(super) own: Own,
    pub(super) conns: Vec<Conn>,
    pub(super) timers: PeerTimers,
    pub(super) out: VecDeque<Output>,
    pub(super) counters: Counters,
    pub(super) sessions: u32,
    pub(super) up_since: Option<Instant>,
    pub(super) enabled: bool,
    penalty: Duration,
    next_conn: u64,
    jitter: u64,
    last_error_sent: Option<String>,
    last_error_received: Option<String>,
    pub(super) offered: Vec<String>,
}

impl Peer {
    /// A peer that is not started. `seed` spreads its retries.
    #[must_use]
    pub fn new(config: PeerConfig, own: Own, seed: u64) -> Self {
        Self {
            config,
            own,
            conns: Vec::new(),
            timers: PeerTimers::default(),
            out: VecDeque::new(),
            counters: Counters::default(),
            sessions: 0,
            up_since: None,
            enabled: false,
            penalty: Duration::ZERO,
            next_conn: 0,
            jitter: seed | 1,
            last_error_sent: None,
            last_error_received: None,
            offered: Vec::new(),
        }
    }

    /// The next number for a connection that the shell accepts.
    pub fn conn_id(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    /// A new machine in place of one that panicked: what is counted goes on, nothing else of it does.
    #[must_use]
    pub fn after_panic(&self, own: Own, seed: u64) -> Self {
        Self {
            counters: Counters {
                panics: self.counters.panics + 1,
                ..self.counters
            },
            sessions: self.sessions,
            next_conn: self.next_conn,
            last_error_sent: Some(Notification::OUT_OF_RESOURCES.to_string()),
            last_error_received: self.last_error_received.clone(),
            ..Self::new(self.config.clone(), own, seed)
        }
    }

    /// Takes one input; afterwards [`Peer::poll`] until it gives nothing.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Start => {
                self.enabled = true;
                self.connect(now);
            }
            Input::Retry => self.connect(now),
            Input::Stop(stop) => self.stop(now, stop),
            Input::Connected(id, local) | Input::Accepted(id, local) => self.opened(now, id, local),
            Input::Bytes(id, buf) => self.receive(now, id, buf),
            Input::Closed(id, why) => self.end(now, id, Cause::Closed(why)),
            Input::Queued(id) => self.queued(now, id),
            Input::Written { conn, drained } => self.written(now, conn, drained),
            Input::Configure(config, own) => self.configure(now, *config, own),
            Input::Tick => self.tick(now),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call with [`Input::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.conns
            .iter()
            .map(|c| c.timers.next())
            .chain([self.timers.next()])
            .flatten()
            .min()
    }

    /// The state of the connection that has come farthest.
    #[must_use]
    pub fn state(&self) -> PeerState {
        let rank = |c: &Conn| match c.state {
            ConnState::Connect => PeerState::Connect,
            // The connection stands, but nothing was said (RFC 4271 section 8.2.2 with DelayOpen).
            ConnState::Delayed if c.direction == Direction::Dialled => PeerState::Connect,
            ConnState::Delayed => PeerState::Active,
            ConnState::OpenSent => PeerState::OpenSent,
            ConnState::OpenConfirm(_) => PeerState::OpenConfirm,
            ConnState::Established(..) => PeerState::Established,
        };
        let resting = if self.may_run() && self.timers.idle_hold.is_none() {
            PeerState::Active
        } else {
            PeerState::Idle
        };
        // Connect counts for less than Active in the enumeration, but a running dial is what people look for.
        self.conns.iter().map(rank).max().unwrap_or(resting)
    }

    /// The running session.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.conns.iter().find(|c| c.is_established())?.session()
    }

    /// Counters since the process started.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sessions established so far.
    #[must_use]
    pub const fn established_count(&self) -> u32 {
        self.sessions
    }

    /// Capabilities of the OPEN that was sent last, in words.
    #[must_use]
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// What last ended a connection from our side, and from the other.
    #[must_use]
    pub fn last_errors(&self) -> (Option<&str>, Option<&str>) {
        (
            self.last_error_sent.as_deref(),
            self.last_error_received.as_deref(),
        )
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &PeerConfig {
        &self.config
    }

    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|c| c.id == id)
    }

    pub(super) fn send(&mut self, now: Instant, id: ConnId, bytes: Vec<u8>) {
        self.out.push_back(Output::Send(id, bytes));
        self.queued(now, id);
    }

    pub(super) fn send_keepalive(&mut self, now: Instant, id: ConnId) {
        let mut out = Vec::new();
        self.counters.keepalives_out += 1;
        keepalive(&mut out);
        self.send(now, id, out);
    }

    pub(super) fn event(&mut self, what: impl Into<String>) {
        self.out.push_back(Output::Event(what.into()));
    }

    /// Three quarters to the whole of a time (RFC 4271 section 10), by xorshift.
    fn jittered(&mut self, time: Duration) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let quarter = u32::try_from(self.jitter % 256).unwrap_or(0);
        time * (768 + quarter) / 1024
    }

    fn queued(&mut self, now: Instant, id: ConnId) {
        let send_hold = self.config.timers.send_hold;
        if let Some(conn) = self.conn(id)
            && conn.timers.send_hold.is_none()
        {
            let hold = conn
                .session()
                .map_or(Duration::ZERO, |s| Duration::from_secs(s.hold_secs.into()));
            conn.timers.send_hold =
                Some(now + send_hold.unwrap_or_else(|| super::timers::SEND_HOLD_MIN.max(hold * 2)));
        }
    }

    fn written(&mut self, now: Instant, id: ConnId, drained: bool) {
        if let Some(conn) = self.conn(id) {
            conn.timers.send_hold = None;
        }
        if !drained {
            self.queued(now, id);
        }
    }

    /// Ends a connection, with whatever the cause calls for, and goes on from there.
    pub(super) fn end(&mut self, now: Instant, id: ConnId, cause: Cause) {
        let Some(place) = self.conns.iter().position(|c| c.id == id) else {
            return;
        };
        let conn = self.conns.swap_remove(place);
        self.say_goodbye(&conn, &cause);
        let quiet = matches!(conn.state, ConnState::Connect) && matches!(cause, Cause::Closed(_));
        if !quiet || self.counters.octets_in == 0 {
            self.event(cause.to_string());
        }
        match &cause {
            Cause::Sent(n) => {
                self.counters.notifications_out += 1;
                self.last_error_sent = Some(n.to_string());
            }
            Cause::Received(n) => {
                self.counters.notifications_in += 1;
                self.last_error_received = Some(n.to_string());
            }
            Cause::Closed(_) => self.last_error_received = Some(cause.to_string()),
            Cause::Replaced | Cause::Stopped => {}
        }
        self.punish(now, &cause);
        if let ConnState::Established(session, _) = &conn.state {
            self.up_since = None;
            self.out.push_back(Output::Down(Down::of(session, cause)));
        }
        if self.may_run() && self.timers.connect_retry.is_none() {
            let retry = self.jittered(self.config.timers.connect_retry);
            self.timers.connect_retry = Some(now + retry);
        }
    }

    fn say_goodbye(&mut self, conn: &Conn, cause: &Cause) {
        if let Cause::Sent(notification) = cause
            && !matches!(conn.state, ConnState::Connect | ConnState::Delayed)
        {
            let mut bytes = Vec::new();
            notification.encode(&mut bytes);
            self.out.push_back(Output::Send(conn.id, bytes));
        }
        self.out.push_back(Output::Close(conn.id));
    }

    /// After a protocol error the peer is held down, ever longer; after too many prefixes at once for long.
    fn punish(&mut self, now: Instant, cause: &Cause) {
        let (Cause::Sent(n) | Cause::Received(n)) = cause else {
            return;
        };
        let too_many = n.is_max_prefixes();
        let sent = matches!(cause, Cause::Sent(_));
        if sent && n.is_out_of_resources() {
            // Whatever the owner thinks of penalties: what was too much must be gone before it may come again.
            self.timers.idle_hold = Some(now + IDLE_HOLD_MAX);
            self.timers.connect_retry = None;
            return;
        }
        let restart = self.config.prefixes_restart.filter(|_| too_many && sent);
        if restart.is_none() && (!self.config.idle_hold || (n.is_cease() && !too_many)) {
            return;
        }
        if self
            .up_since
            .is_some_and(|since| now.duration_since(since) >= STABLE_AFTER)
        {
            self.penalty = Duration::ZERO;
        }
        self.penalty = (self.penalty * 2).clamp(IDLE_HOLD_MIN, IDLE_HOLD_MAX);
        let hold = if too_many {
            restart.unwrap_or(IDLE_HOLD_MAX)
        } else {
            self.penalty
        };
        self.timers.idle_hold = Some(now + hold);
        self.timers.connect_retry = None;
    }

    fn stop(&mut self, now: Instant, stop: Stop) {
        if !matches!(stop, Stop::Reset(_)) {
            self.enabled = false;
            self.timers = PeerTimers::default();
        }
        self.end_all(now, &stop);
    }

    /// Ends every connection with what its peer should hear.
    fn end_all(&mut self, now: Instant, stop: &Stop) {
        let ids: Vec<ConnId> = self.conns.iter().map(|c| c.id).collect();
        for id in ids {
            let keeps = self
                .conn(id)
                .and_then(|c| c.session())
                .is_some_and(|s| s.notification_restart);
            let cause = match stop {
                Stop::Restart if keeps => Cause::Sent(Notification::RESET),
                Stop::Restart => Cause::Stopped,
                // To a peer that keeps routes over a NOTIFICATION, this one must say that it means it.
                Stop::Notify(n) if keeps => Cause::Sent(Notification::hard_reset(n)),
                // Nor shall either side keep routes that were too many.
                Stop::Reset(n) if keeps && (n.is_max_prefixes() || n.is_out_of_resources()) => {
                    Cause::Sent(Notification::hard_reset(n))
                }
                Stop::Notify(n) | Stop::Reset(n) => Cause::Sent(n.clone()),
            };
            self.end(now, id, cause);
        }
    }

    fn configure(&mut self, now: Instant, config: PeerConfig, own: Own) {
        let identity = (self.own.asn, self.own.router_id) != (own.asn, own.router_id);
        let reset = identity || self.config.needs_reset(&config);
        let dial = (self.config.passive && !config.passive)
            || (self.config.shutdown.is_some() && config.shutdown.is_none());
        let down = config.shutdown.clone().filter(|_| self.config.shutdown.is_none());
        self.config = config;
        self.own = own;
        if let Some(text) = down {
            self.end_all(now, &Stop::Notify(Notification::shutdown(&text)));
            self.timers = PeerTimers::default();
        }
        if reset {
            for id in self.conns.iter().map(|c| c.id).collect::<Vec<_>>() {
                self.end(now, id, Cause::Sent(Notification::CONFIG_CHANGE));
            }
        }
        if reset || dial {
            self.timers.idle_hold = None;
            self.connect(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        for id in self.conns.iter().map(|c| c.id).collect::<Vec<_>>() {
            self.tick_conn(now, id);
        }
        let released = fired(&mut self.timers.idle_hold, now);
        if fired(&mut self.timers.connect_retry, now) || released {
            self.connect(now);
        }
    }

    fn tick_conn(&mut self, now: Instant, id: ConnId) {
        let timers = self.config.timers;
        let Some(conn) = self.conn(id) else { return };
        let hold_secs = conn.session().map_or(0, |s| s.hold_secs);
        if fired(&mut conn.timers.wait, now) {
            let cause = match conn.state {
                ConnState::Connect => Cause::Closed("timed out".into()),
                _ => Cause::Sent(Notification::HOLD_TIMER),
            };
            // A silent connection is no reason to hold the true peer down.
            let penalty = self.penalty;
            self.end(now, id, cause);
            (self.penalty, self.timers.idle_hold) = (penalty, None);
        } else if fired(&mut conn.timers.delay_open, now) {
            self.send_open(now, id);
        } else if fired(&mut conn.timers.hold, now) {
            self.end(now, id, Cause::Sent(Notification::HOLD_TIMER));
        } else if fired(&mut conn.timers.send_hold, now) {
            self.end(now, id, Cause::Sent(Notification::SEND_HOLD_TIMER));
        } else if fired(&mut conn.timers.keepalive, now) {
            conn.timers.keepalive = Some(now + timers.keepalive_of(Duration::from_secs(hold_secs.into())));
            self.send_keepalive(now, id);
        }
    }
}
