//! Bidirectional Forwarding Detection: asynchronous mode (RFC 5880) over one hop (RFC 5881) or several (RFC 5883), without
//! authentication, echo or demand mode of our own. [`packet`] reads and writes control packets, [`session`] is the machine of
//! one session, [`table`] finds the session of a packet. None of them reads a clock or a socket; the shell's `net::bfd` does.
//!
//! A session lives as long as its peer's BGP session does, and ends it (Cease, BFD Down: RFC 9384) only when it was up
//! before: a peer without BFD is never hurt by our having it (RFC 5882 section 4.1).

pub mod packet;
pub mod session;
pub mod table;
mod timing;

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::{Change, Session};
pub use table::{Demand, Received, Table};

use std::time::Duration;

/// The least interval that may be configured: below, one lost time slice of a busy machine ends the session.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The greatest interval that may be configured.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// UDP port of single-hop control packets (RFC 5881 section 4).
pub const PORT_SINGLE_HOP: u16 = 3784;
/// UDP port of multihop control packets (RFC 5883 section 5).
pub const PORT_MULTIHOP: u16 = 4784;
/// Source ports are at least this (RFC 5881 section 4).
pub const SOURCE_PORT_MIN: u16 = 49152;

/// What the owner wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Params {
    /// How often we want to send at least, once up (Desired Min TX Interval).
    pub min_tx: Duration,
    /// How often we are able to receive (Required Min RX Interval).
    pub min_rx: Duration,
    /// After so many of our packets in a row that did not arrive the peer gives us up (Detect Mult); not zero.
    pub multiplier: u8,
    /// The peer is more than one hop away: port 4784, and no demand on the TTL.
    pub multihop: bool,
}

impl Default for Params {
    /// 300 ms either way, three times: what other routers default to.
    fn default() -> Self {
        Self {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
            multihop: false,
        }
    }
}

impl Params {
    /// Whether intervals lie between [`INTERVAL_MIN`] and [`INTERVAL_MAX`] and the multiplier is not zero.
    #[must_use]
    pub fn within_bounds(&self) -> bool {
        let fits = |t| (INTERVAL_MIN..=INTERVAL_MAX).contains(&t);
        fits(self.min_tx) && fits(self.min_rx) && self.multiplier > 0
    }
}

#[cfg(test)]
mod tests;
