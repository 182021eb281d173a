//! Intervals of a session: what we announce, what is in force, and the poll sequence between them (RFC 5880 section 6.8.3).

use super::Params;
use std::time::Duration;

/// A session that is not up sends no faster than this (section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// Our two intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) tx: Duration,
    pub(super) rx: Duration,
}

/// How far a poll sequence has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Poll {
    #[default]
    Idle,
    Running,
    /// Something changed again meanwhile: another sequence follows.
    Again,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// What our packets say.
    pub(super) announced: Pair,
    /// What we act by.
    pub(super) in_force: Pair,
    poll: Poll,
}

impl Timing {
    pub(super) fn new(params: &Params) -> Self {
        let slow = Self::wanted(params, false);
        Self {
            announced: slow,
            in_force: slow,
            poll: Poll::Idle,
        }
    }

    fn wanted(params: &Params, up: bool) -> Pair {
        let tx = if up {
            params.min_tx
        } else {
            params.min_tx.max(SLOW)
        };
        Pair {
            tx,
            rx: params.min_rx,
        }
    }

    /// The session went up or down, or its parameters are others. While it is up, slower sending and a shorter detection time
    /// wait for the peer's consent.
    pub(super) fn change(&mut self, params: &Params, up: bool) {
        let wanted = Self::wanted(params, up);
        if !up {
            *self = Self {
                announced: wanted,
                in_force: wanted,
                poll: Poll::Idle,
            };
        } else if wanted != self.announced {
            self.announced = wanted;
            self.in_force = Pair {
                tx: self.in_force.tx.min(wanted.tx),
                rx: self.in_force.rx.max(wanted.rx),
            };
            self.poll = if self.poll == Poll::Idle {
                Poll::Running
            } else {
                Poll::Again
            };
        }
    }

    pub(super) fn polling(&self) -> bool {
        self.poll != Poll::Idle
    }

    /// A packet with the Final bit has come.
    pub(super) fn answered(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Running => {
                self.in_force = self.announced;
                self.poll = Poll::Idle;
            }
            Poll::Again => self.poll = Poll::Running,
        }
    }
}

/// As the wire counts.
pub(super) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
