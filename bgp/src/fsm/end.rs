//! How sessions end, and whether their routes outlive them.

use super::open::Session;
use crate::family::{Families, PerFamily};
use crate::wire::Notification;
use std::fmt;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection was closed or failed.
    Closed(String),
    /// The peer opened a new connection: it has restarted.
    Replaced,
    /// We stop for a restart.
    Stopped,
    /// We ended it.
    Sent(Notification),
    /// The peer ended it.
    Received(Notification),
}

impl Cause {
    /// The connection lost against another one of the same peer.
    #[must_use]
    pub fn is_collision(&self) -> bool {
        matches!(self, Self::Sent(n) | Self::Received(n) if *n == Notification::COLLISION)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => write!(f, "connection lost: {why}"),
            Self::Replaced => f.write_str("replaced by a new connection of the peer"),
            Self::Stopped => f.write_str("stopped for a restart"),
            Self::Sent(n) => write!(f, "sent {n}"),
            Self::Received(n) => write!(f, "received {n}"),
        }
    }
}

/// The end of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Which session.
    pub session: u32,
    /// Families whose routes stay, stale, until the peer is back (RFC 4724 section 4.2).
    pub retain: Families,
    /// How long they stay, seconds.
    pub restart_secs: u16,
    /// How long they then stay as a last resort (RFC 9494), seconds.
    pub long_lived_secs: PerFamily<u32>,
    /// Why.
    pub cause: Cause,
}

impl Down {
    pub(super) fn of(session: &Session, cause: Cause) -> Self {
        let keeps = match &cause {
            Cause::Closed(_) | Cause::Replaced => true,
            Cause::Stopped => false,
            // BFD says that packets do not arrive: routes over a dead path are of no use to anybody.
            Cause::Sent(n) | Cause::Received(n) => {
                session.notification_restart && !n.is_hard_reset() && !n.is_bfd_down()
            }
        };
        let restart = session.restart.filter(|_| keeps);
        Self {
            session: session.id,
            retain: restart.map_or(Families::NONE, |r| r.listed().and(session.families)),
            restart_secs: restart.map_or(0, |r| r.restart_secs),
            long_lived_secs: PerFamily::from_fn(|f| {
                let long_lived = session.long_lived.filter(|_| restart.is_some());
                long_lived
                    .and_then(|l| *l.families.at(f))
                    .map_or(0, |l| l.stale_secs)
            }),
            cause,
        }
    }
}
