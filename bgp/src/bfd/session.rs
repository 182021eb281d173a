//! The machine of one session (RFC 5880 sections 6.2 and 6.8), in the active role.

use super::Params;
use super::packet::{Diagnostic, PACKET_LEN, Packet, State};
use super::timing::{Timing, micros};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What we know of the other end.
#[derive(Clone, Copy, Debug)]
struct Remote {
    state: State,
    discriminator: u32,
    min_tx: Duration,
    min_rx: Duration,
    multiplier: u8,
    demand: bool,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            state: State::Down,
            discriminator: 0,
            min_tx: Duration::ZERO,
            // bfd.RemoteMinRxInterval begins as 1 (section 6.8.1).
            min_rx: Duration::from_micros(1),
            multiplier: 0,
            demand: false,
        }
    }
}

/// A session has changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// The other end says that its operator did it, or ours did: no failure of the path (RFC 5882 section 4.2).
    pub administrative: bool,
}

impl Change {
    /// The path has failed: the session was up and is down, and nobody wanted that.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.from == State::Up && self.to == State::Down && !self.administrative
    }
}

/// One session. Outputs are taken with [`Session::poll`] after every call.
#[derive(Debug)]
pub struct Session {
    params: Params,
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    timing: Timing,
    sent_at: Option<Instant>,
    next_tx: Option<Instant>,
    detect_at: Option<Instant>,
    jitter: u64,
    /// At most two packets a call: an answer to a poll and a change of state.
    out: VecDeque<[u8; PACKET_LEN]>,
}

impl Session {
    /// A session that is down and sends its first packet at once. `discriminator` is not zero and unique on this system;
    /// `seed` spreads the intervals.
    #[must_use]
    pub fn new(now: Instant, params: Params, discriminator: u32, seed: u64) -> Self {
        let mut session = Self {
            params,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::default(),
            timing: Timing::new(&params),
            sent_at: None,
            next_tx: None,
            detect_at: None,
            jitter: seed | 1,
            out: VecDeque::new(),
        };
        session.transmit(now);
        session
    }

    /// Our state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The state that the other end last said it is in.
    #[must_use]
    pub const fn remote_state(&self) -> State {
        self.remote.state
    }

    /// Why we last left Up.
    #[must_use]
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Our discriminator.
    #[must_use]
    pub const fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// The interval at which we send, before jitter (section 6.8.7); `None` while the other end wants nothing.
    #[must_use]
    pub fn tx_interval(&self) -> Option<Duration> {
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let on_demand = self.remote.demand && both_up && !self.timing.polling();
        let silent = self.remote.min_rx.is_zero() || on_demand;
        (!silent).then(|| self.timing.in_force.tx.max(self.remote.min_rx))
    }

    /// How long the other end may be silent (section 6.8.4); zero before it was ever heard.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.timing.in_force.rx.max(self.remote.min_tx) * self.remote.multiplier.into()
    }

    /// The next packet to send.
    pub fn poll(&mut self) -> Option<[u8; PACKET_LEN]> {
        self.out.pop_front()
    }

    /// When to call [`Session::tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.next_tx, self.detect_at].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        let mut change = None;
        if self.detect_at.take_if(|at| *at <= now).is_some() {
            // Who was silent for so long may come back as another (section 6.8.1, bfd.RemoteDiscr).
            self.remote = Remote::default();
            if matches!(self.state, State::Init | State::Up) {
                change = self.enter(now, State::Down, Diagnostic::DETECTION_TIME, false);
            }
        }
        if self.next_tx.is_some_and(|at| at <= now) {
            self.transmit(now);
        }
        change
    }

    /// Takes a packet that is meant for this session (section 6.8.6).
    pub fn receive(&mut self, now: Instant, packet: &Packet) -> Option<Change> {
        self.remote = Remote {
            state: packet.state,
            discriminator: packet.my_discriminator,
            min_tx: Duration::from_micros(packet.desired_min_tx.into()),
            min_rx: Duration::from_micros(packet.required_min_rx.into()),
            multiplier: packet.multiplier,
            demand: packet.demand,
        };
        if packet.is_final {
            self.timing.answered();
        }
        let change = self.react(now, packet.state);
        // After the change: an answer says what is so now.
        if packet.poll && self.state != State::AdminDown {
            let answer = self.packet(true);
            self.out.push_back(answer);
        }
        self.detect_at = Some(now + self.detection_time());
        self.reschedule();
        change
    }

    fn react(&mut self, now: Instant, theirs: State) -> Option<Change> {
        match (self.state, theirs) {
            (State::AdminDown, _) | (State::Down, State::AdminDown | State::Up) => None,
            (_, State::AdminDown) => self.enter(now, State::Down, Diagnostic::NEIGHBOR_DOWN, true),
            (State::Down, State::Down) => self.enter(now, State::Init, self.diagnostic, false),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(now, State::Up, Diagnostic::NONE, false)
            }
            (State::Up, State::Down) => self.enter(now, State::Down, Diagnostic::NEIGHBOR_DOWN, false),
            (State::Init, State::Down) | (State::Up, State::Init | State::Up) => None,
        }
    }

    /// New parameters; a running session goes on under them (section 6.8.3). `multihop` is not among what can change.
    pub fn configure(&mut self, now: Instant, params: Params) {
        if params != self.params {
            self.params = params;
            self.timing.change(&params, self.state == State::Up);
            self.transmit(now);
        }
    }

    /// Holds the session down (section 6.8.16).
    pub fn disable(&mut self, now: Instant) -> Option<Change> {
        self.detect_at = None;
        self.enter(now, State::AdminDown, Diagnostic::ADMIN_DOWN, true)
    }

    /// Ends [`Session::disable`].
    pub fn enable(&mut self, now: Instant) -> Option<Change> {
        if self.state != State::AdminDown {
            return None;
        }
        self.enter(now, State::Down, Diagnostic::NONE, true)
    }

    /// How long a session that is no longer wanted goes on saying so, for the other end to hear it.
    #[must_use]
    pub fn farewell(&self) -> Duration {
        self.timing.in_force.tx * self.params.multiplier.into()
    }

    fn enter(&mut self, now: Instant, to: State, why: Diagnostic, administrative: bool) -> Option<Change> {
        let from = std::mem::replace(&mut self.state, to);
        self.diagnostic = why;
        if from == to {
            return None;
        }
        if (from == State::Up) != (to == State::Up) {
            self.timing.change(&self.params, to == State::Up);
        }
        self.transmit(now);
        Some(Change {
            from,
            to,
            administrative,
        })
    }

    fn packet(&self, is_final: bool) -> [u8; PACKET_LEN] {
        Packet {
            state: self.state,
            diagnostic: self.diagnostic,
            poll: self.timing.polling() && !is_final,
            is_final,
            demand: false,
            multiplier: self.params.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: micros(self.timing.announced.tx),
            required_min_rx: micros(self.timing.announced.rx),
        }
        .encode()
    }

    fn transmit(&mut self, now: Instant) {
        let packet = self.packet(false);
        self.out.push_back(packet);
        self.sent_at = Some(now);
        self.next_tx = None;
        self.reschedule();
    }

    /// Sets the time of the next packet; a shorter interval than before counts at once (section 6.8.3).
    fn reschedule(&mut self) {
        let (Some(interval), Some(sent_at)) = (self.tx_interval(), self.sent_at) else {
            self.next_tx = None;
            return;
        };
        let due = self.next_tx.filter(|next| *next <= sent_at + interval);
        self.next_tx = due.or_else(|| Some(sent_at + self.jittered(interval)));
    }

    /// 75 to 100 hundredths of an interval, with a multiplier of 1 no more than 90 (section 6.8.7), by xorshift.
    fn jittered(&mut self, interval: Duration) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let spread = if self.params.multiplier == 1 { 15 } else { 25 };
        let share = 75 + u32::try_from(self.jitter % (spread + 1)).unwrap_or(0);
        interval * share / 100
    }
}
