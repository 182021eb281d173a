//! Every timer of the FSM on one screen, with every time that is not configured.

use std::time::{Duration, Instant};

/// A connection that we dialled must answer our OPEN within this time (RFC 4271's large hold time is 4 minutes).
pub(super) const OPEN_WAIT: Duration = Duration::from_secs(60);
/// An accepted connection has less: a silent stranger must not occupy the place for long.
pub(super) const OPEN_WAIT_ACCEPTED: Duration = Duration::from_secs(15);
/// A dial must succeed within this time.
pub(super) const DIAL_WAIT: Duration = Duration::from_secs(15);
/// The first penalty after a protocol error; it doubles to [`IDLE_HOLD_MAX`].
pub(super) const IDLE_HOLD_MIN: Duration = Duration::from_secs(1);
/// The longest penalty; also the one after too many prefixes.
pub(super) const IDLE_HOLD_MAX: Duration = Duration::from_secs(60);
/// A session this old wipes the slate clean.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(300);
/// The least Send Hold Time where none is configured (RFC 9687 section 6).
pub(super) const SEND_HOLD_MIN: Duration = Duration::from_secs(480);

/// Timers of the peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeerTimers {
    /// Next attempt to connect.
    pub(super) connect_retry: Option<Instant>,
    /// End of the penalty; until then we neither dial nor accept.
    pub(super) idle_hold: Option<Instant>,
}

/// Timers of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnTimers {
    /// The dial, or the peer's OPEN, or without Hold Time its first KEEPALIVE, must have come.
    pub(super) wait: Option<Instant>,
    /// Our OPEN goes out unless the peer's comes first (DelayOpenTimer).
    pub(super) delay_open: Option<Instant>,
    /// The peer must have said something (section 4.4).
    pub(super) hold: Option<Instant>,
    /// We say something.
    pub(super) keepalive: Option<Instant>,
    /// The peer must have taken something (RFC 9687).
    pub(super) send_hold: Option<Instant>,
}

impl PeerTimers {
    pub(super) fn next(&self) -> Option<Instant> {
        [self.connect_retry, self.idle_hold].into_iter().flatten().min()
    }
}

impl ConnTimers {
    pub(super) fn next(&self) -> Option<Instant> {
        [
            self.wait,
            self.delay_open,
            self.hold,
            self.keepalive,
            self.send_hold,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Whether the timer has run out; it is then off.
pub(super) fn fired(timer: &mut Option<Instant>, now: Instant) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}
