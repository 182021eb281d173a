//! One connection of a peer.

use super::open::Session;
use super::timers::ConnTimers;
use crate::wire::header::MESSAGE_MAX;
use crate::wire::update::Decoder;
use std::net::IpAddr;

/// A connection by number; the shell gives them out, each once in the life of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Dialled,
    Accepted,
}

/// How far a connection has come (RFC 4271 section 8.2.2).
#[derive(Debug)]
pub(super) enum ConnState {
    Connect,
    /// It stands, and our OPEN waits (DelayOpen).
    Delayed,
    OpenSent,
    OpenConfirm(Box<Session>),
    Established(Box<Session>, Box<Decoder>),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) direction: Direction,
    pub(super) state: ConnState,
    pub(super) local: Option<IpAddr>,
    /// Our OPEN, as it went out.
    pub(super) open_sent: Vec<u8>,
    /// Accepted while the session was already established: it may be the peer's restart (RFC 4724 section 4.2).
    pub(super) after_established: bool,
    pub(super) timers: ConnTimers,
}

impl Conn {
    pub(super) fn new(id: ConnId, direction: Direction) -> Self {
        Self {
            id,
            direction,
            state: ConnState::Connect,
            local: None,
            open_sent: Vec::new(),
            after_established: false,
            timers: ConnTimers::default(),
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.state {
            ConnState::OpenConfirm(session) | ConnState::Established(session, _) => Some(session),
            ConnState::Connect | ConnState::Delayed | ConnState::OpenSent => None,
        }
    }

    pub(super) const fn is_established(&self) -> bool {
        matches!(self.state, ConnState::Established(..))
    }

    /// The longest message that may come (RFC 8654 counts once both OPENs are through).
    pub(super) fn message_max(&self) -> usize {
        self.session().map_or(MESSAGE_MAX, |s| s.message_max)
    }
}
